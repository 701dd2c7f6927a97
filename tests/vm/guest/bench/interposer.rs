//! Ours, by the real daemon.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidemark_proto::v1::{AttachVolumeRequest, Snapshot, TransportKind, Volume};
use tidemark_tests::{Api, Daemon, FsKind, MIB, Mounted, api::attach_request, host::eventually};

use super::{
    Disks, SIZE_MIB,
    layers::Layer,
    mapped::{self, Stack},
};

const VOLUME: &str = "bench";
/// Room for every block and what the area keeps beside them.
const AREA_BYTES: u64 = (SIZE_MIB + 64) * MIB;
/// What a slot takes of the state beside its bytes: a word and a checksum there, a link and its
/// share of the chains' heads in the process.
const INDEX_BYTES: u64 = 8 + 4 + 4 + 8;

/// A volume over us, with a snapshot or without.
pub(super) struct Interposed {
    device: PathBuf,
    snapshot: Option<Snapshot>,
    kept: Vec<u64>,
    area_is_on: &'static str,
    // Dropped in this order: the volume is detached before what it lies on goes.
    daemon: Daemon,
    _area: Option<(Mounted, TempDir)>,
    _volume: Stack,
}

impl Interposed {
    /// Straight over the disk, with no device-mapper, as a disk is that is not mounted yet. It
    /// tracks, as ours always does.
    pub(super) fn assembled(disks: &Disks) -> Box<dyn Layer> {
        let daemon = Daemon::start();
        let area = daemon.path("area");
        let volume = attach(&daemon, &disks.main, &area);
        Box::new(Self {
            device: volume.device_path.into(),
            snapshot: None,
            kept: Vec::new(),
            area_is_on: "tmpfs",
            daemon,
            _area: None,
            _volume: Stack::default(),
        })
    }

    /// Live over a dm-linear volume.
    pub(super) fn idle(disks: &Disks) -> Box<dyn Layer> {
        let daemon = Daemon::start();
        let area = daemon.path("area");
        Box::new(Self::live(disks, daemon, &area, "tmpfs"))
    }

    /// With a live snapshot.
    pub(super) fn with_snapshot(disks: &Disks) -> Box<dyn Layer> {
        let daemon = Daemon::start();
        let area = daemon.path("area");
        let mut ours = Self::live(disks, daemon, &area, "tmpfs");
        ours.renew();
        Box::new(ours)
    }

    /// With an area that outlives the host, and so does tracking: a file of a file system on the
    /// second disk.
    pub(super) fn durable(disks: &Disks) -> Box<dyn Layer> {
        Box::new(Self::over_ext4(disks))
    }

    /// The same with a live snapshot.
    pub(super) fn with_area_on_ext4(disks: &Disks) -> Box<dyn Layer> {
        let mut ours = Self::over_ext4(disks);
        ours.renew();
        Box::new(ours)
    }

    fn over_ext4(disks: &Disks) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let point = folder.path().join("store");
        let mounted = Mounted::fresh(FsKind::Ext4, &disks.cow, &point);
        let what = "ext4 on a disk of the same kind";
        let mut ours = Self::live(disks, Daemon::start(), &point.join("area"), what);
        ours._area = Some((mounted, folder));
        ours
    }

    fn live(disks: &Disks, daemon: Daemon, area: &Path, area_is_on: &'static str) -> Self {
        let volume = mapped::linear(disks);
        attach(&daemon, volume.top(), area);
        Self {
            device: volume.top().to_owned(),
            snapshot: None,
            kept: Vec::new(),
            area_is_on,
            daemon,
            _area: None,
            _volume: volume,
        }
    }

    fn api(&self) -> Api {
        self.daemon.api()
    }

    fn state(&self) -> Volume {
        self.api().volume(VOLUME).expect("a status")
    }

    fn kept_bytes(&self) -> u64 {
        self.state()
            .store_status
            .map_or(0, |store| store.used_bytes)
    }
}

fn attach(daemon: &Daemon, origin: &Path, area: &Path) -> Volume {
    let asked = AttachVolumeRequest {
        transport: TransportKind::Ublk.into(),
        ..attach_request(VOLUME, origin, area, AREA_BYTES)
    };
    daemon.api().attach(asked).expect("an attach")
}

impl Layer for Interposed {
    fn device(&self) -> &Path {
        &self.device
    }

    fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    fn renew(&mut self) {
        let api = self.api();
        if let Some(old) = self.snapshot.take() {
            api.release(&old.id).expect("a release");
            eventually("the store is empty", || self.kept_bytes() == 0);
        }
        self.snapshot = Some(api.snapshot(VOLUME));
    }

    fn touched(&mut self, requests: u64) {
        self.kept.push(self.kept_bytes() / requests.max(1));
    }

    fn note(&self) -> Option<String> {
        let most = self.kept.iter().max()?;
        Some(format!(
            "  the area on {}; kept for each first write of 4 KiB: {} bytes ({most} in the area, \
             {INDEX_BYTES} of index)",
            self.area_is_on,
            most + INDEX_BYTES
        ))
    }
}
