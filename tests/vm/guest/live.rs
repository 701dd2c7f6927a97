//! The main job by ublk: a mounted logical volume is put over us while it is written to, its
//! server dies, and nobody but the log notices.

use std::path::Path;

use tidemark_proto::v1::{SnapshotState, TransportKind, Trust, VolumeState};
use tidemark_tests::{
    Daemon, DoubleEntry, Frozen, FsKind, Load, MIB, Mounted, Tree,
    host::kill_now,
    image,
    lvm::{Group, guest_disk, lvm},
    pull,
    tree::forget_cached,
};

const AREA_BYTES: u64 = 192 * MIB;
/// Deaths of the server under load.
const DEATHS: usize = 3;

#[test]
#[ignore = "runs in a guest"]
fn a_mounted_volume_survives_the_deaths_of_its_server() {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.linear("lv", 64);
    let before = group.table("lv");
    let daemon = Daemon::start();
    let api = daemon.api();
    let point = daemon.path("mnt");
    let mounted = Mounted::fresh(FsKind::Ext4, &origin, &point);
    let copied = Tree::copy("/usr/bin".as_ref(), &point.join("tree"), 4);
    let load = Load::start(&point);

    let volume = daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach under load");
    assert_eq!(volume.transport(), TransportKind::Ublk);
    assert!(group.table("lv").contains("linear"));
    assert_ne!(group.table("lv"), before);
    daemon
        .attach("again", &origin, AREA_BYTES)
        .expect_err("a second interposer");
    let mut books = {
        let _quiet = Frozen::new(&point);
        DoubleEntry::open(&api, "vol")
    };

    let first = api.snapshot("vol");
    let view = first.view_path.clone();
    let frozen = image::digest(Path::new(&view));
    for _ in 0..DEATHS {
        let alive = api.volume("vol").expect("a status");
        kill_now(alive.server_pid);
        let back = api.served_again(&alive);
        assert_eq!(back.lineage, alive.lineage, "tracking went on");
        load.assert_busy();
        let _quiet = Frozen::new(&point);
        books.assert(&api);
    }
    forget_cached();
    assert_eq!(image::digest(Path::new(&view)), frozen);

    let target = daemon.path("pulled.img");
    pull::pull(&api, &first, None, &target).expect("a full pull");
    assert_eq!(image::digest(&target), frozen);
    let second = api.snapshot("vol");
    pull::pull(&api, &second, first.checkpoint.clone(), &target).expect("an incremental pull");
    let view = second.view_path.clone();
    assert_eq!(image::digest(&target), image::digest(Path::new(&view)));
    FsKind::Ext4.assert_sound(&target, daemon.world());
    for snapshot in [&first, &second] {
        api.release(&snapshot.id).expect("a release");
    }

    {
        let _quiet = Frozen::new(&point);
        println!("{} sectors booked alike", books.assert(&api));
    }
    api.detach("vol", false).expect("a detach while mounted");
    assert_eq!(group.table("lv"), before);
    println!("{:?}", load.finish());
    copied.assert_at(&point.join("tree"));
    drop(mounted);
    FsKind::Ext4.assert_device_sound(&origin);
}

#[test]
#[ignore = "runs in a guest"]
fn a_bypass_ends_the_lineage_and_is_mended() {
    let group = Group::new("vg", &[guest_disk(0)]);
    let origin = group.linear("lv", 64);
    let daemon = Daemon::start();
    let api = daemon.api();
    let volume = daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach");
    let interposed = group.table("lv");
    let snapshot = api.snapshot("vol");
    lvm(&["lvchange", "--refresh", &group.path("lv")]);
    // Whoever asks first finds out, also before the guard has looked.
    let next = api.snapshot("vol");
    let found = api.volume("vol").expect("a status");
    assert_eq!(found.state(), VolumeState::Attached);
    assert_ne!(found.lineage, volume.lineage);
    assert_eq!(group.table("lv"), interposed);
    assert_eq!(
        found.trust.map(|trust| trust.trust()),
        Some(Trust::Continuous)
    );
    let gone = api.get_snapshot(&snapshot.id).expect("its record stays");
    assert_eq!(gone.state(), SnapshotState::Lost, "{gone:?}");
    assert!(gone.view_path.is_empty());
    api.release(&next.id).expect("a release");
    // Nobody writes: what reached us is what is booked, before and after.
    DoubleEntry::open(&api, "vol").assert(&api);
    api.detach("vol", false).expect("a detach");
}
