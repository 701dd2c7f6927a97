//! An area on a logical volume that attach makes out of free extents of the origin's own group,
//! and that detach removes; `power.rs` finds one again after power cuts.

use std::path::Path;

use tidemark_proto::v1::{EventKind, TrackingDurability, TransportKind, VolumeState};
use tidemark_tests::{
    Api, Daemon, DoubleEntry, Frozen, FsKind, Load, MIB, Mounted, Tree,
    api::attach_with_volume,
    image,
    lvm::{Group, guest_disk, lvm},
    pull,
};

const AREA_BYTES: u64 = 64 * MIB;

/// Attaches that must fail, and leave the group as it was.
fn assert_refusals(api: &Api, daemon: &Daemon, group: &Group) {
    let before = (group.volumes(), group.free_extents());
    let third = group.path("third");
    let third = Path::new("/dev").join(third);
    let refused = |request| api.attach(request).expect_err("it cannot be attached");

    let error = refused(attach_with_volume("third", &third, "", 1 << 40));
    assert_eq!(error.reason, "AREA_NO_SPACE", "{error:?}");
    assert_eq!(error.metadata["volume_group"], group.name());
    let free = before.1 * 4 * MIB;
    assert_eq!(error.metadata["free_bytes"], free.to_string());
    assert_eq!(error.metadata["needed_bytes"], (1_u64 << 40).to_string());
    let error = refused(attach_with_volume("third", &third, "home", AREA_BYTES));
    assert_eq!(error.reason, "AREA_IN_USE", "{error:?}");
    let file = daemon.path("image");
    image::sparse(&file, MIB);
    let error = refused(attach_with_volume("third", &file, "", AREA_BYTES));
    assert_eq!(error.reason, "ORIGIN_UNSUITABLE", "{error:?}");

    // This one fails when its area is made already.
    let _mounted = Mounted::fresh(FsKind::Ext4, &third, &daemon.path("third"));
    let mut request = attach_with_volume("third", &third, "", AREA_BYTES);
    request.transport = TransportKind::Portable.into();
    let error = refused(request);
    assert_eq!(error.reason, "ORIGIN_IN_USE", "{error:?}");
    assert_eq!((group.volumes(), group.free_extents()), before);
}

#[test]
#[ignore = "runs in a guest"]
fn an_area_comes_and_goes_with_its_volume() {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let home = group.linear("home", 64);
    let other = group.linear("other", 32);
    group.linear("third", 16);
    // LVM will find it on our device too, and must not mind.
    let on_volumes = ["--config", "devices/scan_lvs=1", "-y"];
    lvm(&[&["vgcreate"], &on_volumes[..], &["nested", "/dev/vg/other"]].concat());
    let before = (group.volumes(), group.free_extents());
    let own = (group.table("home"), group.table("other"));
    let daemon = Daemon::start();
    let api = daemon.api();
    let point = daemon.path("mnt");
    let mounted = Mounted::fresh(FsKind::Ext4, &home, &point);
    let copied = Tree::copy("/usr/bin".as_ref(), &point.join("tree"), 2);
    let load = Load::start(&point);

    let request = attach_with_volume("vol", "/dev/vg/home".as_ref(), "", AREA_BYTES);
    let volume = api.attach(request).expect("an attach under load");
    assert_eq!(volume.durability(), TrackingDurability::Durable);
    let area = volume.store.expect("a volume has an area");
    assert_eq!(area.area_path, "/dev/vg/home-tidemark");
    assert_eq!(area.area_size_bytes, AREA_BYTES);
    let interposed = group.table("home");
    let mut books = {
        let _quiet = Frozen::new(&point);
        DoubleEntry::open(&api, "vol")
    };
    let first = api.snapshot("vol");

    // The group is changed again and again while the volume lies over us.
    let origin = other.to_str().expect("names of devices are UTF-8");
    let words = ["volume", "attach", "second", origin, "--area", "lv:mine"];
    let told = daemon
        .cli()
        .json(&[&words[..], &["--area-size", "64M"]].concat());
    assert_eq!(told["store"]["area_path"], "/dev/vg/mine");
    assert_eq!(told["store"]["area_logical_volume"], "mine");
    let second = api.volume("second").expect("a status");
    assert_eq!(second.durability(), TrackingDurability::Durable);
    let used = 2 * AREA_BYTES / (4 * MIB);
    assert_eq!(group.free_extents(), before.1 - used);
    assert_refusals(&api, &daemon, &group);
    load.assert_busy();
    let found = api.volume("vol").expect("a status");
    assert_eq!(found.state(), VolumeState::Attached);
    assert_eq!(found.lineage, volume.lineage, "{:#?}", api.events());
    assert_eq!(group.table("home"), interposed);
    let told = api.events();
    let resets = told
        .iter()
        .filter(|event| event.kind() == EventKind::TrackingReset);
    assert_eq!(resets.count(), 0, "{told:#?}");

    let target = daemon.path("pulled.img");
    pull::pull(&api, &first, None, &target).expect("a full pull");
    let next = api.snapshot("vol");
    pull::pull(&api, &next, first.checkpoint.clone(), &target).expect("an incremental pull");
    let view = Path::new(&next.view_path);
    assert_eq!(image::digest(&target), image::digest(view));
    FsKind::Ext4.assert_sound(&target, daemon.world());
    for snapshot in [&first, &next] {
        api.release(&snapshot.id).expect("a release");
    }
    {
        let _quiet = Frozen::new(&point);
        println!("{} sectors booked alike", books.assert(&api));
    }

    for name in ["second", "vol"] {
        api.detach(name, false).expect("a detach");
    }
    assert_eq!((group.volumes(), group.free_extents()), before);
    assert_eq!((group.table("home"), group.table("other")), own);
    println!("{:?}", load.finish());
    copied.assert_at(&point.join("tree"));
    drop(mounted);
    FsKind::Ext4.assert_device_sound(&home);
}
