//! Volumes over disks that fail: a fault disk under the origin and one under the area.
//!
//! In each cycle a file system on the volume is written to, snapshots are pulled, and something
//! goes wrong: the power is cut, the origin or the area fails requests, or the volume's server is
//! killed. After it the file system must recover by itself with every file that it had promised,
//! a snapshot must be exact or gone, and what is pulled next must equal the origin to the byte.
//!
//! `make test` tells a few cycles, `make test-faults` 200; TIDEMARK_SEED repeats a run's choices.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tidemark_proto::v1::{Checkpoint, Snapshot, SnapshotState, Trust, Volume};
use tidemark_tests::{
    Api, Daemon, FaultDisk, FsKind, MIB, Mounted, Random,
    api::attach_request,
    host, image, programs, pull,
    synced::{Promised, Synced, assert_kept},
};

/// Cycles over all file systems where the environment does not say more.
const CYCLES: usize = 12;
const AREA_BYTES: u64 = 48 * MIB;
const VOLUME: &str = "vol";

#[test]
fn ext4_over_disks_that_fail() {
    Story::begin(FsKind::Ext4, 64 * MIB).tell();
}

#[test]
fn xfs_over_disks_that_fail() {
    Story::begin(FsKind::Xfs, 304 * MIB).tell();
}

#[test]
fn btrfs_over_disks_that_fail() {
    Story::begin(FsKind::Btrfs, 128 * MIB).tell();
}

/// That the story sees: of a disk that promises and does not keep, something is missing.
#[test]
#[should_panic]
fn a_disk_that_does_not_keep_what_it_promised_is_seen() {
    let mut story = Story::begin(FsKind::Ext4, 64 * MIB);
    story.origin.lie();
    // A power cut may happen to lose nothing; six in a row do not.
    for _ in 0..6 {
        story.cycle(Trouble::PowerCut);
    }
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    PowerCut,
    OriginFails,
    AreaFails,
    ServerDies,
}

impl Trouble {
    const ALL: [Self; 4] = [
        Self::PowerCut,
        Self::AreaFails,
        Self::OriginFails,
        Self::ServerDies,
    ];

    /// What the next increment is worth. The one place to change when tracking survives more.
    fn trust_after(self) -> &'static [Trust] {
        match self {
            // The server lives on and has seen every request, whatever became of it.
            Self::OriginFails | Self::AreaFails => &[Trust::Continuous],
            // The area's journal tells.
            Self::PowerCut => &[Trust::Continuous, Trust::Superset],
            // Of a block device nobody knows who wrote to it meanwhile.
            Self::ServerDies => &[],
        }
    }
}

struct Story {
    daemon: Daemon,
    api: Api,
    kind: FsKind,
    random: Random,
    origin: FaultDisk,
    area: FaultDisk,
    device: PathBuf,
    point: PathBuf,
    /// The image that grows by increments.
    chain: PathBuf,
    base: Option<Checkpoint>,
    promised: Promised,
    /// Sectors that power cuts put in doubt, and requests that failed: that there was any trouble.
    doubtful: usize,
}

impl Story {
    fn begin(kind: FsKind, bytes: u64) -> Self {
        let mut random = Random::announced(kind.name());
        let origin = FaultDisk::new(bytes, random.next_u64());
        let area = FaultDisk::new(AREA_BYTES, random.next_u64());
        let daemon = Daemon::start();
        let api = daemon.api();
        let attached = api.attach(attach_request(VOLUME, origin.path(), area.path(), 0));
        let volume = attached.unwrap_or_else(|e| panic!("the volume cannot be attached: {e:?}"));
        let device = PathBuf::from(volume.device_path);
        kind.make(&device);
        Self {
            api,
            kind,
            random,
            device,
            point: daemon.path("mnt"),
            chain: daemon.path("chain.img"),
            base: None,
            promised: Promised::new(),
            doubtful: 0,
            origin,
            area,
            daemon,
        }
    }

    fn tell(mut self) {
        let wish = std::env::var("TIDEMARK_FAULT_CYCLES").ok();
        let cycles = wish.map_or(CYCLES, |text| text.parse().expect("a number of cycles"));
        let kinds = 3;
        for cycle in 0..cycles.div_ceil(kinds) {
            let trouble = Trouble::ALL[cycle % Trouble::ALL.len()];
            println!("{} {cycle}: {trouble:?}", self.kind.name());
            self.cycle(trouble);
        }
        assert!(self.doubtful > 0, "no power cut met an unflushed sector");
        let failed = self.origin.failed() + self.area.failed();
        assert!(failed > 0, "no request failed");
        println!(
            "{}: {} sectors in doubt, {failed} requests failed",
            self.kind.name(),
            self.doubtful
        );
        self.api.detach(VOLUME, true).expect("a detach");
        image::assert_same(self.origin.path(), &self.chain);
    }

    fn cycle(&mut self, trouble: Trouble) {
        let mounted = Mounted::new(self.kind, &self.device, &self.point);
        assert_kept(&self.point, &self.promised);
        self.origin.delay(self.random.below(400));
        self.area.delay(self.random.below(400));
        let load = Synced::start(&self.point, std::mem::take(&mut self.promised));
        self.pause(20, 250);

        // Under load, with everything still well.
        let held = self.api.snapshot(VOLUME);
        let before = self.base.is_some().then_some(Trust::Continuous);
        self.extend_chain(&held, before.as_slice());
        self.pause(20, 250);

        match trouble {
            Trouble::PowerCut => self.power_cut(load, mounted),
            Trouble::OriginFails => self.origin_fails(load, mounted),
            Trouble::AreaFails => self.area_fails(load, mounted),
            Trouble::ServerDies => self.server_dies(load, mounted),
        }
        self.assert_exact_or_gone(&held);
        self.recover(trouble);

        let settled = self.api.snapshot(VOLUME);
        self.extend_chain(&settled, trouble.trust_after());
        image::assert_same(self.origin.path(), &self.chain);
        self.kind.assert_sound(&self.chain, self.daemon.world());
        for snapshot in [held, settled] {
            self.api.release(&snapshot.id).expect("a release");
        }
    }

    fn pause(&mut self, least_ms: u64, most_ms: u64) {
        let pause = self.random.between(least_ms, most_ms);
        std::thread::sleep(Duration::from_millis(pause));
    }

    /// Pulls what changed since the last pull, if that is worth one of `allowed`; where nothing is
    /// allowed the agent must say that it does not know, and all of it is pulled.
    fn extend_chain(&mut self, snapshot: &Snapshot, allowed: &[Trust]) {
        let increment = self
            .base
            .take()
            .map(|base| pull::pull(&self.api, snapshot, Some(base), &self.chain));
        match increment {
            Some(Ok(pulled)) => {
                let report = pulled.header.and_then(|header| header.trust);
                let trust = report.expect("trust is told").trust();
                assert!(
                    allowed.contains(&trust),
                    "{trust:?}, not one of {allowed:?}"
                );
            }
            Some(Err(refusal)) => {
                assert_eq!(refusal.reason, "TRACKING_RESET", "{refusal:?}");
                assert!(
                    allowed.is_empty(),
                    "tracking should have gone on: {refusal:?}"
                );
                pull::pull(&self.api, snapshot, None, &self.chain).expect("a full pull");
            }
            None => {
                pull::pull(&self.api, snapshot, None, &self.chain).expect("a full pull");
            }
        }
        self.base.clone_from(&snapshot.checkpoint);
    }

    /// Everything loses its power at one moment; then the host starts again.
    fn power_cut(&mut self, load: Synced, mounted: Mounted) {
        let before = self.api.volume(VOLUME).expect("it is attached");
        self.doubtful += self.origin.cut_power_of_both(&self.area);
        let (promised, _) = load.stop();
        self.promised = promised;
        // All that the host had in memory goes: mounts, processes, devices, tmpfs.
        std::mem::forget(mounted);
        let world = self.daemon.world().root().to_owned();
        let gone = self.daemon.world().leftovers();
        self.daemon.kill();
        gone.clear();
        host::eventually("nothing is left of the host's memory", || {
            let left = self.daemon.world().leftovers();
            left.clear();
            left.is_empty()
        });
        let _ = fs::remove_dir_all(world.join("run"));
        self.origin.calm();
        self.area.calm();
        self.origin.restore_power();
        self.area.restore_power();
        self.daemon.restart();
        self.api = self.daemon.api();
        self.served_again(&before);
    }

    /// Requests to the origin fail. What the file system makes of it is its own affair; what the
    /// volume holds must still be known.
    fn origin_fails(&mut self, load: Synced, mounted: Mounted) {
        let requests = self.random.between(1, 40);
        let reads_too = self.random.below(2) == 0;
        self.origin.fail(libc::EIO, requests, reads_too);
        self.pause(20, 250);
        self.origin.calm();
        let (_, _) = load.stop();
        drop(mounted);
        self.area.calm();
    }

    /// Requests to the area fail, for a moment. The host must not notice (I7).
    fn area_fails(&mut self, load: Synced, mounted: Mounted) {
        let errno = [libc::EIO, libc::ENOSPC][usize::from(self.random.below(2) == 0)];
        let requests = self.random.between(1, 200);
        self.area.fail(errno, requests, self.random.below(2) == 0);
        // What lies in the cache meets the device only now.
        let _ = Command::new("sync")
            .arg("-d")
            .arg(self.area.path())
            .status();
        self.pause(20, 250);
        self.area.calm();
        self.origin.calm();
        let (promised, error) = load.stop();
        assert!(
            error.is_none(),
            "the store's failure reached the host: {error:?}"
        );
        self.promised = promised;
        drop(mounted);
    }

    fn server_dies(&mut self, load: Synced, mounted: Mounted) {
        let before = self.api.volume(VOLUME).expect("it is attached");
        host::kill_now(before.server_pid);
        let (promised, _) = load.stop();
        self.promised = promised;
        std::mem::forget(mounted);
        programs::run(Command::new("umount").arg("-l").arg(&self.point));
        self.origin.calm();
        self.area.calm();
        self.served_again(&before);
    }

    fn served_again(&mut self, before: &Volume) {
        self.device = self.api.served_again(before).device_path.into();
    }

    /// The file system's own recovery, and that it keeps what it promised.
    fn recover(&mut self, trouble: Trouble) {
        if trouble == Trouble::OriginFails {
            // It was told of errors and may have given up: a new one takes its place.
            self.kind.make(&self.device);
            self.promised.clear();
            return;
        }
        drop(Mounted::new(self.kind, &self.device, &self.point));
        self.kind.assert_device_sound(&self.device);
        let mounted = Mounted::new(self.kind, &self.device, &self.point);
        assert_kept(&self.point, &self.promised);
        drop(mounted);
    }

    /// The chain still holds what the snapshot was pulled as.
    fn assert_exact_or_gone(&self, held: &Snapshot) {
        let again = self.daemon.path("again.img");
        let now = self.api.get_snapshot(&held.id).expect("its record stays");
        if now.state() == SnapshotState::Ready && pull::pull(&self.api, &now, None, &again).is_ok()
        {
            image::assert_same(&again, &self.chain);
            return;
        }
        let gone = self.api.get_snapshot(&held.id).expect("its record stays");
        assert_ne!(gone.state(), SnapshotState::Ready, "{gone:?}");
        assert!(!gone.state_reason.is_empty(), "{gone:?}");
        remove(&again);
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            panic!("{}: {error}", path.display())
        }
        _ => {}
    }
}
