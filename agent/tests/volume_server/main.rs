//! The volume server as a process: the real engine, FUSE, loop devices, the private protocol,
//! signals and deaths. Needs root and /dev/fuse; without them each test says so and passes.

mod harness;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    thread,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::Signal,
};
use tidemark_agent::server::{outcome::StartFailure, wire};
use tidemark_proto::private::{
    Allocated, Changes, Cut, Describe, FailureKind, Hello, Hold, ReleaseSnapshot, Reply, Stop,
    Unhold, WaitEvents, reply::Result as Answer, request::Call,
};
use tidemark_store::units::Id;

use harness::{Client, SIZE, Setup};

const SNAPSHOT: Id = Id([0xab; 16]);

fn release(id: &[u8]) -> Call {
    Call::ReleaseSnapshot(ReleaseSnapshot {
        snapshot_id: id.to_vec().into(),
    })
}

#[test]
fn a_volume_is_written_snapshotted_read_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = Setup::new(dir.path()) else {
        return;
    };
    let server = setup.start();
    let (live, mut client) = (server.live(), server.client());
    live.write_all_at(&[1; 10_000], 5_000).unwrap();
    let before = fs::read(setup.paths().live()).unwrap();
    let cut = client.snapshot(SNAPSHOT);
    live.write_all_at(&[2; 4_096], 8_192).unwrap();
    live.sync_all().unwrap();
    assert_eq!(
        cut.view_path,
        setup
            .paths()
            .view(&SNAPSHOT.to_string())
            .display()
            .to_string()
    );
    assert!(fs::read(&cut.view_path).unwrap() == before);
    let told = client.describe();
    assert_eq!(
        (told.capacity_bytes, told.block_bytes, told.epoch),
        (SIZE, 4096, cut.epoch + 1)
    );
    assert_eq!((told.snapshots.len(), told.checkpoints.len()), (1, 1));
    let counted = told.counters.unwrap();
    assert!(
        counted.write_bytes >= 14_096 && counted.preserved_bytes == 4_096,
        "{counted:?}"
    );
    assert_eq!(
        fs::read_link(setup.paths().device_link()).unwrap(),
        Path::new(&told.device_path)
    );
    let socket = fs::metadata(setup.paths().control_socket()).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let asked = Changes {
        since_epoch: cut.epoch,
        ..Changes::default()
    };
    let changes = client.page(Call::Changes(asked));
    let ranges: Vec<_> = changes
        .ranges
        .iter()
        .map(|r| (r.offset_bytes, r.length_bytes))
        .collect();
    assert_eq!((ranges, changes.last), (vec![(8_192, 4_096)], true));
    let snapshot_id = SNAPSHOT.0.to_vec().into();
    let held = client.page(Call::Allocated(Allocated {
        snapshot_id,
        ..Allocated::default()
    }));
    assert!(held.last && !held.ranges.is_empty());

    assert_eq!(
        client.refusal(Call::Stop(Stop { force: false })),
        FailureKind::Busy,
        "live snapshot"
    );
    assert!(matches!(client.ask(release(&SNAPSHOT.0)), Answer::Done(_)));
    assert!(!Path::new(&cut.view_path).exists());
    assert_eq!(
        client.refusal(Call::Stop(Stop { force: true })),
        FailureKind::Busy,
        "open file"
    );
    live.write_all_at(&[3; 10], 0).unwrap();
    drop(live);
    assert!(matches!(
        client.ask(Call::Stop(Stop { force: false })),
        Answer::Done(_)
    ));
    assert!(server.wait().success());
    assert!(!setup.paths().mount_point().exists() && !setup.paths().device_link().is_symlink());
    assert_eq!(fs::read(&setup.origin).unwrap().get(8_192), Some(&2));
    // The area is nobody's now: another volume may have it.
    let other = Setup {
        volume_id: Id([9; 16]),
        ..setup
    };
    drop(other.start());
}

#[test]
fn a_successor_goes_on_where_a_killed_server_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = Setup::new(dir.path()) else {
        return;
    };
    let first = setup.start();
    first.live().write_all_at(&[1; 50_000], 0).unwrap();
    let cut = first.client().snapshot(SNAPSHOT);
    first.live().write_all_at(&[2; 50_000], 10_000).unwrap();
    let before = first.client().describe();
    first.signal(Signal::SIGKILL);
    let mut first = first;
    first.child.wait().unwrap();
    assert!(
        fs::metadata(setup.paths().live()).is_err(),
        "the mount is dead"
    );
    let second = setup.start();
    let after = second.client().describe();
    assert_eq!((&after.lineage, after.epoch), (&cut.lineage, before.epoch));
    assert_eq!(after.snapshots.len(), 1);
    let view = fs::read(&cut.view_path).unwrap();
    let (written, rest) = view.split_at(50_000);
    assert!(written.iter().all(|byte| *byte == 1) && rest.iter().all(|byte| *byte == 0));
    let asked = Changes {
        since_epoch: cut.epoch,
        ..Changes::default()
    };
    assert_eq!(second.client().page(Call::Changes(asked)).ranges.len(), 1);
    assert!(matches!(
        second.client().ask(Call::Stop(Stop { force: true })),
        Answer::Done(_)
    ));
    assert!(second.wait().success());
    let loops = fs::read_dir("/sys/block").unwrap().flatten();
    let backed = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("loop/backing_file"));
    let ours = dir.path().to_str().unwrap();
    assert!(
        !loops
            .filter_map(|entry| backed(entry).ok())
            .any(|file| file.contains(ours))
    );
}

#[test]
fn sigterm_leaves_what_was_tracked() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = Setup::new(dir.path()) else {
        return;
    };
    let server = setup.start();
    let cut = server.client().snapshot(SNAPSHOT);
    let before = server.client().describe();
    server.signal(Signal::SIGTERM);
    // What is in memory goes with it, as when the host starts again.
    assert!(server.wait().success());
    let second = setup.start();
    let after = second.client().describe();
    assert_eq!(after.lineage, cut.lineage, "the area tells it");
    assert!(after.epoch > before.epoch);
    second.client().ask(Call::Stop(Stop { force: true }));
    assert!(second.wait().success());
}

#[test]
fn a_client_that_dies_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = Setup::new(dir.path()) else {
        return;
    };
    let server = setup.start();
    let mut holder = server.client();
    holder.hold();
    let mut other = server.client();
    assert_eq!(
        other.refusal(Call::Hold(Hold {
            max_hold_us: 1_000_000
        })),
        FailureKind::Busy
    );
    drop(holder);
    let token = loop {
        match other.ask(Call::Hold(Hold {
            max_hold_us: 5_000_000,
        })) {
            Answer::Held(held) => break held.token,
            Answer::Failure(_) => thread::yield_now(),
            other => panic!("{other:?}"),
        }
    };
    other.ask(Call::Unhold(Unhold { token }));
    server.live().write_all_at(&[1; 10], 0).unwrap();
    assert_eq!(
        other.refusal(Call::Cut(Cut {
            token,
            ..Cut::default()
        })),
        FailureKind::CutTimeout
    );
}

#[test]
fn nonsense_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = Setup::new(dir.path()) else {
        return;
    };
    let server = setup.start();
    let describe = || Call::Describe(Describe {});
    assert_eq!(
        Client::connect(&setup.paths()).refusal(describe()),
        FailureKind::Version
    );
    let newer = Call::Hello(Hello {
        version: wire::VERSION + 1,
    });
    assert_eq!(
        Client::connect(&setup.paths()).refusal(newer),
        FailureKind::Version
    );
    let mut garbage = Client::connect(&setup.paths());
    io::Write::write_all(&mut garbage.0, &[0xff; 32]).unwrap();
    assert!(
        !matches!(wire::read::<Reply>(&mut garbage.0), Ok(Some(_))),
        "the connection ends"
    );
    let mut client = server.client();
    for hold in [0, u64::MAX] {
        assert_eq!(
            client.refusal(Call::Hold(Hold { max_hold_us: hold })),
            FailureKind::Invalid
        );
    }
    assert_eq!(client.refusal(release(&[1; 15])), FailureKind::Invalid);
    assert_eq!(
        client.refusal(release(&[1; 16])),
        FailureKind::SnapshotNotFound
    );
    let gone = Call::Changes(Changes {
        since_epoch: 77,
        ..Changes::default()
    });
    assert_eq!(client.refusal(gone), FailureKind::CheckpointGone);
    let other = Call::Changes(Changes {
        lineage: vec![1; 16].into(),
        since_epoch: 1,
        ..Changes::default()
    });
    assert_eq!(client.refusal(other), FailureKind::TrackingReset);
    let token = client.hold();
    let wrong = Cut {
        token,
        snapshot_id: vec![1; 3].into(),
    };
    assert_eq!(client.refusal(Call::Cut(wrong)), FailureKind::Invalid);
    client.ask(Call::Unhold(Unhold { token }));
    let events = client.ask(Call::WaitEvents(WaitEvents {
        after_sequence: 0,
        wait_us: 1,
    }));
    assert!(matches!(events, Answer::Events(_)));
    let crowd: Vec<_> = (0..16).map(|_| Client::connect(&setup.paths())).collect();
    let mut turned_away = Client::connect(&setup.paths());
    let reply = wire::read::<Reply>(&mut turned_away.0).unwrap().unwrap();
    assert!(
        matches!(reply.result, Some(Answer::Failure(told)) if told.kind() == FailureKind::Limit)
    );
    drop(crowd);
}

#[test]
fn what_cannot_be_served_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = Setup::new(dir.path()) else {
        return;
    };
    let with = |change: &dyn Fn(&mut Setup)| {
        let mut other = Setup {
            name: "other".to_owned(),
            volume_id: Id([3; 16]),
            ..setup.clone()
        };
        change(&mut other);
        other.refused()
    };
    let file = |name: &str, len: u64| {
        let path = dir.path().join(name);
        File::create(&path).unwrap().set_len(len).unwrap();
        path
    };
    let area = dir.path().join("new area");
    let image = file("image", 1 << 20);
    assert_eq!(
        with(&|other| other.origin = "/nonexistent".into()),
        StartFailure::OriginUnsuitable
    );
    assert_eq!(
        with(&|other| other.origin = "/dev/null".into()),
        StartFailure::OriginUnsuitable
    );
    assert_eq!(
        with(&|other| other.origin = file("empty", 0)),
        StartFailure::OriginUnsuitable
    );
    assert_eq!(
        with(&|other| other.block_bytes = 5000),
        StartFailure::OriginUnsuitable
    );
    assert_eq!(
        with(&|other| other.area = other.origin.clone()),
        StartFailure::AreaOnVolume
    );
    assert_eq!(
        with(&|other| other.area_size = 1 << 60),
        StartFailure::AreaNoSpace
    );
    assert_eq!(
        with(&|other| other.area_size = 4096),
        StartFailure::AreaNoSpace
    );
    let junk = file("junk", 0);
    fs::write(&junk, vec![7; 4 << 20]).unwrap();
    assert_eq!(
        with(&|other| other.area = junk.clone()),
        StartFailure::AreaCorrupt
    );
    assert!(!setup.area.exists(), "a failed start leaves no area behind");

    let server = setup.start();
    assert_eq!(
        setup.refused(),
        StartFailure::OriginInUse,
        "a second server"
    );
    assert_eq!(
        with(&|other| other.area = area.clone()),
        StartFailure::OriginInUse,
        "a second volume"
    );
    assert_eq!(
        with(&|other| other.origin = image.clone()),
        StartFailure::AreaInUse
    );
    assert_eq!(
        server.client().describe().name,
        "data",
        "the first is not harmed"
    );
    drop(server);
    assert_eq!(
        with(&|other| other.origin = image.clone()),
        StartFailure::AreaCorrupt,
        "another volume's"
    );
}

#[test]
fn an_aborted_connection_ends_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = Setup::new(dir.path()) else {
        return;
    };
    let server = setup.start();
    let minor = fs::metadata(setup.paths().mount_point()).unwrap().dev() & 0xff;
    let control = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "fusectl", "none"])
        .arg(control.path())
        .status();
    assert!(mounted.unwrap().success());
    let aborted = fs::write(control.path().join(minor.to_string()).join("abort"), "1");
    umount2(control.path(), MntFlags::empty()).unwrap();
    aborted.unwrap();
    assert!(!server.wait().success());
    drop(setup.start());
}
