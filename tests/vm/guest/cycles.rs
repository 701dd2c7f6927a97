//! Volumes are attached and detached, again and again, under a mounted file system at work.

use tidemark_tests::{
    Daemon, DoubleEntry, Frozen, FsKind, Load, MIB, Mounted, Swaps, Tree, host,
    lvm::{Group, guest_disk},
    swaps::summary,
};

const AREA_BYTES: u64 = 64 * MIB;
const TIMES: usize = 10;
const SHORT_TIMES: usize = 2;
/// What goes through the interposer in each cycle, at least.
const SERVED_BYTES: u64 = 2 * MIB;

#[test]
#[ignore = "runs in a guest"]
fn of_ext4() {
    tell(FsKind::Ext4, 96, SHORT_TIMES);
}

#[test]
#[ignore = "runs in a guest"]
fn of_ext4_at_length() {
    tell(FsKind::Ext4, 96, TIMES);
}

#[test]
#[ignore = "runs in a guest"]
fn of_xfs_at_length() {
    tell(FsKind::Xfs, 320, TIMES);
}

fn tell(kind: FsKind, mib: u64, times: usize) {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.linear("lv", mib);
    let own = group.table("lv");
    let daemon = Daemon::start();
    let api = daemon.api();
    let point = daemon.path("mnt");
    let mounted = Mounted::fresh(kind, &origin, &point);
    let copied = Tree::copy("/usr/bin".as_ref(), &point.join("tree"), 4);
    let load = Load::start(&point);
    let mut held = Vec::new();
    for cycle in 1..=times {
        daemon
            .attach("vol", &origin, AREA_BYTES)
            .expect("an attach under load");
        assert_ne!(group.table("lv"), own);
        let mut swaps = Swaps::of(&daemon, "vol");
        let mut books = {
            let _quiet = Frozen::new(&point);
            DoubleEntry::open(&api, "vol")
        };
        let snapshot = api.snapshot("vol");
        host::eventually("the load goes through us", || {
            load.assert_busy();
            let stats = api.volume("vol").expect("a status").stats;
            stats.is_some_and(|stats| stats.write_bytes > SERVED_BYTES)
        });
        api.release(&snapshot.id).expect("a release");
        let sectors = {
            let _quiet = Frozen::new(&point);
            books.assert(&api)
        };
        api.detach("vol", false).expect("a detach under load");
        assert_eq!(group.table("lv"), own);
        let cycle_held = swaps.held();
        println!("cycle {cycle}: {sectors} sectors booked alike, swaps held for {cycle_held:?}");
        assert_eq!(cycle_held.len(), 2, "one in, one out");
        held.extend(cycle_held);
    }
    println!("held {}", summary(&held));
    println!("{:?}", load.finish());
    copied.assert_at(&point.join("tree"));
    drop(mounted);
    kind.assert_device_sound(&origin);
}
