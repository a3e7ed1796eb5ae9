//! The shipped flows in the simulated tenant: each on events that it is for, and on events that it is not for. What they
//! did is read from the runs, and the tenant's books must say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value as Json, json};
use watchfloor::clock::{Clock, stopwatch};
use watchfloor::sandbox::{Alert, Plan, Risk, Source};

use crate::bin::{Service, Site, Tenant};

/// Five days old when the tenant is first seen: no trigger picks them up.
const OLD: usize = 7;

/// Name, source, severity, category and title of every alert, the old ones first.
static ALERTS: [(&str, Source, &str, &str, &str); 31] = [
    ("stale", Source::Endpoint { device: 20 }, "Low", "Execution", "Taken and forgotten"),
    ("noise 1", Source::Endpoint { device: 21 }, "Low", "Execution", "Installer of our own"),
    ("noise 2", Source::Endpoint { device: 21 }, "Low", "Execution", "Installer of our own"),
    ("noise 3", Source::Endpoint { device: 21 }, "Low", "Execution", "Installer of our own"),
    ("noise 4", Source::Endpoint { device: 21 }, "Low", "Execution", "Installer of our own"),
    ("noise 5", Source::Endpoint { device: 21 }, "Low", "Execution", "Installer of our own"),
    ("judged", Source::Endpoint { device: 8 }, "Low", "Persistence", "Task made by the backup"),
    ("like the judged", Source::Endpoint { device: 8 }, "Low", "Persistence", "Task made by the backup"),
    ("of another device", Source::Endpoint { device: 10 }, "Low", "Persistence", "Task made by the backup"),
    ("high", Source::Endpoint { device: 0 }, "High", "Execution", "Hands on a keyboard"),
    ("low", Source::Endpoint { device: 3 }, "Low", "Execution", "Odd script"),
    ("malware", Source::Endpoint { device: 1 }, "Medium", "Malware", "Trojan '{{ 7*7 }}' found"),
    ("low malware", Source::Endpoint { device: 2 }, "Low", "Malware", "Old test file found"),
    ("ransomware", Source::Endpoint { device: 4 }, "Medium", "Ransomware", "Files renamed in bulk"),
    ("on a server", Source::Endpoint { device: 5 }, "Medium", "Ransomware", "Files renamed in bulk"),
    ("kept out", Source::Endpoint { device: 6 }, "Medium", "Ransomware", "Files renamed in bulk"),
    ("low ransomware", Source::Endpoint { device: 7 }, "Low", "Ransomware", "Ransom note was read"),
    ("trip", Source::CloudApps { user: 0, policy: COUNTRY }, "Medium", "InitialAccess", COUNTRY),
    ("at home", Source::CloudApps { user: 1, policy: COUNTRY }, "Medium", "InitialAccess", COUNTRY),
    ("tampered", Source::CloudApps { user: 3, policy: COUNTRY }, "Medium", "InitialAccess", COUNTRY),
    ("compliant and risky", Source::CloudApps { user: 11, policy: COUNTRY }, "Medium", "InitialAccess", COUNTRY),
    ("download", Source::CloudApps { user: 2, policy: "Mass download" }, "Medium", "Exfiltration", "Mass download"),
    (
        "journey",
        Source::CloudApps { user: 0, policy: "Impossible travel" },
        "Low",
        "InitialAccess",
        "Impossible travel",
    ),
    (
        "leaked",
        Source::Identity { user: 4, event: "leakedCredentials" },
        "Medium",
        "CredentialAccess",
        "Leaked credentials",
    ),
    (
        "dealt with",
        Source::Identity { user: 5, event: "leakedCredentials" },
        "Medium",
        "CredentialAccess",
        "Leaked credentials",
    ),
    ("hijack", Source::Identity { user: 6, event: "anomalousToken" }, "High", "CredentialAccess", "Anomalous token"),
    ("one voice", Source::Identity { user: 7, event: "anomalousToken" }, "High", "CredentialAccess", "Anomalous token"),
    (
        "medium token",
        Source::Identity { user: 8, event: "anomalousToken" },
        "Medium",
        "CredentialAccess",
        "Anomalous token",
    ),
    ("reported", Source::Office { user: 9 }, "Low", "InitialAccess", REPORTED),
    ("removed", Source::Office { user: 9 }, "Informational", "InitialAccess", "Email messages removed after delivery"),
    ("title only", Source::Endpoint { device: 9 }, "Low", "InitialAccess", REPORTED),
];

const COUNTRY: &str = "Activity from infrequent country";
const REPORTED: &str = "Email reported by user as malware or phish";

/// What starts a flow.
#[derive(Clone, Copy, Debug)]
enum On {
    /// An event that the alert of this name gives, and a run of it.
    Alert(&'static str),
    /// An event that must not start a run.
    Not(&'static str),
    /// By hand, while the tenant is calm: no alert, no finding.
    Calm,
    /// By hand, with inputs: `alert NAME`, `device N` and `name N` stand for what they name.
    Hand(&'static [(&'static str, &'static str)]),
}

/// A flow, what starts it, what it then does, and the reason where it refuses.
type Case = (&'static str, On, &'static [(&'static str, u64)], &'static str);

const MAIL: (&str, u64) = ("email.send", 1);
const POST: (&str, u64) = ("teams.post", 1);
const CLOSE: (&str, u64) = ("cloud_apps.close_benign", 1);
const REVOKE: (&str, u64) = ("entra.revoke_sessions", 1);
const ISOLATE: (&str, u64) = ("mde.isolate_machine", 1);

/// In this order, those by hand.
const CASES: &[Case] = &[
    ("isolate-high-severity", On::Alert("high"), &[ISOLATE, MAIL], ""),
    ("isolate-high-severity", On::Alert("low"), &[], ""),
    ("isolate-high-severity", On::Not("download"), &[], ""),
    ("isolate-ransomware", On::Alert("ransomware"), &[ISOLATE, MAIL], ""),
    ("isolate-ransomware", On::Alert("on a server"), &[MAIL], ""),
    ("isolate-ransomware", On::Alert("kept out"), &[MAIL], ""),
    ("isolate-ransomware", On::Not("low ransomware"), &[], ""),
    ("isolate-ransomware", On::Not("malware"), &[], ""),
    (
        "scan-malware",
        On::Alert("malware"),
        &[("mde.run_antivirus_scan", 1), ("mde.collect_investigation_package", 1), MAIL],
        "",
    ),
    ("scan-malware", On::Not("low malware"), &[], ""),
    ("scan-malware", On::Not("ransomware"), &[], ""),
    ("triage-infrequent-country", On::Alert("trip"), &[CLOSE], ""),
    ("triage-infrequent-country", On::Alert("at home"), &[POST], ""),
    ("triage-infrequent-country", On::Alert("tampered"), &[POST], ""),
    ("triage-infrequent-country", On::Alert("compliant and risky"), &[POST], ""),
    ("triage-infrequent-country", On::Not("journey"), &[], ""),
    ("triage-infrequent-country", On::Not("download"), &[], ""),
    ("resolve-legitimate-travel", On::Alert("trip"), &[CLOSE, POST], ""),
    ("resolve-legitimate-travel", On::Alert("at home"), &[POST], ""),
    ("resolve-legitimate-travel", On::Not("download"), &[], ""),
    ("resolve-legitimate-travel-guarded", On::Alert("trip"), &[CLOSE, POST], ""),
    ("resolve-legitimate-travel-guarded", On::Alert("tampered"), &[POST], ""),
    ("resolve-legitimate-travel-guarded", On::Not("download"), &[], ""),
    ("resolve-travel-risk-detection", On::Alert("journey"), &[POST], ""),
    ("resolve-travel-risk-detection", On::Not("leaked"), &[], ""),
    ("revoke-leaked-credentials", On::Alert("leaked"), &[REVOKE, POST], ""),
    ("revoke-leaked-credentials", On::Alert("dealt with"), &[], ""),
    ("revoke-leaked-credentials", On::Not("hijack"), &[], ""),
    ("contain-risky-sign-in", On::Alert("hijack"), &[REVOKE, POST], ""),
    ("contain-risky-sign-in", On::Alert("one voice"), &[], ""),
    ("contain-risky-sign-in", On::Not("medium token"), &[], ""),
    ("contain-risky-sign-in", On::Not("leaked"), &[], ""),
    ("triage-reported-mail", On::Alert("reported"), &[("xdr.comment_alert", 1), POST], ""),
    ("triage-reported-mail", On::Not("removed"), &[], ""),
    ("triage-reported-mail", On::Not("title only"), &[], ""),
    ("digest-high-alerts", On::Calm, &[], ""),
    ("digest-high-alerts", On::Hand(&[]), &[MAIL], ""),
    ("remind-stale-alerts", On::Calm, &[], ""),
    ("remind-stale-alerts", On::Hand(&[]), &[POST], ""),
    ("report-remote-tools", On::Calm, &[], ""),
    ("report-remote-tools", On::Hand(&[]), &[MAIL], ""),
    ("review-suppressions", On::Calm, &[], ""),
    ("review-suppressions", On::Hand(&[]), &[MAIL], ""),
    ("hunt-encoded-powershell", On::Hand(&[]), &[("mde.run_antivirus_scan", 1)], ""),
    // The same findings within a week.
    ("hunt-encoded-powershell", On::Hand(&[]), &[], ""),
    ("tag-devices-at-risk", On::Hand(&[]), &[("mde.add_tag", 1), ("mde.remove_tag", 1)], ""),
    ("tag-devices-at-risk", On::Hand(&[]), &[], ""),
    ("block-files-of-alert", On::Hand(&[("alert_id", "alert ransomware")]), &[("mde.submit_indicator", 1), POST], ""),
    ("block-files-of-alert", On::Hand(&[("alert_id", "alert high")]), &[], ""),
    ("resolve-similar", On::Hand(&[("alert_id", "alert low")]), &[], "nothing was resolved"),
    (
        "resolve-similar",
        On::Hand(&[("alert_id", "alert judged")]),
        &[("xdr.comment_alert", 1), ("xdr.update_alert", 1)],
        "",
    ),
    (
        "offboard-request",
        On::Hand(&[("machine_id", "device 12"), ("machine_name", "name 13"), ("ticket", "CHG-1")]),
        &[],
        "not offboarded",
    ),
    (
        "offboard-request",
        On::Hand(&[("machine_id", "device 13"), ("machine_name", "name 13"), ("ticket", "CHG-1")]),
        &[],
        "not offboarded",
    ),
    (
        "offboard-request",
        On::Hand(&[("machine_id", "device 12"), ("machine_name", "name 12"), ("ticket", "CHG-1")]),
        &[("mde.offboard_machine", 1), MAIL],
        "",
    ),
];

/// Flows that act on the same alerts as others do: each is played in a tenant of its own.
const ALONE: [&str; 2] = ["resolve-legitimate-travel", "resolve-legitimate-travel-guarded"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("flows")
}

/// Every flow file by its name, with its text.
pub(crate) fn shipped() -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let flows = files.filter(|path| path.extension().is_some_and(|it| it == "yaml"));
    flows
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// People and devices that are calm but for those that a case is about.
fn arrange(plan: &mut Plan) {
    for (index, user) in plan.users.iter_mut().enumerate() {
        user.tampered = index == 3;
        user.risk = match index {
            4 | 6 | 11 => Risk::High,
            5 => Risk::None,
            _ => Risk::Low,
        };
        user.replies.active = index == 0;
        user.replies.status = if index == 0 || index == 3 { "alwaysEnabled" } else { "disabled" };
    }
    for (index, device) in plan.devices.iter_mut().enumerate() {
        device.os = if index == 5 { "WindowsServer2022" } else { "Windows11" };
        device.risk = match index {
            16 => "High",
            17 => "Medium",
            _ => "Low",
        };
        device.tags = match index {
            6 => vec!["no-automation"],
            12 => vec!["decommission"],
            14 => vec!["high-risk"],
            _ => vec![],
        };
    }
    plan.alerts = ALERTS.iter().enumerate().map(|(index, told)| planned(index, told)).collect();
}

fn planned(index: usize, told: &(&str, Source, &'static str, &'static str, &str)) -> Alert {
    let (_, source, severity, category, title) = told.clone();
    let guid = format!("{index:08x}-5a40-4f63-9b0e-0123456789ab");
    let (id, graph_id) = match source {
        Source::Endpoint { .. } => {
            let id = format!("da{}_{}", 638_990_000_000_000_000_u64 + index as u64, 1_000_000 + index);
            (id.clone(), id)
        }
        Source::CloudApps { .. } => {
            let id = format!("{index:08x}a052df84d974bb01");
            (id.clone(), format!("ca{id}"))
        }
        Source::Office { .. } => (guid.clone(), format!("fa{guid}")),
        Source::Identity { .. } => (guid.clone(), format!("ad{guid}")),
    };
    let detected = matches!(source, Source::Identity { .. }) || title == "Impossible travel";
    Alert {
        id,
        graph_id,
        detection: detected.then(|| format!("{:064x}", 0xfeed_0000_u64 + index as u64)),
        source,
        severity,
        title: title.to_owned(),
        category,
        incident: 400_000 + index as u64,
    }
}

fn column(name: &str, kind: &str) -> Json {
    json!({"name": name, "type": kind})
}

/// One tenant with a service that runs some of the flows.
struct Stage {
    tenant: Tenant,
    site: Site,
    _service: Service,
    faults: Vec<String>,
}

impl Stage {
    fn new(flows: &BTreeMap<String, String>) -> Stage {
        let tenant = Tenant::new(9, 60, |options| options.arrange = Some(arrange));
        let polled = "mde.alert.new cloud_apps.alert.new xdr.alert.new entra.risk_detection.new";
        let polled: Vec<_> = polled.split(' ').map(|name| format!("{name}: 1s")).collect();
        let site = Site::new(&tenant).set("poll", &format!("{{ {} }}", polled.join(", ")));
        for file in std::fs::read_dir(folder().join("kql")).unwrap().map(|file| file.unwrap()) {
            let name = file.file_name().into_string().unwrap();
            site.write(&format!("flows/kql/{name}"), &std::fs::read_to_string(file.path()).unwrap());
        }
        for (name, text) in flows {
            // Scheduled ones are started by hand here: none is to come due between.
            let line = |line: &str| match line.starts_with("trigger: { type: schedule") {
                true => {
                    "trigger: { type: schedule, cron: \"0 0 29 2 *\", timezone: UTC, missed: skip, overlap: skip }\n"
                        .to_owned()
                }
                false => format!("{line}\n"),
            };
            site.write(&format!("flows/{name}.yaml"), &text.lines().map(line).collect::<String>());
        }
        let service = site.start(&[]);
        Stage { tenant, site, _service: service, faults: vec![] }
    }

    /// Shows the old alerts, what became of them, what hunting finds, and the new alerts.
    fn wake(&self) {
        let world = self.tenant.world();
        let days = |days: i64| Clock::system().now().checked_sub(SignedDuration::from_hours(24 * days)).unwrap();
        world.feed_created(OLD, days(5));
        let id = |name: &str| self.alert(name).id.clone();
        assert!(world.set_verdict(&id("stale"), "InProgress", None, days(4)));
        for name in ["noise 1", "noise 2", "noise 3", "noise 4", "noise 5", "judged"] {
            assert!(world.set_verdict(&id(name), "Resolved", Some(("FalsePositive", "NotMalicious")), days(2)));
        }
        let user = |index: usize| world.plan.users[index].id.clone();
        for (index, compliant) in [(0, 3), (1, 2), (3, 3), (11, 3)] {
            self.finds(
                &["FromCompliantDevices", &user(index)],
                &[column("Total", "Int64"), column("FromCompliantDevices", "Int64")],
                json!([{"Total": 3, "FromCompliantDevices": compliant}]),
            );
        }
        let mails = json!([{"Recipient": "a@contoso.example", "Location": "Inbox", "Clicks": 1},
            {"Recipient": "b@contoso.example", "Location": "Junk", "Clicks": 0}]);
        self.finds(
            &["EmailEvents"],
            &[column("Recipient", "String"), column("Location", "String"), column("Clicks", "Int64")],
            mails,
        );
        self.tools(json!([{"Tool": "anydesk.exe", "DeviceName": "fin-lap-001", "Account": "lena", "Timestamp": "2026-11-20T07:20:00Z"}]));
        self.tenant.feed(ALERTS.len() - OLD);
    }

    fn tools(&self, rows: Json) {
        let text = |name: &str| column(name, "String");
        let columns = [text("Tool"), text("DeviceName"), text("Account"), column("Timestamp", "DateTime")];
        self.finds(&["anydesk.exe"], &columns, rows);
    }

    fn finds(&self, words: &[&str], schema: &[Json], rows: Json) {
        let url = format!("http://{}/_sandbox/hunting", self.tenant.http_addr());
        let body = json!({"words": words, "schema": schema, "results": rows});
        assert_eq!(self.tenant.post(&url, &[], body.to_string()).0, 204);
    }

    fn alert(&self, name: &str) -> Alert {
        let index = ALERTS.iter().position(|told| told.0 == name).unwrap_or_else(|| panic!("no alert {name}"));
        self.tenant.world().plan.alerts[index].clone()
    }

    /// The run of a flow for an alert, among these.
    fn run_for<'r>(&self, runs: &'r [Json], flow: &str, alert: &str) -> Option<&'r Json> {
        let alert = self.alert(alert);
        let ids = [Some(alert.id), Some(alert.graph_id), alert.detection];
        runs.iter().find(|run| {
            let key = run["key"].as_str().unwrap();
            run["flow"] == flow && ids.iter().flatten().any(|id| key.contains(id.as_str()))
        })
    }

    fn hand(&mut self, case: &Case, inputs: &[(&str, &str)]) {
        let world = self.tenant.world();
        let mut args = vec!["start".to_owned(), case.0.to_owned()];
        for (name, value) in inputs {
            let device = |text: &str| &world.plan.devices[text.parse::<usize>().unwrap()];
            let value = match value.split_once(' ') {
                Some(("alert", alert)) => self.alert(alert).graph_id,
                Some(("device", index)) => device(index).id.clone(),
                Some(("name", index)) => device(index).name.clone(),
                _ => (*value).to_owned(),
            };
            args.extend(["-i".to_owned(), format!("{name}={value}")]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let run = self.site.json(&args)["run"].as_str().unwrap().to_owned();
        let ended = ["succeeded", "failed", "waiting", "uncertain", "dead"];
        let row = crate::bin::wait_for(&format!("the end of {run} of {case:?}"), 40, || {
            let row = self.site.json(&["runs", "show", &run]);
            ended.iter().any(|status| row["status"] == *status).then_some(row)
        });
        self.judge(case, &row);
    }

    fn judge(&mut self, case: &Case, row: &Json) {
        let (flow, on, does, says) = case;
        let wanted: BTreeMap<String, u64> = does.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let status = if says.is_empty() { "succeeded" } else { "failed" };
        let reason = row["reason"].as_str().unwrap_or("");
        if row["effects"] != json!(wanted) || row["status"] != status || !reason.contains(says) {
            let (did, stands) = (&row["effects"], &row["status"]);
            self.faults.push(format!("{flow} on {on:?}: did {did} and {stands} ({reason}), wanted {wanted:?}"));
        }
    }

    /// Plays the cases of its flows; answers what was not as it should be.
    fn play(mut self, cases: &[&Case]) -> Vec<String> {
        self.tools(json!([]));
        for case in cases.iter().filter(|case| matches!(case.1, On::Calm)) {
            self.hand(case, &[]);
        }
        assert_eq!(self.tenant.effects(), BTreeMap::new(), "{:?}", self.faults);
        self.wake();
        let begun = |case: &&&Case| match case.1 {
            On::Alert(name) => Some(name),
            _ => None,
        };
        let open: Vec<(&str, &str)> = cases.iter().filter_map(|case| Some((case.0, begun(&case)?))).collect();
        let watch = stopwatch();
        let missing = loop {
            let runs = self.site.runs();
            let missing = open.iter().filter(|(flow, alert)| self.run_for(&runs, flow, alert).is_none()).count();
            if missing == 0 || watch.elapsed() > Duration::from_secs(40) {
                break missing;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        };
        let runs = self.site.settled(open.len() - missing, 60);
        for case in cases {
            match case.1 {
                On::Alert(name) => match self.run_for(&runs, case.0, name) {
                    Some(summary) => {
                        let row = self.site.run_is(
                            summary["id"].as_str().unwrap(),
                            &[summary["status"].as_str().unwrap()],
                            20,
                        );
                        self.judge(case, &row);
                    }
                    None => self.faults.push(format!("{case:?}: no run")),
                },
                On::Not(name) if self.run_for(&runs, case.0, name).is_some() => {
                    self.faults.push(format!("{case:?}: a run was started"));
                }
                On::Hand(inputs) => self.hand(case, inputs),
                _ => {}
            }
        }
        self.balance();
        self.faults
    }

    /// What the runs say that they did is what the tenant saw, no more and no less.
    fn balance(&mut self) {
        let mut said = BTreeMap::new();
        for run in self.site.settled(1, 20) {
            for (action, count) in run["effects"].as_object().unwrap() {
                *said.entry(action.clone()).or_insert(0) += u32::try_from(count.as_u64().unwrap()).unwrap();
            }
        }
        let seen = self.tenant.effects();
        if said != seen {
            self.faults.push(format!("the runs say {said:?}, the tenant saw {seen:?}"));
        }
    }
}

#[test]
fn every_shipped_flow_acts_on_what_it_is_for_and_on_nothing_else() {
    let mut shared = shipped();
    let mut stages: Vec<BTreeMap<String, String>> =
        ALONE.iter().map(|name| BTreeMap::from([((*name).to_owned(), shared.remove(*name).unwrap())])).collect();
    stages.push(shared);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let play = |flows: BTreeMap<String, String>| {
            let cases: Vec<&Case> = CASES.iter().filter(|case| flows.contains_key(case.0)).collect();
            scope.spawn(move || Stage::new(&flows).play(&cases))
        };
        let playing: Vec<_> = stages.into_iter().map(play).collect();
        playing.into_iter().flat_map(|stage| stage.join().unwrap()).collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_shipped_flow_has_a_case_that_it_is_for_and_one_that_it_is_not_for() {
    let all: BTreeSet<String> = shipped().into_keys().collect();
    let of = |acts: bool| -> BTreeSet<String> {
        CASES.iter().filter(|case| case.2.is_empty() != acts).map(|case| case.0.to_owned()).collect()
    };
    assert!(all.len() >= 15, "{all:?}");
    assert_eq!(of(true), all, "each needs a case in which it acts, and no case is of a flow that is not there");
    assert_eq!(of(false), all, "each needs a case in which it does nothing");
}
