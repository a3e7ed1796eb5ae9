//! The tenant as it was made: devices, users and alerts, drawn from one seed. Nothing here changes while it is served
//! (see `state`), so the same seed is the same world.

use jiff::{SignedDuration, Timestamp};

use super::seed::Seed;

/// The tenant's id in every answer.
pub const TENANT: &str = "6f1c2a44-9d0e-4b53-8a1f-3c5d7e9b1f20";

/// Everything that exists, whether or not it is visible yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub seed: u64,
    pub start: Timestamp,
    pub devices: Vec<Device>,
    pub users: Vec<User>,
    /// In the order in which they become visible.
    pub alerts: Vec<Alert>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// 40 hex digits.
    pub id: String,
    pub name: String,
    pub os: &'static str,
    pub tags: Vec<&'static str>,
    pub value: &'static str,
    pub risk: &'static str,
    /// Unreachable: what is asked of it stays `Pending`.
    pub offline: bool,
    pub ip: String,
    /// Index of the person who signs in there.
    pub user: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub id: String,
    pub upn: String,
    pub name: String,
    pub replies: Replies,
    pub risk: Risk,
    pub manager: Option<usize>,
    /// Somebody changed the mailbox's rules or replies after the first suspicious sign-in.
    pub tampered: bool,
    pub admin: bool,
}

/// A mailbox's automatic replies, in the shapes that the service is known to answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Replies {
    /// As sent, odd casing included.
    pub status: &'static str,
    /// Zone-less local times in `zone`.
    pub from: String,
    pub until: String,
    /// Often a Windows name.
    pub zone: &'static str,
    pub message: &'static str,
    /// The truth, for the ledger.
    pub active: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// Never risky: the service answers 404.
    Never,
    None,
    Low,
    Medium,
    High,
    /// The licence does not show it.
    Hidden,
}

impl Risk {
    pub fn wire(self) -> &'static str {
        match self {
            Risk::Never | Risk::None => "none",
            Risk::Low => "low",
            Risk::Medium => "medium",
            Risk::High => "high",
            Risk::Hidden => "hidden",
        }
    }

    /// Whether the shipped travel flows may act on it.
    pub fn acceptable(self) -> bool {
        matches!(self, Risk::Never | Risk::None | Risk::Low | Risk::Medium)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// The id that its own product gives it.
    pub id: String,
    /// The id of the same alert in Graph.
    pub graph_id: String,
    /// The id of the risk detection that came with it, for travel alerts.
    pub detection: Option<String>,
    pub source: Source,
    /// In the spelling of Defender for Endpoint.
    pub severity: &'static str,
    pub title: String,
    pub category: &'static str,
    pub incident: u64,
}

impl Alert {
    /// The rule that raised it: one for each title.
    pub fn detector(&self) -> String {
        let hash = self
            .title
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("7c1d9f2e-5a40-4f63-9b0e-{:012x}", hash >> 16)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Endpoint {
        device: usize,
    },
    CloudApps {
        user: usize,
        policy: &'static str,
    },
    /// Defender for Office 365: a mail that came to this user.
    Office {
        user: usize,
    },
    /// Entra ID Protection: the kind of risk, in the service's word.
    Identity {
        user: usize,
        event: &'static str,
    },
}

/// The policies that the shipped travel flows look at.
pub const TRAVEL: [&str; 2] = ["Impossible travel", "Activity from infrequent country"];

impl Plan {
    /// Draws the world. `alerts` counts those of all products; `offline` is the share of unreachable devices per mille.
    pub fn generate(seed: u64, alerts: usize, offline: u16, start: Timestamp) -> Self {
        let cloud = alerts * 3 / 10;
        let mut plan = Plan { seed, start, devices: Vec::new(), users: Vec::new(), alerts: Vec::new() };
        plan.endpoint(alerts - cloud, offline);
        plan.cloud(cloud);
        Seed::new(seed, "order").shuffle(&mut plan.alerts);
        plan
    }

    /// Whether this is a travel alert that the shipped flows close.
    pub fn legitimate(&self, alert: &Alert) -> bool {
        self.traveller(alert).is_some_and(|user| user.replies.active && user.risk.acceptable())
    }

    /// The user of a travel alert; `None` for all other alerts.
    pub fn traveller(&self, alert: &Alert) -> Option<&User> {
        match &alert.source {
            Source::CloudApps { user, policy } if TRAVEL.contains(policy) => self.users.get(*user),
            _ => None,
        }
    }

    pub fn device_of(&self, alert: &Alert) -> Option<&Device> {
        match alert.source {
            Source::Endpoint { device } => self.devices.get(device),
            Source::CloudApps { .. } | Source::Office { .. } | Source::Identity { .. } => None,
        }
    }

    /// The person whom an alert is about: on a device, the one who signs in there.
    pub fn user_of(&self, alert: &Alert) -> Option<&User> {
        let user = match alert.source {
            Source::Endpoint { device } => self.devices.get(device)?.user,
            Source::CloudApps { user, .. } | Source::Office { user } | Source::Identity { user, .. } => user,
        };
        self.users.get(user)
    }

    fn endpoint(&mut self, count: usize, offline: u16) {
        let mut seed = Seed::new(self.seed, "endpoint");
        while self.alerts.len() < count {
            let index = self.devices.len();
            let several = index % 5 == 2;
            let high = if several { 2 + seed.below(3) } else { usize::from(seed.percent(60)) };
            let others = usize::from(high == 0 || seed.percent(25));
            let room = count - self.alerts.len();
            let mut worst = "Low";
            for n in 0..(high + others).min(room) {
                let severity =
                    if n < high { "High" } else { seed.pick(&["Medium", "Medium", "Low", "Informational"], "Low") };
                worst = if n < high {
                    "High"
                } else if worst == "High" {
                    worst
                } else {
                    severity
                };
                let alert = endpoint_alert(&mut seed, self.alerts.len(), index, severity);
                self.alerts.push(alert);
            }
            let user = self.user(&mut seed);
            self.devices.push(device(&mut seed, index, user, worst, offline));
        }
        // Some devices never alert, so that a list of machines is more than a list of victims.
        for _ in 0..count / 10 + 1 {
            let user = self.user(&mut seed);
            let index = self.devices.len();
            self.devices.push(device(&mut seed, index, user, "None", offline));
        }
    }

    fn cloud(&mut self, count: usize) {
        let mut seed = Seed::new(self.seed, "cloud");
        let mut user = 0;
        for n in 0..count {
            if n % 5 != 4 || self.users.is_empty() {
                user = self.user(&mut seed);
            }
            let policy = match seed.below(8) {
                0..=3 => TRAVEL[0],
                4..=6 => TRAVEL[1],
                _ => "Mass download by a single user",
            };
            let id = format!("{:08x}{}", 0x691f_0c3c + n, seed.hex(16));
            let travel = TRAVEL.contains(&policy);
            self.alerts.push(Alert {
                graph_id: format!("ca{id}"),
                detection: travel.then(|| seed.hex(64)),
                source: Source::CloudApps { user, policy },
                severity: seed.pick(&["Medium", "Medium", "Low", "High"], "Medium"),
                title: if policy == TRAVEL[0] { "Impossible travel activity".to_owned() } else { policy.to_owned() },
                category: if travel { "InitialAccess" } else { "Exfiltration" },
                incident: 900_000 + user as u64,
                id,
            });
        }
    }

    fn user(&mut self, seed: &mut Seed) -> usize {
        let index = self.users.len();
        let first = seed.pick(&FIRST, "Lena");
        let last = seed.pick(&LAST, "Brandt");
        let manager = (index > 0 && seed.percent(80)).then(|| seed.below(index));
        let replies = replies(seed, self.start);
        let risk = match seed.below(20) {
            0..=7 => Risk::Never,
            8 => Risk::None,
            9..=12 => Risk::Low,
            13..=15 => Risk::Medium,
            16..=18 => Risk::High,
            _ => Risk::Hidden,
        };
        self.users.push(User {
            id: seed.guid(),
            upn: format!("{}.{}{index}@contoso.example", first.to_lowercase(), last.to_lowercase()),
            name: format!("{first} {last}"),
            replies,
            risk,
            manager,
            tampered: seed.percent(15),
            admin: seed.percent(6),
        });
        index
    }
}

const FIRST: [&str; 12] =
    ["Lena", "Amir", "Chloe", "Jonas", "Mei", "Priya", "Tomas", "Ines", "Yara", "Noor", "Pavel", "Aiko"];
const LAST: [&str; 12] =
    ["Brandt", "Costa", "Dubois", "Eriksen", "Farah", "Gupta", "Haas", "Ito", "Jensen", "Kowalski", "Lund", "Moreau"];

const ENDPOINT_TITLES: [(&str, &str); 8] = [
    ("Suspicious PowerShell command line", "Execution"),
    ("Credential dumping by a signed tool", "CredentialAccess"),
    ("Ransomware behaviour blocked", "Malware"),
    ("Connection to a command and control host", "CommandAndControl"),
    ("Scheduled task created by an unusual process", "Persistence"),
    // What an attacker can write into a file name must stay text wherever it goes.
    ("File '<img src=x>{{ 7*7 }}.exe' ran from a mail attachment", "InitialAccess"),
    ("Überwachung umgangen: 監査ログ wurde gelöscht", "DefenseEvasion"),
    ("Archive \"offer\\n.zip\" & 'terms' unpacked; formula =1+1 inside", "Execution"),
];

fn endpoint_alert(seed: &mut Seed, index: usize, device: usize, severity: &'static str) -> Alert {
    let (title, category) = seed.pick(&ENDPOINT_TITLES, ENDPOINT_TITLES[0]);
    let ticks = 638_990_000_000_000_000 + index as u64 * 61_000_019 + seed.next() % 61_000_000;
    let sign = if seed.percent(50) { "-" } else { "" };
    let id = format!("da{ticks}_{sign}{}", 1_000_000 + seed.below(2_000_000_000));
    let graph_id = id.clone();
    let incident = 400_000 + device as u64;
    let source = Source::Endpoint { device };
    Alert { id, graph_id, detection: None, source, severity, title: title.to_owned(), category, incident }
}

fn device(seed: &mut Seed, index: usize, user: usize, risk: &'static str, offline: u16) -> Device {
    let server = seed.percent(12);
    let (name, os) = if server {
        (format!("srv-app-{index:03}.contoso.example"), seed.pick(&["WindowsServer2022", "WindowsServer2019"], ""))
    } else {
        let site = seed.pick(&["fin", "hr", "eng", "sal"], "fin");
        (format!("{site}-lap-{index:03}.contoso.example"), seed.pick(&["Windows11", "Windows11", "macOS"], ""))
    };
    let mut tags = Vec::new();
    if seed.percent(5) {
        tags.push("no-automation");
    }
    if server {
        tags.push("tier-1");
    }
    Device {
        id: seed.hex(40),
        name,
        os,
        tags,
        value: seed.pick(&["Normal", "Normal", "Normal", "Low", "High"], "Normal"),
        risk,
        offline: seed.below(1000) < usize::from(offline),
        ip: format!("10.{}.{}.{}", index / 250 % 250, index % 250, 10 + seed.below(200)),
        user,
    }
}

/// Windows names whose zone has no summer time, with the minutes east of UTC: the hour-sharp cases use only these.
const FIXED_ZONES: [(&str, i64); 4] =
    [("Tokyo Standard Time", 540), ("India Standard Time", 330), ("SE Asia Standard Time", 420), ("UTC", 0)];

fn replies(seed: &mut Seed, start: Timestamp) -> Replies {
    let hours = SignedDuration::from_hours;
    let odd = seed.pick(&["scheduled", "Scheduled", "scheduled"], "scheduled");
    let (zone, east) = seed.pick(&FIXED_ZONES, ("UTC", 0));
    let wide = seed.pick(&["W. Europe Standard Time", "Pacific Standard Time", "Romance Standard Time"], "UTC");
    let away = "<p>I am travelling and answer when I am back.</p>";
    let local = |at: SignedDuration, east: i64| local_time(start, at, east);
    let make = |status, from, until, zone, active| Replies { status, from, until, zone, message: away, active };
    match seed.below(10) {
        // The service keeps a date of long ago beside "always".
        0 | 1 => make(
            seed.pick(&["alwaysEnabled", "AlwaysEnabled"], "alwaysEnabled"),
            local(hours(-24 * 700), 0),
            local(hours(-24 * 699), 0),
            "UTC",
            true,
        ),
        2..=4 => make(odd, local(hours(-24 * 3), 0), local(hours(24 * 6), 0), wide, true),
        // Ended three hours ago where the mailbox lives; read as UTC it would still be on in the east.
        5 => make(odd, local(hours(-72), east), local(hours(-3), east), zone, false),
        // Began three hours ago there; read as UTC it would begin only later.
        6 => make(odd, local(hours(-3), east), local(hours(72), east), zone, true),
        7 => make(odd, local(hours(24 * 4), 0), local(hours(24 * 9), 0), wide, false),
        _ => Replies {
            status: "disabled",
            from: local(hours(0), 0),
            until: local(hours(24), 0),
            zone: "UTC",
            message: "",
            active: false,
        },
    }
}

fn local_time(start: Timestamp, offset: SignedDuration, east_minutes: i64) -> String {
    let shift = offset.checked_add(SignedDuration::from_mins(east_minutes)).unwrap_or(offset);
    let at = start.checked_add(shift).unwrap_or(start);
    // The service writes no zone and seven digits.
    format!("{at:.7}").trim_end_matches('Z').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_devices_carry_two_to_four_high_alerts() {
        let plan = Plan::generate(7, 400, 0, Timestamp::UNIX_EPOCH);
        let high = |index: usize| {
            plan.alerts
                .iter()
                .filter(|alert| alert.source == Source::Endpoint { device: index } && alert.severity == "High")
                .count()
        };
        let counts: Vec<usize> = (0..plan.devices.len()).map(high).filter(|count| *count > 0).collect();
        let several = counts.iter().filter(|count| **count > 1).count();
        assert!(counts.iter().all(|count| *count <= 4), "{counts:?}");
        assert!(several * 6 >= counts.len() && several * 2 <= counts.len(), "{several} of {}", counts.len());
        assert_eq!(plan.alerts.len(), 400);
    }

    #[test]
    fn the_same_seed_is_the_same_world_and_another_seed_another() {
        let make = |seed| Plan::generate(seed, 60, 50, Timestamp::UNIX_EPOCH);
        assert_eq!(make(3), make(3));
        assert_ne!(make(3), make(4));
    }

    #[test]
    fn both_kinds_of_travel_alert_exist_for_small_worlds() {
        for seed in 0..20 {
            let plan = Plan::generate(seed, 200, 0, Timestamp::UNIX_EPOCH);
            let travel: Vec<_> = plan.alerts.iter().filter(|alert| plan.traveller(alert).is_some()).collect();
            let legitimate = travel.iter().filter(|alert| plan.legitimate(alert)).count();
            assert!(legitimate > 0 && legitimate < travel.len(), "seed {seed}: {legitimate} of {}", travel.len());
        }
    }
}
