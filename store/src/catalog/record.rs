//! What the catalog remembers of each thing. Instants are microseconds since the UNIX epoch.

use std::{collections::BTreeMap, path::PathBuf};

use crate::units::{Epoch, Id};

/// What a volume does when its snapshot store fills.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FullPolicy {
    /// Drops the oldest snapshot at once.
    Drop,
    /// Delays each writer by at most this many milliseconds, then drops.
    Slow {
        /// The bound, in milliseconds.
        max_write_delay_ms: u64,
    },
}

/// An attached volume: all that is needed to start its server again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeRecord {
    /// Its name; unique.
    pub name: String,
    /// Its identity, fixed at attach.
    pub id: Id,
    /// The device or image under it; unique.
    pub origin_path: PathBuf,
    /// The area; unique.
    pub area_path: PathBuf,
    /// Size to make the area with; 0 keeps the size it has.
    pub area_size_bytes: u64,
    /// The area is a logical volume that attach made, and detach removes.
    pub area_made: bool,
    /// Unit of tracking, in bytes.
    pub block_bytes: u32,
    /// What happens when the store fills.
    pub policy: FullPolicy,
    /// How it is presented to the host.
    pub transport: Transport,
    /// Whether its tracking is to outlive the host.
    pub durability: Durability,
    /// Whether its snapshots are, too.
    pub durable_snapshots: bool,
    /// Why what the area tells of earlier tracking must not be believed.
    pub distrust: Option<String>,
    /// Which device or file the origin was when it was served last, where that can be told.
    pub origin_identity: Option<String>,
    /// When it was attached.
    pub attached_us: u64,
}

/// An area that attach made for a volume that is no more: it is to be removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnwantedArea {
    /// The volume's identity, which tells its area from any other.
    pub volume: Id,
    /// Where the area was.
    pub path: PathBuf,
}

/// How a volume is presented to the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Transport {
    /// Chosen at each start: ublk for block devices where the host has it, else portable.
    #[default]
    Auto,
    /// A FUSE file and a loop device.
    Portable,
    /// A ublk device.
    Ublk,
}

impl Transport {
    /// Its name in the catalog and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Portable => "portable",
            Self::Ublk => "ublk",
        }
    }

    /// The one with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Auto, Self::Portable, Self::Ublk]
            .into_iter()
            .find(|transport| transport.name() == name)
    }
}

/// Whether a volume's tracking is to outlive the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Chosen at each start: it does, unless the area lies in memory.
    #[default]
    Auto,
    /// It does not.
    Volatile,
    /// It does.
    Durable,
}

impl Durability {
    /// Its name in the catalog and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Volatile => "volatile",
            Self::Durable => "durable",
        }
    }

    /// The one with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Auto, Self::Volatile, Self::Durable]
            .into_iter()
            .find(|durability| durability.name() == name)
    }
}

/// What became of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SnapshotState {
    /// Its data can be read.
    Ready,
    /// Its data was given back.
    Released,
    /// It was dropped because the store filled.
    Overflowed,
    /// It was lost to an error.
    Lost,
}

/// What a snapshot's content is worth.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Consistency {
    /// As after a power cut.
    Crash,
    /// The file system was frozen.
    FileSystem,
}

/// A snapshot, also one whose data is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRecord {
    /// Its identity.
    pub id: Id,
    /// Shared by the snapshots of one cut.
    pub set_id: Id,
    /// The name of its volume.
    pub volume: String,
    /// The identity of its volume: a name may be used again.
    pub volume_id: Id,
    /// The lineage of its checkpoint.
    pub lineage: Id,
    /// The epoch that its cut ended.
    pub epoch: Epoch,
    /// Whether it can be read.
    pub state: SnapshotState,
    /// Why it cannot; empty when it can.
    pub state_reason: String,
    /// Whether the lease's end is why it was released.
    pub lease_ended: bool,
    /// What its content is worth.
    pub consistency: Consistency,
    /// When it was cut.
    pub created_us: u64,
    /// How long a lease is; 0 is none.
    pub lease_us: u64,
    /// When the lease ends; `None` without a lease.
    pub lease_expires_us: Option<u64>,
    /// For how long writers were held.
    pub held_us: u64,
    /// For how long its file system was frozen; `None` when it was not.
    pub frozen_us: Option<u64>,
    /// Size of the volume at the cut.
    pub capacity_bytes: u64,
    /// Unit of tracking, in bytes.
    pub block_bytes: u32,
    /// The caller's own words.
    pub labels: BTreeMap<String, String>,
}

/// An event before it has its number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEvent {
    /// When.
    pub at_us: u64,
    /// What happened: a stable name.
    pub kind: String,
    /// How bad it is: a stable name.
    pub severity: String,
    /// The volume concerned; empty when none is.
    pub volume: String,
    /// The snapshot concerned.
    pub snapshot: Option<Id>,
    /// One sentence for a human.
    pub message: String,
}

/// A kept event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventRecord {
    /// Grows by one, also across restarts.
    pub sequence: u64,
    /// The rest.
    pub event: NewEvent,
}

/// What an earlier call with a request id did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestRecord {
    /// Which call it was.
    pub call: String,
    /// A digest of its arguments.
    pub arguments: Vec<u8>,
    /// The ids or names that it made.
    pub results: Vec<String>,
}

/// A lineage of a volume, the current one or a past one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineageRecord {
    /// Its identity.
    pub lineage: Id,
    /// The name of its volume.
    pub volume: String,
    /// Why it began.
    pub cause: String,
    /// When it began.
    pub since_us: u64,
    /// Why it ended; `None` while it is current.
    pub ended_cause: Option<String>,
}

/// A repository that is known by a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepositoryRecord {
    /// Its name; unique.
    pub name: String,
    /// Its own identity.
    pub id: Id,
    /// Where it is; unique.
    pub location: String,
    /// Nothing of it is deleted by this agent.
    pub append_only: bool,
    /// How it is reached, and where its key is taken from.
    pub options: BTreeMap<String, String>,
}
