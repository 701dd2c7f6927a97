//! The disk trait: what the engine asks of an origin or an area, and nothing more.
//!
//! A simulator implements it in a page; [`file::FileDisk`] is the real one for files and block
//! devices, [`ring::RingDisk`] the one for the threads of the ublk transport,
//! [`cached::CachedDisk`] theirs for what lies in the page cache;
//! [`memory::MemoryDisk`] serves tests and benchmarks.

pub mod cached;
pub mod file;
pub mod memory;
pub mod ring;
pub(crate) mod sys;
#[cfg(test)]
mod tests;

use tidemark_store::units::ByteRange;

use crate::request::{Errno, Registered, Request};

/// A run of a disk that is a hole, or is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// First byte after the run; greater than the offset asked about.
    pub end: u64,
    /// The run is known to read as zeros. `false` says only that it may hold data.
    pub hole: bool,
}

/// Something with bytes that outlives a request.
///
/// Every method may be called by many threads at once; overlapping calls in flight end in either
/// order, as on a real disk. A call that fails may have done part of its work. Dropping a future
/// leaves the call's effect undefined, exactly as a process death does.
///
/// Offsets past the capacity are the caller's error and answer `EINVAL`. Futures need not be
/// `Send`: a ring belongs to its thread.
pub trait Disk: Send + Sync {
    /// Size in bytes.
    fn capacity(&self) -> u64;

    /// Whether a discarded range reads as zeros from then on.
    fn discard_zeroes(&self) -> bool;

    /// Fills `into` from `offset` on.
    fn read(&self, offset: u64, into: &mut [u8]) -> impl Future<Output = Result<(), Errno>>;

    /// Puts `from` at `offset`. With `fua` the bytes are on the medium when it returns;
    /// without, after the next [`Disk::flush`].
    fn write(&self, offset: u64, from: &[u8], fua: bool)
    -> impl Future<Output = Result<(), Errno>>;

    /// [`Disk::read`] into a buffer that the calling thread's ring knows and this process has no
    /// pointer to. `EOPNOTSUPP` where there is no such thing.
    fn read_registered(
        &self,
        _offset: u64,
        _into: Registered,
    ) -> impl Future<Output = Result<(), Errno>> {
        async { Err(Errno(libc::EOPNOTSUPP)) }
    }

    /// [`Disk::write`] from such a buffer.
    fn write_registered(
        &self,
        _offset: u64,
        _from: Registered,
        _fua: bool,
    ) -> impl Future<Output = Result<(), Errno>> {
        async { Err(Errno(libc::EOPNOTSUPP)) }
    }

    /// The first bytes of such a buffer, as many as `into` has; the disk itself is not touched.
    /// `EOPNOTSUPP` where they cannot be had.
    fn contents(
        &self,
        _of: Registered,
        _into: &mut [u8],
    ) -> impl Future<Output = Result<(), Errno>> {
        async { Err(Errno(libc::EOPNOTSUPP)) }
    }

    /// Makes every write that returned before durable.
    fn flush(&self) -> impl Future<Output = Result<(), Errno>>;

    /// Gives a range's space back; what it reads as afterwards is [`Disk::discard_zeroes`].
    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), Errno>>;

    /// Makes a range read as zeros, and durable when `fua`.
    fn write_zeroes(
        &self,
        range: ByteRange,
        fua: bool,
        may_unmap: bool,
    ) -> impl Future<Output = Result<(), Errno>>;

    /// The run that starts at `offset`, which lies within the capacity.
    fn run_at(&self, offset: u64) -> impl Future<Output = Result<Run, Errno>>;
}

/// Hands a request to a disk, its flags intact.
pub async fn forward(disk: &impl Disk, request: &mut Request<'_>) -> Result<(), Errno> {
    match request {
        Request::Read { offset, into } => disk.read(*offset, into).await,
        Request::Write { offset, from, fua } => disk.write(*offset, from, *fua).await,
        Request::ReadRegistered { offset, into } => disk.read_registered(*offset, *into).await,
        Request::WriteRegistered { offset, from, fua } => {
            disk.write_registered(*offset, *from, *fua).await
        }
        Request::Flush => disk.flush().await,
        Request::Discard { range } => disk.discard(*range).await,
        Request::WriteZeroes {
            range,
            fua,
            may_unmap,
        } => disk.write_zeroes(*range, *fua, *may_unmap).await,
    }
}
