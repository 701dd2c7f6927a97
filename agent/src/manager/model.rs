//! The control plane's own words. Instants are microseconds since the UNIX epoch.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use tidemark_proto::v1;
use tidemark_store::{
    catalog::{Durability, FullPolicy, SnapshotRecord, Transport, VolumeRecord},
    units::{Epoch, Id},
};

pub use crate::volume::{Counters, Extent, ExtentPage, Kind};

/// A point that diffs are asked against.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Checkpoint {
    /// The lineage it belongs to.
    pub lineage: Id,
    /// The epoch that its cut ended.
    pub epoch: Epoch,
}

/// A checkpoint as listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointStatus {
    /// The point.
    pub checkpoint: Checkpoint,
    /// When it was made.
    pub created_us: u64,
    /// The snapshot that made it, when it still has a record.
    pub snapshot: Option<Id>,
}

/// How far a diff can be trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trust {
    /// The verdict.
    pub level: v1::Trust,
    /// Why it is not CONTINUOUS; empty when it is.
    pub reason: String,
    /// The most that can be over-reported, in bytes.
    pub over_report_bound_bytes: u64,
    /// When tracking last started anew.
    pub since_us: u64,
}

/// A snapshot: its record, and what its volume's server says of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// What is remembered.
    pub record: SnapshotRecord,
    /// The view as a read-only file; `None` unless it can be read now.
    pub view_path: Option<PathBuf>,
    /// Old data kept because of it, in bytes.
    pub preserved_bytes: u64,
}

impl Snapshot {
    /// The point that its cut made.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            lineage: self.record.lineage,
            epoch: self.record.epoch,
        }
    }
}

/// A volume: its record, and its server's description when that answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// What is remembered.
    pub record: VolumeRecord,
    /// What the server says; why it does not, when it does not.
    pub live: Result<LiveVolume, NotServed>,
}

/// Why nothing is known of a volume now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotServed {
    /// For people.
    pub why: String,
    /// The volume was taken from its servers, and the host uses it without us.
    pub fell_back: bool,
    /// Nothing waits for a server: what the host writes to the volume now is not tracked.
    pub untracked: bool,
}

/// A volume as its server describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveVolume {
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// Unit of tracking, in bytes.
    pub block_bytes: u32,
    /// The block device to mount; empty when it could not be made.
    pub device_path: PathBuf,
    /// The live volume as a file.
    pub live_path: PathBuf,
    /// Where the device is mounted.
    pub mount_points: Vec<PathBuf>,
    /// The current lineage.
    pub lineage: Id,
    /// Why it began.
    pub lineage_cause: String,
    /// When it began.
    pub lineage_since_us: u64,
    /// The running epoch.
    pub epoch: Epoch,
    /// Size of the snapshot store in bytes.
    pub store_capacity_bytes: u64,
    /// Of these in use.
    pub store_used_bytes: u64,
    /// Snapshots whose data can be read.
    pub live_snapshots: u32,
    /// Checkpoints of the current lineage.
    pub checkpoints: u32,
    /// Sums since the server started.
    pub counters: Counters,
    /// Bytes marked in the running epoch.
    pub changed_bytes_in_epoch: u64,
    /// The server's process.
    pub server_pid: i32,
    /// By ublk, and not by the portable transport.
    pub ublk: bool,
    /// The interposer's own block device; empty with the portable transport.
    pub interposer_path: PathBuf,
    /// Why the host's requests go around the interposer; empty when they do not.
    pub bypassed: String,
    /// Whether tracking outlives the host.
    pub durability: v1::TrackingDurability,
    /// Why it does not now.
    pub durability_reason: String,
}

/// Where a volume's area is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AreaChoice {
    /// A file or block device.
    At(PathBuf),
    /// A logical volume that is made in the origin's group, by this name; empty chooses one.
    LogicalVolume(String),
}

/// What to attach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachArgs {
    /// The volume's name.
    pub name: String,
    /// The device or image.
    pub origin_path: PathBuf,
    /// Unit of tracking in bytes; 0 is the default.
    pub block_bytes: u32,
    /// Where the area is.
    pub area: AreaChoice,
    /// Size to make the area with; 0 keeps the size it has, or takes the default.
    pub area_size_bytes: u64,
    /// What happens when the store fills.
    pub policy: FullPolicy,
    /// How to present it to the host.
    pub transport: Transport,
    /// Whether its tracking is to outlive the host.
    pub durability: Durability,
    /// Whether its snapshots are, too.
    pub durable_snapshots: bool,
    /// Idempotency key; empty is none.
    pub request_id: String,
}

/// What to snapshot.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct CreateArgs {
    /// The volumes; empty with a group.
    pub volumes: Vec<String>,
    /// The group; empty with volumes.
    pub group: String,
    /// Whether to freeze.
    pub freeze: v1::FreezeMode,
    /// The lease; `None` keeps the snapshots until they are released.
    pub lease: Option<Duration>,
    /// The caller's own words.
    pub labels: BTreeMap<String, String>,
    /// Idempotency key; empty is none.
    pub request_id: String,
    /// The longest that file systems may stay frozen; `None` is the default.
    pub max_freeze: Option<Duration>,
}
