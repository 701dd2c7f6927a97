//! Events that the control plane fetches: a bounded ring.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidemark_store::units::Id;

use super::{Event, EventKind};

/// Events kept for a control plane that is away; older ones are dropped and told as a gap.
const KEPT: usize = 1024;

#[derive(Default)]
struct Ring {
    kept: VecDeque<Event>,
    last: u64,
}

/// The ring.
#[derive(Default)]
pub(super) struct EventLog {
    ring: Mutex<Ring>,
    added: Condvar,
}

impl EventLog {
    pub(super) fn add(&self, at_us: u64, kind: EventKind, snapshot: Id, message: String) {
        let mut ring = self.lock();
        ring.last += 1;
        let sequence = ring.last;
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Event {
            sequence,
            at_us,
            kind,
            snapshot,
            message,
        });
        drop(ring);
        self.added.notify_all();
    }

    /// Events after `after`, and whether some between are gone. Waits up to `wait` for one.
    pub(super) fn wait(&self, after: u64, wait: Duration) -> (Vec<Event>, bool) {
        let (ring, _) = self
            .added
            .wait_timeout_while(self.lock(), wait, |ring| ring.last <= after)
            .unwrap_or_else(PoisonError::into_inner);
        let events: Vec<Event> = ring
            .kept
            .iter()
            .filter(|event| event.sequence > after)
            .cloned()
            .collect();
        let gap = events
            .first()
            .is_some_and(|first| first.sequence > after + 1);
        (events, gap)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_event_once_and_learns_of_a_gap() {
        let log = EventLog::default();
        assert_eq!(log.wait(0, Duration::ZERO), (vec![], false));
        for _ in 0..KEPT + 2 {
            log.add(0, EventKind::StoreFull, Id::NIL, String::new());
        }
        let (events, gap) = log.wait(0, Duration::ZERO);
        assert_eq!((events.len(), events[0].sequence, gap), (KEPT, 3, true));
        let (events, gap) = log.wait(KEPT as u64 + 1, Duration::ZERO);
        assert_eq!((events.len(), gap), (1, false));
    }
}
