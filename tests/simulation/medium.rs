//! What a disk keeps, and what it promises of it.
//!
//! A write that returned and was followed by a flush that returned, or that was FUA, stays.
//! Anything else is in the disk's cache: `current` is what a read gives, `durable` what is
//! promised, and at a power cut each sector of each write between may be there, in any order, or
//! not, or be damaged, which concerns the write's own bytes only. A write of a process that died
//! has reached the cache whole, in part, or not.

use std::sync::Arc;

use tidemark_store::units::ByteRange;

use super::{
    context::{Stream, usize_of},
    image::Image,
    tally::{Count, Tally},
};

/// Bytes that are written whole or not.
pub(super) const SECTOR: u64 = 512;
/// Writes that the disk's cache holds before it writes the oldest by itself.
const CACHED_WRITES: usize = 40;

/// New bytes of a range; `None` is zeros.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) range: ByteRange,
    pub(super) bytes: Option<Arc<[u8]>>,
}

impl Change {
    fn part(&self, part: ByteRange) -> Option<&[u8]> {
        let from = usize_of(part.offset - self.range.offset);
        let bytes = self.bytes.as_ref()?;
        Some(&bytes[from..from + usize_of(part.len)])
    }

    /// The change's sectors, the first and the last perhaps cut short.
    fn sectors(&self) -> impl Iterator<Item = ByteRange> + use<> {
        let range = self.range;
        (range.offset / SECTOR..range.end().div_ceil(SECTOR)).map(move |sector| {
            let start = range.offset.max(sector * SECTOR);
            ByteRange::new(start, range.end().min((sector + 1) * SECTOR) - start)
        })
    }
}

/// A change in the cache, whole or the part that was written before an error.
#[derive(Debug)]
struct Cached {
    id: u64,
    change: Change,
    /// When it returned; 0 is not yet.
    done: u64,
}

/// See the module's comment.
#[derive(Debug)]
pub(super) struct Medium {
    pub(super) current: Image,
    durable: Image,
    /// In the order of their submission.
    cached: Vec<Cached>,
    clock: u64,
    applied: u64,
}

impl Medium {
    pub(super) fn new(len: u64) -> Self {
        let image = Image::new(len);
        Self {
            durable: image.clone(),
            current: image,
            cached: Vec::new(),
            clock: 0,
            applied: 0,
        }
    }

    /// A change is submitted; gives its number.
    pub(super) fn submit(&mut self, change: Change) -> u64 {
        let id = self.tick();
        self.cached.push(Cached {
            id,
            change,
            done: 0,
        });
        id
    }

    /// Part of a submitted change reaches the cache.
    pub(super) fn apply(&mut self, id: u64, part: ByteRange) {
        if let Some(cached) = self.cached.iter().rev().find(|cached| cached.id == id) {
            self.current.write(part, cached.change.part(part));
        }
        self.applied = self.tick();
    }

    /// Whether nothing changed since `moment`.
    pub(super) fn is_unchanged_since(&self, moment: u64) -> bool {
        self.applied < moment
    }

    /// A change returns. Its bytes may be anything between old and new when it failed; with `fua`
    /// they are on the medium, and so is what was written there before.
    pub(super) fn finish(&mut self, id: u64, fua: bool) {
        let now = self.tick();
        let Some(at) = self.cached.iter().position(|cached| cached.id == id) else {
            return;
        };
        self.cached[at].done = now;
        if fua {
            let range = self.cached[at].change.range;
            let meets = |other: &Cached| {
                other.change.range.offset < range.end() && range.offset < other.change.range.end()
            };
            self.harden(|cached| cached.id == id || (cached.done != 0 && meets(cached)));
        } else if self.cached.len() > CACHED_WRITES {
            let oldest = self.cached.iter().find(|cached| cached.done != 0);
            let oldest = oldest.map_or(0, |cached| cached.id);
            self.harden(|cached| cached.id == oldest);
        }
    }

    /// A moment that [`Medium::flush`] can be asked about.
    pub(super) fn moment(&mut self) -> u64 {
        self.tick()
    }

    /// A flush that was submitted at `moment` returns.
    pub(super) fn flush(&mut self, moment: u64) {
        self.harden(|cached| cached.done != 0 && cached.done < moment);
    }

    /// A change that returned before `moment` and is not durable.
    pub(super) fn undurable_before(&self, moment: u64) -> Option<ByteRange> {
        let late = |cached: &&Cached| cached.done != 0 && cached.done < moment;
        self.cached.iter().find(late).map(|late| late.change.range)
    }

    /// Whether the medium itself has these bytes.
    pub(super) fn has_durably(&self, range: ByteRange, bytes: Option<&[u8]>) -> bool {
        match bytes {
            Some(bytes) => self.durable.equals(range.offset, bytes),
            None => self.durable.is_zero(range),
        }
    }

    /// The process died: what it had submitted reaches the cache whole, in part, or not. Gives
    /// the ranges concerned.
    pub(super) fn abandon(&mut self, choices: &Stream) -> Vec<ByteRange> {
        let now = self.tick();
        let mut concerned = Vec::new();
        for cached in self.cached.iter_mut().filter(|cached| cached.done == 0) {
            let odds = [0, 500, 1000][choices.index(3)];
            for sector in cached.change.sectors() {
                if choices.per_mille(odds) {
                    self.current.write(sector, cached.change.part(sector));
                }
            }
            cached.done = now;
            concerned.push(cached.change.range);
        }
        concerned
    }

    /// The host lost power.
    pub(super) fn cut_power(&mut self, choices: &Stream, tally: &Tally) {
        let mut cached = std::mem::take(&mut self.cached);
        // Not always in order: the cache may write in any.
        if choices.per_mille(700) {
            for at in (1..cached.len()).rev() {
                cached.swap(at, choices.index(at + 1));
            }
        }
        let odds = [0, 1000, 500, 900, 100][choices.index(5)];
        for Cached { change, done, .. } in cached {
            let odds = if choices.per_mille(500) {
                odds
            } else {
                [0, 1000][choices.index(2)]
            };
            let (mut kept, mut lost) = (0, 0);
            for sector in change.sectors() {
                if choices.per_mille(odds) {
                    self.durable.write(sector, change.part(sector));
                    kept += 1;
                } else if done == 0 && choices.per_mille(20) {
                    let damage = vec![0xDB; usize_of(sector.len)];
                    self.durable.write(sector, Some(&damage));
                    tally.add(Count::Damaged);
                } else {
                    lost += 1;
                }
            }
            tally.add_many(Count::SectorsKept, kept);
            tally.add_many(Count::SectorsLost, lost);
            tally.add_many(Count::Torn, u64::from(kept > 0 && lost > 0));
        }
        self.current = self.durable.clone();
    }

    /// A byte rots on the medium.
    pub(super) fn rot(&mut self, offset: u64, mask: u8) {
        self.current.flip(offset, mask);
        self.durable.flip(offset, mask);
    }

    fn harden(&mut self, which: impl Fn(&Cached) -> bool) {
        for cached in self.cached.iter().filter(|cached| which(cached)) {
            // What a read gives, so that a failed change stays as far as it came.
            let range = cached.change.range;
            if self.current.is_zero(range) {
                self.durable.write(range, None);
                continue;
            }
            let mut bytes = vec![0; usize_of(range.len)];
            self.current.read(range.offset, &mut bytes);
            self.durable.write(range, Some(&bytes));
        }
        self.cached.retain(|cached| !which(cached));
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
