//! The main job by the portable transport, over a logical volume: it shows that the programs and
//! the fixtures work in a guest, and that nothing in there is ublk's.

use tidemark_proto::v1::{AttachVolumeRequest, TransportKind};
use tidemark_tests::{
    Daemon, FsKind, Load, MIB, Mounted, Sectors, Tree, api, image,
    lvm::{Group, guest_disk},
    pull,
};

const AREA_BYTES: u64 = 128 * MIB;

#[test]
#[ignore = "runs in a guest"]
fn a_logical_volume_is_attached_pulled_and_given_back() {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.striped("lv", 64);
    let daemon = Daemon::start();
    let api = daemon.api();
    let asked = AttachVolumeRequest {
        transport: TransportKind::Portable.into(),
        ..api::attach_request("vol", &origin, &daemon.path("area"), AREA_BYTES)
    };
    let volume = api.attach(asked).expect("an attach");
    let point = daemon.path("mnt");
    let mounted = Mounted::fresh(FsKind::Ext4, volume.device_path.as_ref(), &point);
    let copied = Tree::copy("/usr/bin".as_ref(), &point.join("tree"), 4);
    let before = Sectors::of(&origin);
    let load = Load::start(&point);

    let target = daemon.path("pulled.img");
    let mut base = None;
    for _ in 0..2 {
        let snapshot = api.snapshot("vol");
        pull::pull(&api, &snapshot, base, &target).expect("a pull");
        image::assert_same(snapshot.view_path.as_ref(), &target);
        FsKind::Ext4.assert_sound(&target, daemon.world());
        base = snapshot.checkpoint.clone();
        api.release(&snapshot.id).expect("a release");
        load.assert_busy();
    }

    let amount = load.finish();
    println!("{amount:?}, {:?}", Sectors::of(&origin).since(before));
    copied.assert_at(&point.join("tree"));
    drop(mounted);
    api.detach("vol", false).expect("a detach");
    FsKind::Ext4.assert_device_sound(&origin);
}
