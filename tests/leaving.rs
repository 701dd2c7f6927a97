//! Volume servers are told to end, as systemd does it when the host stops: tracking is not lost.

use tidemark_proto::v1::{SnapshotState, Trust};
use tidemark_tests::{Daemon, FsKind, MIB, Mounted, Random, host, image, pull};

const BYTES: u64 = 64 * MIB;

#[test]
fn a_server_that_is_told_to_end_leaves_what_it_tracked() {
    let mut daemon = Daemon::start();
    let origin = daemon.path("vol.img");
    image::filled(&origin, BYTES, &mut Random::new(1));
    let volume = daemon.attach("vol", &origin, 64 * MIB).expect("an attach");
    let api = daemon.api();
    let base = api.snapshot("vol");
    let target = daemon.path("pulled.img");
    pull::pull(&api, &base, None, &target).expect("a full pull");
    image::scribble(volume.device_path.as_ref(), 0, MIB, &mut Random::new(2));
    daemon.kill();
    host::terminate(volume.server_pid);
    host::eventually("the server ends", || !host::runs(volume.server_pid));

    daemon.restart();
    let back = api.served_again(&volume);
    assert_eq!(back.lineage, volume.lineage, "tracking goes on");
    let kept = api.get_snapshot(&base.id).expect("a record");
    assert_eq!(kept.state(), SnapshotState::Ready, "{kept:?}");
    let next = api.snapshot("vol");
    let increment = pull::pull(&api, &next, base.checkpoint.clone(), &target).expect("a diff");
    let trust = increment.header.and_then(|header| header.trust);
    assert_eq!(trust.expect("a diff says").trust(), Trust::Continuous);
    assert!(increment.data_bytes < BYTES / 2, "only what changed");
    image::assert_same(next.view_path.as_ref(), &target);

    // What somebody changes while nobody serves is noticed.
    daemon.kill();
    host::terminate(back.server_pid);
    host::eventually("the server ends", || !host::runs(back.server_pid));
    std::thread::sleep(std::time::Duration::from_secs(2));
    image::scribble(&origin, 8 * MIB, MIB, &mut Random::new(3));
    daemon.restart();
    let again = api.served_again(&back);
    assert_ne!(again.lineage, volume.lineage, "tracking starts anew");
}

#[test]
fn while_the_volume_is_mounted_its_server_goes_on() {
    let daemon = Daemon::start();
    let volume = daemon.attach_new("vol", BYTES, 64 * MIB);
    let device = volume.device_path.as_ref();
    let mounted = Mounted::fresh(FsKind::Ext4, device, &daemon.path("mnt"));
    let log = || std::fs::read_to_string(daemon.volume_log("vol")).expect("a log");
    host::terminate(volume.server_pid);
    host::eventually("the server says why it goes on", || {
        log().contains("not stopped")
    });
    image::filled(&mounted.point().join("file"), MIB, &mut Random::new(4));
    assert!(host::runs(volume.server_pid));
    drop(mounted);
    FsKind::Ext4.assert_device_sound(device);
}
