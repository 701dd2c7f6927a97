//! What happens in a second, from counters that were looked at twice.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidemark_proto::v1::{Volume, VolumeStats};

/// How many looks the growth of a store is taken over: a moment says little.
const GROWTH_OVER: usize = 16;

/// The looks at each volume.
#[derive(Default, Debug)]
pub(in crate::cmd::status) struct Samples(BTreeMap<String, VecDeque<Sample>>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    stats: VolumeStats,
    used_bytes: u64,
    capacity_bytes: u64,
}

/// Of one volume, each in a second.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Rates {
    pub(super) read_requests: u64,
    pub(super) read_bytes: u64,
    pub(super) write_requests: u64,
    pub(super) write_bytes: u64,
    pub(super) preserved_bytes: u64,
}

impl Samples {
    /// Takes a look's volumes in, and forgets those that are gone.
    pub(in crate::cmd::status) fn take(&mut self, at: Instant, volumes: &[Volume]) {
        self.0
            .retain(|name, _| volumes.iter().any(|volume| volume.name == *name));
        for volume in volumes {
            let store = volume.store_status.unwrap_or_default();
            let samples = self.0.entry(volume.name.clone()).or_default();
            samples.push_back(Sample {
                at,
                stats: volume.stats.unwrap_or_default(),
                used_bytes: store.used_bytes,
                capacity_bytes: store.capacity_bytes,
            });
            if samples.len() > GROWTH_OVER {
                samples.pop_front();
            }
        }
    }

    /// Between the last two looks; nothing before the second, and where a new server counts anew.
    pub(super) fn rates(&self, volume: &str) -> Option<Rates> {
        let mut latest = self.0.get(volume)?.iter().rev();
        let (new, old) = (latest.next()?, latest.next()?);
        let per_second = |counter: fn(&VolumeStats) -> u64| {
            let more = counter(&new.stats).checked_sub(counter(&old.stats))?;
            per_second(more, new.at.duration_since(old.at))
        };
        Some(Rates {
            read_requests: per_second(|stats| stats.read_requests)?,
            read_bytes: per_second(|stats| stats.read_bytes)?,
            write_requests: per_second(|stats| stats.write_requests)?,
            write_bytes: per_second(|stats| stats.write_bytes)?,
            preserved_bytes: per_second(|stats| stats.preserved_bytes)?,
        })
    }

    /// When the store is full if it goes on to grow as it did; nothing when it does not grow.
    pub(super) fn full_in(&self, volume: &str) -> Option<Duration> {
        let samples = self.0.get(volume)?;
        let (old, new) = (samples.front()?, samples.back()?);
        let grown = new.used_bytes.checked_sub(old.used_bytes)?;
        let left = new.capacity_bytes.saturating_sub(new.used_bytes);
        let took = new.at.duration_since(old.at).as_millis();
        let ms = (u128::from(left) * took).checked_div(u128::from(grown))?;
        Some(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
    }

    /// By volume.
    pub(super) fn json(&self) -> Value {
        let one = |name: &String| {
            let full_in = self.full_in(name).map(|span| span.as_secs());
            let rates = self.rates(name).map(|rates| {
                json!({
                    "read_requests_per_second": rates.read_requests,
                    "read_bytes_per_second": rates.read_bytes,
                    "write_requests_per_second": rates.write_requests,
                    "write_bytes_per_second": rates.write_bytes,
                    "preserved_bytes_per_second": rates.preserved_bytes,
                    "store_full_in_seconds": full_in,
                })
            });
            (name.clone(), rates.unwrap_or(Value::Null))
        };
        Value::Object(self.0.keys().map(one).collect())
    }
}

fn per_second(count: u64, time: Duration) -> Option<u64> {
    let rate = (u128::from(count) * 1_000_000).checked_div(time.as_micros())?;
    u64::try_from(rate).ok()
}

#[cfg(test)]
mod tests {
    use tidemark_proto::v1::StoreStatus;

    use super::*;

    fn volume(writes: u64, used_bytes: u64) -> Volume {
        Volume {
            name: "home".to_owned(),
            stats: Some(VolumeStats {
                write_requests: writes,
                write_bytes: writes * 4096,
                ..VolumeStats::default()
            }),
            store_status: Some(StoreStatus {
                capacity_bytes: 10_000,
                used_bytes,
            }),
            ..Volume::default()
        }
    }

    #[test]
    fn rates_are_of_the_last_two_looks_and_growth_of_all() {
        let start = Instant::now();
        let mut samples = Samples::default();
        samples.take(start, &[volume(0, 1000)]);
        assert_eq!(samples.rates("home"), None);
        assert_eq!(samples.full_in("home"), None);
        samples.take(start + Duration::from_secs(2), &[volume(100, 1000)]);
        assert_eq!(samples.full_in("home"), None);
        samples.take(start + Duration::from_secs(4), &[volume(600, 3000)]);
        let rates = samples.rates("home").unwrap();
        assert_eq!((rates.write_requests, rates.write_bytes), (250, 1_024_000));
        // 2000 bytes in 4 s, and 7000 are left.
        assert_eq!(samples.full_in("home"), Some(Duration::from_secs(14)));
        // A new server counts from the start.
        samples.take(start + Duration::from_secs(6), &[volume(1, 3000)]);
        assert_eq!(samples.rates("home"), None);
        samples.take(start + Duration::from_secs(8), &[]);
        assert_eq!(samples.full_in("home"), None);
    }
}
