//! kill -9 of the volume server at moments that nobody chose, under load and with a live snapshot:
//! the host waits for a moment and sees no error, and nothing of tracking or the snapshot is lost.

use std::{path::Path, thread::sleep, time::Duration};

use tidemark_tests::{
    Daemon, DoubleEntry, Frozen, FsKind, Load, MIB, Mounted, Random, Tree,
    host::{self, kill_now},
    image,
    lvm::{Group, guest_disk},
    pull,
    tree::forget_cached,
};

const AREA_BYTES: u64 = 192 * MIB;
/// A moment is at most so long after the one before: some are while a server starts.
const LONGEST_MS: u64 = 2500;
/// And here most are.
const HASTE_MS: u64 = 400;

fn die(kind: FsKind, megabytes: u64, kills: usize, longest_ms: u64) {
    let mut random = Random::announced("deaths");
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.linear("lv", megabytes);
    let daemon = Daemon::start();
    let api = daemon.api();
    let point = daemon.path("mnt");
    let mounted = Mounted::fresh(kind, &origin, &point);
    let copied = Tree::copy("/usr/bin".as_ref(), &point.join("tree"), 4);
    let load = Load::start(&point);
    let volume = daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach under load");
    let mut books = {
        let _quiet = Frozen::new(&point);
        DoubleEntry::open(&api, "vol")
    };
    let first = api.snapshot("vol");
    let view = first.view_path.clone();
    let frozen = image::digest(Path::new(&view));
    let target = daemon.path("pulled.img");
    pull::pull(&api, &first, None, &target).expect("a full pull");

    let mut starting = 0;
    for _ in 0..kills {
        sleep(Duration::from_millis(random.below(longest_ms)));
        // Between two servers there is nobody to kill: the next one is, as soon as it is there.
        let mut found = host::server_of(daemon.world().root(), "vol");
        starting += usize::from(found.is_none());
        host::eventually("somebody serves the volume", || {
            found = found.or_else(|| host::server_of(daemon.world().root(), "vol"));
            found.is_some()
        });
        kill_now(found.expect("it was just seen"));
        load.assert_busy();
    }
    let back = api.served_again(&volume);
    assert_eq!(back.lineage, volume.lineage, "tracking went on");
    let jobs = load.jobs();
    host::eventually("the load goes on", || load.jobs() > jobs + 1);
    {
        let _quiet = Frozen::new(&point);
        println!("{} sectors booked alike", books.assert(&api));
    }
    forget_cached();
    assert_eq!(image::digest(Path::new(&view)), frozen);

    let second = api.snapshot("vol");
    pull::pull(&api, &second, first.checkpoint.clone(), &target).expect("an incremental pull");
    let whole = daemon.path("whole.img");
    pull::pull(&api, &second, None, &whole).expect("a full pull");
    assert_eq!(image::digest(&target), image::digest(&whole));
    kind.assert_sound(&target, daemon.world());
    for snapshot in [&first, &second] {
        api.release(&snapshot.id).expect("a release");
    }
    api.detach("vol", false).expect("a detach while mounted");
    println!(
        "{kills} deaths, {starting} of them at once: {:?}",
        load.finish()
    );
    copied.assert_at(&point.join("tree"));
    drop(mounted);
    kind.assert_device_sound(&origin);
}

#[test]
#[ignore = "runs in a guest"]
fn twenty_at_random_moments_on_ext4() {
    die(FsKind::Ext4, 64, 20, LONGEST_MS);
}

#[test]
#[ignore = "runs in a guest"]
fn twenty_at_random_moments_on_xfs() {
    die(FsKind::Xfs, 320, 20, LONGEST_MS);
}

#[test]
#[ignore = "runs in a guest"]
fn forty_in_haste() {
    die(FsKind::Ext4, 64, 40, HASTE_MS);
}
