//! That the fixtures themselves work on a guest's disks.

use tidemark_tests::{
    FsKind, Mounted, Sectors, Tree, World,
    lvm::{Crypt, Group, guest_disk},
};

#[test]
#[ignore = "runs in a guest"]
fn volumes_are_made_counted_checked_and_removed() {
    let world = World::new();
    let group = Group::new("vgfix", &[guest_disk(0), guest_disk(1)]);
    let crypt = Crypt::new("cryptfix", &group.linear("one", 64));
    let plain = group.striped("two", 64);
    assert!(group.table("two").contains("striped 2"));
    for device in [crypt.device(), plain] {
        let before = Sectors::of(&device);
        let mounted = Mounted::fresh(FsKind::Ext4, &device, &world.path("mnt"));
        let tree = Tree::copy("/usr/bin".as_ref(), mounted.point(), 4);
        nix::unistd::sync();
        let written = Sectors::of(&device).since(before).changed();
        assert!(written >= 4 << 10, "{written} sectors");
        std::fs::remove_dir(mounted.point().join("lost+found")).expect("it is empty");
        tree.assert_at(mounted.point());
        drop(mounted);
        FsKind::Ext4.assert_device_sound(&device);
    }
}
