//! A file or block device whose I/O goes through the io_uring of the thread that asks.
//!
//! A queue thread of the ublk transport has a ring ([`adopt_ring`]); there a call is one or a few
//! submissions and the thread serves other requests meanwhile. On any other thread a call blocks,
//! as [`FileDisk`]'s do.
//!
//! Block devices are read and written past the page cache: what is under an interposed volume is
//! cached above it already, and a data plane that dirties pages could wait for memory that only
//! its own writes can free.

use std::{
    cell::Cell,
    fs::File,
    io, mem,
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::atomic::{AtomicBool, Ordering},
};

use io_uring::{opcode, squeue, types};
use libublk::{UblkUringData, uring_async::ublk_submit_sqe_async};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use tidemark_store::units::ByteRange;

use super::{Disk, Run, file::FileDisk};
use crate::request::{Errno, Registered};

/// `BLOCK_URING_CMD_DISCARD` of linux/blkdev.h, since Linux 6.12.
const BLOCK_URING_CMD_DISCARD: u32 = 0x12 << 8;

thread_local! {
    static HAS_RING: Cell<bool> = const { Cell::new(false) };
}

/// From now on the calling thread submits to its libublk ring, and must reap it.
pub(crate) fn adopt_ring() {
    HAS_RING.set(true);
}

/// Whether the calling thread has one.
pub(super) fn has_ring() -> bool {
    HAS_RING.get()
}

/// An image file or block device, through the calling thread's ring where it has one.
#[derive(Debug)]
pub struct RingDisk {
    file: FileDisk,
    /// The kernel refused to discard by the ring once.
    no_ring_discard: AtomicBool,
}

impl RingDisk {
    /// Takes a disk as it is: through the page cache unless it was opened past it.
    pub fn new(file: FileDisk) -> Self {
        Self {
            file,
            no_ring_discard: AtomicBool::new(false),
        }
    }

    /// Takes a disk and leaves the page cache out when it is a block device.
    pub fn direct(file: FileDisk) -> io::Result<Self> {
        if file.is_block_device() {
            let flags = OFlag::from_bits_retain(fcntl(file.file(), FcntlArg::F_GETFL)?);
            fcntl(file.file(), FcntlArg::F_SETFL(flags | OFlag::O_DIRECT))?;
        }
        Ok(Self::new(file))
    }

    /// The file or device itself.
    pub fn file(&self) -> &FileDisk {
        &self.file
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.file.file().as_raw_fd())
    }

    /// Writes or reads `len` bytes from `offset` on in as many submissions as it takes; `entry`
    /// makes the one that begins so many bytes in.
    async fn transfer(
        &self,
        len: u32,
        mut entry: impl FnMut(u32) -> squeue::Entry,
    ) -> Result<(), Errno> {
        let mut done = 0;
        while done < len {
            match submit(entry(done)).await {
                // The file was cut short under us.
                Ok(0) => return Err(Errno::EIO),
                Ok(more) => done += more,
                Err(Errno(libc::EAGAIN | libc::EINTR)) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    async fn fallocate(&self, mode: i32, range: ByteRange) -> Result<(), Errno> {
        let entry = || {
            opcode::Fallocate::new(self.fd(), range.len)
                .offset(range.offset)
                .mode(mode | libc::FALLOC_FL_KEEP_SIZE)
                .build()
        };
        call(entry).await
    }

    async fn sync(&self) -> Result<(), Errno> {
        let entry = || {
            opcode::Fsync::new(self.fd())
                .flags(types::FsyncFlags::DATASYNC)
                .build()
        };
        call(entry).await
    }

    async fn discard_device(&self, range: ByteRange) -> Result<(), Errno> {
        let mut command = [0; 16];
        command[..8].copy_from_slice(&range.len.to_ne_bytes());
        let entry = || {
            opcode::UringCmd16::new(self.fd(), BLOCK_URING_CMD_DISCARD)
                .addr(Some(range.offset))
                .cmd(command)
                .build()
        };
        call(entry).await
    }
}

impl Disk for RingDisk {
    fn capacity(&self) -> u64 {
        self.file.capacity()
    }

    fn discard_zeroes(&self) -> bool {
        self.file.discard_zeroes()
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        if !has_ring() {
            return self.file.read(offset, into).await;
        }
        let len = length(into)?;
        self.file.check(offset, len.into())?;
        let at = into.as_mut_ptr();
        self.transfer(len, |done| {
            let place = at.wrapping_add(done as usize);
            opcode::Read::new(self.fd(), place, len - done)
                .offset(offset + u64::from(done))
                .build()
        })
        .await
    }

    async fn write(&self, offset: u64, from: &[u8], fua: bool) -> Result<(), Errno> {
        if !has_ring() {
            return self.file.write(offset, from, fua).await;
        }
        let len = length(from)?;
        self.file.check_change(offset, len.into())?;
        let at = from.as_ptr();
        self.transfer(len, |done| {
            let place = at.wrapping_add(done as usize);
            opcode::Write::new(self.fd(), place, len - done)
                .offset(offset + u64::from(done))
                .rw_flags(write_flags(fua))
                .build()
        })
        .await
    }

    async fn read_registered(&self, offset: u64, into: Registered) -> Result<(), Errno> {
        if !has_ring() {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        self.file.check(offset, into.len.into())?;
        self.transfer(into.len, |done| {
            opcode::ReadFixed::new(self.fd(), place_in(done), into.len - done, into.index)
                .offset(offset + u64::from(done))
                .build()
        })
        .await
    }

    async fn write_registered(
        &self,
        offset: u64,
        from: Registered,
        fua: bool,
    ) -> Result<(), Errno> {
        if !has_ring() {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        self.file.check_change(offset, from.len.into())?;
        self.transfer(from.len, |done| {
            opcode::WriteFixed::new(self.fd(), place_in(done), from.len - done, from.index)
                .offset(offset + u64::from(done))
                .rw_flags(write_flags(fua))
                .build()
        })
        .await
    }

    /// By a file in memory, which is what the ring can write to and this process can read.
    async fn contents(&self, of: Registered, into: &mut [u8]) -> Result<(), Errno> {
        if !has_ring() {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let len = length(into)?;
        if len > of.len {
            return Err(Errno::EINVAL);
        }
        let made = memfd_create(c"registered", MFdFlags::MFD_CLOEXEC);
        let file = File::from(made.map_err(|errno| Errno(errno as i32))?);
        let fd = types::Fd(file.as_raw_fd());
        self.transfer(len, |done| {
            opcode::WriteFixed::new(fd, place_in(done), len - done, of.index)
                .offset(done.into())
                .build()
        })
        .await?;
        let read = file.read_exact_at(into, 0);
        read.map_err(|error| Errno::of(&error))
    }

    async fn flush(&self) -> Result<(), Errno> {
        if !has_ring() {
            return self.file.flush().await;
        }
        self.sync().await
    }

    async fn discard(&self, range: ByteRange) -> Result<(), Errno> {
        if !has_ring() || self.no_ring_discard.load(Ordering::Relaxed) {
            return self.file.discard(range).await;
        }
        self.file.check_change(range.offset, range.len)?;
        let whole = self.file.whole_granules(range);
        if whole.is_empty() {
            return Ok(());
        }
        let done = if self.file.is_block_device() {
            self.discard_device(whole).await
        } else {
            self.fallocate(libc::FALLOC_FL_PUNCH_HOLE, whole).await
        };
        match done {
            // An older kernel, or a disk that cannot: the slower way tells which.
            Err(Errno(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOTTY)) => {
                self.file.discard(range).await?;
                self.no_ring_discard.store(true, Ordering::Relaxed);
                Ok(())
            }
            answer => answer,
        }
    }

    async fn write_zeroes(
        &self,
        range: ByteRange,
        fua: bool,
        may_unmap: bool,
    ) -> Result<(), Errno> {
        if !has_ring() || self.file.whole_granules(range) != range {
            return self.file.write_zeroes(range, fua, may_unmap).await;
        }
        self.file.check_change(range.offset, range.len)?;
        let mode = if may_unmap {
            libc::FALLOC_FL_PUNCH_HOLE
        } else {
            libc::FALLOC_FL_ZERO_RANGE
        };
        match self.fallocate(mode, range).await {
            Err(Errno(libc::EOPNOTSUPP)) => self.file.write_zeroes(range, fua, may_unmap).await,
            Ok(()) if fua => self.sync().await,
            answer => answer,
        }
    }

    async fn run_at(&self, offset: u64) -> Result<Run, Errno> {
        self.file.run_at(offset).await
    }
}

/// Aborts the process when a submission is given up before the kernel is done with its buffer:
/// anything else would let the kernel write into memory that is used for something else.
struct Unfinished;

impl Drop for Unfinished {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// One submission: how many bytes were moved.
async fn submit(entry: squeue::Entry) -> Result<u32, Errno> {
    let guard = Unfinished;
    let result = ublk_submit_sqe_async(entry, UblkUringData::Target as u64).await;
    mem::forget(guard);
    let result = result.map_err(|_| Errno::EIO)?;
    u32::try_from(result).map_err(|_| Errno(-result))
}

/// One submission that is whole or failed.
async fn call(entry: impl Fn() -> squeue::Entry) -> Result<(), Errno> {
    loop {
        match submit(entry()).await {
            Err(Errno(libc::EAGAIN | libc::EINTR)) => {}
            answer => return answer.map(drop),
        }
    }
}

fn length(bytes: &[u8]) -> Result<u32, Errno> {
    u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)
}

fn write_flags(fua: bool) -> i32 {
    if fua { libc::RWF_DSYNC } else { 0 }
}

/// A registered buffer is addressed by the distance from its start.
fn place_in<T>(skip: u32) -> *mut T {
    std::ptr::without_provenance_mut(skip as usize)
}
