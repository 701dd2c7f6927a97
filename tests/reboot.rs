//! The host stops and starts again: its memory is gone, its disks are not. Here the processes are
//! killed and what they left in memory is removed; tests/vm/power.rs pulls a real plug.

use std::{fs, path::Path, process::Command};

use tidemark_proto::v1::{EventKind, Snapshot, SnapshotState, TrackingDurability, Trust, Volume};
use tidemark_tests::{
    Api, Daemon, FsKind, MIB, Mounted, Random, api::attach_request, churn::Churn, host, image,
    programs, pull, pull::Pull,
};

const BYTES: u64 = 160 * MIB;

/// A volume with a file system whose first backup is in `pulled.img`.
struct Backed {
    daemon: Daemon,
    api: Api,
    base: Snapshot,
}

impl Backed {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(durable_snapshots: bool) -> Self {
        let daemon = Daemon::start();
        let origin = daemon.path("vol.img");
        image::sparse(&origin, BYTES);
        let mut asked = attach_request("vol", &origin, &daemon.path("vol.area"), 64 * MIB);
        let store = asked.store.as_mut().expect("a store is asked for");
        store.durable_snapshots = durable_snapshots;
        let volume = daemon.api().attach(asked).expect("an attach");
        assert_eq!(volume.durability(), TrackingDurability::Durable);
        FsKind::Ext4.make(volume.device_path.as_ref());
        let api = daemon.api();
        let backed = Self {
            base: api.snapshot("vol"),
            daemon,
            api,
        };
        let target = backed.daemon.path("pulled.img");
        pull::pull(&backed.api, &backed.base, None, &target).expect("a full pull");
        backed
    }

    fn volume(&self) -> Volume {
        self.api.volume("vol").expect("the volume is known")
    }

    /// Works in the file system, and leaves it alone.
    fn work(&self, seed: u64) {
        let device = self.volume().device_path;
        let mounted = Mounted::new(FsKind::Ext4, device.as_ref(), &self.daemon.path("mnt"));
        let churn = Churn::start(mounted.point(), seed);
        let random = &mut Random::new(seed);
        image::filled(&mounted.point().join("ballast"), 9 * MIB, random);
        churn.stop();
    }

    /// Until nothing is being changed any more, as far as the area tells.
    fn rest(&self) {
        let modified = || fs::metadata(self.daemon.path("vol.area")).and_then(|m| m.modified());
        let mut last = modified().expect("an area is a file");
        let mut looks = 0;
        host::eventually("the area is left alone", || {
            std::thread::sleep(std::time::Duration::from_millis(500));
            let now = modified().expect("an area is a file");
            looks = if now == last { looks + 1 } else { 0 };
            last = now;
            looks == 5
        });
    }

    /// As far as the agent can tell, the host started again.
    fn restart_host(&mut self) {
        self.restart_host_with(|| ());
    }

    /// The same; something happens while nothing of ours runs.
    fn restart_host_with(&mut self, meanwhile: impl FnOnce()) {
        let before = self.volume();
        let ours = host::Leftovers::of(&self.daemon.path(""));
        self.daemon.kill();
        host::kill_now(before.server_pid);
        host::eventually("the server is gone", || !host::runs(before.server_pid));
        ours.clear();
        for dir in &ours.memory {
            assert!(!dir.exists(), "{} is still there", dir.display());
        }
        assert!(!ours.memory.is_empty(), "a server has a memory");
        let run = self.daemon.path("run").join("volumes");
        fs::remove_dir_all(&run).expect("what is left in memory can be removed");
        meanwhile();
        self.daemon.restart();
        self.api.served_again(&before);
    }

    /// Pulls what changed since the first backup, and gives the trust in it.
    fn go_on(&self) -> (Trust, u64) {
        let next = self.api.snapshot("vol");
        let target = self.daemon.path("pulled.img");
        let mut pull = Pull::new(&next, self.base.checkpoint.clone(), &target);
        pull.finish(&self.api).expect("an incremental pull");
        image::assert_same(next.view_path.as_ref(), &target);
        FsKind::Ext4.assert_sound(&target, self.daemon.world());
        let trust = pull.header.and_then(|header| header.trust);
        let trust = trust.expect("a diff says what it is worth");
        (trust.trust(), pull.data_bytes)
    }

    /// The next backup must be a full one, for this reason.
    fn assert_anew(&self, cause: &str) {
        let next = self.api.snapshot("vol");
        let target = self.daemon.path("pulled.img");
        let refused = pull::pull(&self.api, &next, self.base.checkpoint.clone(), &target);
        let refused = refused.expect_err("a diff over what nobody knows");
        assert_eq!(refused.reason, "TRACKING_RESET", "{refused:?}");
        let told = refused.metadata.get("cause").cloned().unwrap_or_default();
        assert!(told.contains(cause), "{told}");
    }
}

#[test]
fn an_idle_volume_is_tracked_on_as_if_nothing_had_happened() {
    let mut backed = Backed::new();
    backed.work(1);
    backed.rest();
    backed.restart_host();
    assert_eq!(
        backed.volume().lineage,
        backed.base.checkpoint.clone().unwrap_or_default().lineage
    );
    let old = backed.api.get_snapshot(&backed.base.id).expect("a record");
    assert_eq!(old.state(), SnapshotState::Lost, "{old:?}");
    let told = backed.api.events();
    assert!(
        told.iter()
            .any(|event| event.kind() == EventKind::TrackingRecovered)
    );
    backed.work(2);
    let (trust, sent) = backed.go_on();
    assert_eq!(trust, Trust::Continuous);
    assert!(sent < BYTES / 3, "{sent} bytes were sent");
}

#[test]
fn durable_snapshots_are_there_again_or_gone_for_a_reason() {
    let mut backed = Backed::with(true);
    let digest = image::digest(&backed.daemon.path("pulled.img"));
    let base = |backed: &Backed| backed.api.get_snapshot(&backed.base.id).expect("a record");
    for seed in [1, 2] {
        backed.work(seed);
        backed.restart_host();
        let found = base(&backed);
        assert_eq!(found.state(), SnapshotState::Ready, "{found:?}");
        assert_eq!(image::digest(found.view_path.as_ref()), digest);
    }
    let (trust, _) = backed.go_on();
    assert!([Trust::Continuous, Trust::Superset].contains(&trust));
    let released = backed.api.snapshot("vol");
    backed.api.release(&released.id).expect("a release");
    backed.restart_host();
    let found = backed.api.get_snapshot(&released.id).expect("a record");
    assert_eq!(found.state(), SnapshotState::Released, "{found:?}");
    assert_eq!(base(&backed).state(), SnapshotState::Ready);
    // Others wrote to the volume: what the view would show is not certain any more.
    backed.rest();
    let image = backed.daemon.path("vol.img");
    backed.restart_host_with(|| image::scribble(&image, 100 * MIB, MIB, &mut Random::new(5)));
    let lost = base(&backed);
    assert_eq!(lost.state(), SnapshotState::Lost, "{lost:?}");
    assert!(lost.state_reason.contains("modified"), "{lost:?}");
}

#[test]
fn durable_snapshots_need_durable_tracking() {
    let daemon = Daemon::start();
    let origin = daemon.path("vol.img");
    image::sparse(&origin, 8 * MIB);
    let mut asked = attach_request("vol", &origin, &daemon.path("vol.area"), 8 * MIB);
    let store = asked.store.as_mut().expect("a store is asked for");
    store.durable_snapshots = true;
    store.durability = TrackingDurability::Volatile.into();
    let refused = daemon.api().attach(asked.clone());
    let refused = refused.expect_err("snapshots that outlive their tracking");
    assert_eq!(refused.reason, "INVALID_FIELD", "{refused:?}");
    let store = asked.store.as_mut().expect("a store is asked for");
    store.durability = TrackingDurability::Unspecified.into();
    let memory = Path::new("/dev/shm").join(format!("tidemark-kept-{}", std::process::id()));
    store.area_path = memory.display().to_string();
    let refused = daemon.api().attach(asked).expect_err("an area in memory");
    assert_eq!(refused.reason, "UNSUPPORTED", "{refused:?}");
    let _ = fs::remove_file(&memory);
}

#[test]
fn an_area_from_an_older_time_is_noticed() {
    let mut backed = Backed::new();
    backed.rest();
    let [area, copy, image] = ["vol.area", "copy", "vol.img"].map(|name| backed.daemon.path(name));
    let modified = fs::metadata(&area).and_then(|found| found.modified());
    let modified = modified.expect("an area is a file");
    fs::copy(&area, &copy).expect("an area can be copied");
    let device = backed.volume().device_path;
    image::scribble(device.as_ref(), 100 * MIB, 3 * MIB, &mut Random::new(3));
    backed.api.snapshot("vol");
    backed.rest();
    // The older area comes back while nobody looks, as from a backup of the host, and the image is
    // dated back: only the catalog knows better.
    backed.restart_host_with(|| {
        fs::copy(&copy, &area).expect("an area can be put back");
        let image = fs::File::options().write(true).open(&image);
        let dated = image.and_then(|image| image.set_modified(modified));
        dated.expect("an image can be dated back");
    });
    backed.assert_anew("older time");
}

#[test]
fn a_volume_that_others_wrote_to_meanwhile_is_not_trusted() {
    let mut backed = Backed::new();
    backed.work(4);
    backed.rest();
    let image = backed.daemon.path("vol.img");
    backed.restart_host_with(|| image::scribble(&image, 100 * MIB, MIB, &mut Random::new(5)));
    backed.assert_anew("modified");
}

/// As a clone of an image that is put in its place, with all that its bytes and dates tell.
#[test]
fn a_copy_in_the_place_of_the_image_is_noticed() {
    let mut backed = Backed::new();
    backed.work(6);
    backed.rest();
    let [image, copy] = ["vol.img", "copy"].map(|name| backed.daemon.path(name));
    backed.restart_host_with(|| {
        programs::succeed(Command::new("cp").arg("-a").args([&image, &copy]));
        fs::rename(&copy, &image).expect("a file takes another's place");
    });
    backed.assert_anew("another one than before");
    // The copy is the volume's image from now on.
    let next = backed.api.snapshot("vol");
    pull::pull(&backed.api, &next, None, &backed.daemon.path("pulled.img")).expect("a full pull");
    backed.base = next;
    backed.rest();
    backed.restart_host();
    backed.work(7);
    backed.go_on();
}

#[test]
fn volatile_tracking_says_so_and_ends_with_the_host() {
    let daemon = Daemon::start();
    let origin = daemon.path("vol.img");
    image::sparse(&origin, 8 * MIB);
    let mut asked = attach_request("vol", &origin, &daemon.path("vol.area"), 8 * MIB);
    let store = asked.store.as_mut().expect("a store is asked for");
    store.durability = TrackingDurability::Volatile.into();
    let volume = daemon.api().attach(asked).expect("an attach");
    assert_eq!(volume.durability(), TrackingDurability::Volatile);

    let memory = Path::new("/dev/shm").join(format!("tidemark-area-{}", std::process::id()));
    image::sparse(&daemon.path("other.img"), 8 * MIB);
    let mut asked = attach_request("other", &daemon.path("other.img"), &memory, 8 * MIB);
    let store = asked.store.as_mut().expect("a store is asked for");
    store.durability = TrackingDurability::Durable.into();
    let refused = daemon
        .api()
        .attach(asked.clone())
        .expect_err("an area in memory");
    assert_eq!(refused.reason, "UNSUPPORTED", "{refused:?}");
    let store = asked.store.as_mut().expect("a store is asked for");
    store.durability = TrackingDurability::Unspecified.into();
    let volume = daemon.api().attach(asked).expect("an attach");
    assert_eq!(volume.durability(), TrackingDurability::Volatile);
    daemon.api().detach("other", true).expect("a detach");
    fs::remove_file(&memory).expect("the area can be removed");
}
