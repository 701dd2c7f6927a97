//! A volume server is told to end, as by systemd: the host has its volume, and tracking goes on with
//! the next server unless somebody wrote meanwhile.

use tidemark_proto::v1::{SnapshotState, Trust, Volume};
use tidemark_tests::{
    Api, Daemon, FsKind, MIB, Mounted, Random, host, image,
    lvm::{Group, guest_disk},
    pull,
};

const AREA_BYTES: u64 = 128 * MIB;

/// Ends the server of a volume that nobody has open; the control plane is away, for it would start the
/// next one.
fn leave(daemon: &mut Daemon, volume: &Volume) {
    daemon.kill();
    host::terminate(volume.server_pid);
    host::eventually("the server ends", || !host::runs(volume.server_pid));
}

fn goes_on(api: &Api, before: &Volume) -> (Volume, bool) {
    let now = api.served_again(before);
    let same = now.lineage == before.lineage;
    (now, same)
}

#[test]
#[ignore = "runs in a guest"]
fn only_what_nobody_wrote_to_is_taken_up() {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.linear("lv", 64);
    let table = group.table("lv");
    let mut daemon = Daemon::start();
    let api = daemon.api();
    let point = daemon.path("mnt");
    let attached = daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach");
    let mounted = Mounted::fresh(FsKind::Ext4, &origin, &point);
    let base = api.snapshot("vol");
    let target = daemon.path("pulled.img");
    pull::pull(&api, &base, None, &target).expect("a full pull");
    image::filled(&point.join("one"), MIB, &mut Random::new(1));

    // Mounted, it serves on.
    host::terminate(attached.server_pid);
    let log = || std::fs::read_to_string(daemon.volume_log("vol")).expect("a log");
    host::eventually("the server says why it goes on", || {
        log().contains("not stopped")
    });
    assert_eq!(
        api.volume("vol").expect("a status").server_pid,
        attached.server_pid
    );
    drop(mounted);

    leave(&mut daemon, &attached);
    assert_eq!(group.table("lv"), table, "the volume has its own table");
    daemon.restart();
    let (second, same) = goes_on(&api, &attached);
    assert!(same, "nobody wrote: {second:?}");
    let kept = api.get_snapshot(&base.id).expect("a record");
    assert_eq!(kept.state(), SnapshotState::Ready, "{kept:?}");
    let next = api.snapshot("vol");
    let increment = pull::pull(&api, &next, base.checkpoint.clone(), &target).expect("a diff");
    let trust = increment.header.and_then(|header| header.trust);
    assert_eq!(trust.expect("a diff says").trust(), Trust::Continuous);
    assert_eq!(
        image::digest(next.view_path.as_ref()),
        image::digest(&target)
    );

    leave(&mut daemon, &second);
    drop(Mounted::new(FsKind::Ext4, &origin, &point));
    daemon.restart();
    let (third, same) = goes_on(&api, &second);
    assert!(!same, "a mount wrote to it: {third:?}");
    let refused = api.get_snapshot(&next.id).expect("a record");
    assert_eq!(refused.state(), SnapshotState::Lost, "{refused:?}");
    api.detach("vol", true).expect("a detach");
    FsKind::Ext4.assert_device_sound(&origin);
}
