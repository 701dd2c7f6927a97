//! The tasks of a queue thread: as many as there are slots for requests, made when it starts.
//!
//! A task that can go on has its bit set; a round polls those. Waking and polling allocate
//! nothing, for the thread may serve the very writes that free memory. Wakers may be used by any
//! thread; one that wakes a task while the queue thread sleeps has to ring its [`Bell`].

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

/// Gets a queue thread out of its sleep.
pub(super) trait Bell: Send + Sync + 'static {
    /// Is called after each wake; cheap when the thread is awake.
    fn ring(&self);
}

/// Tasks with a bit set can go on.
struct Ready<B> {
    words: Box<[AtomicU64]>,
    bell: Arc<B>,
}

/// Wakes one task.
struct Slot<B> {
    number: usize,
    ready: Arc<Ready<B>>,
}

impl<B: Bell> Wake for Slot<B> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (word, bit) = place(self.number);
        self.ready.words[word].fetch_or(bit, SeqCst);
        self.ready.bell.ring();
    }
}

/// A task with its waker; no future when it has ended.
struct Task<'a> {
    future: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    waker: Waker,
}

/// See the module's comment.
pub(super) struct Tasks<'a, B> {
    tasks: Vec<Task<'a>>,
    ready: Arc<Ready<B>>,
}

impl<'a, B: Bell> Tasks<'a, B> {
    /// Makes tasks of `futures`, all of which can go on.
    pub(super) fn new(
        futures: impl IntoIterator<Item = Pin<Box<dyn Future<Output = ()> + 'a>>>,
        bell: Arc<B>,
    ) -> Self {
        let futures: Vec<_> = futures.into_iter().collect();
        let words = futures.len().div_ceil(BITS);
        let ready = Arc::new(Ready {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            bell,
        });
        let tasks = futures.into_iter().enumerate().map(|(number, future)| {
            let slot = Slot {
                number,
                ready: Arc::clone(&ready),
            };
            let waker = Waker::from(Arc::new(slot));
            waker.wake_by_ref();
            Task {
                future: Some(future),
                waker,
            }
        });
        Self {
            tasks: tasks.collect(),
            ready,
        }
    }

    /// Whether a task can go on.
    pub(super) fn any_ready(&self) -> bool {
        self.ready.words.iter().any(|word| word.load(SeqCst) != 0)
    }

    /// Polls each task that could go on when its word was looked at.
    pub(super) fn round(&mut self) {
        for (word, ready) in self.ready.words.iter().enumerate() {
            if ready.load(SeqCst) == 0 {
                continue;
            }
            // Taken before the polls: what wakes meanwhile is for the next round.
            let mut bits = ready.swap(0, SeqCst);
            while bits != 0 {
                let number = word * BITS + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let Some(task) = self.tasks.get_mut(number) {
                    task.poll();
                }
            }
        }
    }
}

impl Task<'_> {
    fn poll(&mut self) {
        let Some(future) = &mut self.future else {
            return;
        };
        let mut context = Context::from_waker(&self.waker);
        if future.as_mut().poll(&mut context).is_ready() {
            self.future = None;
        }
    }
}

/// Bits of a word.
const BITS: usize = u64::BITS as usize;

fn place(number: usize) -> (usize, u64) {
    (number / BITS, 1 << (number % BITS))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, sync::atomic::AtomicUsize, task::Poll, thread};

    use event_listener::Event;

    use super::*;

    #[derive(Default)]
    struct Rung(AtomicUsize);

    impl Bell for Rung {
        fn ring(&self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    type Future<'a> = Pin<Box<dyn std::future::Future<Output = ()> + 'a>>;

    #[test]
    fn only_what_was_woken_is_polled() {
        let events: Vec<Event> = (0..130).map(|_| Event::new()).collect();
        let polled: Vec<Cell<u32>> = events.iter().map(|_| Cell::new(0)).collect();
        let wait = |number: usize| -> Future<'_> {
            let (event, polled) = (&events[number], &polled[number]);
            let mut listener = Box::pin(event.listen());
            Box::pin(poll_fn(move |context| {
                polled.set(polled.get() + 1);
                listener.as_mut().poll(context)
            }))
        };
        let bell = Arc::new(Rung::default());
        let mut tasks = Tasks::new((0..130).map(wait), Arc::clone(&bell));
        assert!(tasks.any_ready());
        tasks.round();
        assert!(!tasks.any_ready());
        assert!(polled.iter().all(|times| times.get() == 1));
        let before = bell.0.load(SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| [0, 63, 64, 129].map(|number| events[number].notify(1)));
        });
        assert_eq!(bell.0.load(SeqCst), before + 4);
        for _ in 0..2 {
            tasks.round();
        }
        let twice: Vec<usize> = (0..130)
            .filter(|number| polled[*number].get() == 2)
            .collect();
        assert_eq!(twice, [0, 63, 64, 129]);
    }

    #[test]
    fn a_task_that_wakes_itself_has_its_turn_once_a_round() {
        let turns = Cell::new(0);
        let yields: Future<'_> = Box::pin(poll_fn(|context| {
            turns.set(turns.get() + 1);
            context.waker().wake_by_ref();
            if turns.get() == 3 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        let mut tasks = Tasks::new([yields], Arc::new(Rung::default()));
        for turn in 1..=3 {
            tasks.round();
            assert_eq!(turns.get(), turn);
        }
        // It has ended; a late wake is nothing to it.
        tasks.round();
        assert_eq!(turns.get(), 3);
        assert!(!tasks.any_ready());
    }
}
