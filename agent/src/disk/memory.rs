//! A disk in memory, for tests and benchmarks.
//!
//! Each MiB has its own lock and is allocated when it is first written, so that threads which
//! work in different places do not meet and a large, mostly empty disk costs little. Whether a
//! 4 KiB unit was ever written is remembered; a unit that was not is a hole.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemark_store::units::ByteRange;

use super::{Disk, Run};
use crate::request::Errno;

/// What one lock guards.
const SHARD_BYTES: usize = 1 << 20;
/// What is a hole or is not.
const UNIT_BYTES: usize = 4096;
const UNITS: usize = SHARD_BYTES / UNIT_BYTES;

/// One MiB; `None` until it is written.
type Shard = Option<Box<Written>>;

struct Written {
    bytes: Box<[u8]>,
    /// Which units hold data.
    data: [bool; UNITS],
}

impl Written {
    fn empty() -> Box<Self> {
        Box::new(Self {
            bytes: vec![0; SHARD_BYTES].into_boxed_slice(),
            data: [false; UNITS],
        })
    }
}

/// A disk whose bytes are gone when it is dropped.
pub struct MemoryDisk {
    capacity: u64,
    shards: Box<[Mutex<Shard>]>,
}

/// The part of a request that lies in one shard.
#[derive(Clone, Copy)]
struct Piece {
    shard: usize,
    /// First byte within the shard.
    start: usize,
    /// First byte after the piece, within the shard.
    end: usize,
}

impl MemoryDisk {
    /// A disk of `capacity` bytes, all of them zeros and holes.
    pub fn new(capacity: u64) -> Self {
        let shards = capacity.div_ceil(SHARD_BYTES as u64);
        Self {
            capacity,
            shards: (0..shards).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// Every byte of the disk, for comparison with another one's.
    pub fn contents(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in self.pieces(0, self.capacity) {
            match self.lock(piece.shard).as_deref() {
                Some(written) => all.extend_from_slice(&written.bytes[piece.start..piece.end]),
                None => all.resize(all.len() + piece.end - piece.start, 0),
            }
        }
        all
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), Errno> {
        match offset.checked_add(len) {
            Some(end) if end <= self.capacity => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // Plain bytes: what a panicking thread left behind is what a torn write leaves.
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts a checked range at the borders of the shards.
    fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = Piece> + use<> {
        let shard_bytes = SHARD_BYTES as u64;
        let end = offset + len;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let shard = at / shard_bytes;
            let stop = end.min((shard + 1) * shard_bytes);
            let base = shard * shard_bytes;
            let piece = Piece {
                shard: index(shard),
                start: index(at - base),
                end: index(stop - base),
            };
            at = stop;
            Some(piece)
        })
    }

    /// Zeros one piece; whole units become holes.
    fn clear(&self, piece: Piece) {
        let mut shard = self.lock(piece.shard);
        let Some(written) = shard.as_deref_mut() else {
            return;
        };
        if piece.start == 0 && piece.end == SHARD_BYTES {
            *shard = None;
            return;
        }
        let first = piece.start / UNIT_BYTES;
        for unit in first..piece.end.div_ceil(UNIT_BYTES) {
            if !written.data[unit] {
                continue;
            }
            let start = piece.start.max(unit * UNIT_BYTES);
            let end = piece.end.min((unit + 1) * UNIT_BYTES);
            written.bytes[start..end].fill(0);
            written.data[unit] = end - start < UNIT_BYTES;
        }
    }

    /// Whether the unit that `offset` lies in is a hole, and where the first unit after it of
    /// the other kind within the shard starts.
    fn run_in_shard(&self, offset: u64) -> (bool, u64) {
        let shard_bytes = SHARD_BYTES as u64;
        let shard = offset / shard_bytes;
        let base = shard * shard_bytes;
        let guard = self.lock(index(shard));
        let Some(written) = guard.as_deref() else {
            return (true, base + shard_bytes);
        };
        let unit = index(offset - base) / UNIT_BYTES;
        let is_data = written.data[unit];
        let same = written.data[unit..].iter().take_while(|d| **d == is_data);
        let end = base + ((unit + same.count()) * UNIT_BYTES) as u64;
        (!is_data, end)
    }
}

impl Disk for MemoryDisk {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn discard_zeroes(&self) -> bool {
        true
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.check(offset, into.len() as u64)?;
        let mut rest = into;
        for piece in self.pieces(offset, rest.len() as u64) {
            let (head, tail) = rest.split_at_mut(piece.end - piece.start);
            match self.lock(piece.shard).as_deref() {
                Some(written) => head.copy_from_slice(&written.bytes[piece.start..piece.end]),
                None => head.fill(0),
            }
            rest = tail;
        }
        Ok(())
    }

    async fn write(&self, offset: u64, from: &[u8], _fua: bool) -> Result<(), Errno> {
        self.check(offset, from.len() as u64)?;
        let mut rest = from;
        for piece in self.pieces(offset, from.len() as u64) {
            let (head, tail) = rest.split_at(piece.end - piece.start);
            let mut shard = self.lock(piece.shard);
            let written = shard.get_or_insert_with(Written::empty);
            written.bytes[piece.start..piece.end].copy_from_slice(head);
            let units = piece.start / UNIT_BYTES..piece.end.div_ceil(UNIT_BYTES);
            written.data[units].fill(true);
            rest = tail;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), Errno> {
        Ok(())
    }

    async fn discard(&self, range: ByteRange) -> Result<(), Errno> {
        self.check(range.offset, range.len)?;
        for piece in self.pieces(range.offset, range.len) {
            self.clear(piece);
        }
        Ok(())
    }

    async fn write_zeroes(
        &self,
        range: ByteRange,
        _fua: bool,
        _may_unmap: bool,
    ) -> Result<(), Errno> {
        self.discard(range).await
    }

    async fn run_at(&self, offset: u64) -> Result<Run, Errno> {
        if offset >= self.capacity {
            return Err(Errno::EINVAL);
        }
        let (hole, mut end) = self.run_in_shard(offset);
        while end < self.capacity && end.is_multiple_of(SHARD_BYTES as u64) {
            match self.run_in_shard(end) {
                (next, further) if next == hole => end = further,
                _ => break,
            }
        }
        Ok(Run {
            end: end.min(self.capacity),
            hole,
        })
    }
}

/// A place within memory that is allocated, hence a `usize`.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
