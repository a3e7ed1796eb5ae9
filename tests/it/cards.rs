//! A card as a YAML file, from the flow beside it to Teams.

use crate::bin::{Site, Tenant};

const FLOW: &str = r#"
flow: tell
description: Tells the SOC what somebody said about an alert.
owner: soc@contoso.example
trigger: { type: manual }
inputs: { alert_id: string, said: string }
steps:
  - { action: teams.post, with: { title: t, card_file: cards/seen.card.yaml } }
"#;

const CARD: &str = r#"type: AdaptiveCard
version: "1.4"
body:
  - { type: TextBlock, wrap: true, text: "{{ inputs.said }}" }
  - type: FactSet
    facts: [ { title: Alert, value: "{{ inputs.alert_id }}" } ]
"#;

#[test]
fn a_card_in_yaml_reaches_teams_and_is_bounded() {
    let tenant = Tenant::new(81, 20, |_| {});
    tenant.feed(20);
    let (alert, _) = tenant.high().swap_remove(0);
    let site = Site::new(&tenant).flow("tell", FLOW);
    std::fs::create_dir(site.path().join("flows/cards")).unwrap();
    site.write("flows/cards/seen.card.yaml", CARD);
    let service = site.start(&[]);
    let tell = |said: &str| {
        let inputs = [format!("alert_id={alert}"), format!("said={said}")];
        let started = site.json(&["start", "tell", "-i", &inputs[0], "-i", &inputs[1]]);
        site.run_is(started["run"].as_str().unwrap(), &["succeeded", "failed", "dead"], 60)
    };
    let row = tell("x\" }\n  - { type: Image, url: \"https://evil.example");
    assert_eq!(row["status"], "succeeded", "{row}");
    assert_eq!(tenant.ledger().alerts[&alert].done.get("teams.post"), Some(&1));
    let row = tell(&"x".repeat(21_000));
    assert_eq!(row["status"], "failed", "{row}");
    assert!(row["reason"].as_str().unwrap().contains("Teams takes less than 20000"), "{row}");
    assert_eq!(tenant.ledger().alerts[&alert].done.get("teams.post"), Some(&1));
    assert!(service.stop().success());
}
