//! How long things took: histograms that many threads add to without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets in microseconds, each within it: from what a fast disk takes to what a host
/// takes for a hang. Whatever took longer is in one more bucket.
pub const BOUNDS_US: [u64; 19] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Durations, counted by their length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// How many fell into each bucket and no lower one.
    pub counts: [u64; BUCKETS],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Latency {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn add(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us += other.sum_us;
    }
}

/// The same as many threads add to it.
#[derive(Default)]
pub(super) struct LiveLatency {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl LiveLatency {
    /// Counts something that took so many microseconds.
    pub(super) fn note(&self, took_us: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < took_us);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took_us, Relaxed);
    }

    pub(super) fn sums(&self) -> Latency {
        Latency {
            counts: std::array::from_fn(|bucket| self.counts[bucket].load(Relaxed)),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let live = LiveLatency::default();
        for took_us in [0, 10, 11, 20, 10_000_000, 10_000_001, u64::from(u32::MAX)] {
            live.note(took_us);
        }
        let sums = live.sums();
        assert_eq!(sums.counts[..3], [2, 2, 0]);
        assert_eq!(sums.counts[BUCKETS - 2..], [1, 2]);
        assert_eq!(sums.count(), 7);
        assert_eq!(sums.sum_us, 41 + 20_000_001 + u64::from(u32::MAX));
    }

    #[test]
    fn bounds_ascend_by_small_factors() {
        assert!(
            BOUNDS_US
                .windows(2)
                .all(|pair| pair[0] < pair[1] && pair[1] * 2 <= pair[0] * 5)
        );
    }
}
