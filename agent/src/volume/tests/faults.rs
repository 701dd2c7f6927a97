//! A full store, failing disks, foreign areas, expired holds.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tidemark_store::units::{Epoch, Id};

use super::world::{SimClock, SimVolume, World, run};
use crate::{
    request::{Errno, Request},
    volume::{
        ChangeError, Clock, Continuity, CutError, EventKind, Fate, FullPolicy, OpenError,
        ReleaseError, ViewError, Volume,
    },
};

const CAPACITY: usize = 4096 * 256;
const HOLD: Duration = Duration::from_secs(1);

fn snapshot(volume: &SimVolume, byte: u8) -> Id {
    let token = run(volume.hold(HOLD)).unwrap();
    volume.cut(token, Some(Id([byte; 16]))).unwrap();
    Id([byte; 16])
}

fn write(volume: &SimVolume, block: u64, fill: u8) -> Result<(), Errno> {
    run(volume.serve(Request::Write {
        offset: block * 4096,
        from: &[fill; 4096],
        fua: false,
    }))
}

fn read(volume: &SimVolume, id: Id, block: u64) -> Result<u8, ViewError> {
    let mut into = [0xEE; 4096];
    run(volume.read_view(id, block * 4096, &mut into))?;
    assert!(into.iter().all(|byte| *byte == into[0]));
    Ok(into[0])
}

fn kinds(volume: &SimVolume) -> Vec<EventKind> {
    volume
        .wait_events(0, Duration::ZERO)
        .0
        .iter()
        .map(|event| event.kind)
        .collect()
}

#[test]
fn a_full_store_drops_the_oldest_snapshot_and_never_fails_the_host() {
    let world = World::new(CAPACITY, 64);
    let volume = world.open();
    let first = snapshot(&volume, 1);
    for block in 0..40 {
        write(&volume, block, 1).unwrap();
    }
    let second = snapshot(&volume, 2);
    for block in 100..130 {
        write(&volume, block, 2).unwrap();
    }
    assert_eq!(read(&volume, first, 0), Err(ViewError::Overflowed(first)));
    assert_eq!(read(&volume, second, 0), Ok(1));
    assert_eq!(read(&volume, second, 129), Ok(0));
    let kinds = kinds(&volume);
    let filling = kinds
        .iter()
        .position(|kind| *kind == EventKind::StoreFilling)
        .unwrap();
    let overflowed = kinds
        .iter()
        .position(|kind| *kind == EventKind::SnapshotOverflowed)
        .unwrap();
    assert!(filling < overflowed, "the warning comes before: {kinds:?}");
    for block in 0..256 {
        write(&volume, block, 3).unwrap();
    }
    assert_eq!(read(&volume, second, 0), Err(ViewError::Overflowed(second)));
    volume.housekeep();
    assert_eq!(volume.status().store_used, 0);
    assert!(world.origin.bytes().iter().all(|byte| *byte == 3));
}

#[test]
fn a_slow_store_delays_each_writer_at_most_by_its_bound() {
    let bound = Duration::from_millis(40);
    let mut world = World::new(CAPACITY, 64);
    world.policy = FullPolicy::Slow(bound);
    let volume = world.open();
    let id = snapshot(&volume, 1);
    let mut delayed = 0;
    for block in 0..80 {
        write(&volume, block, 1).unwrap();
        let now = volume.status().counters.delayed_us;
        // One share of the bound on the way in, one whole wait when nothing is left; each look
        // at the clock takes 0.1 ms here.
        assert!(
            now - delayed <= 2 * 40_000 + 2_000,
            "block {block}: {} us",
            now - delayed
        );
        delayed = now;
    }
    assert!(delayed > 0);
    assert_eq!(read(&volume, id, 0), Err(ViewError::Overflowed(id)));
}

#[test]
fn space_that_a_release_frees_serves_a_full_store() {
    let world = World::new(CAPACITY, 64);
    let volume = world.open();
    let first = snapshot(&volume, 1);
    for block in 0..60 {
        write(&volume, block, 1).unwrap();
    }
    volume.release(first).unwrap();
    let second = snapshot(&volume, 2);
    for block in 60..120 {
        write(&volume, block, 2).unwrap();
    }
    assert_eq!(read(&volume, second, 60), Ok(0));
    assert_eq!(
        volume.release(Id([9; 16])),
        Err(ReleaseError::SnapshotNotFound(Id([9; 16])))
    );
    assert_eq!(read(&volume, first, 0), Err(ViewError::Released(first)));
}

#[test]
fn a_failing_store_loses_the_snapshot_and_not_the_write() {
    let world = World::new(CAPACITY, 64);
    let volume = world.open();
    let id = snapshot(&volume, 1);
    world.area.fail_writes.store(true, Relaxed);
    write(&volume, 3, 7).unwrap();
    assert_eq!(read(&volume, id, 0), Err(ViewError::Lost(id)));
    assert_eq!(kinds(&volume), [EventKind::SnapshotLost]);
    assert_eq!(world.origin.bytes()[3 * 4096], 7);
}

#[test]
fn a_failing_origin_answers_with_its_own_error() {
    let world = World::new(CAPACITY, 64);
    let volume = world.open();
    let id = snapshot(&volume, 1);
    world.origin.fail_writes.store(true, Relaxed);
    assert_eq!(write(&volume, 3, 7), Err(Errno::EIO));
    assert_eq!(read(&volume, id, 3), Ok(0), "the old data was kept before");
    world.origin.fail_reads.store(true, Relaxed);
    assert_eq!(read(&volume, id, 4), Err(ViewError::Origin(Errno::EIO)));
    // Old data that cannot be read cannot be kept: the view is lost, the host's write is not.
    world.origin.fail_writes.store(false, Relaxed);
    write(&volume, 4, 7).unwrap();
    assert_eq!(read(&volume, id, 3), Err(ViewError::Lost(id)));
}

#[test]
fn damage_in_the_store_is_seen_and_never_read() {
    let world = World::new(CAPACITY, 64);
    let volume = world.open();
    let id = snapshot(&volume, 1);
    write(&volume, 3, 7).unwrap();
    world.area.bytes()[(1 << 20) + 9] ^= 1;
    assert_eq!(read(&volume, id, 3), Err(ViewError::Lost(id)));
    let snapshots = volume.status().snapshots;
    assert_eq!(snapshots[0].fate, Fate::Lost);
}

#[test]
fn requests_outside_the_volume_are_refused_whole() {
    let world = World::new(CAPACITY, 64);
    let volume = world.open();
    let end = CAPACITY as u64;
    let late = Request::Write {
        offset: end - 1,
        from: &[1; 2],
        fua: false,
    };
    assert_eq!(run(volume.serve(late)), Err(Errno::EINVAL));
    let far = Request::Read {
        offset: u64::MAX,
        into: &mut [0],
    };
    assert_eq!(run(volume.serve(far)), Err(Errno::EINVAL));
    assert_eq!(volume.status().changed_bytes, 0);
    let id = snapshot(&volume, 1);
    assert!(matches!(
        run(volume.read_view(id, end, &mut [0])),
        Err(ViewError::OutOfRange(_))
    ));
    let unknown = Id([7; 16]);
    assert_eq!(read(&volume, unknown, 0), Err(ViewError::NotFound(unknown)));
}

#[test]
fn a_hold_that_ran_out_cuts_nothing_and_lets_writers_go_on() {
    let world = World::new(CAPACITY, 64);
    let volume = world.open();
    let token = run(volume.hold(HOLD)).unwrap();
    assert_eq!(run(volume.hold(HOLD)), Err(CutError::Busy));
    world.clock.0.fetch_add(2_000_000, Relaxed);
    volume.housekeep();
    write(&volume, 0, 1).unwrap();
    assert_eq!(volume.cut(token, None), Err(CutError::TimedOut));
    assert!(volume.status().checkpoints.is_empty());
    let token = run(volume.hold(HOLD)).unwrap();
    volume.unhold(token);
    write(&volume, 0, 1).unwrap();
}

/// A host whose clock was set back by an hour.
struct SetBack(SimClock);

impl Clock for SetBack {
    fn now_us(&self) -> u64 {
        u64::MAX / 2 - self.elapsed_us() * 1000
    }

    fn elapsed_us(&self) -> u64 {
        self.0.elapsed_us()
    }

    async fn sleep(&self, time: Duration) {
        self.0.sleep(time).await;
    }
}

#[test]
fn a_clock_that_is_set_back_makes_no_hold_longer() {
    let world = World::new(CAPACITY, 64);
    let options = world.options();
    let options = crate::volume::Options {
        clock: SetBack(world.clock.clone()),
        origin: options.origin,
        area: options.area,
        geometry: options.geometry,
        state_dir: options.state_dir,
        volume_id: options.volume_id,
        policy: options.policy,
        continuity: options.continuity,
        durable: options.durable,
        durable_snapshots: false,
        distrust: options.distrust,
        max_active_regions: options.max_active_regions,
    };
    let volume = run(Volume::open(options)).unwrap();
    run(volume.hold(HOLD)).unwrap();
    world.clock.0.fetch_add(2_000_000, Relaxed);
    volume.housekeep();
    let token = run(volume.hold(HOLD)).expect("the first one's time ran out");
    volume.unhold(token);
}

#[test]
fn a_new_lineage_refuses_older_checkpoints_with_the_cause() {
    let world = World::new(CAPACITY, 64);
    let volume = world.open();
    let id = snapshot(&volume, 1);
    let before = volume.status();
    write(&volume, 5, 1).unwrap();
    run(volume.reset_tracking("the origin was restored")).unwrap();
    let asked = volume.changes(
        Some(before.lineage),
        before.checkpoints[0].epoch,
        None,
        0,
        10,
    );
    let cause = "the origin was restored".to_owned();
    assert_eq!(asked, Err(ChangeError::TrackingReset { cause }));
    let epoch = before.checkpoints[0].epoch;
    assert_eq!(
        volume.changes(None, epoch, None, 0, 10),
        Err(ChangeError::CheckpointGone(epoch))
    );
    assert_eq!(read(&volume, id, 5), Ok(0), "the snapshot itself stays");
    snapshot(&volume, 2);
    write(&volume, 6, 1).unwrap();
    let newest = volume.status().checkpoints[0].epoch;
    assert_eq!(
        volume
            .changes(None, newest, None, 0, 10)
            .unwrap()
            .extents
            .len(),
        1
    );
    drop(volume);
    assert_eq!(
        world.open().status().lineage_cause,
        "the origin was restored"
    );
}

#[test]
fn an_origin_that_others_wrote_to_is_not_trusted() {
    let broken = Continuity::Broken("nobody looked".to_owned());
    for continuity in [broken, Continuity::ModifiedAt(u64::MAX)] {
        let world = World::new(CAPACITY, 64);
        let volume = world.open();
        let id = snapshot(&volume, 1);
        let lineage = volume.status().lineage;
        drop(volume);
        let mut options = world.options();
        options.continuity = continuity;
        let volume = run(Volume::open(options)).unwrap();
        assert_ne!(volume.status().lineage, lineage);
        assert_eq!(read(&volume, id, 0), Err(ViewError::Lost(id)));
        assert!(volume.status().checkpoints.is_empty());
    }
}

#[test]
fn a_foreign_or_damaged_area_is_refused_and_left_alone() {
    let world = World::new(CAPACITY, 64);
    world.open();
    let before = world.area.bytes().clone();
    let mut other = world.options();
    other.volume_id = Id([6; 16]);
    assert!(
        matches!(run(Volume::open(other)), Err(OpenError::AreaCorrupt(why)) if why.contains("another"))
    );
    world.area.bytes()[..8192].fill(0xAB);
    assert!(matches!(
        run(Volume::open(world.options())),
        Err(OpenError::AreaCorrupt(_))
    ));
    assert!(world.area.bytes()[..8192].iter().all(|byte| *byte == 0xAB));
    *world.area.bytes() = before;
    run(Volume::open(world.options())).unwrap();
    let small = World::new(CAPACITY, 63);
    assert!(matches!(
        run(Volume::open(small.options())),
        Err(OpenError::AreaTooSmall { .. })
    ));
}

#[test]
fn an_area_that_was_given_up_serves_another_volume() {
    let world = World::new(CAPACITY, 64);
    let volume = world.open();
    let options = world.options();
    run(volume.retire(&options.state_dir)).unwrap();
    std::fs::create_dir(&options.state_dir).unwrap();
    let other = Id([6; 16]);
    let volume = run(Volume::open(crate::volume::Options {
        volume_id: other,
        ..options
    }))
    .unwrap();
    assert_eq!(volume.status().epoch, Epoch::FIRST);
}
