//! What the engine tells its callers.

use std::time::Duration;

use tidemark_store::units::{ByteRange, Epoch, Geometry, Id};
pub use tidemark_store::{changes::Kind, state::Fate};

use super::{Durability, Latency};

/// What happens to snapshots when the store fills; the host's write always goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FullPolicy {
    /// Drop the oldest snapshot at once.
    Drop,
    /// Delay each writer by at most this much, then drop.
    Slow(Duration),
}

/// A point in the volume's history that a cut made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The lineage it belongs to.
    pub lineage: Id,
    /// The epoch that the cut ended.
    pub epoch: Epoch,
    /// When, in microseconds since the UNIX epoch.
    pub created_us: u64,
}

/// What a cut gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The new checkpoint.
    pub checkpoint: Checkpoint,
    /// For how long changes were held.
    pub held: Duration,
}

/// The right to cut; given by [`Volume::hold`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldToken(pub u64);

/// A snapshot as the engine knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotStatus {
    /// Chosen by whoever asked for it.
    pub id: Id,
    /// The epoch that its cut ended.
    pub epoch: Epoch,
    /// Whether it can be read, and why not.
    pub fate: Fate,
    /// Old data kept in its epoch, in bytes.
    pub preserved_bytes: u64,
    /// When, in microseconds since the UNIX epoch.
    pub created_us: u64,
}

/// A range and its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Where.
    pub range: ByteRange,
    /// What.
    pub kind: Kind,
}

/// Some extents in ascending order, and where the rest begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtentPage {
    /// Ascending, not overlapping.
    pub extents: Vec<Extent>,
    /// Where the next page starts; `None` when there is none.
    pub next: Option<u64>,
    /// Of all that is to be told, on this page and others: how many bytes at most did not change.
    pub over_report_bytes: u64,
}

/// Sums since the process started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Read requests of the host.
    pub read_requests: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Write requests of the host.
    pub write_requests: u64,
    /// Bytes of them.
    pub write_bytes: u64,
    /// Flush requests.
    pub flush_requests: u64,
    /// Bytes discarded.
    pub discard_bytes: u64,
    /// Bytes zeroed by request.
    pub zeroed_bytes: u64,
    /// Old data copied to the store, in bytes.
    pub preserved_bytes: u64,
    /// Time for which writers were delayed because the store was filling.
    pub delayed_us: u64,
}

/// What the host asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A flush.
    Flush,
    /// A discard.
    Discard,
    /// A write of zeros without their bytes.
    WriteZeroes,
}

impl RequestKind {
    /// All of them, each at its own number.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Discard,
        Self::WriteZeroes,
    ];
}

/// Requests of one kind since the process started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requests {
    /// The kind.
    pub kind: RequestKind,
    /// From when a request reached the engine to its answer, of those that failed too.
    pub latency: Latency,
    /// Bytes of those that did not fail.
    pub bytes: u64,
    /// Those that were answered with an error.
    pub failures: u64,
}

/// How long things took since the process started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measurements {
    /// Requests of the host, by kind.
    pub requests: [Requests; RequestKind::ALL.len()],
    /// For how long changes were stopped, for cuts and otherwise.
    pub holds: Latency,
}

/// The volume at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Size and block size.
    pub geometry: Geometry,
    /// The current lineage.
    pub lineage: Id,
    /// Why it began.
    pub lineage_cause: String,
    /// When, in microseconds since the UNIX epoch.
    pub lineage_since_us: u64,
    /// The running epoch.
    pub epoch: Epoch,
    /// Size of the store in bytes, of whole blocks that can be kept.
    pub store_capacity: u64,
    /// Of these in use.
    pub store_used: u64,
    /// Snapshots, oldest first; those whose data is gone until their place is needed.
    pub snapshots: Vec<SnapshotStatus>,
    /// Checkpoints of the current lineage, oldest first.
    pub checkpoints: Vec<Checkpoint>,
    /// Sums.
    pub counters: Counters,
    /// Bytes marked in the running epoch, in whole blocks.
    pub changed_bytes: u64,
    /// Whether tracking outlives the host.
    pub durability: Durability,
    /// Whether snapshots outlive it too, as long as tracking does.
    pub keeps_snapshots: bool,
    /// The epoch that was running when the host stopped, where tracking was taken up from the area
    /// by this process, until it has ended an epoch itself.
    pub recovered: Option<Epoch>,
}

/// Something that an operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Grows by one from 1.
    pub sequence: u64,
    /// When, in microseconds since the UNIX epoch.
    pub at_us: u64,
    /// What happened.
    pub kind: EventKind,
    /// The snapshot concerned, or [`Id::NIL`].
    pub snapshot: Id,
    /// What happened and what to do, in a sentence.
    pub message: String,
}

/// What an [`Event`] tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// The store is filling.
    StoreFilling,
    /// The store is full.
    StoreFull,
    /// A snapshot was dropped because of that.
    SnapshotOverflowed,
    /// A snapshot was lost to an error.
    SnapshotLost,
    /// A new lineage began.
    TrackingReset,
    /// The oldest checkpoint made room for a new one.
    CheckpointForgotten,
    /// Tracking would end with the host now.
    DurabilitySuspended,
    /// Tracking was taken up where the host stopped.
    TrackingRecovered,
}
