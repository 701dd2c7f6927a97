//! The change map: no mark is lost, whatever is marked, settled or read beside it.

use std::{path::Path, sync::Arc};

use loom::{
    sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release},
    thread,
};
use tidemark_store::{
    changes::{DenseMap, Kind},
    sync::Mistake,
    units::{BlockRange, Epoch, Id},
};

use crate::explore::{
    Preemptions::{All, AtMost},
    fails, holds, sees,
};

/// Blocks whose bits lie in one word; the first of them and a neighbour.
const ONE: BlockRange = BlockRange::new(5, 6);
const NEXT: BlockRange = BlockRange::new(6, 8);

fn map() -> Arc<DenseMap> {
    let map = DenseMap::create(Path::new("model"), Id([7; 16]), Epoch(1), 64);
    Arc::new(map.expect("a model has memory"))
}

fn told(map: &DenseMap) -> Vec<(BlockRange, Kind)> {
    map.to_set(0).runs(0).collect()
}

fn neighbours_are_marked() {
    let map = map();
    let other = {
        let map = Arc::clone(&map);
        thread::spawn(move || map.mark(NEXT))
    };
    map.mark(ONE);
    other.join().expect("it did not panic");
    assert_eq!(told(&map), [(BlockRange::new(5, 8), Kind::Data)]);
}

#[test]
fn marks_in_one_word_are_not_lost() {
    holds(All, neighbours_are_marked);
    sees(Mistake::Torn, "left == right", All, neighbours_are_marked);
}

/// A block that was zeroed becomes data while its neighbour is zeroed.
fn a_zeroed_neighbour() {
    let map = map();
    map.mark(BlockRange::new(5, 8));
    map.settle(ONE, Kind::Zero);
    let other = {
        let map = Arc::clone(&map);
        thread::spawn(move || map.settle(NEXT, Kind::Zero))
    };
    map.mark(ONE);
    other.join().expect("it did not panic");
    assert_eq!(told(&map), [(ONE, Kind::Data), (NEXT, Kind::Zero)]);
}

#[test]
fn what_a_block_became_is_not_taken_for_its_neighbours() {
    holds(All, a_zeroed_neighbour);
    sees(Mistake::Torn, "left == right", All, a_zeroed_neighbour);
}

/// A diff of the running epoch beside changes: one that has ended before it was asked for is told,
/// as what it last became.
fn a_diff_beside_changes() {
    let map = map();
    map.mark(ONE);
    map.settle(ONE, Kind::Discarded);
    let ended = Arc::new(AtomicBool::new(false));
    let writer = {
        let (map, ended) = (Arc::clone(&map), Arc::clone(&ended));
        thread::spawn(move || {
            map.mark(ONE);
            map.settle(ONE, Kind::Zero);
            ended.store(true, Release);
            map.mark(NEXT);
        })
    };
    let had_ended = ended.load(Acquire);
    let told_meanwhile = told(&map);
    let first = told_meanwhile.first().copied();
    let (run, kind) = first.expect("the first change is marked always");
    assert_eq!(run.start, ONE.start, "the first change is missing");
    if had_ended {
        assert_eq!(kind, Kind::Zero, "the last change of a block is not told");
    }
    writer.join().expect("it did not panic");
    assert_eq!(told(&map), [(ONE, Kind::Zero), (NEXT, Kind::Data)]);
}

#[test]
fn a_diff_has_every_change_that_ended_before_it() {
    holds(AtMost(3), a_diff_beside_changes);
}

/// A mark that is not set before the change counts as ended.
fn a_mark_too_late() {
    let map = map();
    let ended = Arc::new(AtomicBool::new(false));
    let writer = {
        let (map, ended) = (Arc::clone(&map), Arc::clone(&ended));
        thread::spawn(move || {
            ended.store(true, Release);
            map.mark(ONE);
        })
    };
    if ended.load(Acquire) {
        assert_eq!(told(&map), [(ONE, Kind::Data)]);
    }
    writer.join().expect("it did not panic");
}

#[test]
fn a_change_that_is_marked_after_it_ended_is_seen() {
    fails("left == right", All, a_mark_too_late);
}
