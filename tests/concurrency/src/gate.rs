//! The gate: changes that share a block exclude each other, a cut excludes all, and nobody waits
//! for ever. loom reports a thread that can never go on as a deadlock.

use std::{
    future::{pending, ready},
    pin::pin,
    sync::Arc,
};

use futures_lite::future::poll_once;
use loom::{
    future::block_on,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};
use tidemark_store::units::BlockRange;

use crate::{
    explore::{
        Preemptions::{self, All, AtMost},
        fails, holds,
    },
    gates::{
        AnyGate, ClosedInAHurry, CloserForgotten, NeverClosed, NoSecondLook, OpenedInSilence,
        Overtaking, Real,
    },
};

/// What one block sees: changes of it that are on their way now.
fn change<G: AnyGate>(gate: &G, blocks: BlockRange, in_flight: &AtomicUsize, others: bool) {
    let _pass = block_on(gate.enter(blocks));
    let before = in_flight.fetch_add(1, SeqCst);
    assert!(before == 0 || others, "two changes of a block in flight");
    in_flight.fetch_sub(1, SeqCst);
}

fn two_changes_of_a_block<G: AnyGate>() {
    let gate = Arc::new(G::new());
    let in_flight = Arc::new(AtomicUsize::new(0));
    let other = {
        let (gate, in_flight) = (Arc::clone(&gate), Arc::clone(&in_flight));
        thread::spawn(move || change(&*gate, BlockRange::new(3, 9), &in_flight, false))
    };
    change(&*gate, BlockRange::new(0, 4), &in_flight, false);
    other.join().expect("it did not panic");
}

#[test]
fn changes_that_share_a_block_exclude_each_other_and_all_pass() {
    holds(All, two_changes_of_a_block::<Real>);
    fails(
        "two changes of a block",
        All,
        two_changes_of_a_block::<Overtaking>,
    );
    fails("deadlock", All, two_changes_of_a_block::<NoSecondLook>);
}

/// A cut beside a change; with `others`, beside two that share no block.
fn a_cut<G: AnyGate>(others: bool) {
    let gate = Arc::new(G::new());
    let in_flight = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..1 + u64::from(others))
        .map(|at| {
            let (gate, in_flight) = (Arc::clone(&gate), Arc::clone(&in_flight));
            let blocks = BlockRange::new(at * 8, at * 8 + 1);
            thread::spawn(move || change(&*gate, blocks, &in_flight, others))
        })
        .collect();
    assert!(block_on(gate.close(pending())), "nobody else closes it");
    for _ in 0..2 {
        assert_eq!(in_flight.load(SeqCst), 0, "a change passed during a cut");
    }
    gate.open();
    for writer in writers {
        writer.join().expect("it did not panic");
    }
}

#[test]
fn nothing_is_in_flight_during_a_cut_and_everything_goes_on_after_it() {
    holds(All, || a_cut::<Real>(false));
    fails("during a cut", All, || a_cut::<NeverClosed>(false));
    fails("deadlock", All, || a_cut::<NoSecondLook>(false));
    fails("deadlock", All, || a_cut::<ClosedInAHurry>(false));
    fails("deadlock", All, || a_cut::<CloserForgotten>(false));
    fails("deadlock", All, || a_cut::<OpenedInSilence>(false));
}

#[test]
fn a_cut_waits_for_all_changes() {
    holds(bound(), || a_cut::<Real>(true));
    fails("deadlock", bound(), || a_cut::<ClosedInAHurry>(true));
}

/// The last waits only for the second, which gives up while the first is still in flight.
fn giving_up<G: AnyGate>() {
    let gate = Arc::new(G::new());
    let first = block_on(gate.enter(BlockRange::new(0, 4)));
    let second = {
        let gate = Arc::clone(&gate);
        thread::spawn(move || {
            let entered = block_on(poll_once(pin!(gate.enter(BlockRange::new(0, 9)))));
            assert!(entered.is_none(), "the first is still in flight");
        })
    };
    let last = {
        let gate = Arc::clone(&gate);
        thread::spawn(move || drop(block_on(gate.enter(BlockRange::new(8, 9)))))
    };
    second.join().expect("it did not panic");
    last.join().expect("it did not panic");
    drop(first);
}

#[test]
fn who_waits_for_one_that_gives_up_goes_on() {
    holds(bound(), giving_up::<Real>);
    fails("deadlock", bound(), giving_up::<NoSecondLook>);
}

/// A cut that finds a change in flight and has no time to wait for it.
fn a_cut_without_time<G: AnyGate>() {
    let gate = Arc::new(G::new());
    let first = block_on(gate.enter(BlockRange::new(0, 4)));
    let other = {
        let gate = Arc::clone(&gate);
        thread::spawn(move || drop(block_on(gate.enter(BlockRange::new(8, 9)))))
    };
    assert!(!block_on(gate.close(ready(()))), "a change is in flight");
    other.join().expect("it did not panic");
    drop(first);
}

#[test]
fn a_cut_that_gives_up_lets_everything_go_on() {
    holds(bound(), a_cut_without_time::<Real>);
    fails("deadlock", All, a_cut_without_time::<OpenedInSilence>);
    fails("deadlock", All, a_cut_without_time::<NoSecondLook>);
}

/// Three threads, two of which wait in lists of their own.
fn bound() -> Preemptions {
    AtMost(3)
}
