//! Sums of what was served.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Counters, plan};
use crate::request::Request;

/// The counters as many threads add to them.
#[derive(Default)]
pub(super) struct LiveCounters {
    read_requests: AtomicU64,
    read_bytes: AtomicU64,
    write_requests: AtomicU64,
    write_bytes: AtomicU64,
    flush_requests: AtomicU64,
    discard_bytes: AtomicU64,
    zeroed_bytes: AtomicU64,
    pub(super) preserved_bytes: AtomicU64,
    pub(super) delayed_us: AtomicU64,
}

impl LiveCounters {
    pub(super) fn count(&self, request: &Request<'_>) {
        let bytes = plan::range_of(request).map_or(0, |range| range.len);
        match request {
            Request::Read { .. } | Request::ReadRegistered { .. } => {
                self.read_requests.fetch_add(1, Relaxed);
                self.read_bytes.fetch_add(bytes, Relaxed);
            }
            Request::Write { .. } | Request::WriteRegistered { .. } => {
                self.write_requests.fetch_add(1, Relaxed);
                self.write_bytes.fetch_add(bytes, Relaxed);
            }
            Request::Flush => {
                self.flush_requests.fetch_add(1, Relaxed);
            }
            Request::Discard { .. } => {
                self.discard_bytes.fetch_add(bytes, Relaxed);
            }
            Request::WriteZeroes { .. } => {
                self.zeroed_bytes.fetch_add(bytes, Relaxed);
            }
        }
    }

    pub(super) fn sums(&self) -> Counters {
        Counters {
            read_requests: self.read_requests.load(Relaxed),
            read_bytes: self.read_bytes.load(Relaxed),
            write_requests: self.write_requests.load(Relaxed),
            write_bytes: self.write_bytes.load(Relaxed),
            flush_requests: self.flush_requests.load(Relaxed),
            discard_bytes: self.discard_bytes.load(Relaxed),
            zeroed_bytes: self.zeroed_bytes.load(Relaxed),
            preserved_bytes: self.preserved_bytes.load(Relaxed),
            delayed_us: self.delayed_us.load(Relaxed),
        }
    }
}
