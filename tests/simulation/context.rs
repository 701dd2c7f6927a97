//! What everything in a world shares: its choices, its time, and its account of itself.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context as Poller, Poll, Waker},
    time::Duration,
};

use tidemark_agent::volume::{Clock, Step};

use super::{
    errands::Errands,
    plan::{Failure, Fault, Invariant, Plan},
    tally::{Count, Tally},
};

/// The wall clock at the start, in microseconds since the UNIX epoch.
const START_US: i64 = 1_700_000_000_000_000;

/// A stream of choices. Workload, schedule and faults have one each, so that a kind of fault that
/// is left out does not change what the host asks.
#[derive(Debug)]
pub(super) struct Stream(AtomicU64);

impl Stream {
    fn new(seed: u64, name: u64) -> Self {
        let stream = Self(AtomicU64::new(
            seed ^ name.wrapping_mul(0xD1B5_4A32_D192_ED03),
        ));
        stream.next();
        stream
    }

    /// The next number, of the SplitMix64 kind (Steele, Lea and Flood, 2014).
    pub(super) fn next(&self) -> u64 {
        let state = self.0.load(Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.store(state, Relaxed);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to `end`, without `end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Between two numbers, both possible.
    pub(super) fn between(&self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// A place in something that long.
    pub(super) fn index(&self, len: usize) -> usize {
        usize_of(self.below(len as u64))
    }

    /// True so many times in a thousand.
    pub(super) fn per_mille(&self, rate: u64) -> bool {
        self.below(1000) < rate
    }
}

/// A simulated size or place is far below any `usize`.
pub(super) fn usize_of(number: u64) -> usize {
    usize::try_from(number).expect("simulated volumes are small")
}

type Timers = BTreeMap<(u64, u64), Waker>;

/// One world's.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) plan: Plan,
    pub(super) workload: Stream,
    pub(super) schedule: Stream,
    pub(super) faults: Stream,
    pub(super) tally: Tally,
    pub(super) errands: Errands,
    step: AtomicU64,
    now_us: AtomicU64,
    wall_us: AtomicI64,
    latest_us: AtomicU64,
    timers: Mutex<Timers>,
    next_timer: AtomicU64,
    task: AtomicUsize,
    digest: AtomicU64,
    instant: AtomicBool,
    calm: AtomicBool,
    /// Changes of a medium until the crash that waits for one; 0 is none.
    crash_after: AtomicU64,
    violation: Mutex<Option<Failure>>,
}

impl Context {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            workload: Stream::new(plan.seed, 1),
            schedule: Stream::new(plan.seed, 2),
            faults: Stream::new(plan.seed, 3),
            tally: Tally::default(),
            errands: Errands::default(),
            step: AtomicU64::new(0),
            now_us: AtomicU64::new(0),
            wall_us: AtomicI64::new(START_US),
            latest_us: AtomicU64::new(0),
            timers: Mutex::default(),
            next_timer: AtomicU64::new(0),
            task: AtomicUsize::new(0),
            digest: AtomicU64::new(plan.seed),
            instant: AtomicBool::new(false),
            calm: AtomicBool::new(false),
            crash_after: AtomicU64::new(0),
            violation: Mutex::default(),
        }
    }

    /// An account of a violation.
    pub(super) fn fail(&self, invariant: Invariant, message: String) -> Failure {
        Failure {
            plan: self.plan,
            step: self.step(),
            invariant,
            message,
        }
    }

    /// Keeps the first violation that was seen where nobody can be told.
    pub(super) fn violated(&self, invariant: Invariant, message: String) {
        let mut violation = self
            .violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violation.get_or_insert_with(|| self.fail(invariant, message));
    }

    /// Gives it up.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let mut violation = self
            .violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violation.take().map_or(Ok(()), Err)
    }

    /// Whether a kind of trouble, which was drawn already, happens.
    pub(super) fn allows(&self, fault: Fault) -> bool {
        !self.plan.without.has(fault) && !self.calm.load(Relaxed)
    }

    /// Ends all trouble, so that what waits can end.
    pub(super) fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Relaxed);
    }

    pub(super) fn step(&self) -> u64 {
        self.step.load(Relaxed)
    }

    /// Enters the next step, which polls `task`.
    pub(super) fn enter(&self, task: usize) {
        self.step.store(self.step() + 1, Relaxed);
        self.task.store(task, Relaxed);
        self.note(task as u64);
    }

    /// The task that runs.
    pub(super) fn task(&self) -> usize {
        self.task.load(Relaxed)
    }

    /// Adds to the digest of all that happened.
    pub(super) fn note(&self, event: u64) {
        let digest = (self.digest.load(Relaxed) ^ event).wrapping_mul(0x0000_0100_0000_01B3);
        self.digest.store(digest.rotate_left(23), Relaxed);
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.load(Relaxed)
    }

    /// Counts what somebody asked of the engine.
    pub(super) fn operation(&self, what: Count) {
        self.tally.add(Count::Operations);
        self.tally.add(what);
        self.note(what as u64);
    }

    /// Prints a line when steps are traced.
    pub(super) fn trace(&self, line: impl FnOnce() -> String) {
        if self.plan.trace {
            println!(
                "{:>8} {:>10} us  task {:>2}  {}",
                self.step(),
                self.now_us(),
                self.task(),
                line()
            );
        }
    }

    /// Runs a future to its end at once: disks answer without delay or trouble, and nothing else
    /// runs. Only for what reads.
    pub(super) fn at_once<T>(&self, future: impl Future<Output = T>) -> T {
        self.instant.store(true, Relaxed);
        let mut future = std::pin::pin!(future);
        let polled = future.as_mut().poll(&mut Poller::from_waker(Waker::noop()));
        self.instant.store(false, Relaxed);
        match polled {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("a check waits for something that nobody does"),
        }
    }

    pub(super) fn is_instant(&self) -> bool {
        self.instant.load(Relaxed)
    }

    /// Lets a crash come after so many changes of a medium.
    pub(super) fn crash_after(&self, changes: u64) {
        self.crash_after.store(changes, Relaxed);
    }

    /// A medium changed.
    pub(super) fn medium_changed(&self) {
        let left = self.crash_after.load(Relaxed);
        if left > 1 {
            self.crash_after.store(left - 1, Relaxed);
        }
    }

    /// Whether the crash that waited for a change is due.
    pub(super) fn is_crash_due(&self) -> bool {
        self.crash_after.load(Relaxed) == 1
    }

    /// Simulated time since the start, in microseconds; never goes back.
    pub(super) fn now_us(&self) -> u64 {
        self.now_us.load(Relaxed)
    }

    /// The wall clock, which may.
    pub(super) fn wall_us(&self) -> u64 {
        let now = i64::try_from(self.now_us()).unwrap_or(i64::MAX);
        u64::try_from(self.wall_us.load(Relaxed).saturating_add(now)).unwrap_or(0)
    }

    /// The latest that the wall clock ever was.
    pub(super) fn latest_us(&self) -> u64 {
        self.latest_us.load(Relaxed).max(self.wall_us())
    }

    /// Sets the wall clock.
    pub(super) fn jump_us(&self, by: i64) {
        self.latest_us.store(self.latest_us(), Relaxed);
        self.wall_us.fetch_add(by, Relaxed);
    }

    /// Waits; not at all for no time.
    pub(super) fn sleep_us(&self, time_us: u64) -> Sleep<'_> {
        let time_us = if self.is_instant() { 0 } else { time_us };
        Sleep {
            context: self,
            until_us: self.now_us() + time_us,
            key: None,
            task: 0,
        }
    }

    /// Goes on to the next moment at which somebody wants to be woken; `false` when there is none.
    pub(super) fn advance(&self) -> bool {
        let mut timers = self.timers();
        let Some((&(due, _), _)) = timers.first_key_value() else {
            return false;
        };
        let now = due.max(self.now_us());
        self.now_us.store(now, Relaxed);
        while let Some(first) = timers.first_entry() {
            if first.key().0 > now {
                break;
            }
            first.remove().wake();
        }
        true
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a moment of simulated time.
pub(super) struct Sleep<'a> {
    context: &'a Context,
    until_us: u64,
    key: Option<(u64, u64)>,
    task: usize,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<()> {
        if self.context.now_us() >= self.until_us {
            return Poll::Ready(());
        }
        if self.key.is_none() {
            let key = (self.until_us, self.context.next_timer.fetch_add(1, Relaxed));
            self.context.timers().insert(key, poller.waker().clone());
            self.key = Some(key);
            self.task = self.context.task();
            self.context.errands.set_busy(self.task, true);
        }
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.context.timers().remove(&key);
            self.context.errands.set_busy(self.task, false);
        }
    }
}

/// The engine's clock.
#[derive(Clone)]
pub(super) struct SimClock(pub(super) std::sync::Arc<Context>);

impl fmt::Debug for SimClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} us", self.0.now_us())
    }
}

impl Clock for SimClock {
    fn now_us(&self) -> u64 {
        self.0.wall_us()
    }

    fn elapsed_us(&self) -> u64 {
        self.0.now_us()
    }

    async fn sleep(&self, time: Duration) {
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 2);
        self.0.sleep_us(time_us).await;
    }

    fn omits(&self, step: Step) -> bool {
        self.0.plan.defect == Some(step)
    }
}
