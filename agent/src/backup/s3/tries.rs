//! How often, and how long.

use std::{
    future::Future,
    io::ErrorKind,
    time::{Duration, Instant},
};

use super::fault::Fault;

/// How long a connection may take to come about.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// How long an answer may take, for a request that sends nothing, and how long it may pause.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// The slowest line that a pack of 16 MiB still passes within ten minutes.
const SLOWEST_BYTES_A_SECOND: u64 = 32 << 10;

/// How long temporary failures are borne: connection loss, timeouts, 5xx and 429.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// Attempts at one request that does not move; at least 1.
    pub attempts: u32,
    /// The pause after the first failure, which doubles with each,
    pub first: Duration,
    /// but not beyond this. Half to all of it is waited, at random, so that many agents do not come back
    /// together.
    pub longest: Duration,
    /// No attempt begins so long after the first.
    pub total: Duration,
}

impl Default for Patience {
    /// 16 attempts with pauses of 0.1 s to 20 s: 1.5 to 3 minutes of an outage that is noticed at once. A
    /// point must appear within a quarter of an hour of the look before it, hence the total.
    fn default() -> Self {
        Self {
            attempts: 16,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(20),
            total: Duration::from_secs(10 * 60),
        }
    }
}

impl Patience {
    /// While somebody waits to be told that the location or a key is wrong.
    pub(super) fn at_first(self) -> Self {
        Self {
            attempts: self.attempts.min(6),
            ..self
        }
    }
}

/// The attempts at one request.
#[derive(Debug)]
pub(super) struct Tries {
    patience: Patience,
    began: Instant,
    failed: u32,
    failed_in_all: u32,
}

impl Tries {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            began: Instant::now(),
            failed: 0,
            failed_in_all: 0,
        }
    }

    /// The last attempt brought something, if not all.
    pub(super) fn moved(&mut self) {
        self.failed = 0;
    }

    /// Waits until the next attempt; gives the failure back if there is to be none.
    pub(super) async fn after(&mut self, fault: Fault) -> Result<(), Fault> {
        self.failed += 1;
        self.failed_in_all += 1;
        if !fault.again {
            return Err(fault);
        }
        let spent = self.began.elapsed();
        if self.failed >= self.patience.attempts || spent >= self.patience.total {
            let (times, seconds) = (self.failed_in_all, spent.as_secs());
            return Err(Fault {
                why: format!("{}; {times} attempts in {seconds} s", fault.why),
                ..fault
            });
        }
        tracing::debug!(why = fault.why, failed = self.failed, "trying again");
        tokio::time::sleep(self.pause()).await;
        Ok(())
    }

    fn pause(&self) -> Duration {
        let doubled = self.patience.first * 2_u32.saturating_pow(self.failed.min(16) - 1);
        let full = doubled.min(self.patience.longest);
        let half_us = u64::try_from(full.as_micros() / 2).unwrap_or(u64::MAX);
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        full / 2 + Duration::from_micros(random % (half_us + 1))
    }
}

/// Ends an attempt that takes longer than `bytes` to be sent or received should.
pub(super) async fn within<T, E: Into<Fault>>(
    bytes: u64,
    attempt: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    let limit = ANSWER_WITHIN + Duration::from_secs(bytes / SLOWEST_BYTES_A_SECOND);
    match tokio::time::timeout(limit, attempt).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Fault::lost(
            ErrorKind::TimedOut,
            format!("no answer within {} s", limit.as_secs()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut tries = Tries::new(Patience::default());
        for failed in 1..40 {
            tries.failed = failed;
            let full = Duration::from_millis(100 << failed.min(12).saturating_sub(1));
            let full = full.min(Duration::from_secs(20));
            let pause = tries.pause();
            assert!(pause >= full / 2 && pause <= full, "{failed}: {pause:?}");
        }
    }

    #[tokio::test]
    async fn patience_ends_and_movement_renews_it() {
        let patience = Patience {
            attempts: 3,
            first: Duration::ZERO,
            ..Patience::default()
        };
        let lost = Fault::lost(ErrorKind::ConnectionAborted, "cut");
        let mut tries = Tries::new(patience);
        for _ in 0..2 {
            tries.after(lost.clone()).await.unwrap();
        }
        tries.moved();
        for _ in 0..2 {
            tries.after(lost.clone()).await.unwrap();
        }
        let end = tries.after(lost).await.unwrap_err();
        assert_eq!(end.why, "cut; 5 attempts in 0 s");
        let last = Fault::of(ErrorKind::NotFound, "none");
        let told = Tries::new(patience).after(last.clone()).await.unwrap_err();
        assert_eq!(told, last);
    }
}
