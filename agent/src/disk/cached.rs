//! A file that is written through the page cache by threads that must not wait for it.
//!
//! Putting old data into the page cache is all that preserving takes: the cache outlives this
//! process. As a plain call that is a copy. Through the ring most file systems leave it to a worker
//! thread of the kernel, which costs several times as much. But when the file's disk does not keep
//! up, the kernel makes whoever writes wait, and with a queue's thread all its requests. So writes
//! are timed: after one that took longer than a copy does, they go by the ring until none has for
//! 10 s. That is how seldom a queue can be made to wait.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
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
/// For how long writes go by the ring after one that waited.
const BY_RING: Duration = Duration::from_secs(10);

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
            pace: Pace::new(Instant::now()),
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
        let answer = if self.pace.by_ring(began) {
            self.disk.write(offset, from, false).await
        } else {
            self.disk.file().write(offset, from, false).await
        };
        self.pace.observe(from.len(), began, Instant::now());
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
#[derive(Debug)]
struct Pace {
    start: Instant,
    /// Until then writes go by the ring, in milliseconds from the start.
    by_ring_until: AtomicU64,
}

impl Pace {
    fn new(start: Instant) -> Self {
        Self {
            start,
            by_ring_until: AtomicU64::new(0),
        }
    }

    fn by_ring(&self, now: Instant) -> bool {
        self.millis(now) < self.by_ring_until.load(Relaxed)
    }

    /// Notes how long a write took, whichever way it went.
    fn observe(&self, len: usize, began: Instant, now: Instant) {
        let pieces = u32::try_from(len.div_ceil(COPY_BYTES)).unwrap_or(u32::MAX);
        if now.saturating_duration_since(began) > COPY_TIME.saturating_mul(pieces) {
            let until = self.millis(now + BY_RING);
            self.by_ring_until.store(until, Relaxed);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_waited_sends_the_next_ones_by_the_ring() {
        let start = Instant::now();
        let pace = Pace::new(start);
        let quick = start + COPY_TIME;
        pace.observe(4096, start, quick);
        assert!(!pace.by_ring(quick));
        let slow = start + COPY_TIME * 3;
        pace.observe(4096, start, slow);
        assert!(pace.by_ring(slow));
        assert!(!pace.by_ring(slow + BY_RING));
    }

    #[test]
    fn a_large_write_may_take_longer() {
        let start = Instant::now();
        let pace = Pace::new(start);
        let after = |times: u32| start + COPY_TIME * times;
        pace.observe(1 << 20, start, after(8));
        assert!(!pace.by_ring(after(8)));
        pace.observe(1 << 20, start, after(9));
        assert!(pace.by_ring(after(9)));
    }

    #[test]
    fn writes_by_the_ring_that_wait_keep_calls_away() {
        let start = Instant::now();
        let pace = Pace::new(start);
        pace.observe(4096, start, start + COPY_TIME * 2);
        let later = start + BY_RING;
        pace.observe(4096, start, later);
        assert!(pace.by_ring(later + BY_RING / 2));
    }
}
