//! Which task runs next: the seed chooses among those that were woken.
//!
//! A task that nothing woke is polled only by the lottery of spurious polls, so a wake-up that
//! the engine owes and forgets is a task that never ends. Time goes on when nobody can.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context as Poller, Poll, Wake, Waker},
};

use super::{
    context::Context,
    plan::{Failure, Fault},
    tally::Count,
};

/// What a task ends with.
pub(super) type Outcome = Result<(), Failure>;
/// A task.
pub(super) type Job = Pin<Box<dyn Future<Output = Outcome>>>;

#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

struct Task {
    name: &'static str,
    job: Job,
    woken: Arc<Woken>,
    waker: Waker,
}

/// The tasks of one process, by number.
pub(super) struct Schedule {
    context: Arc<Context>,
    spurious: u64,
    tasks: Vec<Option<Task>>,
    ready: Vec<usize>,
}

impl Schedule {
    pub(super) fn new(context: &Arc<Context>, spurious: u64) -> Self {
        Self {
            context: Arc::clone(context),
            spurious,
            tasks: Vec::new(),
            ready: Vec::new(),
        }
    }

    pub(super) fn spawn(&mut self, name: &'static str, job: Job) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let task = Some(Task {
            name,
            job,
            woken,
            waker,
        });
        match self.tasks.iter().position(Option::is_none) {
            Some(free) => self.tasks[free] = task,
            None => self.tasks.push(task),
        }
    }

    /// Polls one task; `false` when none can go on until time does.
    pub(super) fn step(&mut self) -> Result<bool, Failure> {
        let context = Arc::clone(&self.context);
        let lottery = context.schedule.per_mille(self.spurious) && context.allows(Fault::Spurious);
        self.ready.clear();
        for (number, task) in self.tasks.iter().enumerate() {
            let ready = |task: &Task| lottery || task.woken.0.load(Relaxed);
            if task.as_ref().is_some_and(ready) {
                self.ready.push(number);
            }
        }
        if self.ready.is_empty() {
            return Ok(false);
        }
        let number = self.ready[context.schedule.index(self.ready.len())];
        let Some(task) = self.tasks[number].as_mut() else {
            return Ok(false);
        };
        context.enter(number);
        if !task.woken.0.swap(false, Relaxed) {
            context.tally.add(Count::Spurious);
        }
        if let Poll::Ready(outcome) = task.job.as_mut().poll(&mut Poller::from_waker(&task.waker)) {
            context.trace(|| format!("{} ends", task.name));
            self.tasks[number] = None;
            outcome?;
        }
        Ok(true)
    }

    /// Names of the tasks that have not ended.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.tasks.iter().flatten().map(|task| task.name).collect()
    }

    /// Whether a task that is not of these is left.
    pub(super) fn has_more_than(&self, names: &[&str]) -> bool {
        let mut tasks = self.tasks.iter().flatten();
        tasks.any(|task| !names.contains(&task.name))
    }
}
