//! A directory on a memory file system for a volume's state.
//!
//! Tracking state is mapped and written all the time: on a disk it would cost I/O, and it must
//! be gone after a reboot, when it would be stale. The runtime directory serves where it is on a
//! memory file system. In containers it often is not; /dev/shm then is, and a name made from
//! the runtime directory's keeps several agents apart.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    sys::statfs::{FsType, TMPFS_MAGIC, statfs},
    unistd::Uid,
};

use crate::paths::Paths;

/// ramfs, from linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
const SHARED_MEMORY: &str = "/dev/shm";

/// No directory in memory could be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryDirError {
    /// A volume's name must be one path component.
    #[error("{0:?} cannot be the name of a directory")]
    Name(String),
    /// Neither place is in memory.
    #[error(
        "neither {runtime_dir} nor /dev/shm is on a memory file system; mount a tmpfs on one of \
         them"
    )]
    NoMemory {
        /// The runtime directory.
        runtime_dir: PathBuf,
    },
    /// Someone else made it, which on a directory that all may write to is no accident.
    #[error("{path} is {what}; refusing to keep state there: remove it")]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A call failed.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the state of volume `name` goes, without making it. The runtime directory exists.
pub fn locate(paths: &Paths, name: &str) -> Result<PathBuf, MemoryDirError> {
    Ok(steps(paths, name)?.pop().unwrap_or_default())
}

/// Makes the directory for the state of volume `name`, mode 0700; what is there stays.
pub fn create(paths: &Paths, name: &str) -> Result<PathBuf, MemoryDirError> {
    let mut last = PathBuf::new();
    for step in steps(paths, name)? {
        make_private(&step)?;
        last = step;
    }
    Ok(last)
}

/// Removes the state of volume `name`; nothing to remove is fine.
pub fn remove(paths: &Paths, name: &str) -> Result<(), MemoryDirError> {
    let dir = locate(paths, name)?;
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&dir, error)),
        _ => Ok(()),
    }
}

/// Whether `path`, which exists, is on a memory file system.
pub fn is_in_memory(path: &Path) -> io::Result<bool> {
    let kind = statfs(path)?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

/// The directories that must be there and be ours, outermost first; the last is the answer.
fn steps(paths: &Paths, name: &str) -> Result<Vec<PathBuf>, MemoryDirError> {
    let mut components = Path::new(name).components();
    let is_plain = matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(one)), None) if one == name
    );
    if !is_plain {
        return Err(MemoryDirError::Name(name.to_owned()));
    }
    let runtime_dir = &paths.runtime_dir;
    if is_in_memory(runtime_dir).map_err(|error| io_error(runtime_dir, error))? {
        let volume = paths.volume(name).dir().to_owned();
        let volumes = volume.parent().map(Path::to_owned);
        let state = volume.join("state");
        return Ok(volumes.into_iter().chain([volume, state]).collect());
    }
    if !is_in_memory(Path::new(SHARED_MEMORY)).unwrap_or(false) {
        return Err(MemoryDirError::NoMemory {
            runtime_dir: runtime_dir.clone(),
        });
    }
    let agent = Path::new(SHARED_MEMORY).join(agent_name(runtime_dir)?);
    let state = agent.join(name);
    Ok(vec![agent, state])
}

/// A name that agents with different runtime directories do not share.
fn agent_name(runtime_dir: &Path) -> Result<String, MemoryDirError> {
    let real = fs::canonicalize(runtime_dir).map_err(|error| io_error(runtime_dir, error))?;
    let hash = blake3::hash(real.as_os_str().as_bytes());
    Ok(format!("tidemark-{:.16}", hash.to_hex()))
}

/// Makes a directory that only we can enter, or makes sure that it is one.
fn make_private(path: &Path) -> Result<(), MemoryDirError> {
    let failed = |error| io_error(path, error);
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => (),
    }
    let not_ours = |what| MemoryDirError::NotOurs {
        path: path.to_owned(),
        what,
    };
    let dir = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENOTDIR) => not_ours("no directory but a file or a link"),
            _ => failed(error),
        })?;
    let metadata = dir.metadata().map_err(failed)?;
    if metadata.uid() != Uid::effective().as_raw() {
        return Err(not_ours("owned by another user"));
    }
    if metadata.mode() & 0o7777 != 0o700 {
        dir.set_permissions(Permissions::from_mode(0o700))
            .map_err(failed)?;
    }
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> MemoryDirError {
    MemoryDirError::Io {
        path: path.to_owned(),
        source,
    }
}
