//! How snapshots end where they outlive the host: the journal is told first.
//!
//! Until it tells that a snapshot ended, a power cut would bring the snapshot back. So old data is
//! preserved for it until then, and its slots are not given away, while views and lists say at once
//! that it is gone.

use tidemark_store::{
    journal::{Placed, Record},
    state::{Fate, SnapshotEntry},
    units::{Epoch, Id},
};

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::{
    super::{Clock, EventKind, Tracker, Volume},
    Journal, Queue,
};
use crate::{disk::Disk, request::Errno};

/// A snapshot that ends when a batch is on the medium.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    batch: u64,
    id: Id,
    fate: Fate,
}

/// Snapshots whose end is still to be told; under the journal's lock.
#[derive(Debug, Default)]
pub(super) struct Endings(Vec<Ending>);

impl Journal {
    /// Notes that a cut leaves a snapshot; its cut is queued next.
    pub(super) fn add_snapshot(&self, queue: &mut Queue, placed: Placed) {
        if self.keeps_snapshots {
            queue.cut_batch = queue.batch;
            self.push(queue, &Record::Snapshot(placed));
        }
    }

    /// Ends a snapshot by `end` now, or when the journal tells of it.
    fn end(&self, id: Id, fate: Fate, end: impl FnOnce()) {
        let mut queue = self.queue();
        if !self.keeps_snapshots || queue.suspended.is_some() {
            // Under the lock: an image begun after this sees it.
            return end();
        }
        let ending = Ending {
            batch: queue.batch,
            id,
            fate,
        };
        self.push(&mut queue, &Record::End { id, fate });
        queue.endings.0.push(ending);
        self.ending.fetch_add(1, Relaxed);
    }

    /// Ends, by `end`, those of which the journal tells by now, or cannot.
    fn finish_ends(&self, mut end: impl FnMut(Id, Fate)) {
        if self.ending.load(Acquire) == 0 {
            return;
        }
        let mut queue = self.queue();
        let all = queue.suspended.is_some();
        let written = self.written.load(Acquire);
        queue.endings.0.retain(|ending| {
            let told = all || ending.batch < written;
            if told {
                end(ending.id, ending.fate);
                self.ending.fetch_sub(1, Relaxed);
            }
            !told
        });
    }

    /// What is becoming of a snapshot that is still kept.
    pub(in crate::volume) fn ending(&self, id: Id) -> Option<Fate> {
        if self.ending.load(Acquire) == 0 {
            return None;
        }
        self.queue().endings.fate(id)
    }

    /// Notes by `settle` that nothing from before the cut of `epoch` is in the origin's cache any more;
    /// it says whether that is news.
    fn settled(&self, epoch: Epoch, settle: impl FnOnce() -> bool) {
        let mut queue = self.queue();
        if settle() {
            self.push(&mut queue, &Record::Settled(epoch));
        }
    }
}

impl Endings {
    /// As [`Journal::ending`].
    pub(super) fn fate(&self, id: Id) -> Option<Fate> {
        let ending = self.0.iter().find(|ending| ending.id == id);
        ending.map(|ending| ending.fate)
    }

    /// The batch that tells of the last end.
    fn last(&self) -> Option<u64> {
        self.0.iter().map(|ending| ending.batch).max()
    }
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Ends a live snapshot, for readers at once; its slots are freed by the next sweep after the
    /// journal tells of it.
    pub(in crate::volume) fn end_snapshot(&self, id: Id, fate: Fate, why: &str) {
        let live = |entry: &SnapshotEntry| self.fate_of(entry) == Fate::Live;
        if !self.layers.get(id).as_ref().is_some_and(live) {
            return;
        }
        self.journal.end(id, fate, || self.end_layer(id, fate));
        self.say_that_it_ended(id, fate, why);
    }

    /// Ends a snapshot of which the area's journal does not tell.
    pub(in crate::volume) fn lose_untold(&self, id: Id, why: &str) {
        if self
            .layers
            .get(id)
            .is_some_and(|entry| entry.fate == Fate::Live)
        {
            self.end_layer(id, Fate::Lost);
            self.say_that_it_ended(id, Fate::Lost, why);
        }
    }

    fn say_that_it_ended(&self, id: Id, fate: Fate, why: &str) {
        let kind = match fate {
            Fate::Live | Fate::Released => return,
            Fate::Overflowed => EventKind::SnapshotOverflowed,
            Fate::Lost => EventKind::SnapshotLost,
        };
        let message = format!("snapshot {id} is gone: {why}. The volume itself is not affected");
        self.event(kind, id, message);
    }

    /// What readers are told of a snapshot.
    pub(in crate::volume) fn fate_of(&self, entry: &SnapshotEntry) -> Fate {
        self.journal.ending(entry.id).unwrap_or(entry.fate)
    }

    fn end_layer(&self, id: Id, fate: Fate) {
        if self.layers.end(id, fate) {
            self.wants_sweep.store(true, Relaxed);
        }
    }

    /// Ends those of which the journal tells by now.
    pub(in crate::volume) fn finish_ends(&self) {
        self.journal
            .finish_ends(|id, fate| self.end_layer(id, fate));
    }

    /// Returns when every snapshot that ended so far stays so: what a change overwrites after that
    /// need not be kept for it.
    pub async fn ends_told(&self) {
        let last = self.journal.queue().endings.last();
        if let Some(batch) = last {
            self.journal.wait_for(batch, &self.clock).await;
        }
        self.finish_ends();
    }

    /// Makes certain what snapshots that outlive the host need of those cut so far; whether there was
    /// something to do.
    pub(in crate::volume) async fn settle_snapshots(&self) -> Result<bool, Errno> {
        // One of the running epoch belongs to a cut that is under way.
        let running = self.tracker.epoch();
        let unsettled = self.layers.unsettled().filter(|epoch| *epoch < running);
        let Some(epoch) = unsettled.filter(|_| self.journal.keeps_snapshots) else {
            return Ok(false);
        };
        self.origin.flush().await?;
        self.journal.settled(epoch, || self.layers.settle(epoch));
        Ok(true)
    }
}
