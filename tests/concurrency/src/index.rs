//! The index and its readers: a copy is found whole or not at all, and no slot has two owners.

use std::sync::Arc;

use loom::{
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
};
use tidemark_store::{
    cow::{Index, Layer, Layers},
    state::Fate,
    sync::Mistake,
    units::{Epoch, Id},
};

use crate::{
    explore::{
        Preemptions::{All, AtMost},
        fails, holds, sees,
    },
    layers::state,
};

/// Two blocks whose copies hang on one chain, and one that shares neither chain nor lock.
const BLOCK: u64 = 5;
const SAME_CHAIN: u64 = 5 + 2 * 32;
const APART: u64 = 5 + 32;

struct World {
    index: Index,
    layers: Layers,
}

fn id(epoch: u64) -> Id {
    Id(u128::from(epoch).to_be_bytes())
}

/// An index of `slots` slots after cuts with a snapshot at each of the first epochs.
fn world(slots: u32, snapshots: u64) -> Arc<World> {
    let state = state(slots);
    let layers = Layers::open(Arc::clone(&state));
    let index = Index::open(Arc::clone(&state), slots).expect("a model has memory");
    for epoch in 1..=snapshots {
        let added = layers.add(id(epoch), Epoch(epoch), 0, &index);
        added.expect("there is room");
        state.commit_epoch(Epoch(epoch + 1));
    }
    Arc::new(World { index, layers })
}

impl World {
    fn newest(&self) -> Layer {
        self.layers.newest().expect("there is a snapshot")
    }

    /// Publishes a copy whose checksum is the block's number.
    fn publish(&self, block: u64) {
        let run = self.index.take(1).expect("a slot is free");
        self.publish_in(run.first, block);
    }

    fn publish_in(&self, slot: u32, block: u64) {
        let checksum = u32::try_from(block).expect("it is small");
        self.index.publish(slot, block, self.newest(), checksum);
    }

    /// Whether a view has a copy; it is the right one.
    fn finds(&self, block: u64, from: Epoch) -> bool {
        let found = self.index.find(block, from);
        if let Some(found) = found {
            assert_eq!(u64::from(found.checksum), block, "another block's copy");
        }
        found.is_some()
    }
}

fn copies_on_one_chain() {
    let world = world(2, 1);
    let writers = [BLOCK, SAME_CHAIN].map(|block| {
        let world = Arc::clone(&world);
        thread::spawn(move || world.publish(block))
    });
    world.finds(BLOCK, Epoch(1));
    for writer in writers {
        writer.join().expect("it did not panic");
    }
    for block in [BLOCK, SAME_CHAIN] {
        assert!(world.finds(block, Epoch(1)), "block {block} is lost");
    }
    assert_eq!(
        (world.index.used(), world.index.used_by(world.newest())),
        (2, 2)
    );
}

#[test]
fn copies_on_one_chain_are_all_found() {
    holds(AtMost(3), copies_on_one_chain);
    sees(Mistake::Open, "is lost", AtMost(3), copies_on_one_chain);
}

fn copies_of_one_layer() {
    let world = world(2, 1);
    let other = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.publish(APART))
    };
    world.publish(BLOCK);
    other.join().expect("it did not panic");
    assert_eq!(world.index.used_by(world.newest()), 2, "slots of the layer");
}

#[test]
fn a_layers_slots_are_counted() {
    holds(All, copies_of_one_layer);
    sees(
        Mistake::Torn,
        "slots of the layer",
        All,
        copies_of_one_layer,
    );
}

/// A snapshot ends; its slot goes to another block while both are looked for.
fn a_slot_changes_hands() {
    let world = world(1, 2);
    // The only slot holds a copy that the first snapshot alone needs.
    let first = world.index.take(1).expect("a slot is free");
    let oldest = world.layers.all()[0].0;
    world.index.publish(first.first, BLOCK, oldest, 5);
    world.layers.end(id(1), Fate::Released);
    let sweeper = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            world.index.sweep(&world.layers.live(), 8);
            if let Some(run) = world.index.take(1) {
                world.publish_in(run.first, SAME_CHAIN);
            }
        })
    };
    assert!(!world.finds(BLOCK, Epoch(2)), "a copy from before its time");
    world.finds(BLOCK, Epoch(1));
    world.finds(SAME_CHAIN, Epoch(2));
    sweeper.join().expect("it did not panic");
    assert!(world.finds(SAME_CHAIN, Epoch(2)), "the new copy is lost");
    assert_eq!(world.index.used_by(oldest), 0, "slots of the ended layer");
}

#[test]
fn a_slot_that_changes_hands_is_never_taken_for_the_old_copy() {
    holds(AtMost(3), a_slot_changes_hands);
    sees(Mistake::Open, "", AtMost(3), a_slot_changes_hands);
}

/// Two who need slots, one of whom gives its own back.
fn slots_are_taken(kept: bool) {
    let world = world(2, 1);
    let owners: Arc<[AtomicU32; 2]> = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let other = {
        let (world, owners) = (Arc::clone(&world), Arc::clone(&owners));
        thread::spawn(move || {
            let Some(run) = world.index.take(1) else {
                return;
            };
            let owner = &owners[run.first as usize];
            assert_eq!(owner.fetch_add(1, Relaxed), 0, "two owners of a slot");
            if !kept {
                owner.store(0, Relaxed);
            }
            world.index.give_back(run);
        })
    };
    for _ in 0..2 {
        if let Some(run) = world.index.take(1) {
            let owner = &owners[run.first as usize];
            assert_eq!(owner.fetch_add(1, Relaxed), 0, "two owners of a slot");
        }
    }
    other.join().expect("it did not panic");
}

#[test]
fn a_slot_has_one_owner() {
    holds(All, || slots_are_taken(false));
    // What was given back and is used all the same.
    fails("two owners", All, || slots_are_taken(true));
}

/// I2 and I3: the old data of a block is published before the block is overwritten, and a view
/// asks the index after it has read.
fn a_view_beside_a_writer(preserve_first: bool, ask_after: bool) {
    const OLD: u32 = 5;
    const NEW: u32 = 77;
    let world = world(1, 1);
    let origin = Arc::new(AtomicU32::new(OLD));
    let writer = {
        let (world, origin) = (Arc::clone(&world), Arc::clone(&origin));
        thread::spawn(move || {
            if preserve_first {
                world.publish(BLOCK);
            }
            origin.store(NEW, Release);
            if !preserve_first {
                world.publish(BLOCK);
            }
        })
    };
    let asked_before = world.index.find(BLOCK, Epoch(1));
    let live = origin.load(Acquire);
    let found = if ask_after {
        world.index.find(BLOCK, Epoch(1))
    } else {
        asked_before
    };
    let read = found.map_or(live, |found| found.checksum);
    assert_eq!(read, OLD, "the view read what was written after its cut");
    writer.join().expect("it did not panic");
}

#[test]
fn a_view_reads_what_was_there_at_its_cut() {
    holds(All, || a_view_beside_a_writer(true, true));
    fails("after its cut", All, || a_view_beside_a_writer(false, true));
    fails("after its cut", All, || a_view_beside_a_writer(true, false));
}

/// The write path beside a cut's table entry: who preserves for the new snapshot is found by it.
fn a_copy_for_a_new_snapshot() {
    let world = world(1, 0);
    let writer = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            let Some(layer) = world.layers.newest() else {
                return;
            };
            let run = world.index.take(1).expect("a slot is free");
            world.index.publish(run.first, BLOCK, layer, 5);
            assert!(world.finds(BLOCK, Epoch(1)), "its epoch is not known");
        })
    };
    let added = world.layers.add(id(1), Epoch(1), 0, &world.index);
    added.expect("there is room");
    writer.join().expect("it did not panic");
}

#[test]
fn a_copy_for_a_new_snapshot_has_its_epoch() {
    holds(AtMost(3), a_copy_for_a_new_snapshot);
    sees(
        Mistake::Relaxed,
        "its epoch",
        AtMost(3),
        a_copy_for_a_new_snapshot,
    );
}
