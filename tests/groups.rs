//! Volumes of a group are cut at one moment, so that what was written in order reads in order.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tidemark_proto::v1::{CreateGroupRequest, CreateSnapshotRequest, Group, Snapshot};
use tidemark_tests::{Api, Daemon, MIB};

const CUTS: usize = 30;
const SECTOR: usize = 4096;

#[test]
fn a_group_cut_never_shows_an_effect_without_its_cause() {
    let daemon = Daemon::start();
    let a = daemon.attach_new("a", 16 * MIB, 32 * MIB);
    let b = daemon.attach_new("b", 16 * MIB + 512, 32 * MIB);
    let api = daemon.api();
    create_group(&api);

    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let stop = Arc::clone(&stop);
        let (a, b) = (open(&a.device_path), open(&b.device_path));
        std::thread::spawn(move || {
            let mut counter = 0;
            while !stop.load(Ordering::Relaxed) {
                counter += 1;
                write_counter(&a, counter);
                write_counter(&b, counter);
            }
            counter
        })
    };

    let mut seen = Vec::new();
    for _ in 0..CUTS {
        let snapshots = cut(&api);
        assert_eq!(snapshots.len(), 2);
        assert_eq!(
            snapshots[0].set_id, snapshots[1].set_id,
            "one call, one set"
        );
        let [cause, effect] = ["a", "b"].map(|name| counter_of(&snapshots, name));
        assert!(effect <= cause, "b shows {effect} while a shows {cause}");
        assert!(
            cause <= effect + 1,
            "a shows {cause} while b shows {effect}"
        );
        seen.push(cause);
        for snapshot in &snapshots {
            api.release(&snapshot.id).expect("a release");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let last = writer.join().expect("every write went through");
    assert!(seen.is_sorted() && seen[CUTS - 1] <= last, "{seen:?}");
    assert!(seen[CUTS - 1] > seen[0], "the writer was busy: {seen:?}");
}

fn create_group(api: &Api) {
    let group = Group {
        name: "pair".into(),
        volumes: vec!["a".into(), "b".into()],
    };
    let request = CreateGroupRequest { group: Some(group) };
    api.call(api.groups().create_group(request))
        .expect("a group can be made");
}

fn cut(api: &Api) -> Vec<Snapshot> {
    api.snapshot_as(CreateSnapshotRequest {
        group: "pair".into(),
        ..CreateSnapshotRequest::default()
    })
    .expect("a group can be cut")
}

fn counter_of(snapshots: &[Snapshot], volume: &str) -> u64 {
    let snapshot = snapshots.iter().find(|snapshot| snapshot.volume == volume);
    let view = &snapshot.expect("each volume has one").view_path;
    let mut bytes = [0; 8];
    File::open(Path::new(view))
        .and_then(|file| file.read_exact_at(&mut bytes, 0))
        .unwrap_or_else(|e| panic!("{view}: {e}"));
    u64::from_le_bytes(bytes)
}

/// The raw device; each write is on the medium when it returns.
fn open(device: &str) -> File {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DSYNC)
        .open(device)
        .unwrap_or_else(|e| panic!("{device}: {e}"))
}

fn write_counter(device: &File, counter: u64) {
    let mut block = vec![0; SECTOR];
    block[..8].copy_from_slice(&counter.to_le_bytes());
    device
        .write_all_at(&block, 0)
        .expect("a write goes through");
}
