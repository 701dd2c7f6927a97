//! Processes die, one at a time, by SIGKILL: what was promised holds all the same.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use tidemark_proto::v1::{
    CheckpointInfo, EventKind, HandOverVolumeRequest, ListCheckpointsRequest, Snapshot,
    SnapshotState, Trust, VolumeState,
};
use tidemark_tests::{
    Api, Daemon, Fio, FsKind, MIB, Mounted, Random, api::leased, cli::code, fio, host, image, pull,
    pull::Pull,
};

#[test]
fn the_control_plane_dies_in_mid_stream_and_nothing_is_lost() {
    let mut daemon = Daemon::start();
    let volume = daemon.attach_new("vol", 192 * MIB + 512, 512 * MIB);
    let mounted = Mounted::fresh(
        FsKind::Ext4,
        volume.device_path.as_ref(),
        &daemon.path("mnt"),
    );
    let ballast = mounted.point().join("ballast");
    image::filled(&ballast, 64 * MIB, &mut Random::new(1));
    let load = mounted.point().join("fio");
    std::fs::create_dir(&load).expect("a directory can be made");
    let mut fio = Fio::verifying(&load, &daemon.path("fio.json"), 24 * MIB).start();
    fio::await_load(&load);

    let api = daemon.api();
    let base = api.snapshot("vol");
    let target = daemon.path("pulled.img");
    let mut pull = Pull::new(&base, None, &target);
    let mut stream = pull.open(&api).expect("a stream opens");
    while pull.resume < 8 * MIB {
        let message = api
            .next(&mut stream)
            .expect("a message")
            .expect("not the end");
        assert!(pull.take(message).is_none(), "the stream has only begun");
    }

    daemon.kill();
    fio.assert_busy();
    let cut_short = loop {
        match api.next(&mut stream) {
            Ok(Some(message)) => assert!(pull.take(message).is_none(), "no trailer came"),
            Ok(None) => panic!("a stream that was cut short looks whole"),
            Err(refusal) => break refusal,
        }
    };
    assert!(pull.resume < base.capacity_bytes, "{cut_short:?}");
    fio.assert_busy();

    daemon.restart();
    let after = api.volume("vol").expect("the volume is still known");
    assert_eq!(
        after.server_pid, volume.server_pid,
        "the volume server lived on"
    );
    assert_eq!(after.lineage, volume.lineage, "tracking went on");
    assert_eq!(after.state(), VolumeState::Attached);
    let kept = api
        .get_snapshot(&base.id)
        .expect("the snapshot is still known");
    assert_eq!(kept.state(), SnapshotState::Ready, "{kept:?}");
    assert_eq!(kept.checkpoint, base.checkpoint);
    assert!(
        api.running().is_empty(),
        "operations of the dead are not shown as running"
    );

    pull.finish(&api).expect("the rest comes");
    image::assert_same(base.view_path.as_ref(), &target);

    let next = api.snapshot("vol");
    let increment = pull::pull(&api, &next, base.checkpoint.clone(), &target).expect("a diff");
    let header = increment.header.expect("a header");
    let trust = header.trust.expect("trust is told").trust();
    assert_eq!(trust, Trust::Continuous, "nothing was missed meanwhile");
    image::assert_same(next.view_path.as_ref(), &target);
    FsKind::Ext4.assert_sound(&target, daemon.world());
    fio.stop();
}

#[test]
fn a_client_dies_and_its_lease_ends_with_nothing_left() {
    let daemon = Daemon::start();
    let origin = daemon.path("vol.img");
    image::filled(&origin, 512 * MIB, &mut Random::new(2));
    let volume = daemon.attach("vol", &origin, 64 * MIB).expect("an attach");
    let api = daemon.api();
    let snapshot = api
        .snapshot_as(leased(&["vol"], 3))
        .expect("a snapshot")
        .remove(0);
    image::scribble(volume.device_path.as_ref(), 0, 8 * MIB, &mut Random::new(3));
    assert!(used_bytes(&api) >= 8 * MIB, "old data is kept");

    let target = daemon.world().text("pulled.img");
    let mut client = daemon.cli().start(&["pull", &snapshot.id, &target]);
    host::eventually("the client's stream is under way", || {
        api.running()
            .iter()
            .any(|operation| operation.done_bytes > 0)
    });
    client.kill().expect("a child can be killed");
    client.wait().expect("a child can be waited for");

    host::eventually("the operation ends", || api.running().is_empty());
    host::eventually("the lease ends", || {
        let now = api.get_snapshot(&snapshot.id).expect("its record stays");
        now.state() == SnapshotState::Released
    });
    host::eventually("the store is empty again", || used_bytes(&api) == 0);
    let refused =
        pull::pull(&api, &snapshot, None, &daemon.path("late.img")).expect_err("its data is gone");
    assert!(
        matches!(
            refused.reason.as_str(),
            "LEASE_EXPIRED" | "SNAPSHOT_RELEASED"
        ),
        "{refused:?}"
    );
    let expired = |event: &tidemark_proto::v1::Event| {
        event.kind() == EventKind::LeaseExpired && event.snapshot_id == snapshot.id
    };
    host::eventually("the event tells", || api.events().iter().any(expired));
    assert_eq!(checkpoints(&api).len(), 1, "the checkpoint stays for diffs");
}

#[test]
fn a_volume_server_dies_and_no_diff_is_ever_short() {
    let daemon = Daemon::start();
    let origin = daemon.path("vol.img");
    image::striped(&origin, 64 * MIB + 777, &mut Random::new(4));
    let volume = daemon.attach("vol", &origin, 64 * MIB).expect("an attach");
    let api = daemon.api();
    let device = PathBuf::from(&volume.device_path);
    let base = api.snapshot("vol");
    let target = daemon.path("pulled.img");
    pull::pull(&api, &base, None, &target).expect("a full pull");
    // Changed before the death: on the medium, and to be in the diff after it.
    image::scribble(&device, 5 * MIB + 512, 3 * MIB, &mut Random::new(5));

    host::kill_now(volume.server_pid);
    let back = api.served_again(&volume);
    image::scribble(
        Path::new(&back.device_path),
        40 * MIB,
        MIB,
        &mut Random::new(6),
    );
    assert_told(&api);

    let next = api.snapshot("vol");
    let stale = extend(&api, &next, &base, &target);
    println!("after the death of a volume server: {stale}");
    image::assert_same(next.view_path.as_ref(), &target);
    assert_view_of_base_is_exact_or_gone(&api, &base, &daemon);
    api.release(&next.id).expect("a release");
    api.detach("vol", true).expect("a detach");
    image::assert_same(&origin, &target);
}

#[test]
fn a_command_without_a_daemon_says_so() {
    let mut daemon = Daemon::start();
    daemon.stop();
    let ended = daemon.cli().run(&["volume", "list"]);
    assert_eq!(ended.code, Some(code::NO_DAEMON), "{ended:?}");
}

/// An increment where the agent vouches for one, else the whole; says which.
fn extend(api: &Api, next: &Snapshot, base: &Snapshot, target: &Path) -> &'static str {
    match pull::pull(api, next, base.checkpoint.clone(), target) {
        Ok(pulled) => {
            let trust = pulled.header.and_then(|header| header.trust);
            if trust.is_some_and(|report| report.trust() != Trust::Broken) {
                return "the diff went on";
            }
            pull::pull(api, next, None, target).expect("a full pull");
            "the diff was called broken"
        }
        Err(refusal) => {
            assert!(
                matches!(
                    refusal.reason.as_str(),
                    "TRACKING_RESET" | "CHECKPOINT_GONE"
                ),
                "{refusal:?}"
            );
            pull::pull(api, next, None, target).expect("a full pull");
            "a full pull was asked for"
        }
    }
}

fn assert_told(api: &Api) {
    let events = api.events();
    let place = |kind| events.iter().position(|event| event.kind() == kind);
    let lost = place(EventKind::VolumeServerLost).expect("the loss is told");
    let back = place(EventKind::VolumeServerBack).expect("the return is told");
    assert!(lost < back);
}

/// A snapshot that outlived its server is still exact; one that did not says so.
fn assert_view_of_base_is_exact_or_gone(api: &Api, base: &Snapshot, daemon: &Daemon) {
    let now = api.get_snapshot(&base.id).expect("its record stays");
    if now.state() != SnapshotState::Ready {
        assert!(!now.state_reason.is_empty(), "{now:?}");
        return;
    }
    let again = daemon.path("again.img");
    pull::pull(api, &now, None, &again).expect("a full pull");
    let mut stripe = vec![0; 4096];
    File::open(&again)
        .and_then(|file| file.read_exact_at(&mut stripe, 41 * MIB))
        .expect("an image can be read");
    assert!(
        stripe.iter().all(|byte| *byte == 0),
        "it was a hole at that moment"
    );
    image::assert_same(now.view_path.as_ref(), &again);
}

fn used_bytes(api: &Api) -> u64 {
    let volume = api.volume("vol").expect("a volume");
    volume.store_status.expect("a store").used_bytes
}

fn checkpoints(api: &Api) -> Vec<CheckpointInfo> {
    let request = ListCheckpointsRequest {
        volume: "vol".into(),
    };
    api.call(api.checkpoints().list_checkpoints(request))
        .expect("checkpoints can be listed")
        .checkpoints
}

#[test]
fn a_volume_that_ends_with_its_server_is_not_handed_over() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let volume = daemon.attach_new("vol", 16 * MIB, 32 * MIB);
    let request = HandOverVolumeRequest { name: "vol".into() };
    let refused = api.call(api.volumes().hand_over_volume(request));
    let refused = refused.expect_err("FUSE has no successor");
    assert!(refused.message.contains("portable"), "{refused:?}");
    let after = api.volume("vol").expect("it is served as before");
    assert_eq!(after.server_pid, volume.server_pid);
    assert_eq!(after.state(), VolumeState::Attached);
    let snapshot = api.snapshot("vol");
    api.release(&snapshot.id).expect("a release");
}
