//! kill -9 of the volume server at moments that nobody chose, under load and with a live snapshot:
//! the host waits for a moment and sees no error, and nothing of tracking or the snapshot is lost.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    thread::sleep,
    time::Duration,
};

use tidemark_proto::v1::{
    Event, EventKind, HandOverVolumeRequest, SnapshotState, Trust, VolumeState,
};
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
fn twenty_at_random_moments_on_xfs_at_length() {
    die(FsKind::Xfs, 320, 20, LONGEST_MS);
}

#[test]
#[ignore = "runs in a guest"]
fn twenty_five_in_haste_at_length() {
    die(FsKind::Ext4, 64, 25, HASTE_MS);
}

#[test]
#[ignore = "runs in a guest"]
fn a_planned_hand_over_is_a_pause() {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.linear("lv", 64);
    let daemon = Daemon::start();
    let api = daemon.api();
    let mounted = Mounted::fresh(FsKind::Ext4, &origin, &daemon.path("mnt"));
    let load = Load::start(mounted.point());
    let volume = daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach under load");
    let snapshot = api.snapshot("vol");
    let frozen = image::digest(Path::new(&snapshot.view_path));
    let mut servers = vec![volume.server_pid];
    for _ in 0..5 {
        let request = HandOverVolumeRequest { name: "vol".into() };
        let answer = api.call(api.volumes().hand_over_volume(request));
        let answer = answer.expect("a hand-over");
        let next = answer.volume.expect("it tells the volume");
        assert_eq!(next.lineage, volume.lineage);
        assert!(!servers.contains(&next.server_pid));
        servers.push(next.server_pid);
        println!("paused for {:?}", answer.paused);
        load.assert_busy();
    }
    forget_cached();
    assert_eq!(image::digest(Path::new(&snapshot.view_path)), frozen);
    let events = api.events();
    let lost = |event: &&Event| event.kind() == EventKind::VolumeServerLost;
    assert!(!events.iter().any(|event| lost(&event)), "nothing was lost");
    api.release(&snapshot.id).expect("a release");
    api.detach("vol", false).expect("a detach");
    println!("{:?}", load.finish());
    drop(mounted);
    FsKind::Ext4.assert_device_sound(&origin);
}

/// A server that cannot start while the host waits for it: the volume is given back.
#[test]
#[ignore = "runs in a guest"]
fn a_volume_whose_servers_fail_is_given_back() {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.linear("lv", 64);
    let before = group.table("lv");
    let mut daemon = Daemon::start();
    let api = daemon.api();
    let mounted = Mounted::fresh(FsKind::Ext4, &origin, &daemon.path("mnt"));
    let load = Load::start(mounted.point());
    let volume = daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach under load");
    let snapshot = api.snapshot("vol");
    let view = fs::canonicalize(&snapshot.view_path).expect("a view is a device");

    // Both superblocks: no server can go on with such an area.
    let area = OpenOptions::new().write(true).open(daemon.path("vol.area"));
    let area = area.expect("the area can be opened");
    area.write_all_at(&[0xa5; 8192], 0).expect("and spoiled");
    kill_now(volume.server_pid);
    host::eventually("the volume is given back", || {
        api.volume("vol")
            .is_ok_and(|volume| volume.state() == VolumeState::FellBack)
    });
    assert_eq!(group.table("lv"), before);
    let jobs = load.jobs();
    host::eventually("the host works on", || load.jobs() > jobs + 1);
    host::eventually("no device of ours is left", || {
        !Path::new(&volume.interposer_path).exists() && !view.exists()
    });
    daemon.stop();
    daemon.restart();
    let api = daemon.api();
    let told = api.volume("vol").expect("a status");
    assert_eq!(told.state(), VolumeState::FellBack, "also afterwards");
    let trust = told.trust.expect("a trust report");
    assert_eq!(trust.trust(), Trust::Broken);
    assert!(trust.reason.contains("in a row"), "{}", trust.reason);
    let lost = api.get_snapshot(&snapshot.id).expect("its record stays");
    assert_eq!(lost.state(), SnapshotState::Lost);
    let told = api.events().into_iter();
    let fell = told.filter(|event| event.kind() == EventKind::VolumeFellBack);
    assert_eq!(fell.count(), 1);

    api.detach("vol", false)
        .expect("a detach of what fell back");
    fs::remove_file(daemon.path("vol.area")).expect("a spoiled area can go");
    let again = daemon.attach("vol", &origin, AREA_BYTES);
    let again = again.expect("an attach anew");
    assert_ne!(again.lineage, volume.lineage);
    let snapshot = api.snapshot("vol");
    let target = daemon.path("pulled.img");
    pull::pull(&api, &snapshot, None, &target).expect("a full pull");
    let view = image::digest(Path::new(&snapshot.view_path));
    assert_eq!(image::digest(&target), view);
    api.release(&snapshot.id).expect("a release");
    api.detach("vol", false).expect("a detach");
    println!("{:?}", load.finish());
    drop(mounted);
    FsKind::Ext4.assert_device_sound(&origin);
}
