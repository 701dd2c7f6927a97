//! The end of telling, where the volume is given back to its host.

use std::{
    sync::atomic::Ordering::{Acquire, SeqCst},
    time::Duration,
};

use super::{
    super::{Clock, Volume},
    Journal,
};
use crate::disk::Disk;

impl Journal {
    /// Has nothing told any more, for good; [`Journal::has_ended`] says when the area holds nothing.
    fn close(&self, why: &str) {
        self.closed.store(true, SeqCst);
        self.suspend(why);
        self.closing.notify(usize::MAX);
    }

    fn has_ended(&self) -> bool {
        !self.durable || self.ended.load(SeqCst)
    }

    /// Whether all is told, and nothing counts as being changed.
    fn is_settled(&self) -> bool {
        if !self.durable {
            return true;
        }
        let queue = self.queue();
        let told = queue.packer.is_empty() && self.written.load(Acquire) >= queue.batch;
        let rests = queue.activating.is_empty() && self.regions.count() == 0;
        let known = queue
            .watch
            .seen
            .as_ref()
            .is_some_and(|seen| seen.sum.is_some());
        queue.suspended.is_some() || (told && rests && known && queue.inexact.is_empty())
    }
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Has the area tell nothing of this volume from now on; whether it does within a time. Tracking
    /// in memory goes on.
    pub async fn close_journal(&self, why: &str, within: Duration) -> bool {
        const STEP: Duration = Duration::from_millis(10);
        self.journal.close(why);
        let mut left = within;
        while !self.journal.has_ended() && !left.is_zero() {
            self.clock.sleep(STEP).await;
            left = left.saturating_sub(STEP);
        }
        self.journal.has_ended()
    }

    /// Whether the area tells all that is known, exactly: a start of the host would lose nothing.
    pub fn is_settled(&self) -> bool {
        self.journal.is_settled()
    }
}
