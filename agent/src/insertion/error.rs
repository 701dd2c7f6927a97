//! What can go wrong while an interposer comes or goes.

use std::path::PathBuf;

use super::{JournalError, Refusal};
use crate::host::dm::{DmError, GroupLockError};

/// Why an insertion, a removal or a recovery did not happen. Unless said otherwise, the volume
/// is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum InsertionError {
    /// Device-mapper refused.
    #[error(transparent)]
    Dm(#[from] DmError),
    /// LVM is at work on the volume's group.
    #[error(transparent)]
    Lock(#[from] GroupLockError),
    /// The journal could not be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The table that the volume has now cannot be interposed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The volume is not there.
    #[error("the volume {name} is not there: activate it (lvchange -ay), then try again")]
    Gone {
        /// Its name in /dev/mapper.
        name: String,
    },
    /// The private origin is not there.
    #[error(
        "the private origin {name} is not there, though the volume was put over it; another \
         program must have removed it"
    )]
    OriginGone {
        /// Its name in /dev/mapper.
        name: String,
    },
    /// The private origin is still in use by an earlier server.
    #[error(
        "the private origin {name} is open in another process: an earlier volume server has not \
         ended yet (fuser /dev/mapper/{name})"
    )]
    OriginBusy {
        /// Its name in /dev/mapper.
        name: String,
    },
    /// The interposer's size is not the volume's.
    #[error("{over} has {has} sectors, but the volume {name} has {needs}")]
    SizeDiffers {
        /// The interposer's device.
        over: PathBuf,
        /// Its size.
        has: u64,
        /// The volume's name.
        name: String,
        /// The volume's size.
        needs: u64,
    },
    /// Another program changed the table meanwhile.
    #[error(
        "another program changed the table of {name} at the same time (now: {table}); the \
         volume has that table. Try again"
    )]
    TableMoved {
        /// The volume's name.
        name: String,
        /// What it has now, without keys.
        table: String,
    },
    /// There is no interposer of ours under the volume.
    #[error("{name} does not lie over the interposer (it has: {table}); nothing to remove")]
    NotInserted {
        /// The volume's name.
        name: String,
        /// What it has now, without keys.
        table: String,
    },
    /// Another volume's interposer is on the private origin.
    #[error(
        "the private origin {name} is itself a volume of Tidemark with an interposer; detach \
         that one first"
    )]
    Stacked {
        /// The private origin's name.
        name: String,
    },
    /// Several devices could be the one that an interposer without a journal belongs to.
    #[error(
        "the private origin {name} has no journal, and {candidates} could be the volume over \
         it; name the volume"
    )]
    Ambiguous {
        /// The private origin's name.
        name: String,
        /// The devices.
        candidates: String,
    },
    /// The swap failed, and so did going back.
    #[error(
        "{name} may be held: changing its table failed ({swap}), and so did resuming it \
         ({release}). Run dmsetup clear {name} && dmsetup resume {name} at once"
    )]
    Held {
        /// The volume's name.
        name: String,
        /// Why the table could not be changed.
        swap: Box<DmError>,
        /// Why it could not be resumed.
        release: Box<DmError>,
    },
    /// The volume has its own table again, but not all was cleaned up.
    #[error("{name} has its own table again, but the clean-up failed: {source}")]
    Unfinished {
        /// The volume's name.
        name: String,
        /// What failed.
        source: Box<InsertionError>,
    },
}
