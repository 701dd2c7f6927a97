//! Other programs change the table of an attached volume. Whoever asks first finds out: no diff is
//! answered that does not know of it.

use std::process::Command;

use tidemark_proto::v1::{
    CreateSnapshotRequest, EventKind, Snapshot, SnapshotState, Trust, Volume, VolumeState,
};
use tidemark_tests::{
    Api, Daemon, DoubleEntry, FsKind, Load, MIB, Mounted, Random, host, image,
    lvm::{Group, guest_disk, lvm},
    programs::succeed,
    pull,
};

const AREA_BYTES: u64 = 128 * MIB;
const LV_MIB: u64 = 32;
/// A file system under load needs more.
const MOUNTED_MIB: u64 = 64;

/// A volume with a checkpoint, and changes since.
struct Scene {
    api: Api,
    before: Volume,
    base: Snapshot,
    /// The volume's table without us, and with us.
    own: String,
    interposed: String,
    random: Random,
    // Dropped in this order: the volume group goes last.
    daemon: Daemon,
    group: Group,
}

impl Scene {
    fn new() -> Self {
        let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
        let origin = group.linear("lv", LV_MIB);
        let mut random = Random::new(5);
        image::scribble(&origin, 0, 8 * MIB, &mut random);
        let own = group.table("lv");
        let daemon = Daemon::start();
        let before = daemon
            .attach("vol", &origin, AREA_BYTES)
            .expect("an attach");
        let interposed = group.table("lv");
        assert_ne!(interposed, own);
        let api = daemon.api();
        let base = api.snapshot("vol");
        let mut scene = Self {
            api,
            before,
            base,
            own,
            interposed,
            random,
            daemon,
            group,
        };
        scene.scribble(4);
        scene
    }

    /// Writes a MiB to the volume.
    fn scribble(&mut self, at_mib: u64) {
        let device = self.group.device("lv");
        image::scribble(&device, at_mib * MIB, MIB, &mut self.random);
    }

    fn status(&self) -> Volume {
        self.api.volume("vol").expect("a status")
    }

    /// The first snapshot that can be had.
    fn next(&self) -> Snapshot {
        let request = CreateSnapshotRequest {
            volumes: vec!["vol".into()],
            ..CreateSnapshotRequest::default()
        };
        let mut taken = None;
        host::eventually("the volume can be cut again", || {
            taken = self.api.snapshot_as(request.clone()).ok();
            taken.is_some()
        });
        taken.expect("it was just taken").remove(0)
    }

    /// Asks before the guard need have looked, and then for all that it owes.
    fn assert_started_anew(&mut self, cause: &str) {
        let next = self.next();
        let found = self.status();
        assert_eq!(found.state(), VolumeState::Attached, "{found:?}");
        assert_ne!(found.lineage, self.before.lineage);
        let checkpoint = next.checkpoint.clone().expect("a cut makes a checkpoint");
        assert_eq!(
            checkpoint.lineage, found.lineage,
            "a cut of the old lineage"
        );
        let trust = found.trust.clone().expect("a volume has a trust");
        assert_eq!(trust.trust(), Trust::Continuous, "{trust:?}");

        let gone = self.api.get_snapshot(&self.base.id);
        let gone = gone.expect("its record stays");
        assert_eq!(gone.state(), SnapshotState::Lost, "{gone:?}");
        assert!(gone.view_path.is_empty());
        let told = self.api.events();
        let told = told.iter().filter(|event| {
            event.kind() == EventKind::TrackingReset && event.message.contains(cause)
        });
        assert!(told.count() > 0, "no event says {cause:?}");
        self.assert_pulls(&next, cause);
    }

    /// The old checkpoint is refused; a full pull and an incremental one are right.
    fn assert_pulls(&mut self, next: &Snapshot, cause: &str) {
        let target = self.daemon.path("pulled.img");
        pull::pull(&self.api, next, None, &target).expect("a full pull");
        assert_eq!(image::digest(&target), view_of(next));
        let old = self.base.checkpoint.clone();
        let refused = pull::pull(&self.api, next, old, &target);
        let refused = refused.expect_err("a diff over a gap");
        assert_eq!(refused.reason, "TRACKING_RESET", "{refused:?}");
        let told = refused.metadata.get("cause").cloned().unwrap_or_default();
        assert!(told.contains(cause), "{refused:?}");

        let mut books = DoubleEntry::open(&self.api, "vol");
        self.scribble(20);
        let booked = books.assert(&self.api);
        assert_eq!(booked, MIB / 512, "what was written passed us");
        let second = self.api.snapshot("vol");
        let pulled = pull::pull(&self.api, &second, next.checkpoint.clone(), &target);
        let pulled = pulled.expect("an incremental pull");
        assert_eq!(pulled.data_bytes, MIB);
        assert_eq!(image::digest(&target), view_of(&second));
        for snapshot in [next, &second] {
            self.api.release(&snapshot.id).expect("a release");
        }
    }

    fn detach(&self) {
        self.api.detach("vol", false).expect("a detach");
    }
}

fn view_of(snapshot: &Snapshot) -> blake3::Hash {
    image::digest(snapshot.view_path.as_ref())
}

#[test]
#[ignore = "runs in a guest"]
fn growth_is_followed() {
    let mut scene = Scene::new();
    let path = scene.group.path("lv");
    lvm(&["lvextend", "-L", "+32m", &path]);
    scene.assert_started_anew("resized");
    let grown = scene.status();
    assert_eq!(grown.capacity_bytes, (LV_MIB + 32) * MIB);
    let snapshot = scene.api.snapshot("vol");
    assert_eq!(snapshot.capacity_bytes, grown.capacity_bytes);
    let view = succeed(
        Command::new("blockdev")
            .arg("--getsize64")
            .arg(&snapshot.view_path),
    );
    assert_eq!(view.trim(), grown.capacity_bytes.to_string());
    scene.api.release(&snapshot.id).expect("a release");
    // The new part is served like the rest.
    scene.scribble(LV_MIB + 8);
    let changed = scene.status().changed_bytes_in_epoch;
    assert!(changed >= MIB, "{changed} bytes changed");
    scene.detach();
}

#[test]
#[ignore = "runs in a guest"]
fn growth_under_a_mounted_file_system_is_followed_at_length() {
    let group = Group::new("vg", &[guest_disk(0), guest_disk(1)]);
    let origin = group.linear("lv", MOUNTED_MIB);
    let daemon = Daemon::start();
    let api = daemon.api();
    let mounted = Mounted::fresh(FsKind::Ext4, &origin, &daemon.path("mnt"));
    let load = Load::start(mounted.point());
    let before = daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach under load");
    lvm(&["lvextend", "-L", "+32m", &group.path("lv")]);
    host::eventually("the new size is followed", || {
        let found = api.volume("vol");
        found.is_ok_and(|found| {
            found.state() == VolumeState::Attached
                && found.capacity_bytes == (MOUNTED_MIB + 32) * MIB
        })
    });
    let grown = api.volume("vol").expect("a status");
    assert_ne!(grown.lineage, before.lineage);
    succeed(Command::new("resize2fs").arg(&origin));
    let snapshot = api.snapshot("vol");
    let target = daemon.path("pulled.img");
    pull::pull(&api, &snapshot, None, &target).expect("a full pull");
    assert_eq!(image::digest(&target), view_of(&snapshot));
    FsKind::Ext4.assert_sound(&target, daemon.world());
    api.release(&snapshot.id).expect("a release");
    println!("{:?}", load.finish());
    api.detach("vol", false).expect("a detach while mounted");
    drop(mounted);
    FsKind::Ext4.assert_device_sound(&origin);
}

#[test]
#[ignore = "runs in a guest"]
fn a_deactivated_volume_is_taken_up_when_it_returns_at_length() {
    let mut scene = Scene::new();
    let path = scene.group.path("lv");
    lvm(&["lvchange", "-an", &path]);
    host::eventually("status says that it is gone", || {
        scene.status().state() == VolumeState::Bypassed
    });
    let trust = scene.status().trust.expect("a volume has a trust");
    assert_eq!(trust.trust(), Trust::Broken);
    assert!(trust.reason.contains("lvchange -ay"), "{trust:?}");
    lvm(&["lvchange", "-ay", &path]);
    scene.assert_started_anew("taken away and came back");
    assert!(scene.group.table("lv").contains("linear"));
    assert_ne!(scene.group.table("lv"), scene.own);
    scene.detach();
    assert_eq!(scene.group.table("lv"), scene.own);
}

#[test]
#[ignore = "runs in a guest"]
fn a_snapshot_by_lvm_is_followed_at_length() {
    let mut scene = Scene::new();
    let path = scene.group.path("lv");
    let words = ["lvcreate", "-y", "-s", "-n", "snap", "-L", "32m", &path];
    lvm(&words);
    scene.assert_started_anew("another table");
    assert_eq!(scene.group.table("lv"), scene.interposed);
    // LVM's own snapshot works on: it keeps what we let through.
    let status = succeed(Command::new("dmsetup").args(["status", "vg-snap"]));
    assert!(!status.contains(" 0/"), "{status}");
    scene.detach();
    assert!(scene.group.table("lv").contains("snapshot-origin"));
    lvm(&["lvremove", "-y", &scene.group.path("snap")]);
    assert_eq!(scene.group.table("lv"), scene.own);
}

#[test]
#[ignore = "runs in a guest"]
fn a_table_by_hand_is_replaced() {
    let mut scene = Scene::new();
    let name = scene.group.mapped("lv");
    let table = scene.own.trim().to_owned();
    let load = ["load", &name, "--table", &table];
    succeed(Command::new("dmsetup").args(load));
    // Pending, it changes nothing yet.
    assert_eq!(scene.group.table("lv"), scene.interposed);
    succeed(Command::new("dmsetup").args(["resume", "--noudevsync", &name]));
    scene.assert_started_anew("another table");
    assert_eq!(scene.group.table("lv"), scene.interposed);
    scene.detach();
    assert_eq!(scene.group.table("lv"), scene.own);
}

/// The table is ours again when we look, and only the counters tell.
#[test]
#[ignore = "runs in a guest"]
fn writes_around_us_are_found_at_length() {
    let mut scene = Scene::new();
    let name = scene.group.mapped("lv");
    let pid = scene.status().server_pid;
    let put = |table: &str| {
        let words = ["load", &name, "--table", table.trim()];
        succeed(Command::new("dmsetup").args(words));
        succeed(Command::new("dmsetup").args(["resume", "--noudevsync", &name]));
    };
    // Stopped, so that it does not see the table that it is not to see.
    let stop = |signal: &str| {
        succeed(Command::new("kill").args([signal, &pid.to_string()]));
    };
    stop("-STOP");
    put(&scene.own);
    scene.scribble(30);
    put(&scene.interposed);
    stop("-CONT");
    scene.assert_started_anew("written around us");
    scene.detach();
}
