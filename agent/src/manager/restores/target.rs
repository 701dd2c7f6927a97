//! What a restore writes to: a file or device, open and claimed for the session.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    fcntl::{
        AT_FDCWD, FallocateFlags, PosixFadviseAdvice, RenameFlags, fallocate, posix_fadvise,
        renameat2,
    },
    unistd::{Whence, lseek64},
};
use tidemark_store::units::ByteRange;

use crate::manager::{Error, ErrorReason, operations::CancelToken};

/// How many zeros are written at once where a range cannot be punched.
const ZEROS_BYTES: usize = 1 << 20;

/// An open target. Its claims end when it is dropped.
pub(super) struct Target {
    path: PathBuf,
    file: File,
    /// A block device over the same bytes: held to keep others away, and never left with a
    /// cached copy of what the bytes were.
    beside: Option<File>,
    /// Its directory entry has to be made durable too.
    created: bool,
    /// `false` once the kernel said that it cannot punch holes here.
    can_punch: AtomicBool,
}

impl Target {
    /// Takes an open file, which carries whatever claim there is on it.
    pub(super) fn new(path: impl Into<PathBuf>, file: File, created: bool) -> Self {
        Self {
            path: path.into(),
            file,
            beside: None,
            created,
            can_punch: AtomicBool::new(true),
        }
    }

    /// Whether it was made, and has nothing but zeros.
    pub(super) fn is_created(&self) -> bool {
        self.created
    }

    /// Holds a block device whose bytes these are, too.
    #[must_use]
    pub(super) fn beside(mut self, device: File) -> Self {
        forget_cached(&device);
        self.beside = Some(device);
        self
    }

    /// Puts `data` at `offset`.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.file
            .write_all_at(data, offset)
            .map_err(|error| self.failed("writing", offset, &error))
    }

    /// Makes a range read as zeros: by punching a hole, else by writing them.
    pub(super) fn zero(&self, range: ByteRange, cancel: &CancelToken) -> Result<(), Error> {
        if self.can_punch.load(Ordering::Relaxed) && self.punch(range)? {
            return Ok(());
        }
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = range.offset;
        while at < range.end() {
            cancel.check()?;
            let len = usize::try_from(range.end() - at).map_or(ZEROS_BYTES, |n| n.min(ZEROS_BYTES));
            self.write(at, &zeros[..len])?;
            at += len as u64;
        }
        Ok(())
    }

    /// Whether the range was punched; `false` asks for zeros to be written.
    fn punch(&self, range: ByteRange) -> Result<bool, Error> {
        let (Ok(offset), Ok(len)) = (i64::try_from(range.offset), i64::try_from(range.len)) else {
            return Ok(false);
        };
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        loop {
            match fallocate(self.file.as_fd(), how, offset, len) {
                Ok(()) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENODEV) => {
                    self.can_punch.store(false, Ordering::Relaxed);
                    return Ok(false);
                }
                // Devices refuse ranges that are not whole sectors.
                Err(Errno::EINVAL) => return Ok(false),
                Err(errno) => return Err(self.failed("zeroing", range.offset, &errno.into())),
            }
        }
    }

    /// Fills `into` from `offset` on.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact_at(into, offset)
            .map_err(|error| self.failed("reading back", offset, &error))
    }

    /// Where the next byte lies that may not be a hole's: a range up to it reads as zeros.
    /// Answers `from` where the file system cannot tell.
    pub(super) fn next_data(&self, from: u64, end: u64) -> u64 {
        let Ok(offset) = i64::try_from(from) else {
            return from;
        };
        match lseek64(self.file.as_fd(), offset, Whence::SeekData) {
            Ok(data) => u64::try_from(data).map_or(from, |data| data.clamp(from, end)),
            // No data after `from`.
            Err(Errno::ENXIO) => end,
            Err(_) => from,
        }
    }

    /// Makes all that was written durable, then forgets the cached copy, so that what is read
    /// next comes from below.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.file
            .sync_all()
            .map_err(|error| self.failed("flushing", 0, &error))?;
        if let (true, Some(parent)) = (self.created, self.path.parent()) {
            File::open(parent)
                .and_then(|directory| directory.sync_all())
                .map_err(|error| self.failed("making the name durable of", 0, &error))?;
        }
        forget_cached(&self.file);
        if let Some(device) = &self.beside {
            forget_cached(device);
        }
        Ok(())
    }

    /// Gives the file another name, durably, unless that is taken.
    pub(super) fn rename(&self, to: &Path) -> Result<(), Error> {
        let failed = |error: io::Error| {
            let doing = format!("giving the name {} to", to.display());
            self.failed(&doing, 0, &error)
        };
        let only_new = RenameFlags::RENAME_NOREPLACE;
        renameat2(AT_FDCWD, &self.path, AT_FDCWD, to, only_new)
            .map_err(|why| failed(why.into()))?;
        match to.parent() {
            Some(folder) => File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed),
            None => Ok(()),
        }
    }

    fn failed(&self, doing: &str, offset: u64, error: &io::Error) -> Error {
        Error::new(
            ErrorReason::TargetIo,
            format!(
                "{doing} {} failed at offset {offset}: {error}",
                self.path.display()
            ),
        )
        .with("path", self.path.display())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Somebody may have read the device meanwhile: udev does.
        if let Some(device) = &self.beside {
            forget_cached(device);
        }
    }
}

/// Drops the kernel's clean copies. Advice: where it is ignored, answers are right but may come
/// from memory.
fn forget_cached(file: &File) {
    let _ = posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// Makes and locks a file of `capacity` bytes, for root alone: what a volume holds is nobody
/// else's to read. `None` when there is one of this name.
pub(super) fn create(path: &Path, capacity: u64) -> io::Result<Option<File>> {
    let made = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = match made {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    let sized = file.set_len(capacity);
    let locked = file.try_lock().map_err(io::Error::from);
    if let Err(error) = sized.and(locked) {
        // Ours, empty, and of no use: nobody misses it.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(Some(file))
}
