//! An image: a file or a block device that holds a volume's bytes.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise},
    libc,
    unistd::{Whence, lseek},
};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Fault};

/// What is written where a hole cannot be punched, at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What tells an image from another, and from itself after a stranger wrote to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Identity {
    /// A regular file.
    File {
        /// Inode number.
        inode: u64,
        /// Size.
        size_bytes: u64,
        /// Time of the last change, seconds since the UNIX epoch.
        modified_s: i64,
        /// Its nanoseconds.
        modified_ns: i64,
    },
    /// A block device. Nothing tells whether others wrote to it: only `--verify all` does.
    Device {
        /// Device number.
        number: u64,
        /// Size.
        size_bytes: u64,
    },
}

impl Identity {
    /// Whether both are the same object of the same size, whenever it was changed.
    pub(crate) fn same_object(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::File {
                    inode: a,
                    size_bytes: m,
                    ..
                },
                Self::File {
                    inode: b,
                    size_bytes: n,
                    ..
                },
            ) => (a, m) == (b, n),
            (Self::Device { .. }, Self::Device { .. }) => self == other,
            (Self::File { .. }, Self::Device { .. }) | (Self::Device { .. }, Self::File { .. }) => {
                false
            }
        }
    }

    /// The object's size in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::File { size_bytes, .. } | Self::Device { size_bytes, .. } => *size_bytes,
        }
    }
}

/// An open image, locked against other commands of ours.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    path: PathBuf,
    is_device: bool,
}

impl Image {
    /// Opens an image to read from.
    pub(crate) fn open_source(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let image = Self::checked(file, path)?;
        image.lock(image.file.try_lock_shared())?;
        Ok(image)
    }

    /// Opens an image to overwrite, for us alone. Makes an empty file when there is none;
    /// says whether it did.
    pub(crate) fn open_target(path: &Path) -> anyhow::Result<(Self, bool)> {
        let context = || path.display().to_string();
        let metadata = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.with_context(context)?),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match &metadata {
            // O_EXCL on a block device: fails while it is mounted or held by another driver.
            Some(found) if found.file_type().is_block_device() => {
                options.custom_flags(libc::O_EXCL);
            }
            Some(found) if found.is_file() => refuse_loop_backing(path, found)?,
            Some(_) => {}
            None => {
                options.create_new(true).mode(0o600);
            }
        }
        let file = options.open(path).map_err(|error| in_use(path, error))?;
        let image = Self::checked(file, path)?;
        image.lock(image.file.try_lock())?;
        Ok((image, metadata.is_none()))
    }

    fn checked(file: File, path: &Path) -> anyhow::Result<Self> {
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let message = format!("{} is neither a file nor a block device", path.display());
            return Err(Fault::new(Exit::Usage, message).into());
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            is_device: kind.is_block_device(),
        })
    }

    fn lock(&self, taken: Result<(), TryLockError>) -> anyhow::Result<()> {
        match taken {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(Fault::new(
                Exit::Busy,
                format!("{} is locked by another process", self.path.display()),
            )
            .advise("wait for the pull or push that uses it to end; an attached volume's files stay locked")
            .into()),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", self.path.display()))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a block device.
    pub(crate) fn is_device(&self) -> bool {
        self.is_device
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> io::Result<u64> {
        // A device's metadata says 0; its end does not.
        (&self.file).seek(SeekFrom::End(0))
    }

    /// What tells it from others, now.
    pub(crate) fn identity(&self) -> io::Result<Identity> {
        let metadata = self.file.metadata()?;
        let size_bytes = self.size()?;
        Ok(if self.is_device {
            Identity::Device {
                number: metadata.rdev(),
                size_bytes,
            }
        } else {
            Identity::File {
                inode: metadata.ino(),
                size_bytes,
                modified_s: metadata.mtime(),
                modified_ns: metadata.mtime_nsec(),
            }
        })
    }

    /// Makes a file all holes, `capacity` bytes long; checks that a device is long enough.
    pub(crate) fn prepare_full(&self, capacity: u64) -> anyhow::Result<()> {
        if !self.is_device {
            self.file.set_len(0)?;
            self.file.set_len(capacity)?;
            return Ok(());
        }
        let size = self.size()?;
        if size < capacity {
            return Err(Fault::new(
                Exit::Failed,
                format!(
                    "{} has {size} bytes, the volume {capacity}",
                    self.path.display()
                ),
            )
            .advise("pull to a larger device, or to a file")
            .into());
        }
        Ok(())
    }

    /// Writes all of `data` at `offset`.
    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Fills `into` from `offset` on; an image that ends earlier is an error.
    pub(crate) fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// Makes a range read as zeros, by a hole where that can be done.
    pub(crate) fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 || self.punch(offset, length) {
            return Ok(());
        }
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let step = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            let zeros = ZEROS.get(..step).unwrap_or(&ZEROS);
            self.file.write_all_at(zeros, at)?;
            at += zeros.len() as u64;
        }
        Ok(())
    }

    /// Whatever a file system or device has against holes, zeros can be written instead; if the
    /// disk is at fault, that fails too and says why.
    fn punch(&self, offset: u64, length: u64) -> bool {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match (i64::try_from(offset), i64::try_from(length)) {
            (Ok(offset), Ok(length)) => fallocate(&self.file, mode, offset, length).is_ok(),
            _ => false,
        }
    }

    /// Makes everything written before durable, and its size.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Asks that the next read of a range come from the medium. Best effort; sync first.
    pub(crate) fn drop_cache(&self, offset: u64, length: u64) {
        if let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) {
            let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            // Only how much the check proves depends on it, never its result.
            let _ = posix_fadvise(&self.file, offset, length, advice);
        }
    }

    /// The first range at or after `offset`, and before `size`, that may hold data. Where holes
    /// cannot be asked for, that is all the rest.
    pub(crate) fn next_data(&self, offset: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
        if offset >= size {
            return Ok(None);
        }
        let from = i64::try_from(offset).map_err(io::Error::other)?;
        let start = match lseek(&self.file, from, Whence::SeekData) {
            Ok(start) => u64::try_from(start).map_err(io::Error::other)?,
            Err(Errno::ENXIO) => return Ok(None),
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some((offset, size))),
            Err(error) => return Err(error.into()),
        };
        if start >= size {
            return Ok(None);
        }
        let from = i64::try_from(start).map_err(io::Error::other)?;
        let end = match lseek(&self.file, from, Whence::SeekHole) {
            Ok(end) => u64::try_from(end).map_err(io::Error::other)?.min(size),
            Err(Errno::ENXIO | Errno::EINVAL | Errno::EOPNOTSUPP) => size,
            Err(error) => return Err(error.into()),
        };
        Ok(Some((start, end.max(start + 1))))
    }
}

fn in_use(path: &Path, error: io::Error) -> anyhow::Error {
    let message = format!("{}: {error}", path.display());
    if error.kind() == io::ErrorKind::ResourceBusy {
        return Fault::new(Exit::Busy, message)
            .advise("unmount it and close what holds it")
            .into();
    }
    anyhow::Error::new(error).context(path.display().to_string())
}

/// Overwriting a file under a loop device would pull the rug from under whoever mounted it.
fn refuse_loop_backing(path: &Path, metadata: &Metadata) -> anyhow::Result<()> {
    let Ok(devices) = std::fs::read_dir("/sys/block") else {
        return Ok(());
    };
    for device in devices.flatten() {
        let Ok(backing) = std::fs::read_to_string(device.path().join("loop/backing_file")) else {
            continue;
        };
        let same = std::fs::metadata(backing.trim_end_matches('\n'))
            .is_ok_and(|other| (other.dev(), other.ino()) == (metadata.dev(), metadata.ino()));
        if same {
            let name = device.file_name();
            return Err(Fault::new(
                Exit::Busy,
                format!("{} is in use by /dev/{}", path.display(), name.display()),
            )
            .advise("unmount it, then `losetup -d` the device")
            .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroing_makes_holes_and_keeps_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        let (image, made) = Image::open_target(&dir.path().join("i")).unwrap();
        assert!(made);
        image.prepare_full(1 << 20).unwrap();
        image.write_at(&[7; 12288], 4096).unwrap();
        image.zero(8000, 5000).unwrap();
        let mut back = vec![0; 12288];
        image.read_at(&mut back, 4096).unwrap();
        let expected: Vec<u8> = (4096..16384)
            .map(|at| if (8000..13000).contains(&at) { 0 } else { 7 })
            .collect();
        assert_eq!(back, expected);
        assert_eq!(image.size().unwrap(), 1 << 20);
    }

    #[test]
    fn two_writers_are_refused_and_a_change_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        let (image, _) = Image::open_target(&path).unwrap();
        image.prepare_full(8192).unwrap();
        assert!(Image::open_target(&path).is_err());
        assert!(Image::open_source(&path).is_err());
        let before = image.identity().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        image.write_at(b"x", 0).unwrap();
        let after = image.identity().unwrap();
        assert_ne!(before, after);
        assert!(before.same_object(&after));
    }

    #[test]
    fn a_directory_is_no_image() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Image::open_source(dir.path()).is_err());
        assert!(Image::open_target(dir.path()).is_err());
    }
}
