//! Microsoft Graph, what is done to people: accounts disabled, sessions revoked, risk dismissed or confirmed, inbox rules.

use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::graph::{entity, fail, missing, page};
use super::graph_users::{find, risky};
use super::state::{State, World};
use super::world::User;

/// `None` where there is no handler for this route.
pub(super) fn answer(world: &World, state: &mut State, call: &Call, path: &[&str]) -> Option<Answer> {
    let index = |id: &str| find(world, id).and_then(|user| world.user_ids.get(&user.id).copied());
    Some(match (call.method.as_str(), path) {
        ("PATCH", ["users", id]) => match index(id) {
            Some(user) => set_enabled(state, call, user),
            None => missing(id),
        },
        ("POST", ["users", id, "revokeSignInSessions" | "microsoft.graph.revokeSignInSessions"]) => match index(id) {
            Some(user) => {
                state.marks.user(user, "entra.revoke_sessions");
                entity("Edm.Boolean", json!({ "value": true }))
            }
            None => missing(id),
        },
        ("POST", ["users", id, "getMailTips" | "microsoft.graph.getMailTips"]) => match find(world, id) {
            Some(_) => mail_tips(world, call),
            None => missing(id),
        },
        ("PATCH", ["users", id, "mailFolders", "inbox", "messageRules", rule]) => match (index(id), find(world, id)) {
            (Some(user), Some(person)) if *rule == RULE => set_rule(world, state, call, user, person),
            _ => missing(rule),
        },
        ("GET", ["identityProtection", "riskyUsers", id, "history"]) => match find(world, id) {
            Some(user) => {
                let mut now = risky(world, state, user);
                if let Json::Object(members) = &mut now {
                    members.insert("userId".into(), json!(user.id));
                    members.insert("initiatedBy".into(), Json::Null);
                    members.insert("activity".into(), json!({"riskEventTypes": [], "detail": "none"}));
                }
                page(call, "identityProtection/riskyUsers/history", &[], vec![now], 20)
            }
            None => missing(id),
        },
        ("POST", ["identityProtection", "riskyUsers", verb]) => {
            let (level, word, mark) = match verb.trim_start_matches("microsoft.graph.") {
                "dismiss" => ("none", "dismissed", "entra.dismiss_user_risk"),
                "confirmCompromised" => ("high", "confirmedCompromised", "entra.confirm_user_compromised"),
                "confirmSafe" => ("none", "confirmedSafe", "entra.confirm_user_safe"),
                _ => return None,
            };
            let body = call.object().unwrap_or_default();
            let ids: Vec<&str> =
                body.get("userIds").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
            if ids.is_empty() || ids.len() > 60 {
                return Some(fail(400, "BadRequest", "userIds wants 1 to 60 object ids"));
            }
            if let Some(stray) = ids.iter().find(|id| index(id).is_none()) {
                return Some(missing(stray));
            }
            for user in ids.into_iter().filter_map(index) {
                state.risks.insert(user, (level, word));
                state.marks.user(user, mark);
            }
            Answer::empty(204)
        }
        _ => return None,
    })
}

fn set_enabled(state: &mut State, call: &Call, user: usize) -> Answer {
    let body = call.object().unwrap_or_default();
    match (body.len(), body.get("accountEnabled")) {
        (1, Some(Json::Bool(true))) => {
            state.disabled.remove(&user);
            state.marks.user(user, "entra.enable_user");
            Answer::empty(204)
        }
        (1, Some(Json::Bool(false))) => {
            state.disabled.insert(user);
            state.marks.user(user, "entra.disable_user");
            Answer::empty(204)
        }
        _ => fail(400, "Request_BadRequest", "only accountEnabled can be set here"),
    }
}

fn mail_tips(world: &World, call: &Call) -> Answer {
    let body = call.object().unwrap_or_default();
    let member = |name: &str| body.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let asked = member("EmailAddresses").and_then(Json::as_array).cloned().unwrap_or_default();
    if asked.is_empty() {
        return fail(400, "ErrorInvalidRequest", "EmailAddresses is required");
    }
    let tips = asked.iter().filter_map(Json::as_str).map(|address| {
        let named = json!({ "name": "", "address": address });
        match find(world, address) {
            Some(user) if user.replies.active => {
                json!({"emailAddress": named, "automaticReplies": {"message": user.replies.message}})
            }
            Some(_) => json!({"emailAddress": named, "automaticReplies": {"message": ""}}),
            None => json!({"emailAddress": named, "error": {"code": "RecipientNotFound", "message": "not found"}}),
        }
    });
    entity("Collection(microsoft.graph.mailTips)", json!({ "value": tips.collect::<Vec<_>>() }))
}

/// The one rule that each mailbox has.
const RULE: &str = "AQAAAJ5dZqA=";

pub(super) fn inbox_rule(world: &World, state: &State, user: &User) -> Json {
    let on = world.user_ids.get(&user.id).is_none_or(|index| !state.rules_off.contains(index));
    // Who hides in a mailbox sends on what comes in and removes it.
    let actions = match user.tampered {
        true => json!({"delete": true, "forwardTo": [{"emailAddress": {"name": "", "address": "drop@mail.example"}}]}),
        false => json!({"moveToFolder": "newsletters", "stopProcessingRules": true}),
    };
    json!({
        "id": RULE, "displayName": if user.tampered { "." } else { "Newsletters" }, "sequence": 1, "isEnabled": on,
        "hasError": false, "isReadOnly": false, "conditions": {"subjectContains": ["invoice"]}, "actions": actions,
    })
}

fn set_rule(world: &World, state: &mut State, call: &Call, user: usize, person: &User) -> Answer {
    match call.object().unwrap_or_default().get("isEnabled").and_then(Json::as_bool) {
        Some(true) => drop(state.rules_off.remove(&user)),
        Some(false) => drop(state.rules_off.insert(user)),
        None => return fail(400, "ErrorInvalidRequest", "isEnabled is required"),
    }
    let mark =
        if state.rules_off.contains(&user) { "exchange.disable_inbox_rule" } else { "exchange.enable_inbox_rule" };
    state.marks.user(user, mark);
    entity("messageRules/$entity", inbox_rule(world, state, person))
}
