//! Why LVM did not do it.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use crate::host::dm::DmError;

/// Why a logical volume could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum LvmError {
    /// LVM is not installed.
    #[error(
        "the program lvm is neither in PATH nor where programs of its kind are: install lvm2, or \
         name a file or device for the area"
    )]
    NoProgram,
    /// There is no volume group to make anything in.
    #[error(
        "{path} is no logical volume, so there is no volume group to make its area in: name a \
         file on another file system, or a device, for the area"
    )]
    NotLogical {
        /// What was asked for.
        path: PathBuf,
    },
    /// The group is full, or nearly.
    #[error(
        "volume group {group} has {free_bytes} bytes free, and {needed_bytes} are needed for the \
         area: ask for a smaller one, extend the group (vgextend {group} DEVICE), or name a file \
         or device for the area"
    )]
    NoSpace {
        /// The group's name.
        group: String,
        /// What is free.
        free_bytes: u64,
        /// What is needed, in whole extents.
        needed_bytes: u64,
    },
    /// It took too long.
    #[error(
        "`{command}` did not end within {within:?} and was stopped: another LVM command may be at \
         work, or a disk does not answer. Try again when that is over"
    )]
    Late {
        /// What was run.
        command: String,
        /// The bound.
        within: Duration,
    },
    /// It failed.
    #[error("`{command}` failed ({status}): {said}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// It could not be run.
    #[error("`{command}` could not be run: {source}")]
    Start {
        /// What was to be run.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// What it printed is not understood.
    #[error("`{command}` answered what is not understood: {what}")]
    Answer {
        /// What was run.
        command: String,
        /// What is wrong.
        what: String,
    },
    /// The device did not appear.
    #[error("{path} did not appear within {within:?}, although LVM made it: see whether udev runs")]
    NoNode {
        /// The device.
        path: PathBuf,
        /// The bound.
        within: Duration,
    },
    /// A call on a device failed.
    #[error("{path}: {source}")]
    Io {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Device-mapper did not answer.
    #[error(transparent)]
    Dm(#[from] DmError),
}
