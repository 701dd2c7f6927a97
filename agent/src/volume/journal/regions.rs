//! Which regions may change without a further record, and which were changed of late.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use tidemark_store::journal::Regions;

/// A bit a region, for all to read.
#[derive(Debug)]
struct Bits(Box<[AtomicU64]>);

impl Bits {
    fn new(len: u64) -> Self {
        let words = usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX);
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    fn word(&self, region: u64) -> (&AtomicU64, u64) {
        let index = usize::try_from(region / 64).unwrap_or(usize::MAX);
        (&self.0[index], 1 << (region % 64))
    }

    fn get(&self, region: u64) -> bool {
        let (word, bit) = self.word(region);
        word.load(SeqCst) & bit != 0
    }

    /// Whether it was clear.
    fn set(&self, region: u64) -> bool {
        let (word, bit) = self.word(region);
        word.load(Relaxed) & bit == 0 && word.fetch_or(bit, SeqCst) & bit == 0
    }

    /// Whether it was set.
    fn clear(&self, region: u64) -> bool {
        let (word, bit) = self.word(region);
        word.fetch_and(!bit, SeqCst) & bit != 0
    }
}

/// The regions of a volume. Read by every write; changed under the journal's lock, except for
/// `used`.
#[derive(Debug)]
pub(super) struct ActiveRegions {
    len: u64,
    active: Bits,
    used: Bits,
    count: AtomicU64,
}

impl ActiveRegions {
    pub(super) fn new(len: u64) -> Self {
        Self {
            len,
            active: Bits::new(len),
            used: Bits::new(len),
            count: AtomicU64::new(0),
        }
    }

    /// Number of regions of the volume.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Number of active regions.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub(super) fn is_active(&self, region: u64) -> bool {
        region < self.len && self.active.get(region)
    }

    /// Notes that a region is being changed; whether it was not of late.
    pub(super) fn use_one(&self, region: u64) -> bool {
        self.used.set(region)
    }

    pub(super) fn activate(&self, regions: Regions) {
        for region in regions.first..regions.end.min(self.len) {
            if self.active.set(region) {
                self.count.fetch_add(1, Relaxed);
            }
        }
    }

    /// From now on a change of the region waits for a new record.
    pub(super) fn deactivate(&self, region: u64) {
        if self.active.clear(region) {
            self.count.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn deactivate_all(&self) {
        for word in &self.active.0 {
            word.store(0, SeqCst);
        }
        self.count.store(0, Relaxed);
    }

    /// The first active region from `from` on.
    pub(super) fn next_active(&self, from: u64) -> Option<u64> {
        let mut at = from;
        while at < self.len {
            let (word, _) = self.active.word(at);
            let rest = word.load(SeqCst) >> (at % 64);
            if rest != 0 {
                return Some(at + u64::from(rest.trailing_zeros()));
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// The next active region from `from` on that was not used since the last look at it; takes
    /// the mark off those that were. `None` at the end.
    pub(super) fn next_unused(&self, from: u64) -> Option<u64> {
        let mut at = from;
        while let Some(region) = self.next_active(at) {
            if !self.used.clear(region) {
                return Some(region);
            }
            at = region + 1;
        }
        None
    }

    /// All active regions, neighbours together.
    pub(super) fn all(&self) -> Vec<Regions> {
        let mut all: Vec<Regions> = Vec::new();
        let mut at = 0;
        while let Some(region) = self.next_active(at) {
            at = region + 1;
            match all.last_mut() {
                Some(last) if last.end == region => last.end = at,
                _ => all.push(Regions {
                    first: region,
                    end: at,
                }),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_go_cold_when_they_were_not_used_between_two_looks() {
        let regions = ActiveRegions::new(200);
        regions.activate(Regions { first: 60, end: 70 });
        regions.activate(Regions {
            first: 199,
            end: 300,
        });
        assert_eq!(regions.count(), 11);
        assert!(regions.use_one(64) && !regions.use_one(64));
        assert_eq!(regions.next_unused(0), Some(60));
        assert_eq!(regions.next_unused(64), Some(65));
        assert_eq!(regions.next_unused(64), Some(64));
        regions.deactivate(63);
        regions.deactivate(63);
        assert!(!regions.is_active(63) && regions.is_active(199) && !regions.is_active(200));
        let all: Vec<_> = regions.all().iter().map(|r| (r.first, r.end)).collect();
        assert_eq!(all, [(60, 63), (64, 70), (199, 200)]);
        regions.deactivate_all();
        assert_eq!((regions.count(), regions.next_active(0)), (0, None));
    }
}
