//! The engine: tracks and preserves what a volume's host changes, serves views of its snapshots.

mod error;

pub use error::{ChangeError, CutError, OpenError, ReleaseError, ViewError};

use std::{path::PathBuf, time::Duration};

use tidemark_store::units::{ByteRange, Epoch, Geometry, Id};

use crate::{
    disk::{Disk, Run},
    request::{Errno, Request},
};

/// What happens to snapshots when the store fills; the host's write always goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FullPolicy {
    /// Drop the oldest snapshot at once.
    Drop,
    /// Delay each writer by at most this much, then drop.
    Slow(Duration),
}

/// Time, so that a simulator can own it.
pub trait Clock: Send + Sync {
    /// Microseconds since the UNIX epoch.
    fn now_us(&self) -> u64;
    /// Returns after `time`.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()>;
}

/// How to open a volume.
pub struct Options<O, A, C> {
    /// The device or file under the volume.
    pub origin: O,
    /// The file or device that holds the snapshot store.
    pub area: A,
    /// Size and block size of the volume.
    pub geometry: Geometry,
    /// A directory on a memory file system: tracking state that outlives this process.
    pub state_dir: PathBuf,
    /// The volume's identity.
    pub volume_id: Id,
    /// What to do when the store fills.
    pub policy: FullPolicy,
    /// Where time comes from.
    pub clock: C,
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

/// What became of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Its view can be read.
    Live,
    /// Released on request.
    Released,
    /// Dropped because the store filled.
    Overflowed,
    /// Lost to an I/O error.
    Lost,
}

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

/// What a range of a volume became, or holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Any bytes.
    Data,
    /// Zeros.
    Zero,
    /// Discarded by the host; reads as zeros.
    Discarded,
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
}

/// API CONTRACT (bodies land soon):
pub trait VolumeApi<O: Disk, A: Disk, C: Clock>: Sized {
    /// Opens a volume; goes on where a dead process stopped when `state_dir` holds its state.
    fn open(options: Options<O, A, C>) -> impl Future<Output = Result<Self, OpenError>>;
    /// Serves one request of the host. Called by many threads or tasks at once.
    fn serve(&self, request: Request<'_>) -> impl Future<Output = Result<(), Errno>>;
    /// Fills `into` with the bytes of the snapshot's moment, or fails.
    fn read_view(&self, id: Id, offset: u64, into: &mut [u8]) -> impl Future<Output = Result<(), ViewError>>;
    /// The run of a view that starts at `offset`.
    fn view_run(&self, id: Id, offset: u64) -> impl Future<Output = Result<Run, ViewError>>;
    /// What a snapshot holds from `start` on.
    fn allocated(&self, id: Id, start: u64, max: usize) -> impl Future<Output = Result<ExtentPage, ViewError>>;
    /// Stops changes from entering and waits for those in flight, at most `max`; after `max`
    /// the hold ends by itself.
    fn hold(&self, max: Duration) -> impl Future<Output = Result<HoldToken, CutError>>;
    /// Ends the epoch under a hold and lets changes go on. `None` makes a checkpoint only.
    fn cut(&self, token: HoldToken, snapshot: Option<Id>) -> Result<Cut, CutError>;
    /// Lets changes go on without a cut.
    fn unhold(&self, token: HoldToken);
    /// Gives a snapshot's data back.
    fn release(&self, id: Id) -> Result<(), ReleaseError>;
    /// Forgets a checkpoint.
    fn forget(&self, epoch: Epoch) -> Result<(), ReleaseError>;
    /// What changed after `since` and up to `until` (`None`: now), from byte `start` on.
    fn changes(&self, lineage: Option<Id>, since: Epoch, until: Option<Epoch>, start: u64, max: usize) -> Result<ExtentPage, ChangeError>;
    /// Starts a new lineage.
    fn reset_tracking(&self, cause: &str) -> Result<Id, CutError>;
    /// The volume now.
    fn status(&self) -> Status;
    /// Events after a sequence number that are kept; waits up to `wait` when there are none.
    fn wait_events(&self, after: u64, wait: Duration) -> (Vec<Event>, bool);
    /// Waits for work that a cut or a release left behind; called by the server's housekeeping thread.
    fn housekeep(&self);
}
