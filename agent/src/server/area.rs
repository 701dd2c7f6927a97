//! The area's file: made whole, so that the store cannot find its file system full later.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::fstatvfs,
};

use super::outcome::StartFailure;
use crate::host::{memory_dir, patience};

/// The area's file or device cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AreaError {
    #[error("the area {path} does not exist: give it a size to create it with")]
    Missing { path: PathBuf },
    #[error("the area {path} is neither a file nor a block device: choose another path")]
    Kind { path: PathBuf },
    #[error("the area {path} is used by another volume or mounted: choose another path")]
    InUse { path: PathBuf },
    #[error("no room for an area of {size} bytes at {path}: free some, or choose a smaller one")]
    NoSpace { path: PathBuf, size: u64 },
    #[error("the file system of {path} cannot reserve space: put the area on ext4, xfs or btrfs")]
    CannotReserve { path: PathBuf },
    #[error("the area {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl AreaError {
    pub(super) fn kind(&self) -> StartFailure {
        match self {
            Self::Missing { .. } | Self::Kind { .. } => StartFailure::AreaCorrupt,
            Self::InUse { .. } => StartFailure::AreaInUse,
            Self::NoSpace { .. } => StartFailure::AreaNoSpace,
            Self::CannotReserve { .. } => StartFailure::Unsupported,
            Self::Io { .. } => StartFailure::Internal,
        }
    }
}

/// An area's file that is ours alone for as long as this lives.
#[derive(Debug)]
pub(super) struct AreaFile {
    path: PathBuf,
    file: File,
    created: bool,
}

impl AreaFile {
    /// Opens the area, or creates it with `size` bytes. An area that exists keeps its size.
    pub(super) fn open(path: &Path, size: Option<u64>) -> Result<Self, AreaError> {
        let at = |source: io::Error| AreaError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::metadata(path) {
            Ok(found) if found.file_type().is_block_device() => Self::claim_device(path),
            Ok(found) if found.is_file() => {
                let area = Self::claim_file(path, false)?;
                // An empty file is one that an operator made to be filled.
                let len = if found.len() == 0 {
                    size.unwrap_or(0)
                } else {
                    found.len()
                };
                if size.is_some_and(|size| size != len) {
                    tracing::warn!(path = %path.display(), len, "the area exists already and keeps its size");
                }
                area.reserve(len)?;
                Ok(area)
            }
            Ok(_) => Err(AreaError::Kind {
                path: path.to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let size = size
                    .filter(|size| *size > 0)
                    .ok_or_else(|| AreaError::Missing {
                        path: path.to_owned(),
                    })?;
                let area = Self::claim_file(path, true)?;
                area.reserve(size).inspect_err(|_| area.discard_new())?;
                Ok(area)
            }
            Err(error) => Err(at(error)),
        }
    }

    /// Removes a file that [`AreaFile::open`] created: a start that fails leaves nothing behind.
    pub(super) fn discard_new(&self) {
        if self.created
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a new area could not be removed again");
        }
    }

    fn claim_device(path: &Path) -> Result<Self, AreaError> {
        // The kernel refuses a second exclusive opener, and one of a mounted device.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL)
            .open(path);
        let file = file.map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => AreaError::InUse {
                path: path.to_owned(),
            },
            _ => AreaError::Io {
                path: path.to_owned(),
                source,
            },
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            created: false,
        })
    }

    fn claim_file(path: &Path, create: bool) -> Result<Self, AreaError> {
        let at = |source: io::Error| AreaError::Io {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(create)
            .mode(0o600)
            .open(path)
            .map_err(at)?;
        match patience::lock(&file) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                file,
                created: create,
            }),
            Err(fs::TryLockError::WouldBlock) => Err(AreaError::InUse {
                path: path.to_owned(),
            }),
            Err(fs::TryLockError::Error(source)) => Err(at(source)),
        }
    }

    fn reserve(&self, size: u64) -> Result<(), AreaError> {
        if size == 0 {
            return Ok(());
        }
        let path = self.path.clone();
        let Ok(len) = libc::off_t::try_from(size) else {
            return Err(AreaError::NoSpace { path, size });
        };
        // Asked first: an allocation that fails half-way takes all that the others have meanwhile.
        if !self.fits(size)? {
            return Err(AreaError::NoSpace { path, size });
        }
        loop {
            return match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => Ok(()),
                Err(Errno::EINTR) => continue,
                Err(Errno::ENOSPC | Errno::EFBIG | Errno::EDQUOT) => {
                    Err(AreaError::NoSpace { path, size })
                }
                Err(Errno::EOPNOTSUPP) => Err(AreaError::CannotReserve { path }),
                Err(errno) => Err(AreaError::Io {
                    path,
                    source: errno.into(),
                }),
            };
        }
    }

    /// Whether the file system has room for what the file lacks of `size` bytes.
    fn fits(&self, size: u64) -> Result<bool, AreaError> {
        let io_error = |source| AreaError::Io {
            path: self.path.clone(),
            source,
        };
        let has = self.file.metadata().map_err(io_error)?.blocks() * 512;
        let space = fstatvfs(&self.file).map_err(|errno| io_error(errno.into()))?;
        let free = space
            .blocks_available()
            .saturating_mul(space.fragment_size());
        Ok(size.saturating_sub(has) <= free)
    }

    /// Whether it ends with the host.
    pub(super) fn is_in_memory(&self) -> io::Result<bool> {
        let in_memory = memory_dir::is_in_memory(&self.path)?;
        Ok(in_memory && !self.file.metadata()?.file_type().is_block_device())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file. The claim lasts until the last copy is closed.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_area_is_reserved_and_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("area");
        let area = AreaFile::open(&path, Some(1 << 20)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
        let second = AreaFile::open(&path, None).unwrap_err();
        assert_eq!(second.kind(), StartFailure::AreaInUse);
        drop(area);
        AreaFile::open(&path, Some(1 << 21)).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            1 << 20,
            "it keeps its size"
        );
    }

    #[test]
    fn an_area_that_does_not_fit_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("area");
        let error = AreaFile::open(&path, Some(1 << 60)).unwrap_err();
        assert_eq!(error.kind(), StartFailure::AreaNoSpace);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_area_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = AreaFile::open(&dir.path().join("none"), None).unwrap_err();
        assert!(matches!(missing, AreaError::Missing { .. }));
        let folder = AreaFile::open(dir.path(), None).unwrap_err();
        assert!(matches!(folder, AreaError::Kind { .. }));
    }
}
