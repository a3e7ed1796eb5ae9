//! What is installed in a simulation: the flows, their modes, the rules of the guard.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use watchfloor::catalog::{Catalog, ConnectionKind};
use watchfloor::check::{CheckedFlow, World, check};
use watchfloor::config::Config;
use watchfloor::diag::{Source, render};
use watchfloor::flow::model::Mode;
use watchfloor::trigger::{Deployed, Deployment, Given};
use watchfloor::worker::Registry;

/// Isolations within ten minutes.
pub(super) const CAP: usize = 4;

/// Every effect, with and without a look-up; a loop with claims; waits; batches; a flow in shadow.
const FLOWS: [&str; 8] = [
    r#"
flow: isolate
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde }
steps:
  - { id: alert, action: mde.get_alert, with: { alert_id: "{{ trigger.alert_id }}" } }
  - if: alert.severity == 'High'
    then:
      - id: isolation
        action: mde.isolate_machine
        with: { machine_id: "{{ trigger.machine_id }}", comment: "{{ alert.title }}" }
        confirm: { timeout: 15m, on_timeout: continue }
      - action: email.send
        with: { to: [soc@contoso.example], subject: "{{ isolation.status }}", text: "{{ alert.id }}" }
on_failure:
  - { action: email.send, with: { to: [soc@contoso.example], subject: failed, text: "{{ error.message }}" } }
"#,
    r#"
flow: note
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde, where: trigger.alert.severity != 'High', concurrency: { key: trigger.machine_id, max: 1 } }
steps:
  - parallel:
      - [ { action: mde.update_alert, with: { alert_id: "{{ trigger.alert_id }}", comment: seen } } ]
      - [ { wait: 5m }, { action: teams.post, with: { title: seen, text: "{{ trigger.alert_id }}" } } ]
"#,
    r#"
flow: dry
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde }
steps:
  - { action: mde.isolate_machine, with: { machine_id: "{{ trigger.machine_id }}", comment: c } }
  - { action: email.send, with: { to: [soc@contoso.example], subject: s, text: t } }
"#,
    r#"
flow: sweep
owner: soc@contoso.example
trigger: { type: schedule, every: 15m, missed: run_once, overlap: skip }
steps:
  - foreach: "[DEVICES]"
    as: device
    key: device
    once_per: 1h
    at_once: 2
    max_items: 9
    on_item_error: gather
    do: [ { action: mde.run_antivirus_scan, with: { machine_id: "{{ device }}", comment: sweep } } ]
"#,
    r#"
flow: digest
owner: soc@contoso.example
trigger: { type: mde.alert.new, connection: mde, batch: { key: trigger.alert.severity, max: 3, within: 20m } }
steps:
  - action: email.send
    with: { to: [soc@contoso.example], subject: "{{ trigger.count }} {{ trigger.key }}", text: "{{= trigger.items[0].alert_id }}" }
"#,
    r#"
flow: rush
owner: soc@contoso.example
trigger: { type: manual, concurrency: { max: 2 } }
inputs: { alert_id: string }
steps:
  - { action: teams.post, with: { title: rush, text: "{{ inputs.alert_id }}" } }
"#,
    r#"
flow: crowd
owner: soc@contoso.example
trigger: { type: manual }
inputs: { alert_id: string }
steps:
  - { action: mde.run_antivirus_scan, with: { machine_id: "DEVICE0", comment: "{{ inputs.alert_id }}" } }
"#,
    r#"
flow: asked
owner: soc@contoso.example
trigger: { type: manual }
inputs: { alert_id: string }
steps:
  - { id: alert, action: mde.get_alert, with: { alert_id: "{{ inputs.alert_id }}" } }
  - { wait: 10m }
  - { action: email.send, with: { to: [soc@contoso.example], subject: asked, text: "{{ alert.id }}" } }
"#,
];

const CONFIG: &str = "
mode: live
flow_modes: { dry: shadow }
connections:
  mde:
    kind: mde
    credential:
      entra:
        tenant_id: 11111111-2222-3333-4444-555555555555
        client_id: 66666666-7777-8888-9999-000000000000
        client_secret: { file: none }
  mail: { kind: email, server: '127.0.0.1:1', tls: none, from: soc@contoso.example }
  soc-triage: { kind: teams, webhook_url: { file: none } }
limits: { destructive: [{ max: 4, per: 10m }], write: off }
protected: { devices: [{ tag: no-automation }], on_match: ask }
";

pub(super) struct Site {
    pub(super) catalog: Arc<Catalog>,
    pub(super) config: Config,
    pub(super) flows: Vec<Arc<CheckedFlow>>,
}

/// Checked once: all seeds share it.
pub(super) fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let catalog = Arc::new(Catalog::builtin().unwrap());
        let config = Config::parse(CONFIG, "config.yaml", Path::new(".")).unwrap();
        let kinds: BTreeMap<Arc<str>, ConnectionKind> =
            config.connections.values().map(|connection| (Arc::clone(&connection.name), connection.kind)).collect();
        let devices: Vec<String> = (0..3).map(|n| format!("'{}'", device(n))).collect();
        let compile = |text: &&str| {
            let text = text.replace("DEVICES", &devices.join(", ")).replace("DEVICE0", &device(0));
            let world = World {
                catalog: &catalog,
                connections: Some(&kinds),
                webhooks: None,
                include: &|_| Err("no files here".into()),
                called: &|_| None,
            };
            let (flow, found) = check(&Source::new("sim.yaml", text), &world, true);
            Arc::new(flow.unwrap_or_else(|| panic!("{}", render(&found, false))))
        };
        let flows = FLOWS.iter().map(compile).collect();
        Site { catalog, config, flows }
    })
}

/// The id of a device by its number.
pub(super) fn device(n: u64) -> String {
    format!("{:040x}", 0x0abc_def0_0000_u64 + n)
}

impl Site {
    pub(super) fn deployment(&self, activated: Timestamp) -> Deployment {
        let deployed = self.flows.iter().map(|flow| Deployed::of(Arc::clone(flow), self.mode(&flow.name), activated));
        Deployment::new(deployed.collect(), Given { mode: Mode::Live, ..Given::default() })
    }
}

impl Registry for Site {
    fn flow(&self, name: &str, version: &str) -> Result<Arc<CheckedFlow>, String> {
        let known = self.flows.iter().find(|flow| &*flow.name == name && &*flow.version == version);
        known.cloned().ok_or_else(|| format!("there is no {name} {version}"))
    }

    fn mode(&self, name: &str) -> Mode {
        if name == "dry" { Mode::Shadow } else { Mode::Live }
    }
}

/// The site as a registry that can be given away.
pub(super) struct Shared;

impl Registry for Shared {
    fn flow(&self, name: &str, version: &str) -> Result<Arc<CheckedFlow>, String> {
        site().flow(name, version)
    }

    fn mode(&self, name: &str) -> Mode {
        site().mode(name)
    }
}
