//! What holds for every flow and every course of answers: it ends or says what it waits for, it does the same again, it
//! goes on from any prefix of its journal as if nothing had been, and dry it only reads.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use watchfloor::check::CheckedFlow;
use watchfloor::engine::Verdict;
use watchfloor::value::Value;

use super::host::{Host, START, Story, Trouble, try_flow};
use super::programs::{World, program};

/// Flows for each property. A failing one is printed, made as small as possible.
const CASES: u32 = 100;
/// Prefixes of one journal after which the host dies.
const CRASHES: usize = 6;

fn all(racy: bool, work: impl Fn(&CheckedFlow, u64) -> Result<(), TestCaseError>) {
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new(config);
    if let Err(failure) = runner.run(&(program(racy), any::<u64>()), |(text, seed)| work(&compiled(&text), seed)) {
        panic!("{failure}");
    }
}

fn compiled(text: &str) -> CheckedFlow {
    try_flow(text).unwrap_or_else(|found| panic!("a generated flow is refused:\n{text}\n{found}"))
}

fn run(flow: &CheckedFlow, world: &mut World, trouble: Trouble, verdict: Verdict) -> Story {
    let trigger = Value::object([
        ("alert_id", Value::str("da637472900382838869_1")),
        ("machine_id", Value::str("0123456789abcdef0123456789abcdef01234500")),
    ]);
    Host::new(flow, trigger).verdict(verdict).trouble(trouble).run(&mut |call, _| world.answer(call, START))
}

/// A run that ended, or that says what it waits for.
fn is_over(story: &Story) -> bool {
    story.finish.is_some() || story.parked.as_ref().is_some_and(|(_, reason)| !reason.is_empty())
}

/// What can be looked up takes effect at most once, whatever happened.
fn nothing_verifiable_twice(world: &World) -> Result<(), TestCaseError> {
    let twice = world.done.iter().find(|((action, _), n)| {
        **n > 1 && matches!(action.as_str(), "mde.isolate_machine" | "mde.run_antivirus_scan")
    });
    prop_assert!(twice.is_none(), "{twice:?}");
    Ok(())
}

#[test]
fn every_flow_ends_or_says_what_it_waits_for() {
    all(true, |flow, seed| {
        for trouble in [
            Trouble::default(),
            Trouble { reversed: true, ..Trouble::default() },
            Trouble { cancelled: true, ..Trouble::default() },
        ] {
            let mut world = World::new(seed, true);
            let story = run(flow, &mut world, trouble, Verdict::Go);
            prop_assert!(is_over(&story), "open without a reason: {:#?}", story.transcript);
            nothing_verifiable_twice(&world)?;
        }
        Ok(())
    });
}

#[test]
fn every_flow_does_the_same_again() {
    all(true, |flow, seed| {
        let again = || run(flow, &mut World::new(seed, true), Trouble::default(), Verdict::Go).transcript;
        prop_assert_eq!(again(), again());
        Ok(())
    });
}

#[test]
fn every_message_twice_changes_nothing_in_any_flow() {
    all(true, |flow, seed| {
        let (mut calm, mut doubled) = (World::new(seed, true), World::new(seed, true));
        let once = run(flow, &mut calm, Trouble::default(), Verdict::Go);
        let twice = run(flow, &mut doubled, Trouble { twice: true, ..Trouble::default() }, Verdict::Go);
        prop_assert_eq!(&once.calls, &twice.calls);
        prop_assert_eq!(&once.effects, &twice.effects);
        prop_assert_eq!(once.status(), twice.status());
        prop_assert_eq!(calm.done, doubled.done);
        Ok(())
    });
}

#[test]
fn dry_every_flow_only_reads() {
    all(true, |flow, seed| {
        let mut world = World::new(seed, true);
        let story = run(flow, &mut world, Trouble::default(), Verdict::Shadow);
        prop_assert_eq!(world.not_reads, 0);
        prop_assert!(is_over(&story) && story.effects.is_empty(), "{:?}", story.effects);
        Ok(())
    });
}

/// The host dies after any message, before or after the calls that were on their way took effect, and again later: the run
/// ends as the undisturbed one, and what it did to the world is the same, but for a mail, a post or a write whose answer
/// was lost. Where what a
/// flow does depends on who is first, dying may change that: such flows are in the next test.
#[test]
fn resumed_from_any_prefix_every_flow_ends_as_if_nothing_had_been() {
    all(false, |flow, seed| {
        let mut calm = World::new(seed, false);
        let undisturbed = run(flow, &mut calm, Trouble::default(), Verdict::Go);
        let messages = undisturbed.journal.len();
        for crash in (0..messages).step_by(messages.div_ceil(CRASHES).max(1)) {
            for lazy in [false, true] {
                let mut world = World::new(seed, false);
                let trouble = Trouble { crash: Some(crash), lazy, ..Trouble::default() };
                let story = run(flow, &mut world, trouble, Verdict::Go);
                prop_assert_eq!(
                    story.status(),
                    undisturbed.status(),
                    "after {} messages: {:#?}",
                    crash,
                    story.transcript
                );
                prop_assert_eq!(&world.did, &calm.did, "after {} messages: {:#?}", crash, story.transcript);
                nothing_verifiable_twice(&world)?;
            }
        }
        Ok(())
    });
}

/// As above, on a tenant that fails as often as not: nothing is proved of how it ends, but it does, and nothing is doubled.
#[test]
fn a_crash_among_failing_calls_doubles_nothing() {
    all(true, |flow, seed| {
        for crash in [1, 4, 9] {
            for lazy in [false, true] {
                let mut world = World::new(seed, true);
                let story =
                    run(flow, &mut world, Trouble { crash: Some(crash), lazy, ..Trouble::default() }, Verdict::Go);
                prop_assert!(is_over(&story), "open without a reason: {:#?}", story.transcript);
                nothing_verifiable_twice(&world)?;
            }
        }
        Ok(())
    });
}
