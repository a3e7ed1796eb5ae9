//! Which members of each output later text reads: only these enter the run's state.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::program::{ActionStep, Block, Keep, OnError, Step, StepKind};

/// Keeps the shape at `path` without its members: the list that a foreach walks through.
pub(super) fn touch(keep: &mut Keep, path: &[Arc<str>]) {
    if *keep == Keep::Nothing {
        *keep = Keep::Fields(BTreeMap::new());
    }
    if let (Keep::Fields(fields), Some((first, rest))) = (keep, path.split_first()) {
        touch(fields.entry(Arc::clone(first)).or_default(), rest);
    }
}

/// Gives every action step of a block what is read of its output.
pub(super) fn give(block: &mut Block, keeps: &BTreeMap<Arc<str>, Keep>) {
    for step in &mut block.steps {
        if let OnError::Steps(handler) = &mut step.on_error {
            give(handler, keeps);
        }
        if let StepKind::Action(action) = &mut step.kind {
            action.keep = Arc::new(step.id.as_ref().and_then(|id| keeps.get(id)).cloned().unwrap_or_default());
            confirmed(action);
            // What a flow declares itself (columns, a response) is checked whole, read or not.
            if action.output == action.action.output {
                action.output = action.keep.narrow(&action.output);
            }
        }
        for inner in blocks(step) {
            give(inner, keeps);
        }
    }
}

/// Following an action to its end needs its id and how it stands.
fn confirmed(step: &mut ActionStep) {
    if let (Some(_), Some(confirm)) = (&step.confirm, &step.action.confirm) {
        for member in [&confirm.from, &confirm.field] {
            Arc::make_mut(&mut step.keep).add(&[Arc::clone(member)]);
        }
    }
}

fn blocks(step: &mut Step) -> Vec<&mut Block> {
    match &mut step.kind {
        StepKind::If { then, otherwise, .. } => vec![then, otherwise],
        StepKind::Switch { cases, default, .. } => cases.iter_mut().map(|(_, block)| block).chain(default).collect(),
        StepKind::Foreach(each) => vec![&mut each.body],
        StepKind::Until(until) => vec![&mut until.body],
        StepKind::Try { body, catch } => [body].into_iter().chain(catch.iter_mut().map(|(_, block)| block)).collect(),
        StepKind::Parallel { branches, .. } => branches.iter_mut().collect(),
        StepKind::Action(_)
        | StepKind::Set(_)
        | StepKind::WaitFor(_)
        | StepKind::WaitUntil(_)
        | StepKind::Call { .. }
        | StepKind::Stop { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn path(members: &[&str]) -> Vec<Arc<str>> {
        members.iter().map(|member| Arc::from(*member)).collect()
    }

    #[test]
    fn a_narrowed_type_asks_for_nothing_that_nobody_reads() {
        let catalog = crate::catalog::Catalog::builtin().unwrap();
        let alert = &catalog.entities["Alert"];
        let json = serde_json::json!({"id": "da1_1", "severity": 3});
        let mut keep = Keep::default();
        keep.add(&path(&["id"]));
        let decode = |ty: &crate::catalog::Type| crate::catalog::decode::decode(ty, &json);
        assert_eq!(decode(&keep.narrow(alert)).unwrap(), Value::object([("id", Value::str("da1_1"))]));
        assert!(decode(alert).is_err(), "the whole entity wants more");
    }

    #[test]
    fn a_walked_list_keeps_the_members_that_items_read() {
        let mut keep = Keep::default();
        touch(&mut keep, &path(&["rows"]));
        keep.add(&path(&["rows", "device"]));
        let row = |device: &str| Value::object([("device", Value::str(device)), ("blob", Value::str("large"))]);
        let output = Value::object([("rows", Value::list(vec![row("a"), row("b")])), ("schema", Value::str("x"))]);
        let kept = keep.project(&output);
        assert_eq!(kept.get("schema"), None);
        let rows = kept.get("rows").and_then(Value::as_list).unwrap();
        assert_eq!(rows, [Value::object([("device", Value::str("a"))]), Value::object([("device", Value::str("b"))])]);
    }

    #[test]
    fn a_walked_list_whose_items_nobody_reads_keeps_its_length() {
        let mut keep = Keep::default();
        touch(&mut keep, &path(&["rows"]));
        let output = Value::object([("rows", Value::list(vec![Value::object([("a", Value::Int(1))])]))]);
        assert_eq!(keep.project(&output).get("rows"), Some(&Value::list(vec![Value::empty()])));
    }

    #[test]
    fn reading_all_wins_over_walking() {
        let mut keep = Keep::default();
        keep.add(&path(&["rows"]));
        touch(&mut keep, &path(&["rows", "inner"]));
        assert_eq!(keep, Keep::Fields(BTreeMap::from([(Arc::from("rows"), Keep::All)])));
    }
}
