use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proptest::prelude::*;

use super::*;
use crate::{
    cow::Layers,
    state::{Fate, Identity, Lineage},
    units::{Geometry, Id},
};

const SLOTS: u32 = 48;

struct World {
    state: Arc<State>,
    index: Index,
    layers: Layers,
}

fn identity() -> Identity {
    Identity {
        volume: Id([1; 16]),
        area: Id([2; 16]),
        geometry: Geometry::new(1 << 20, 4096).unwrap(),
        slots: SLOTS,
    }
}

fn create(path: &Path) -> World {
    let lineage = Lineage {
        id: Id([3; 16]),
        cause: "attached".into(),
        since_us: 0,
    };
    drop(State::create(path, identity(), &lineage, Epoch::FIRST).unwrap());
    open(path)
}

fn open(path: &Path) -> World {
    let state = Arc::new(State::open(path, identity()).unwrap().unwrap());
    let layers = Layers::open(Arc::clone(&state));
    let index = Index::open(Arc::clone(&state), SLOTS).unwrap();
    World {
        state,
        index,
        layers,
    }
}

fn id_of(epoch: Epoch) -> Id {
    Id(u128::from(epoch.0).to_be_bytes())
}

#[derive(Clone, Debug)]
enum Step {
    Cut,
    Write(u64),
    Release(prop::sample::Index),
    Sweep(u32),
    Die,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Cut),
        8 => (0_u64..12).prop_map(Step::Write),
        2 => any::<prop::sample::Index>().prop_map(Step::Release),
        2 => (1_u32..64).prop_map(Step::Sweep),
        1 => Just(Step::Die),
    ]
}

/// What each live view must read, by block: the version of the block at its cut.
type Frozen = BTreeMap<Epoch, BTreeMap<u64, u32>>;

fn check_views(world: &World, frozen: &Frozen, origin: &BTreeMap<u64, u32>) {
    for (epoch, versions) in frozen {
        for block in 0..12 {
            let read = match world.index.find(block, *epoch) {
                Some(found) => found.checksum,
                None => origin.get(&block).copied().unwrap_or(0),
            };
            let expected = versions.get(&block).copied().unwrap_or(0);
            assert_eq!(read, expected, "block {block} of the view of epoch {epoch}");
        }
    }
}

proptest! {
    /// Versions of blocks stand in for their bytes, and travel as checksums.
    #[test]
    fn every_view_reads_its_frozen_copy(steps in prop::collection::vec(any_step(), 1..120)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut world = create(&path);
        let mut origin = BTreeMap::new();
        let mut frozen = Frozen::new();
        let mut version = 0;
        for step in steps {
            match step {
                Step::Cut => {
                    let epoch = world.state.epoch();
                    if world.layers.add(id_of(epoch), epoch, 0, &world.index).is_ok() {
                        frozen.insert(epoch, origin.clone());
                    }
                    world.state.commit_epoch(epoch.next());
                }
                Step::Write(block) => {
                    if let Some(layer) = world.layers.newest() {
                        let epoch = world.layers.epoch_of(layer).unwrap();
                        if world.index.find(block, epoch).is_none() {
                            let Some(run) = world.index.take(1) else { continue };
                            let old = origin.get(&block).copied().unwrap_or(0);
                            world.index.publish(run.first, block, layer, old);
                        }
                    }
                    version += 1;
                    origin.insert(block, version);
                }
                Step::Release(which) => {
                    let live: Vec<Epoch> = frozen.keys().copied().collect();
                    if !live.is_empty() {
                        let epoch = *which.get(&live);
                        prop_assert!(world.layers.end(id_of(epoch), Fate::Released));
                        frozen.remove(&epoch);
                    }
                }
                Step::Sweep(budget) => {
                    world.index.sweep(&world.layers.live(), budget);
                }
                Step::Die => world = open(&path),
            }
            check_views(&world, &frozen, &origin);
        }
        // What is left is what is needed, and nothing once no snapshot is.
        let live = world.layers.live();
        prop_assert_eq!(&live, &frozen.keys().copied().collect::<Vec<_>>());
        while !world.index.sweep(&live, 7).finished {}
        while !world.index.sweep(&live, 7).finished {}
        check_views(&world, &frozen, &origin);
        for epoch in frozen.keys() {
            world.layers.end(id_of(*epoch), Fate::Released);
        }
        while !world.index.sweep(&[], 7).finished {}
        while !world.index.sweep(&[], 7).finished {}
        prop_assert_eq!(world.index.used(), 0);
        let mut slots = BTreeSet::new();
        while let Some(run) = world.index.take(5) {
            for slot in run.first..run.first + run.count {
                prop_assert!(slots.insert(slot), "slot {} given twice", slot);
            }
        }
        prop_assert_eq!(slots.len(), SLOTS as usize);
    }
}

#[test]
fn a_slot_taken_but_not_published_is_free_after_a_death() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let world = create(&path);
    assert_eq!(
        world.index.take(10),
        Some(SlotRun {
            first: 0,
            count: 10
        })
    );
    assert_eq!(open(&path).index.used(), 0);
}

#[test]
fn a_damaged_mark_hides_no_slot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let world = create(&path);
    let epoch = world.state.epoch();
    let added = world.layers.add(id_of(epoch), epoch, 0, &world.index);
    assert!(added.is_ok());
    world.state.commit_epoch(epoch.next());
    let slot = world.index.take(1).unwrap().first;
    let layer = world.layers.newest().unwrap();
    world.index.publish(slot, 3, layer, 9);
    world.state.fresh().store(u64::MAX, Release);
    let world = open(&path);
    assert!(world.index.find(3, epoch).is_some());
    assert_eq!(world.index.used(), 1);
}

#[test]
fn a_snapshot_whose_cut_did_not_happen_is_gone_after_a_death() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let world = create(&path);
    world
        .layers
        .add(Id([9; 16]), world.state.epoch(), 0, &world.index)
        .unwrap();
    assert!(open(&path).layers.all().is_empty());
}

#[test]
fn the_table_tells_the_fate_until_its_place_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let world = create(&dir.path().join("state"));
    for epoch in 1..=MAX_SNAPSHOTS as u64 {
        world
            .layers
            .add(id_of(Epoch(epoch)), Epoch(epoch), 0, &world.index)
            .unwrap();
    }
    let next = id_of(Epoch(5000));
    let full = world.layers.add(next, Epoch(5000), 0, &world.index);
    assert_eq!(full, Err(crate::cow::LayersError::Full));
    assert!(world.layers.end(id_of(Epoch(7)), Fate::Overflowed));
    assert_eq!(
        world.layers.get(id_of(Epoch(7))).unwrap().fate,
        Fate::Overflowed
    );
    world
        .layers
        .add(next, Epoch(5000), 0, &world.index)
        .unwrap();
    assert!(world.layers.get(id_of(Epoch(7))).is_none());
    assert!(!world.layers.end(id_of(Epoch(7)), Fate::Lost));
}
