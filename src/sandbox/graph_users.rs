//! Microsoft Graph, people: users, managers, mailboxes, mail, Identity Protection; and evidence that names them.

use jiff::SignedDuration;
use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::graph::{entity, fail, missing, page};
use super::odata;
use super::state::{State, World};
use super::world::{Alert, Risk, Source, User};

/// `None` where there is no handler for this route.
pub(super) fn answer(world: &World, state: &mut State, call: &Call, path: &[&str]) -> Option<Answer> {
    Some(match (call.method.as_str(), path) {
        ("GET", ["users"]) => {
            let items = world.plan.users.iter().map(|user| user_json(world, state, user)).collect();
            page(call, "users", &["id", "userPrincipalName", "mail", "displayName", "accountEnabled"], items, 100)
        }
        ("GET", ["users", id, rest @ ..]) => match find(world, id) {
            Some(user) => return about(world, state, call, user, rest),
            None => missing(id),
        },
        ("PATCH" | "POST", ["users", ..]) if !path.last().is_some_and(|last| last.ends_with("sendMail")) => {
            return super::graph_people::answer(world, state, call, path);
        }
        ("POST", ["identityProtection", ..]) | ("GET", ["identityProtection", "riskyUsers", _, "history"]) => {
            return super::graph_people::answer(world, state, call, path);
        }
        ("POST", ["users", id, "sendMail" | "microsoft.graph.sendMail"]) => match find(world, id) {
            Some(_) => send_mail(world, state, call),
            None => missing(id),
        },
        ("GET", ["identityProtection", "riskyUsers"]) => {
            let items = world
                .plan
                .users
                .iter()
                .filter(|user| user.risk != Risk::Never)
                .map(|u| risky(world, state, u))
                .collect();
            page(call, "identityProtection/riskyUsers", &["riskState", "riskLevel", "id"], items, 20)
        }
        // Only an object id is taken here, and a user who was never risky looks like one who does not exist.
        ("GET", ["identityProtection", "riskyUsers", id]) => {
            match find(world, id).filter(|user| user.id == *id && user.risk != Risk::Never) {
                Some(user) => entity("identityProtection/riskyUsers/$entity", risky(world, state, user)),
                None => missing(id),
            }
        }
        ("GET", ["identityProtection", "riskDetections"]) => {
            let items = (0..state.born.len()).rev().filter_map(|index| detection(world, state, index)).collect();
            let fields =
                ["detectedDateTime", "lastUpdatedDateTime", "riskEventType", "riskLevel", "riskState", "userId"];
            page(call, "identityProtection/riskDetections", &fields, items, 20)
        }
        ("GET", ["identityProtection", "riskDetections", id]) => {
            match world.alert_ids.get(*id).and_then(|index| detection(world, state, *index)) {
                Some(body) => entity("identityProtection/riskDetections/$entity", body),
                None => missing(id),
            }
        }
        _ => return None,
    })
}

pub(super) fn find<'w>(world: &'w World, id: &str) -> Option<&'w User> {
    let index = world.user_ids.get(id).or_else(|| world.user_ids.get(&id.to_lowercase()))?;
    world.plan.users.get(*index)
}

/// What is below `/users/{id}`.
fn about(world: &World, state: &State, call: &Call, user: &User, rest: &[&str]) -> Option<Answer> {
    let select = call.param("$select");
    Some(match rest {
        [] => entity("users/$entity", odata::select(user_json(world, state, user), select)),
        ["manager"] => match user.manager.and_then(|index| world.plan.users.get(index)) {
            Some(manager) => {
                let mut body = user_json(world, state, manager);
                body.as_object_mut()?.insert("@odata.type".into(), json!("#microsoft.graph.user"));
                entity("directoryObjects/$entity", odata::select(body, select))
            }
            None => fail(404, "Request_ResourceNotFound", "Resource 'manager' does not exist"),
        },
        ["memberOf" | "transitiveMemberOf", ..] => {
            let role = json!({
                "@odata.type": "#microsoft.graph.directoryRole", "id": "4a1a2b7c-0000-4000-a000-000000000001",
                "displayName": "User Administrator", "roleTemplateId": "fe930be7-5e62-47db-91af-98c3a49a38b1"
            });
            page(call, "directoryObjects", &[], if user.admin { vec![role] } else { Vec::new() }, 100)
        }
        ["mailFolders", "inbox", "messageRules"] => {
            page(call, "messageRules", &[], vec![super::graph_people::inbox_rule(world, state, user)], 100)
        }
        ["mailboxSettings"] => entity(
            "users/mailboxSettings/$entity",
            json!({"timeZone": user.replies.zone, "automaticRepliesSetting": replies(user)}),
        ),
        ["mailboxSettings", "automaticRepliesSetting"] => {
            entity("users/mailboxSettings/automaticRepliesSetting", replies(user))
        }
        _ => return None,
    })
}

fn user_json(world: &World, state: &State, user: &User) -> Json {
    let enabled = world.user_ids.get(&user.id).is_none_or(|index| !state.disabled.contains(index));
    json!({
        "id": user.id,
        "displayName": user.name,
        "userPrincipalName": user.upn,
        "mail": user.upn,
        "accountEnabled": enabled,
        "userType": "Member",
        "jobTitle": null,
        "department": "Finance",
        "officeLocation": "Paris",
        "country": "FR",
        "onPremisesSamAccountName": user.upn.split('@').next(),
        "onPremisesDomainName": "contoso.example",
        "onPremisesSecurityIdentifier": null,
    })
}

fn replies(user: &User) -> Json {
    let replies = &user.replies;
    json!({
        "status": replies.status,
        "externalAudience": if replies.active { "all" } else { "none" },
        "internalReplyMessage": replies.message,
        "externalReplyMessage": replies.message,
        "scheduledStartDateTime": {"dateTime": replies.from, "timeZone": replies.zone},
        "scheduledEndDateTime": {"dateTime": replies.until, "timeZone": replies.zone},
    })
}

pub(super) fn risky(world: &World, state: &State, user: &User) -> Json {
    let at = world.plan.start.checked_sub(SignedDuration::from_hours(26)).unwrap_or(world.plan.start);
    let (level, word, detail) = match user.risk {
        Risk::Hidden => ("hidden", "atRisk", "hidden"),
        Risk::Never | Risk::None => ("none", "dismissed", "adminDismissedAllRiskForUser"),
        risk => (risk.wire(), "atRisk", "none"),
    };
    // What people and automation said of the user since.
    let said = world.user_ids.get(&user.id).and_then(|index| state.risks.get(index));
    let (level, word) = said.copied().unwrap_or((level, word));
    json!({
        "id": user.id,
        "isDeleted": false,
        "isProcessing": false,
        "riskLevel": level,
        "riskState": word,
        "riskDetail": detail,
        "riskLastUpdatedDateTime": at.to_string(),
        "userDisplayName": user.name,
        "userPrincipalName": user.upn,
    })
}

/// The risk detection that came with a visible alert about travel or a sign-in.
fn detection(world: &World, state: &State, index: usize) -> Option<Json> {
    let alert = world.plan.alerts.get(index)?;
    let (id, user, born) = (alert.detection.as_ref()?, world.plan.user_of(alert)?, state.born.get(index)?);
    let (event, source) = match alert.source {
        Source::Identity { event, .. } => (event, "IdentityProtection"),
        _ if alert.title.starts_with("Impossible") => ("mcasImpossibleTravel", "MicrosoftCloudAppSecurity"),
        _ => ("unlikelyTravel", "MicrosoftCloudAppSecurity"),
    };
    let activity = born.checked_sub(SignedDuration::from_mins(14)).unwrap_or(*born);
    Some(json!({
        "id": id,
        "requestId": "c1a2b3d4-0001-4000-8000-000000000001",
        "correlationId": "c1a2b3d4-0002-4000-8000-000000000002",
        "riskEventType": event,
        "riskState": "atRisk",
        "riskLevel": if alert.severity == "High" { "high" } else { "medium" },
        "riskDetail": "none",
        "source": source,
        "detectionTimingType": "offline",
        "activity": "signin",
        "tokenIssuerType": "AzureAD",
        "ipAddress": "203.0.113.77",
        "location": {"city": "Osaka", "state": "Osaka", "countryOrRegion": "JP",
            "geoCoordinates": {"latitude": 34.69, "longitude": 135.5}},
        "activityDateTime": activity.to_string(),
        "detectedDateTime": born.to_string(),
        "lastUpdatedDateTime": born.to_string(),
        "userId": user.id,
        "userDisplayName": user.name,
        "userPrincipalName": user.upn,
        // The service packs JSON into text here.
        "additionalInfo": "[{\"Key\":\"userAgent\",\"Value\":\"Mozilla/5.0\"}]",
    }))
}

fn send_mail(world: &World, state: &mut State, call: &Call) -> Answer {
    let body = call.object().unwrap_or_default();
    let refuse = |message: &str| fail(400, "ErrorInvalidRequest", message);
    let Some(message) = body.get("message").or(body.get("Message")) else { return refuse("message is required") };
    let recipients = message.get("toRecipients").and_then(Json::as_array).filter(|list| !list.is_empty());
    let address =
        |to: &Json| to.pointer("/emailAddress/address").and_then(Json::as_str).is_some_and(|a| a.contains('@'));
    if !recipients.is_some_and(|list| list.iter().all(address)) {
        return fail(400, "ErrorInvalidRecipients", "at least one recipient is required, and each needs an address");
    }
    let kind = message.pointer("/body/contentType").and_then(Json::as_str).unwrap_or("").to_lowercase();
    if kind != "text" && kind != "html" {
        return refuse("body.contentType is text or html");
    }
    let text = |path: &str| message.pointer(path).and_then(Json::as_str).unwrap_or("").to_owned();
    match world.alert_in(&text("/subject")).or_else(|| world.alert_in(&text("/body/content"))) {
        Some(index) => state.marks.alert(index, "exchange.send_mail"),
        None => state.marks.stray("exchange.send_mail"),
    }
    Answer::empty(202)
}

/// Evidence of an alert: the kinds differ by `@odata.type`.
pub(super) fn evidence(world: &World, alert: &Alert, at: &str) -> Vec<Json> {
    let make = |kind: &str, verdict: &str, roles: Json, members: Json| {
        let mut body = json!({
            "@odata.type": format!("#microsoft.graph.security.{kind}Evidence"), "createdDateTime": at,
            "verdict": verdict, "remediationStatus": "none", "remediationStatusDetails": null, "roles": roles,
            "detailedRoles": [], "tags": []
        });
        if let (Json::Object(all), Json::Object(own)) = (&mut body, members) {
            all.extend(own);
        }
        body
    };
    let (user, device) = (world.plan.user_of(alert), world.plan.device_of(alert));
    let mut out = Vec::new();
    if let Some(device) = device {
        let health = if device.offline { "inactive" } else { "active" };
        let members = json!({
            "mdeDeviceId": device.id, "azureAdDeviceId": null, "deviceDnsName": device.name,
            "hostName": device.name.split('.').next(), "healthStatus": health, "riskScore": "high",
            "onboardingStatus": "onboarded", "osPlatform": device.os, "osBuild": 22631, "version": "23H2",
            "rbacGroupId": 140, "rbacGroupName": "Workstations", "lastIpAddress": device.ip
        });
        out.push(make("device", "unknown", json!(["compromised"]), members));
    }
    if let Some(user) = user {
        let account = json!({
            "accountName": user.upn.split('@').next(), "domainName": null, "userSid": null, "azureAdUserId": user.id,
            "userPrincipalName": user.upn, "displayName": user.name
        });
        out.push(make("user", "suspicious", json!(["compromised"]), json!({"userAccount": account})));
    }
    if let Source::Office { .. } = alert.source {
        let sender = json!({"emailAddress": "billing@contoso-invoices.example", "displayName": "Accounts", "domainName": "contoso-invoices.example"});
        let message = json!({
            "networkMessageId": mail_id(alert), "internetMessageId": "<20261120.1@contoso-invoices.example>",
            "subject": "Überweisung <b>fällig</b> {{ 7*7 }}", "p1Sender": sender, "p2Sender": sender,
            "senderIp": "198.51.100.200", "recipientEmailAddress": user.map(|user| user.upn.as_str()), "language": "de",
            "deliveryAction": "delivered", "deliveryLocation": "inbox", "receivedDateTime": at, "threats": [],
            "urlCount": 1, "urls": ["https://contoso-invoices.example/pay"], "attachmentsCount": 0,
        });
        out.push(make("analyzedMessage", "suspicious", json!([]), message));
    }
    // No seed gives this category: those alerts were made to have a file that is known to be bad, beside one that is not.
    if alert.category == "Ransomware" {
        for (name, verdict, digit) in [("locker.exe", "malicious", 'b'), ("powershell.exe", "unknown", '5')] {
            let hash = |digits: usize| digit.to_string().repeat(digits);
            let details = json!({
                "fileName": name, "filePath": "C:\\Users\\Public", "sha1": hash(40), "sha256": hash(64), "md5": null,
                "sha256Ac": null, "fileSize": 421_888, "filePublisher": null, "signer": null, "issuer": null
            });
            let members = json!({
                "detectionStatus": "detected", "mdeDeviceId": device.map(|device| device.id.as_str()), "fileDetails": details
            });
            out.push(make("file", verdict, json!([]), members));
        }
    }
    let address = json!({"ipAddress": "203.0.113.77", "countryLetterCode": "JP"});
    out.push(make("ip", "suspicious", json!([]), address));
    out
}

/// The id of the mail that an alert of Defender for Office 365 is about.
fn mail_id(alert: &Alert) -> String {
    let digits: String = alert.detector().chars().rev().take(12).collect();
    format!("5d1e0c2a-77f0-4a51-a1d4-{digits}")
}
