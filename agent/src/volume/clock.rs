//! Time, and the seam through which a simulator proves that its checkers see.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What [`SystemClock`] counts from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time, so that a simulator can own it.
pub trait Clock: Send + Sync {
    /// Microseconds since the UNIX epoch. Goes back and forth as the host's clock is set: for
    /// what is stored and shown.
    fn now_us(&self) -> u64;

    /// Microseconds since some moment of this process. Never goes back, and no setting of the
    /// host's clock moves it: for how long something takes.
    fn elapsed_us(&self) -> u64;

    /// Returns after `time`.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()>;

    /// Whether the engine leaves out a step that it owes: a seeded defect, by which a simulator
    /// proves that the step's invariant is checked. Nothing else may answer `true`. For
    /// production's clock it is a constant, and compiled away.
    fn omits(&self, _step: Step) -> bool {
        false
    }
}

/// A step that a seeded defect leaves out; there is one for each invariant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// I1: a change is marked before it reaches the origin.
    Mark,
    /// I1: its region's intent is durable before that, where tracking outlives the host.
    TellFirst,
    /// I2: old data is kept before it is overwritten.
    Preserve,
    /// I2: the area tells of it before that, where snapshots outlive the host.
    TellCopies,
    /// I3: a view asks the index again once the origin was read.
    AskAgain,
    /// I4: a cut waits for the changes in flight.
    Drain,
    /// I5: a flush goes to the origin.
    ForwardFlush,
    /// I6: a kept diff answers only for its own span.
    CompareSpan,
    /// I7: the origin's error is the host's.
    PassError,
    /// I8: a hold ends when its time ran out.
    EndHold,
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    async fn sleep(&self, time: Duration) {
        async_io::Timer::after(time).await;
    }
}
