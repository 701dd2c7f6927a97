//! A file or block device as a disk: buffered positioned I/O.
//!
//! Calls block the thread that polls them. What the kernel answers is passed on unchanged; what
//! it does not support is done another way only where that means the same (zeros are written
//! where no hole can be punched).

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, FileTypeExt, OpenOptionsExt},
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl},
    unistd::{Whence, lseek},
};
use tidemark_store::units::ByteRange;

use super::{Disk, Run, sys};
use crate::request::Errno;

/// Zeros are written in pieces of this size where the kernel has no cheaper way: large enough
/// to amortise the call, small enough to cost the binary nothing of note.
static ZEROS: Zeros = Zeros([0; 128 * 1024]);

/// Aligned as direct I/O needs it.
#[repr(align(4096))]
struct Zeros([u8; 128 * 1024]);

/// An image file or block device.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    capacity: u64,
    /// Ranges of discards and zeroing must be multiples of this; 1 for files.
    granule: u64,
    is_block_device: bool,
    read_only: bool,
    /// The file system refused RWF_DSYNC once: FUA is a write and an fdatasync from then on.
    no_dsync: AtomicBool,
}

impl FileDisk {
    /// Opens for reading and writing. A block device is taken exclusively: EBUSY when it is
    /// mounted or otherwise held.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_with(path.as_ref(), OpenOptions::new().read(true).write(true))
    }

    /// Opens for reading; every change answers `EROFS`.
    pub fn open_read_only(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_with(path.as_ref(), OpenOptions::new().read(true))
    }

    fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<Self> {
        // Looked at before it is opened: opening a FIFO would wait for its other end.
        refuse_other_types(&std::fs::metadata(path)?)?;
        // Without O_CREAT, O_EXCL concerns block devices only.
        Self::from_file(options.custom_flags(libc::O_EXCL).open(path)?)
    }

    /// Takes a file or block device that is open already, with the access that it has.
    pub fn from_file(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        refuse_other_types(&metadata)?;
        let is_block_device = metadata.file_type().is_block_device();
        let (capacity, granule) = if is_block_device {
            (
                sys::block_device_size(&file)?,
                sys::logical_block_size(&file)?.max(1),
            )
        } else {
            (metadata.len(), 1)
        };
        let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
        Ok(Self {
            file,
            capacity,
            granule,
            is_block_device,
            read_only: flags & OFlag::O_ACCMODE == OFlag::O_RDONLY,
            no_dsync: AtomicBool::new(false),
        })
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is a block device and not an image file.
    pub fn is_block_device(&self) -> bool {
        self.is_block_device
    }

    /// Whether changes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// `EINVAL` unless `len` bytes from `offset` lie within the capacity.
    pub(super) fn check(&self, offset: u64, len: u64) -> Result<(), Errno> {
        match offset.checked_add(len) {
            Some(end) if end <= self.capacity => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn check_change(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.check(offset, len)?;
        if self.read_only {
            return Err(Errno(libc::EROFS));
        }
        Ok(())
    }

    fn check_bytes(&self, offset: u64, bytes: &[u8]) -> Result<u64, Errno> {
        let len = u64::try_from(bytes.len()).map_err(|_| Errno::EINVAL)?;
        self.check(offset, len)?;
        Ok(len)
    }

    fn write_all(&self, offset: u64, from: &[u8], fua: bool) -> Result<(), Errno> {
        if !fua || from.is_empty() {
            return self.file.write_all_at(from, offset).map_err(errno_of);
        }
        if !self.no_dsync.load(Ordering::Relaxed) {
            match self.write_all_dsync(offset, from) {
                Err(Errno(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                    self.no_dsync.store(true, Ordering::Relaxed);
                }
                answer => return answer,
            }
        }
        self.file.write_all_at(from, offset).map_err(errno_of)?;
        self.sync()
    }

    fn write_all_dsync(&self, mut offset: u64, mut from: &[u8]) -> Result<(), Errno> {
        while !from.is_empty() {
            let written = match sys::pwrite_dsync(self.file.as_fd(), from, signed(offset)?) {
                Ok(0) => return Err(Errno::EIO),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Errno::of(&error)),
            };
            from = from.get(written..).ok_or(Errno::EIO)?;
            offset += u64::try_from(written).map_err(|_| Errno::EIO)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        retry(|| self.file.sync_data())
    }

    /// The part of `range` that consists of whole granules.
    pub(super) fn whole_granules(&self, range: ByteRange) -> ByteRange {
        let start = range.offset.next_multiple_of(self.granule);
        let end = range.end() / self.granule * self.granule;
        ByteRange::new(start, end.saturating_sub(start))
    }

    fn fallocate(&self, mode: FallocateFlags, range: ByteRange) -> Result<(), Errno> {
        let (offset, len) = (signed(range.offset)?, signed(range.len)?);
        retry(|| {
            let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            Ok(fallocate(&self.file, mode, offset, len)?)
        })
    }

    fn zero(&self, range: ByteRange, may_unmap: bool) -> Result<(), Errno> {
        let inner = self.whole_granules(range);
        if inner.is_empty() {
            return self.write_zeros(range);
        }
        self.write_zeros(ByteRange::new(range.offset, inner.offset - range.offset))?;
        self.write_zeros(ByteRange::new(inner.end(), range.end() - inner.end()))?;
        if may_unmap {
            match self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, inner) {
                Err(Errno(libc::EOPNOTSUPP)) => (),
                answer => return answer,
            }
        }
        match self.fallocate(FallocateFlags::FALLOC_FL_ZERO_RANGE, inner) {
            Err(Errno(libc::EOPNOTSUPP)) => self.write_zeros(inner),
            answer => answer,
        }
    }

    fn write_zeros(&self, range: ByteRange) -> Result<(), Errno> {
        let mut offset = range.offset;
        while offset < range.end() {
            let left = usize::try_from(range.end() - offset).unwrap_or(usize::MAX);
            let piece = ZEROS.0.get(..left).unwrap_or(&ZEROS.0);
            self.file.write_all_at(piece, offset).map_err(errno_of)?;
            offset += u64::try_from(piece.len()).map_err(|_| Errno::EIO)?;
        }
        Ok(())
    }

    fn discard_whole(&self, range: ByteRange) -> Result<(), Errno> {
        match self.fallocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, range) {
            // A device may discard without promising zeros, which punching a hole asks for.
            Err(Errno(libc::EOPNOTSUPP)) if self.is_block_device => {
                retry(|| sys::block_device_discard(&self.file, range.offset, range.len))
            }
            answer => answer,
        }
    }

    /// The next offset from `offset` on that is data, or a hole; `None` when there is none.
    fn seek(&self, offset: u64, whence: Whence) -> Result<Option<u64>, Errno> {
        match lseek(&self.file, signed(offset)?, whence) {
            Ok(found) => u64::try_from(found).map(Some).map_err(|_| Errno::EIO),
            Err(nix::Error::ENXIO) => Ok(None),
            Err(error) => Err(Errno::of(&error.into())),
        }
    }
}

impl Disk for FileDisk {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn discard_zeroes(&self) -> bool {
        !self.is_block_device
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.check_bytes(offset, into)?;
        self.file.read_exact_at(into, offset).map_err(errno_of)
    }

    async fn write(&self, offset: u64, from: &[u8], fua: bool) -> Result<(), Errno> {
        let len = self.check_bytes(offset, from)?;
        self.check_change(offset, len)?;
        self.write_all(offset, from, fua)
    }

    async fn flush(&self) -> Result<(), Errno> {
        self.sync()
    }

    async fn discard(&self, range: ByteRange) -> Result<(), Errno> {
        self.check_change(range.offset, range.len)?;
        // A discard of less than a granule gives nothing back.
        let range = self.whole_granules(range);
        if range.is_empty() {
            return Ok(());
        }
        self.discard_whole(range)
    }

    async fn write_zeroes(
        &self,
        range: ByteRange,
        fua: bool,
        may_unmap: bool,
    ) -> Result<(), Errno> {
        self.check_change(range.offset, range.len)?;
        if range.is_empty() {
            return Ok(());
        }
        self.zero(range, may_unmap)?;
        if fua { self.sync() } else { Ok(()) }
    }

    async fn run_at(&self, offset: u64) -> Result<Run, Errno> {
        if offset >= self.capacity {
            return Err(Errno::EINVAL);
        }
        let to_the_end = |hole| Run {
            end: self.capacity,
            hole,
        };
        if self.is_block_device {
            return Ok(to_the_end(false));
        }
        let data = match self.seek(offset, Whence::SeekData) {
            // The file system does not tell holes from data.
            Err(Errno(libc::EINVAL | libc::EOPNOTSUPP)) => return Ok(to_the_end(false)),
            answer => answer?,
        };
        match data {
            None => Ok(to_the_end(true)),
            Some(data) if data > offset => Ok(Run {
                end: data.min(self.capacity),
                hole: true,
            }),
            Some(_) => {
                let end = self.seek(offset, Whence::SeekHole)?;
                // A hole that a racing discard made at `offset` itself: not known as one.
                let end = end.filter(|end| *end > offset).unwrap_or(self.capacity);
                Ok(Run {
                    end: end.min(self.capacity),
                    hole: false,
                })
            }
        }
    }
}

fn refuse_other_types(metadata: &std::fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    let errno = if kind.is_dir() {
        libc::EISDIR
    } else {
        libc::ENOTBLK
    };
    Err(io::Error::from_raw_os_error(errno))
}

/// A transfer that ends before its range does is EIO: the file was cut short under us.
fn errno_of(error: io::Error) -> Errno {
    Errno::of(&error)
}

fn signed(number: u64) -> Result<i64, Errno> {
    i64::try_from(number).map_err(|_| Errno::EINVAL)
}

fn retry(mut call: impl FnMut() -> io::Result<()>) -> Result<(), Errno> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            answer => return answer.map_err(errno_of),
        }
    }
}
