//! Sums of what was served.
//!
//! Threads that serve side by side would pass one counter's cache line to and fro, so each adds to a shard,
//! and only who asks adds the shards up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::{
    Counters, Measurements, RequestKind, Requests,
    latency::{Latency, LiveLatency},
    plan,
};
use crate::request::{Errno, Request};

/// A queue of a host with so many processors or fewer has a shard of its own: 8 of 920 bytes.
const SHARDS: usize = 8;

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: usize = NEXT.fetch_add(1, Relaxed) % SHARDS;
}

/// What one shard has of one kind of request. Those that failed are in the latency, not in the bytes.
#[derive(Default)]
struct Kind {
    latency: LiveLatency,
    bytes: AtomicU64,
    failures: AtomicU64,
}

/// Apart from its neighbour by the two cache lines that processors fetch together.
#[derive(Default)]
#[repr(align(128))]
struct Shard([Kind; RequestKind::ALL.len()]);

/// The counters as many threads add to them.
#[derive(Default)]
pub(super) struct LiveCounters {
    shards: Box<[Shard; SHARDS]>,
    pub(super) holds: LiveLatency,
    pub(super) preserved_bytes: AtomicU64,
    pub(super) delayed_us: AtomicU64,
}

/// What is counted of a request, which is gone when it is answered.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    kind: RequestKind,
    bytes: u64,
}

impl Counted {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let kind = match request {
            Request::Read { .. } | Request::ReadRegistered { .. } => RequestKind::Read,
            Request::Write { .. } | Request::WriteRegistered { .. } => RequestKind::Write,
            Request::Flush => RequestKind::Flush,
            Request::Discard { .. } => RequestKind::Discard,
            Request::WriteZeroes { .. } => RequestKind::WriteZeroes,
        };
        let bytes = plan::range_of(request).map_or(0, |range| range.len);
        Self { kind, bytes }
    }
}

impl LiveCounters {
    /// Counts a request that took so many microseconds to be answered.
    pub(super) fn count(&self, request: Counted, took_us: u64, answer: Result<(), Errno>) {
        let kind = &self.shards[SHARD.with(|shard| *shard)].0[request.kind as usize];
        kind.latency.note(took_us);
        match answer {
            Ok(()) => kind.bytes.fetch_add(request.bytes, Relaxed),
            Err(_) => kind.failures.fetch_add(1, Relaxed),
        };
    }

    /// All that is measured.
    pub(super) fn measurements(&self) -> Measurements {
        Measurements {
            requests: RequestKind::ALL.map(|kind| self.requests(kind)),
            holds: self.holds.sums(),
        }
    }

    pub(super) fn sums(&self) -> Counters {
        let [read, write, flush, discard, zeroes] =
            RequestKind::ALL.map(|kind| self.requests(kind));
        Counters {
            read_requests: read.served(),
            read_bytes: read.bytes,
            write_requests: write.served(),
            write_bytes: write.bytes,
            flush_requests: flush.served(),
            discard_bytes: discard.bytes,
            zeroed_bytes: zeroes.bytes,
            preserved_bytes: self.preserved_bytes.load(Relaxed),
            delayed_us: self.delayed_us.load(Relaxed),
        }
    }

    fn requests(&self, kind: RequestKind) -> Requests {
        let mut sum = Requests {
            kind,
            latency: Latency::default(),
            bytes: 0,
            failures: 0,
        };
        for shard in self.shards.iter() {
            let shard = &shard.0[kind as usize];
            sum.latency.add(shard.latency.sums());
            sum.bytes += shard.bytes.load(Relaxed);
            sum.failures += shard.failures.load(Relaxed);
        }
        sum
    }
}

impl Requests {
    /// Requests that did not fail. One that fails meanwhile may be in one of the two counts only.
    fn served(&self) -> u64 {
        self.latency.count().saturating_sub(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_many_threads_count_adds_up() {
        const EACH: u64 = 1000;
        let counters = LiveCounters::default();
        let flush = Counted::of(&Request::Flush);
        let read = Counted {
            kind: RequestKind::Read,
            bytes: 512,
        };
        thread::scope(|scope| {
            for _ in 0..SHARDS + 3 {
                scope.spawn(|| {
                    for took_us in 0..EACH {
                        counters.count(read, took_us, Ok(()));
                    }
                    counters.count(flush, 7, Err(Errno::EIO));
                });
            }
        });
        let threads = SHARDS as u64 + 3;
        let sums = counters.sums();
        assert_eq!(sums.read_requests, threads * EACH);
        assert_eq!(sums.read_bytes, threads * EACH * 512);
        assert_eq!(sums.flush_requests, 0);
        let [read, _, flush, ..] = counters.measurements().requests;
        assert_eq!(read.latency.sum_us, threads * (EACH * (EACH - 1) / 2));
        assert_eq!((flush.failures, flush.latency.count()), (threads, threads));
    }
}
