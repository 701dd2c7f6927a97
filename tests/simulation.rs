//! The simulator in CI: a million operations, the named seeds, and that every checker sees.

use tidemark_agent::volume::Step;
use tidemark_tests::simulation::{
    Campaign, Count, Failure, Fault, Faults, Invariant, Plan, run, seeds::SEEDS, shrink,
};

/// Operations of a run in CI, and the crashes that must be among them.
const OPERATIONS: u64 = 1_000_000;
const CRASHES: u64 = 1_000;
/// By then a seeded defect must have been found, in worlds of some hundred operations.
const WORLDS_FOR_A_DEFECT: u64 = 400;

fn campaign(first: Plan, operations: u64) -> Campaign {
    Campaign {
        first,
        operations,
        jobs: 1,
        every: None,
    }
}

#[test]
fn every_invariant_holds_through_a_million_operations() {
    let tally = campaign(Plan::new(1), OPERATIONS)
        .run()
        .unwrap_or_else(|failure| panic!("{failure}\n\n{}", shrink(*failure.clone())));
    println!("{tally}");
    assert!(tally.of(Count::Operations) >= OPERATIONS);
    assert!(tally.crashes() >= CRASHES, "{} crashes", tally.crashes());
    let missing = tally.missing();
    assert!(missing.is_empty(), "never happened: {}", missing.join(", "));
}

#[test]
fn what_was_found_once_stays_mended() {
    for named in SEEDS {
        for seed in named.seeds {
            if let Err(failure) = run(Plan::new(*seed)) {
                panic!("again: {}\n{failure}", named.found);
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_events() {
    for seed in 1..=12 {
        let once = run(Plan::new(seed)).expect("the campaign passes");
        let again = run(Plan::new(seed)).expect("the campaign passes");
        assert_eq!(once.digest, again.digest, "seed {seed}");
        assert_eq!(once.steps, again.steps, "seed {seed}");
    }
}

/// The first world that fails with a defect in the engine.
fn found(defect: Step) -> Failure {
    let worlds = 1..=WORLDS_FOR_A_DEFECT;
    let mut failures = worlds.filter_map(|seed| {
        let defect = Some(defect);
        run(Plan {
            defect,
            ..Plan::new(seed)
        })
        .err()
    });
    failures
        .next()
        .unwrap_or_else(|| panic!("{defect:?} is left out and nobody sees it"))
}

/// One defect for each invariant: its own checker sees it first, and without it the same world
/// passes.
fn sees(defect: Step, invariant: Invariant) {
    let failure = found(defect);
    assert_eq!(failure.invariant, invariant, "{failure}");
    let sound = Plan {
        defect: None,
        ..failure.plan
    };
    if let Err(failure) = run(sound) {
        panic!("without the defect too: {failure}");
    }
}

#[test]
fn i1_sees_a_change_that_is_not_marked() {
    sees(Step::Mark, Invariant::MarkFirst);
}

#[test]
fn i1_sees_a_change_that_is_not_told_of_durably() {
    sees(Step::TellFirst, Invariant::MarkFirst);
}

#[test]
fn i2_sees_old_data_that_is_not_kept() {
    sees(Step::Preserve, Invariant::PreserveFirst);
}

#[test]
fn i2_sees_old_data_that_is_not_told_of_durably() {
    sees(Step::TellCopies, Invariant::ExactViews);
}

#[test]
fn i3_sees_a_view_that_does_not_ask_again() {
    sees(Step::AskAgain, Invariant::ExactViews);
}

#[test]
fn i4_sees_a_cut_that_does_not_wait() {
    sees(Step::Drain, Invariant::CleanCut);
}

#[test]
fn i5_sees_a_flush_that_goes_nowhere() {
    sees(Step::ForwardFlush, Invariant::NoCacheOfOurs);
}

#[test]
fn i6_sees_another_spans_diff() {
    sees(Step::CompareSpan, Invariant::Superset);
}

#[test]
fn i7_sees_an_error_that_is_kept_from_the_host() {
    sees(Step::PassError, Invariant::TheVolumeFirst);
}

#[test]
fn i8_sees_a_hold_that_does_not_end() {
    sees(Step::EndHold, Invariant::Bounded);
}

#[test]
fn a_failure_shrinks_to_less_that_still_fails() {
    let failure = found(Step::Preserve);
    let smallest = shrink(failure.clone());
    assert_eq!(smallest.invariant, failure.invariant);
    assert!(smallest.plan.steps < u64::MAX, "{smallest}");
    assert!(
        !smallest.plan.without.is_empty(),
        "no trouble is needed to lose old data: {smallest}"
    );
    let again = run(smallest.plan).expect_err("it was seen to fail");
    assert_eq!(again, smallest, "a replay is exact");
}

#[test]
fn trouble_that_is_left_out_does_not_come() {
    let crashes = Faults::default().with(Fault::Death).with(Fault::PowerCut);
    for seed in 1..=10 {
        let plan = Plan {
            without: crashes,
            ..Plan::new(seed)
        };
        let lived = run(plan).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(lived.tally.crashes(), 0);
    }
}
