//! Why a start failed, and what the parent is told of it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{area::AreaError, outcome::StartFailure};
use crate::{
    host::{claim::ClaimError, memory_dir::MemoryDirError},
    insertion::{InsertionError, Refusal},
    transport::{portable::MountError, ublk::UblkError},
    volume::OpenError,
};

/// The server did not start; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("a server of volume {name} runs already")]
    Running { name: String },
    #[error(transparent)]
    Origin(#[from] ClaimError),
    #[error(
        "origin {path} has {capacity} bytes, which cannot be tracked in blocks of {block_bytes}"
    )]
    Geometry {
        path: PathBuf,
        capacity: u64,
        block_bytes: u32,
    },
    #[error(
        "the {what} must not lie on the volume itself: {chain}. Choose a path on another file system"
    )]
    OnVolume { what: &'static str, chain: String },
    #[error(
        "the area {path} lies in memory, so tracking cannot outlive the host: choose a path on a \
         disk, or volatile tracking"
    )]
    AreaInMemory { path: PathBuf },
    #[error(transparent)]
    Area(#[from] AreaError),
    #[error(transparent)]
    Memory(#[from] MemoryDirError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("ublk was asked for, but {why}")]
    NoUblk { why: String },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Insertion(#[from] InsertionError),
    #[error(transparent)]
    Ublk(#[from] UblkError),
    #[error(
        "the volume lies over {over}, which no server of this volume left: it cannot be served. \
         Give the volume its own table back (lvchange --refresh)"
    )]
    ForeignInterposer { over: PathBuf },
    #[error("{path} is not there: activate the volume (lvchange -ay), and it is attached again")]
    Gone { path: PathBuf },
    #[error("{path} came, or became another one, while it was looked at: try again")]
    JustCame { path: PathBuf },
    #[error(
        "{path} is no device-mapper volume, which has nothing to fall back to: what is mounted is \
         the interposer's own device. It waits for a server"
    )]
    NothingToFallBackTo { path: PathBuf },
    #[error("an earlier detach was finished first; the volume is attached anew")]
    RemovalFinished,
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl StartError {
    /// For `map_err`: what was done, and to which path.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// What the parent is told.
    pub(super) fn kind(&self) -> StartFailure {
        match self {
            Self::Running { .. } => StartFailure::OriginInUse,
            Self::Origin(error) => claim_kind(error),
            Self::Geometry { .. } => StartFailure::OriginUnsuitable,
            Self::OnVolume { .. } => StartFailure::AreaOnVolume,
            Self::AreaInMemory { .. } => StartFailure::Unsupported,
            Self::Area(error) => error.kind(),
            Self::Open(OpenError::AreaCorrupt(_)) => StartFailure::AreaCorrupt,
            Self::Open(OpenError::AreaTooSmall { .. }) => StartFailure::AreaNoSpace,
            Self::Open(OpenError::Area(_) | OpenError::Stale(_) | OpenError::State { .. }) => {
                StartFailure::Internal
            }
            Self::Memory(MemoryDirError::NoMemory { .. }) | Self::Mount(MountError::NoFuse) => {
                StartFailure::Unsupported
            }
            Self::NoUblk { .. } | Self::Ublk(UblkError::NoDriver(_)) => StartFailure::Unsupported,
            Self::Refused(refusal) | Self::Insertion(InsertionError::Refused(refusal)) => {
                refusal_kind(refusal)
            }
            Self::Gone { .. } | Self::JustCame { .. } | Self::NothingToFallBackTo { .. } => {
                StartFailure::OriginUnsuitable
            }
            Self::Mount(_)
            | Self::Memory(_)
            | Self::Insertion(_)
            | Self::Ublk(_)
            | Self::ForeignInterposer { .. }
            | Self::RemovalFinished
            | Self::Io { .. } => StartFailure::Internal,
        }
    }
}

fn refusal_kind(refusal: &Refusal) -> StartFailure {
    match refusal {
        Refusal::HoldsOurs { .. } => StartFailure::AreaOnVolume,
        Refusal::MountedPlain { .. }
        | Refusal::Swap { .. }
        | Refusal::Hibernation { .. }
        | Refusal::Suspended { .. }
        | Refusal::PendingTable { .. }
        | Refusal::AlreadyInterposed { .. } => StartFailure::OriginInUse,
        _ => StartFailure::OriginUnsuitable,
    }
}

fn claim_kind(error: &ClaimError) -> StartFailure {
    match error {
        ClaimError::WrongType { .. } | ClaimError::Empty { .. } | ClaimError::ReadOnly { .. } => {
            StartFailure::OriginUnsuitable
        }
        ClaimError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            StartFailure::OriginUnsuitable
        }
        ClaimError::Io { .. } => StartFailure::Internal,
        ClaimError::Mounted { .. }
        | ClaimError::Swap { .. }
        | ClaimError::Held { .. }
        | ClaimError::LoopBacking { .. }
        | ClaimError::Open { .. }
        | ClaimError::Busy { .. } => StartFailure::OriginInUse,
    }
}
