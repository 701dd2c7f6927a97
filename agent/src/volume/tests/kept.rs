//! Snapshots that outlive the host.

use std::{cell::RefCell, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use tidemark_store::{area::Layout, units::Id};

use super::world::{Random, SimDisk, SimVolume, Tasks, World, run};
use crate::{
    request::Request,
    volume::{Continuity, Fate, ViewError},
};

const BLOCK: usize = 4096;
const CAPACITY: usize = 3 << 20;
const SNAPSHOT: Id = Id([1; 16]);

fn world(slots: usize) -> World {
    let mut world = World::new(CAPACITY, slots);
    let layout = Layout::of(world.geometry);
    let tables = layout.min_capacity(true) - layout.min_capacity(false);
    let bytes = world.area.bytes().len() + usize::try_from(tables).unwrap();
    world.area = SimDisk::new(bytes);
    world.durable = true;
    world.durable_snapshots = true;
    world.continuity = Continuity::Unbroken;
    world
}

async fn write(volume: &SimVolume, block: u64, byte: u8, count: usize) {
    let data = vec![byte; count * BLOCK];
    let request = Request::Write {
        offset: block * BLOCK as u64,
        from: &data,
        fua: false,
    };
    volume.serve(request).await.expect("the host sees no error");
}

async fn snapshot(volume: &SimVolume, id: Id) {
    let hold = volume.hold(Duration::from_secs(3600)).await;
    let hold = hold.expect("writers drain");
    volume.cut(hold, Some(id)).expect("cut");
    volume.settle().await;
}

/// A life in which `job` is done.
fn live<'a>(volume: &'a SimVolume, job: impl Future<Output = ()> + 'a) {
    let random = Random::new(11);
    let mut tasks = Tasks::default();
    tasks.spawn(volume.keep_journal());
    let done = Rc::new(RefCell::new(false));
    let told = Rc::clone(&done);
    tasks.spawn(async move {
        job.await;
        *told.borrow_mut() = true;
    });
    for _ in 0..2_000_000 {
        if *done.borrow() {
            return;
        }
        tasks.step(&random);
    }
    panic!("it never ends");
}

fn view(volume: &SimVolume, id: Id) -> Result<Vec<u8>, ViewError> {
    let mut into = vec![0; CAPACITY];
    run(volume.read_view(id, 0, &mut into)).map(|()| into)
}

fn fate(volume: &SimVolume, id: Id) -> Option<Fate> {
    let all = volume.status().snapshots.into_iter();
    all.into_iter().find(|s| s.id == id).map(|s| s.fate)
}

/// A snapshot, half of which was overwritten since; and the bytes of its moment.
fn with_snapshot(world: &World) -> Vec<u8> {
    let volume = world.open();
    let frozen = Rc::new(RefCell::new(Vec::new()));
    live(&volume, async {
        write(&volume, 0, 1, 700).await;
        snapshot(&volume, SNAPSHOT).await;
        *frozen.borrow_mut() = world.origin.bytes().clone();
        write(&volume, 3, 2, 300).await;
        write(&volume, 500, 3, 1).await;
    });
    assert!(volume.status().keeps_snapshots);
    frozen.take()
}

#[test]
fn a_snapshot_outlives_the_host_again_and_again() {
    let world = world(2000);
    let frozen = with_snapshot(&world);
    let second = Id([2; 16]);
    for turn in 0..3 {
        world.forget_state();
        let volume = world.open();
        assert_eq!(fate(&volume, SNAPSHOT), Some(Fate::Live), "{turn}");
        assert!(view(&volume, SNAPSHOT).unwrap() == frozen, "{turn}");
        live(&volume, async {
            // Overwritten again, and for the first time.
            write(&volume, 3, 40 + turn, 10).await;
            write(&volume, 600 + u64::from(turn), 5, 1).await;
            if turn == 1 {
                snapshot(&volume, second).await;
                write(&volume, 0, 9, 100).await;
            }
        });
        assert!(view(&volume, SNAPSHOT).unwrap() == frozen, "{turn}");
    }
    world.forget_state();
    let volume = world.open();
    // Only what the second one needs is left when the first is released.
    live(&volume, async {
        volume.release(SNAPSHOT).unwrap();
        volume.ends_told().await;
    });
    volume.housekeep();
    let kept = volume.status().store_used;
    assert_eq!(kept, 101 * BLOCK as u64);
    drop(volume);
    world.forget_state();
    let volume = world.open();
    assert_eq!(fate(&volume, SNAPSHOT), Some(Fate::Released));
    assert_eq!(fate(&volume, second), Some(Fate::Live));
    volume.housekeep();
    assert_eq!(volume.status().store_used, kept);
}

#[test]
fn an_end_counts_for_readers_at_once_and_for_writers_when_it_is_told() {
    let world = world(2000);
    with_snapshot(&world);
    let volume = world.open();
    volume.release(SNAPSHOT).unwrap();
    assert_eq!(view(&volume, SNAPSHOT), Err(ViewError::Released(SNAPSHOT)));
    volume.housekeep();
    let used = volume.status().store_used;
    assert!(
        used > 0,
        "slots were given away that a power cut would need"
    );
    drop(volume);
    // Nobody was told that it is released.
    let volume = world.open();
    assert_eq!(fate(&volume, SNAPSHOT), Some(Fate::Live));
    live(&volume, async {
        volume.release(SNAPSHOT).unwrap();
        volume.ends_told().await;
    });
    volume.housekeep();
    assert_eq!(volume.status().store_used, 0);
}

#[test]
fn damage_to_the_table_ends_every_snapshot_and_is_mended() {
    let world = world(2000);
    with_snapshot(&world);
    let table = {
        let volume = world.open();
        Layout::of(world.geometry).table(volume.superblock.slots)
    };
    world.forget_state();
    world.area.bytes()[usize::try_from(table.offset).unwrap() + 100] ^= 1;
    let second = Id([2; 16]);
    let frozen = Rc::new(RefCell::new(Vec::new()));
    {
        let volume = world.open();
        assert_eq!(view(&volume, SNAPSHOT), Err(ViewError::Lost(SNAPSHOT)));
        assert_eq!(volume.status().checkpoints.len(), 1, "tracking goes on");
        live(&volume, async {
            snapshot(&volume, second).await;
            *frozen.borrow_mut() = world.origin.bytes().clone();
            write(&volume, 0, 7, 700).await;
        });
    }
    world.forget_state();
    let volume = world.open();
    assert_eq!(fate(&volume, SNAPSHOT), Some(Fate::Lost));
    assert!(view(&volume, second).unwrap() == frozen.take());
}

#[test]
fn a_full_store_drops_one_snapshot_and_not_all() {
    let world = world(300);
    let second = Id([2; 16]);
    let volume = world.open();
    live(&volume, async {
        snapshot(&volume, SNAPSHOT).await;
        write(&volume, 0, 1, 200).await;
        snapshot(&volume, second).await;
        write(&volume, 0, 2, 200).await;
    });
    assert_eq!(fate(&volume, SNAPSHOT), Some(Fate::Overflowed));
    assert_eq!(fate(&volume, second), Some(Fate::Live));
    drop(volume);
    world.forget_state();
    let volume = world.open();
    assert_eq!(fate(&volume, SNAPSHOT), Some(Fate::Overflowed));
    assert_eq!(fate(&volume, second), Some(Fate::Live));
}

#[test]
fn when_the_area_fails_the_host_goes_on_and_snapshots_are_lost_with_it() {
    let world = world(2000);
    with_snapshot(&world);
    let volume = world.open();
    live(&volume, async {
        write(&volume, 0, 8, 1).await;
        world.area.fail_writes.store(true, Relaxed);
        write(&volume, 1, 8, 20).await;
    });
    assert_eq!(fate(&volume, SNAPSHOT), Some(Fate::Lost));
    drop(volume);
    world.area.fail_writes.store(false, Relaxed);
    // The area still tells of it: the control plane knows not to believe that.
    world.forget_state();
    let mut options = world.options();
    options.distrust = Some("the area failed".to_owned());
    let volume = run(super::super::Volume::open(options)).unwrap();
    assert_eq!(fate(&volume, SNAPSHOT), None);
    assert_eq!(volume.status().lineage_cause, "the area failed");
}
