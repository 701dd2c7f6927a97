//! Starting: everything that can be refused is refused before the host sees a device.
//!
//! The order: the volume's lock, the origin's claim, where the area lies, the area itself, the
//! engine with what a dead server left, the mount, the link, the socket.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Sender, SyncSender},
    },
    thread,
    time::UNIX_EPOCH,
};

use futures_lite::future::block_on;
use tidemark_store::units::Geometry;

use super::{
    VolumeArgs,
    area::{AreaError, AreaFile},
    backend::VolumeBackend,
    listen,
    outcome::StartFailure,
    served::{Engine, Served, StopRequest},
};
use crate::{
    disk::{Disk, file::FileDisk},
    host::{
        claim::{Claim, ClaimError},
        memory_dir,
        stack::{self, StackError},
    },
    paths::{Paths, VolumePaths},
    transport::portable::{self, MountError, Portable, UnmountError},
    volume::{OpenError, Options, SystemClock},
};

/// The server did not start; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("a server of volume {name} runs already")]
    Running { name: String },
    #[error("origin {path}: {source}")]
    Claim { path: PathBuf, source: ClaimError },
    #[error("origin {path}: {source}")]
    Origin { path: PathBuf, source: io::Error },
    #[error("origin {path} has {capacity} bytes, which cannot be tracked in blocks of {block_bytes}")]
    Geometry { path: PathBuf, capacity: u64, block_bytes: u32 },
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Area(#[from] AreaError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}
