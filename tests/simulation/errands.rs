//! Who runs which request of the host, and what the origin was asked and answered for it.
//!
//! The disks keep this book, not the engine: it is what I4 and I7 are judged by.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemark_agent::request::Errno;
use tidemark_store::units::ByteRange;

/// What a disk is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Read,
    Write,
    Flush,
    Discard,
    Zeroes,
}

impl Verb {
    /// Whether it changes the medium.
    pub(super) fn changes(self) -> bool {
        match self {
            Self::Write | Self::Discard | Self::Zeroes => true,
            Self::Read | Self::Flush => false,
        }
    }
}

/// A call of a disk, or a request of the host: the two must agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub(super) verb: Verb,
    pub(super) range: ByteRange,
    pub(super) fua: bool,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    pub(super) volume: usize,
    pub(super) ask: Ask,
    /// What the origin said to exactly this.
    pub(super) answer: Option<Result<(), Errno>>,
    /// Waits for a disk or for time: it has been let in, and is not done.
    busy: u32,
}

/// By task.
#[derive(Debug, Default)]
pub(super) struct Errands(Mutex<Vec<Option<Errand>>>);

impl Errands {
    pub(super) fn begin(&self, task: usize, volume: usize, ask: Ask) {
        let mut errands = self.lock();
        if errands.len() <= task {
            errands.resize(task + 1, None);
        }
        errands[task] = Some(Errand {
            volume,
            ask,
            answer: None,
            busy: 0,
        });
    }

    pub(super) fn end(&self, task: usize) -> Option<Errand> {
        self.lock().get_mut(task).and_then(Option::take)
    }

    /// The process died, and all its tasks with it.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn set_busy(&self, task: usize, busy: bool) {
        if let Some(Some(errand)) = self.lock().get_mut(task) {
            errand.busy = if busy {
                errand.busy + 1
            } else {
                errand.busy.saturating_sub(1)
            };
        }
    }

    /// Whether `task` runs a request of exactly this.
    pub(super) fn is_asked(&self, task: usize, volume: usize, ask: Ask) -> bool {
        matches!(
            self.lock().get(task),
            Some(Some(errand)) if errand.volume == volume && errand.ask == ask
        )
    }

    /// The origin answered.
    pub(super) fn answer(&self, task: usize, volume: usize, ask: Ask, said: Result<(), Errno>) {
        if let Some(Some(errand)) = self.lock().get_mut(task)
            && errand.volume == volume
            && errand.ask == ask
        {
            errand.answer = Some(said);
        }
    }

    /// A change of a volume that is between its admission and its answer.
    pub(super) fn change_in_flight(&self, volume: usize) -> Option<Ask> {
        self.lock()
            .iter()
            .flatten()
            .find(|errand| errand.volume == volume && errand.busy > 0 && errand.ask.verb.changes())
            .map(|errand| errand.ask)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Errand>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
