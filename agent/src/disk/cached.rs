//! A file that is written through the page cache by threads that must not wait for it.
//!
//! Putting old data into the page cache is all that preserving takes: the cache outlives this
//! process. As a plain call that is a copy. Through the ring most file systems leave it to a worker
//! thread of the kernel, which costs several times as much. But when the file's disk does not keep
//! up, the kernel makes whoever writes wait, and with a queue's thread all its requests. So writes
//! are timed:
//!
//! ```text
//!            a call took longer than a copy does
//! by calls ─────────────────────────────────────> by the ring
//!    ^                                                 │
//!    └────────── so many in a row did not ─────────────┘
//! ```

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use tidemark_store::units::ByteRange;

use super::{
    Disk, Run,
    file::FileDisk,
    ring::{RingDisk, has_ring},
};
use crate::request::Errno;

/// A write that took longer for each begun piece of it has waited for more than its copying.
const COPY_TIME: Duration = Duration::from_millis(1);
const COPY_BYTES: usize = 128 << 10;
/// Writes by the ring in a row that did not wait, until calls are tried again.
const CALM_WRITES: u32 = 64;

/// An image file or block device in the page cache.
#[derive(Debug)]
pub struct CachedDisk {
    disk: RingDisk,
    pace: Pace,
}

impl CachedDisk {
    /// Takes a disk that was not opened past the page cache.
    pub fn new(file: FileDisk) -> Self {
        Self {
            disk: RingDisk::new(file),
            pace: Pace::default(),
        }
    }
}

impl Disk for CachedDisk {
    fn capacity(&self) -> u64 {
        self.disk.capacity()
    }

    fn discard_zeroes(&self) -> bool {
        self.disk.discard_zeroes()
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.disk.read(offset, into).await
    }

    async fn write(&self, offset: u64, from: &[u8], fua: bool) -> Result<(), Errno> {
        if fua || !has_ring() {
            return self.disk.write(offset, from, fua).await;
        }
        let began = Instant::now();
        let answer = if self.pace.by_ring() {
            self.disk.write(offset, from, false).await
        } else {
            self.disk.file().write(offset, from, false).await
        };
        self.pace.observe(from.len(), began.elapsed());
        answer
    }

    async fn flush(&self) -> Result<(), Errno> {
        self.disk.flush().await
    }

    async fn discard(&self, range: ByteRange) -> Result<(), Errno> {
        self.disk.discard(range).await
    }

    async fn write_zeroes(
        &self,
        range: ByteRange,
        fua: bool,
        may_unmap: bool,
    ) -> Result<(), Errno> {
        self.disk.write_zeroes(range, fua, may_unmap).await
    }

    async fn run_at(&self, offset: u64) -> Result<Run, Errno> {
        self.disk.run_at(offset).await
    }
}

/// By which way to write. Threads may overtake each other here: either way is right, one is
/// cheaper.
#[derive(Debug, Default)]
struct Pace {
    /// Writes that are still to go by the ring; 0 is by calls.
    by_ring: AtomicU32,
}

impl Pace {
    fn by_ring(&self) -> bool {
        self.by_ring.load(Relaxed) > 0
    }

    fn observe(&self, len: usize, took: Duration) {
        let pieces = u32::try_from(len.div_ceil(COPY_BYTES)).unwrap_or(u32::MAX);
        if took > COPY_TIME.saturating_mul(pieces) {
            self.by_ring.store(CALM_WRITES, Relaxed);
        } else if let left @ 1.. = self.by_ring.load(Relaxed) {
            self.by_ring.store(left - 1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_waited_sends_the_next_ones_by_the_ring() {
        let pace = Pace::default();
        pace.observe(4096, COPY_TIME);
        assert!(!pace.by_ring());
        pace.observe(4096, COPY_TIME * 2);
        for _ in 0..CALM_WRITES {
            assert!(pace.by_ring());
            pace.observe(4096, Duration::ZERO);
        }
        assert!(!pace.by_ring());
    }

    #[test]
    fn a_large_write_may_take_longer() {
        let pace = Pace::default();
        pace.observe(1 << 20, COPY_TIME * 8);
        assert!(!pace.by_ring());
        pace.observe(1 << 20, COPY_TIME * 9);
        assert!(pace.by_ring());
    }

    #[test]
    fn writes_by_the_ring_that_wait_keep_calls_away() {
        let pace = Pace::default();
        for _ in 0..3 * CALM_WRITES {
            pace.observe(4096, COPY_TIME * 2);
        }
        for _ in 1..CALM_WRITES {
            pace.observe(4096, Duration::ZERO);
        }
        assert!(pace.by_ring());
        pace.observe(4096, COPY_TIME * 2);
        pace.observe(4096, Duration::ZERO);
        assert!(pace.by_ring());
    }
}
