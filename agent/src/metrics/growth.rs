//! How a store grew of late, and when it would be full if it went on so.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What is further back says nothing of what comes.
const WINDOW: Duration = Duration::from_secs(1800);
/// Looks that are kept are so far apart, but for the newest: 182 at most.
const SPACING: Duration = Duration::from_secs(10);
/// A shorter time gives no rate.
const SHORTEST: Duration = Duration::from_secs(60);

/// The fill of one store since it last shrank.
#[derive(Default, Debug)]
pub(super) struct Growth(VecDeque<(Instant, u64)>);

impl Growth {
    /// Takes a look at the store: `used` bytes are in use.
    pub(super) fn note(&mut self, now: Instant, used: u64) {
        if self.0.back().is_some_and(|(_, last)| used < *last) {
            // Space came back, which does not make what is written slower.
            self.0.clear();
        }
        if let [.., (before, _), (last, _)] = self.0.make_contiguous()
            && last.duration_since(*before) < SPACING
        {
            self.0.pop_back();
        }
        self.0.push_back((now, used));
        while let Some((oldest, _)) = self.0.front() {
            if now.duration_since(*oldest) <= WINDOW {
                break;
            }
            self.0.pop_front();
        }
    }

    /// For how long the store lasts at the rate since the oldest look; `None` when it does not grow, or was
    /// not looked at for long enough.
    pub(super) fn time_to_full(&self, capacity: u64) -> Option<Duration> {
        let ((since, before), (now, used)) = (self.0.front()?, self.0.back()?);
        let free = capacity.checked_sub(*used)?;
        let (span, grown) = (now.duration_since(*since), used.checked_sub(*before)?);
        if free == 0 {
            return Some(Duration::ZERO);
        }
        if span < SHORTEST || grown == 0 {
            return None;
        }
        let seconds = span.as_secs_f64() * free as f64 / grown as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks, each so many seconds after the first.
    fn looks(at: &[(u64, u64)]) -> Growth {
        let start = Instant::now();
        let mut growth = Growth::default();
        for (seconds, used) in at {
            growth.note(start + Duration::from_secs(*seconds), *used);
        }
        growth
    }

    fn seconds(growth: &Growth, capacity: u64) -> Option<u64> {
        growth.time_to_full(capacity).map(|time| time.as_secs())
    }

    #[test]
    fn a_store_that_grows_evenly_is_full_when_it_is() {
        assert_eq!(
            seconds(&looks(&[(0, 0), (30, 30), (60, 60)]), 100),
            Some(40)
        );
        assert_eq!(seconds(&looks(&[(0, 0), (100, 50)]), 1000), Some(1900));
    }

    #[test]
    fn without_growth_or_time_nothing_is_told() {
        assert_eq!(seconds(&looks(&[]), 100), None);
        assert_eq!(seconds(&looks(&[(0, 5)]), 100), None);
        assert_eq!(seconds(&looks(&[(0, 5), (600, 5)]), 100), None);
        assert_eq!(seconds(&looks(&[(0, 5), (59, 50)]), 100), None);
        assert_eq!(seconds(&looks(&[(0, 100)]), 100), Some(0));
    }

    #[test]
    fn space_that_came_back_starts_the_rate_anew() {
        let growth = looks(&[(0, 0), (100, 90), (200, 10), (300, 20)]);
        assert_eq!(seconds(&growth, 100), Some(800));
        assert_eq!(seconds(&looks(&[(0, 90), (100, 10)]), 100), None);
    }

    #[test]
    fn old_and_crowded_looks_go() {
        let many: Vec<_> = (0..20_000).map(|second| (second, second / 100)).collect();
        let growth = looks(&many);
        assert!(growth.0.len() <= 182, "{}", growth.0.len());
        let told = seconds(&growth, 299).expect("it grows");
        assert!((9_000..11_000).contains(&told), "{told}");
        // Long quiet, then fast: the quiet is forgotten.
        let growth = looks(&[(0, 0), (5000, 0), (5100, 100)]);
        assert_eq!(seconds(&growth, 200), Some(100));
    }
}
