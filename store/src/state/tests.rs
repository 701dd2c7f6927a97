//! What a successor reads.

use super::*;

fn identity() -> Identity {
    Identity {
        volume: Id([1; 16]),
        area: Id([2; 16]),
        geometry: Geometry::new(1 << 20, 4096).unwrap(),
        slots: 77,
    }
}

fn lineage(byte: u8, cause: &str) -> Lineage {
    Lineage {
        id: Id([byte; 16]),
        cause: cause.to_owned(),
        since_us: u64::from(byte),
    }
}

#[test]
fn a_successor_reads_what_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let state = State::create(&path, identity(), &lineage(9, "attached"), Epoch(1)).unwrap();
    state.commit_epoch(Epoch(5));
    let entry = SnapshotEntry {
        id: Id([8; 16]),
        epoch: Epoch(4),
        created_us: 99,
        fate: Fate::Live,
        settled: true,
    };
    state.set_snapshot(1023, &entry);
    assert!(state.add_checkpoint(CheckpointEntry {
        epoch: Epoch(4),
        created_us: 99
    }));
    state.slot_words()[76].store(u64::MAX, Release);
    state.checksums()[76].store(u32::MAX, Release);
    drop(state);
    let state = State::open(&path, identity()).unwrap().unwrap();
    assert_eq!(state.epoch(), Epoch(5));
    assert_eq!(state.lineage(), lineage(9, "attached"));
    assert_eq!(state.snapshot(1023), Some(entry));
    assert_eq!(state.snapshot(0), None);
    assert_eq!(state.checkpoints().len(), 1);
    assert!(state.remove_checkpoint(Epoch(4)) && state.checkpoints().is_empty());
    assert!(!state.remove_checkpoint(Epoch(0)), "no epoch is 0");
    let long = "a reason that is too long ".repeat(20);
    state.commit_lineage(&lineage(10, &long), Epoch(6));
    assert_eq!(
        (state.epoch(), state.lineage().id),
        (Epoch(6), Id([10; 16]))
    );
    assert_eq!(state.lineage().cause, long[..MAX_CAUSE_BYTES]);
}

#[test]
fn an_epoch_that_no_volume_reaches_is_not_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let state = State::create(&path, identity(), &lineage(9, "attached"), Epoch(1)).unwrap();
    for (epoch, taken) in [(0, false), (7, true), (u64::MAX >> 1, false)] {
        state.commit_epoch(Epoch(epoch));
        let opened = State::open(&path, identity()).unwrap();
        assert_eq!(opened.is_some(), taken, "epoch {epoch}");
    }
}

#[test]
fn state_of_another_volume_is_not_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    assert!(State::open(&path, identity()).unwrap().is_none());
    State::create(&path, identity(), &lineage(9, "attached"), Epoch(1)).unwrap();
    for other in [
        Identity {
            volume: Id([3; 16]),
            ..identity()
        },
        Identity {
            area: Id([3; 16]),
            ..identity()
        },
        Identity {
            geometry: Geometry::new(1 << 20, 8192).unwrap(),
            ..identity()
        },
        Identity {
            slots: 78,
            ..identity()
        },
    ] {
        assert!(State::open(&path, other).unwrap().is_none(), "{other:?}");
    }
}
