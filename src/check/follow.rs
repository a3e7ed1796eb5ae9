//! Flows that are started by the ends of others: no circle, no chain without end, no name that is nobody's.
//!
//! It takes all flows to tell; one file alone says only that it does not follow itself.

use std::collections::BTreeMap;

use super::Card;

/// Flows that start one another further than this were not meant.
pub const MAX_CHAIN: usize = 8;

/// What is wrong with a flow that follows another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Index of the flow.
    pub flow: usize,
    pub code: &'static str,
    pub message: String,
    pub help: &'static str,
}

/// The faults among these flows, in their order.
pub fn faults(cards: &[&Card]) -> Vec<Fault> {
    let by_name: BTreeMap<&str, &Card> = cards.iter().map(|card| (&*card.name, *card)).collect();
    let followed = |card: &Card| card.follows.as_ref().map(|follows| follows.flow.to_string());
    let mut faults = vec![];
    for (flow, card) in cards.iter().enumerate() {
        let mut names = vec![card.name.to_string()];
        let mut next = followed(card);
        while let Some(name) = next.take() {
            let fault = |code, message, help| Fault { flow, code, message, help };
            let circle = names.iter().position(|known| *known == name);
            names.push(name);
            let name = names.last().map_or("", String::as_str);
            let Some(card) = by_name.get(name) else {
                // Told at the flow that names it; those that follow that one have nothing to mend.
                if names.len() == 2 {
                    let help = "`flow:` takes the name that stands after `flow:` in another file";
                    faults.push(fault("WF0708", format!("there is no flow `{name}`"), help));
                }
                break;
            };
            if let Some(at) = circle {
                // A flow that only leads into a circle of others is right itself.
                if at == 0 {
                    let message = format!("flows that start each other never end: {}", names.join(" follows "));
                    faults.push(fault("WF0716", message, "let one of them start by something else"));
                }
                break;
            }
            if names.len() > MAX_CHAIN {
                let message =
                    format!("flows follow each other more than {MAX_CHAIN} deep: {}", names.join(" follows "));
                faults.push(fault("WF0716", message, "put the steps of some of them into one flow"));
                break;
            }
            next = followed(card);
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::program::Follows;
    use super::*;
    use crate::catalog::Effect;

    fn card(name: &str, follows: Option<&str>) -> Card {
        let follows =
            follows.map(|flow| Follows { flow: flow.into(), statuses: vec![Arc::from("failed")], start: 0, end: 1 });
        Card {
            name: name.into(),
            version: "v".into(),
            trigger: "flow.finished".into(),
            source: None,
            hook: false,
            schedule: None,
            follows,
            waits: false,
            gathers: false,
            mode: None,
            limits: vec![],
            effect: Effect::Read,
            uses: std::collections::BTreeSet::new(),
            warnings: 0,
        }
    }

    fn told(flows: &[(&str, Option<&str>)]) -> Vec<(usize, &'static str, String)> {
        let cards: Vec<Card> = flows.iter().map(|(name, follows)| card(name, *follows)).collect();
        let found = faults(&cards.iter().collect::<Vec<_>>());
        found.into_iter().map(|fault| (fault.flow, fault.code, fault.message)).collect()
    }

    #[test]
    fn circles_are_told_at_each_of_their_flows_and_nowhere_else() {
        let found = told(&[("a", Some("b")), ("b", Some("c")), ("c", Some("b")), ("d", None), ("e", Some("d"))]);
        let told: Vec<_> = found.iter().map(|(flow, code, _)| (*flow, *code)).collect();
        assert_eq!(told, [(1, "WF0716"), (2, "WF0716")]);
        assert!(found[0].2.ends_with("b follows c follows b"), "{found:?}");
    }

    #[test]
    fn a_name_that_is_nobody_s_and_a_chain_without_end_are_refused() {
        assert_eq!(told(&[("a", Some("b")), ("b", Some("x"))]), [(1, "WF0708", "there is no flow `x`".to_owned())]);
        let names: Vec<String> = (0..=MAX_CHAIN).map(|n| format!("f{n}")).collect();
        let chain: Vec<_> =
            names.iter().enumerate().map(|(n, name)| (name.as_str(), names.get(n + 1).map(String::as_str))).collect();
        assert_eq!(told(&chain).len(), 1);
        assert_eq!(told(&chain[1..]), []);
    }
}
