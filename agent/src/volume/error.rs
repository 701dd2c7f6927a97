//! What can go wrong with a volume, each told apart for the API.

use tidemark_store::units::{ByteRange, Epoch, Id};

use crate::request::Errno;

/// A volume could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The area is not one, is another volume's, or fails its checks.
    #[error("the area cannot be used: {0}")]
    AreaCorrupt(String),
    /// The area is too small to keep anything.
    #[error("the area has {have} bytes; at least {need} are needed")]
    AreaTooSmall {
        /// Its size in bytes.
        have: u64,
        /// The least that is of use, in bytes.
        need: u64,
    },
    /// The area's device failed.
    #[error("the area cannot be read or written: {0}")]
    Area(Errno),
    /// The journal of tracking could not be told that its lineage ended.
    #[error(
        "what the area tells of earlier tracking cannot be taken back: {0}. Choose another area"
    )]
    Stale(Errno),
    /// The state directory failed.
    #[error("state in {path}: {source}")]
    State {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A view could not be read: the reader gets this, never other bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ViewError {
    /// No snapshot has this id.
    #[error("no snapshot {0}")]
    NotFound(Id),
    /// Its data was released.
    #[error("the data of snapshot {0} was released")]
    Released(Id),
    /// It was dropped because the store filled.
    #[error("snapshot {0} was dropped because its store filled")]
    Overflowed(Id),
    /// Its old data could not be kept or read back.
    #[error("snapshot {0} was lost to an I/O error")]
    Lost(Id),
    /// The range leaves the volume.
    #[error("range {0} leaves the volume")]
    OutOfRange(ByteRange),
    /// Reading the origin failed.
    #[error("reading the origin failed: {0}")]
    Origin(Errno),
}

/// A cut failed; the epoch goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// Changes in flight did not end within the bound, or the hold ran out before the cut.
    #[error("changes in flight did not end in time, or the hold ran out")]
    TimedOut,
    /// Another hold is in force.
    #[error("another cut of this volume is under way")]
    Busy,
    /// No more snapshots can be live.
    #[error("{0} snapshots are live, which is the limit: release one")]
    TooManySnapshots(usize),
    /// A snapshot with this id exists.
    #[error("snapshot {0} exists already")]
    Exists(Id),
    /// The new epoch's change map could not be made.
    #[error("no change map for the next epoch: {0}")]
    State(Errno),
}

/// A snapshot or checkpoint could not be released.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReleaseError {
    /// No snapshot has this id.
    #[error("no snapshot {0}")]
    SnapshotNotFound(Id),
    /// No checkpoint of the lineage has this epoch.
    #[error("no checkpoint at epoch {0}")]
    CheckpointNotFound(Epoch),
}

/// A diff could not be given: take a full backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The checkpoint is of another lineage.
    #[error("tracking started anew ({cause}): a full backup is required")]
    TrackingReset {
        /// Why the current lineage began.
        cause: String,
    },
    /// The checkpoint was forgotten or never made.
    #[error("no checkpoint at epoch {0}: a full backup is required")]
    CheckpointGone(Epoch),
    /// The second point lies before the first.
    #[error("checkpoint {until} is older than {since}")]
    Backwards {
        /// The first point.
        since: Epoch,
        /// The second.
        until: Epoch,
    },
    /// A change map could not be read.
    #[error("the change map of epoch {epoch} cannot be read: {errno}")]
    State {
        /// Which.
        epoch: Epoch,
        /// Why.
        errno: Errno,
    },
}
