//! Many worlds, one after the other or side by side; and of one that fails, the smallest part
//! that still does.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    plan::{Failure, Fault, Invariant, Plan},
    tally::{Count, Tally},
    world::World,
};

/// A world that was lived through.
#[derive(Debug)]
pub struct Lived {
    /// What happened in it.
    pub tally: Tally,
    /// Of all its events: the same plan gives the same.
    pub digest: u64,
    /// Steps it took.
    pub steps: u64,
}

/// Lives through one world.
pub fn run(plan: Plan) -> Result<Lived, Failure> {
    let world = Rc::new(World::new(plan));
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let context = &world.context;
    outcome.unwrap_or_else(|panic| {
        Err(context.fail(Invariant::NoPanic, words_of(panic.as_ref()).to_owned()))
    })?;
    let tally = Tally::default();
    tally.absorb(&context.tally);
    Ok(Lived {
        tally,
        digest: context.digest(),
        steps: context.step(),
    })
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}

/// The smallest plan found that fails with the same invariant: fewer steps, then without each
/// kind of trouble that is not needed, then fewer steps again.
pub fn shrink(failure: Failure) -> Failure {
    let mut smallest = fewer_steps(failure);
    for fault in Fault::ALL {
        let plan = Plan {
            without: smallest.plan.without.with(fault),
            // Without some trouble things happen later.
            steps: smallest.plan.steps.saturating_mul(2),
            ..smallest.plan
        };
        if let Some(failure) = fails(plan, smallest.invariant) {
            smallest = fewer_steps(failure);
        }
    }
    smallest
}

/// Halves the steps as long as that fails, then goes half the way back.
fn fewer_steps(failure: Failure) -> Failure {
    let exact = Plan {
        steps: failure.step,
        ..failure.plan
    };
    let mut smallest = fails(exact, failure.invariant).unwrap_or(failure);
    let (mut passes, mut last) = (0, smallest.step);
    while passes < last {
        let steps = passes + (last - passes) / 2;
        let plan = Plan {
            steps,
            ..smallest.plan
        };
        match fails(plan, smallest.invariant) {
            Some(failure) => {
                last = steps;
                smallest = failure;
            }
            None => passes = steps + 1,
        }
    }
    smallest
}

fn fails(plan: Plan, invariant: Invariant) -> Option<Failure> {
    let failure = run(plan).err()?;
    (failure.invariant == invariant).then_some(failure)
}

/// Worlds of consecutive seeds, until so many operations were served.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first world; the others differ in their seed.
    pub first: Plan,
    /// At least so many.
    pub operations: u64,
    /// Worlds at a time.
    pub jobs: usize,
    /// How often to print how far it is.
    pub every: Option<Duration>,
}

impl Campaign {
    /// Runs it; ends at the first failure.
    pub fn run(self) -> Result<Tally, Box<Failure>> {
        let began = Instant::now();
        let tally = Tally::default();
        let next = AtomicU64::new(self.first.seed);
        let failure = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    if let Err(found) = self.work(&next, &tally, began) {
                        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        failure.get_or_insert(found);
                        // The others end with the world that they are in.
                        tally.add_many(Count::Operations, self.operations);
                    }
                });
            }
        });
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(tally), |failure| Err(Box::new(failure)))
    }

    fn work(&self, next: &AtomicU64, tally: &Tally, began: Instant) -> Result<(), Failure> {
        while tally.of(Count::Operations) < self.operations {
            let seed = next.fetch_add(1, Relaxed);
            let lived = run(Plan { seed, ..self.first })?;
            tally.absorb(&lived.tally);
            if let Some(every) = self.every
                && seed.is_multiple_of(1000)
                && began.elapsed() >= every
            {
                println!(
                    "{:>6} s  seed {seed}: {} operations, {} crashes",
                    began.elapsed().as_secs(),
                    tally.of(Count::Operations),
                    tally.crashes()
                );
            }
        }
        Ok(())
    }
}
