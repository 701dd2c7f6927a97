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
    let steps = steps(paths, name)?;
    let make = || steps.iter().try_for_each(|step| make_private(step));
    match make() {
        // The last other volume was removed in between, and the agent's directory with it.
        Err(MemoryDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            make()?;
        }
        answer => answer?,
    }
    Ok(steps.last().cloned().unwrap_or_default())
}

/// Removes the state of volume `name`, and with the last one the agent's directory in shared
/// memory; nothing to remove is fine.
pub fn remove(paths: &Paths, name: &str) -> Result<(), MemoryDirError> {
    let dir = locate(paths, name)?;
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(&dir, error));
        }
        _ => (),
    }
    if let Some(agent) = dir.parent()
        && agent.parent() == Some(Path::new(SHARED_MEMORY))
    {
        // It stays while it holds the state of another volume.
        let _ = fs::remove_dir(agent);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn paths(folder: &tempfile::TempDir) -> Paths {
        Paths {
            runtime_dir: folder.path().to_owned(),
            state_dir: folder.path().to_owned(),
        }
    }

    fn in_memory() -> (tempfile::TempDir, Paths) {
        let folder = tempfile::tempdir_in(SHARED_MEMORY).unwrap();
        let paths = paths(&folder);
        (folder, paths)
    }

    #[test]
    fn a_runtime_directory_in_memory_is_used() {
        let (folder, paths) = in_memory();
        let dir = create(&paths, "data").unwrap();
        assert_eq!(dir, folder.path().join("volumes/data/state"));
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700);
        fs::write(dir.join("kept"), "").unwrap();
        assert_eq!(create(&paths, "data").unwrap(), dir);
        assert!(dir.join("kept").exists());
        remove(&paths, "data").unwrap();
        remove(&paths, "data").unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn another_runtime_directory_has_its_own_place_in_shared_memory() {
        let folder = tempfile::tempdir().unwrap();
        if is_in_memory(folder.path()).unwrap() {
            eprintln!("skipped: temporary files are in memory here");
            return;
        }
        let paths = paths(&folder);
        let dir = create(&paths, "data").unwrap();
        let agent = dir.parent().unwrap();
        assert_eq!(
            agent,
            Path::new(SHARED_MEMORY).join(agent_name(folder.path()).unwrap())
        );
        assert_eq!(agent.file_name().unwrap().len(), "tidemark-".len() + 16);
        assert!(is_in_memory(&dir).unwrap());
        let other = create(&paths, "other").unwrap();
        remove(&paths, "data").unwrap();
        assert!(other.exists() && !dir.exists());
        remove(&paths, "other").unwrap();
        assert!(!agent.exists());
    }

    #[test]
    fn links_files_and_others_directories_are_refused() {
        let (folder, paths) = in_memory();
        let elsewhere = tempfile::tempdir_in(SHARED_MEMORY).unwrap();
        let volume = folder.path().join("volumes/data");
        fs::create_dir_all(&volume).unwrap();
        let state = volume.join("state");
        symlink(elsewhere.path(), &state).unwrap();
        let answer = create(&paths, "data");
        assert!(matches!(answer, Err(MemoryDirError::NotOurs { .. })));
        fs::remove_file(&state).unwrap();
        fs::write(&state, "").unwrap();
        let answer = create(&paths, "data");
        assert!(matches!(answer, Err(MemoryDirError::NotOurs { .. })));
        fs::remove_file(&state).unwrap();
        fs::create_dir(&state).unwrap();
        std::os::unix::fs::chown(&state, Some(65534), None).unwrap();
        let answer = create(&paths, "data");
        assert!(matches!(answer, Err(MemoryDirError::NotOurs { .. })));
    }

    #[test]
    fn a_directory_open_to_others_is_closed() {
        let (_folder, paths) = in_memory();
        let dir = create(&paths, "data").unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
        create(&paths, "data").unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_name_is_one_component() {
        let (_folder, paths) = in_memory();
        for name in ["", ".", "..", "a/b", "/a", "a/"] {
            let answer = create(&paths, name);
            assert!(matches!(answer, Err(MemoryDirError::Name(_))), "{name}");
        }
    }
}
