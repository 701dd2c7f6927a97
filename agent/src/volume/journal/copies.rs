//! Snapshots that outlive the host: what the area's slot table tells before a block is overwritten.
//!
//! ```text
//! write ─ old data to its slot ─> in the index ─> waits ─┐
//!                                                        ├─ keeper: pages of the table, one flush
//! write ─ old data to its slot ─> in the index ─> waits ─┘           └─> on to the origin
//! ```
//!
//! The flush is for the slots too. A copy is told of only when the cut of its snapshot is in the
//! journal: else a recovery would not know whose it is.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
};

use tidemark_store::cow::{
    SlotRun,
    table::{COMMIT_PAGES, PAGE_BYTES, PAGE_SLOTS, encode_page, encode_shadow, page_of},
};

use super::{
    super::{Clock, Volume, lock},
    Journal,
    image::ImageFailure,
};
use crate::{disk::Disk, request::Errno};

/// Copies that changes wait for.
#[derive(Debug, Default)]
pub(super) struct Copies {
    waiting: Mutex<Waiting>,
    /// Groups up to this number are told of.
    told: AtomicU64,
    /// All of the table is to be written anew once an image counts: it was damaged.
    damaged: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    slots: Vec<SlotRun>,
    /// Groups that were taken by the keeper; the next one is being gathered.
    taken: u64,
}

impl Journal {
    /// The group in which copies are to be told of, for [`Journal::copies_told`]; `None` when nobody
    /// needs to wait.
    pub(in crate::volume) fn tell_copies(&self, slots: SlotRun) -> Option<u64> {
        // Either this sees that changes wait, or whoever lets them sees the copies in the index.
        fence(SeqCst);
        if !self.keeps_snapshots || self.open.load(SeqCst) {
            return None;
        }
        let mut waiting = self.waiting();
        waiting.slots.push(slots);
        self.work.notify(usize::MAX);
        Some(waiting.taken + 1)
    }

    /// Returns when a group is on the medium, or cannot be.
    pub(in crate::volume) async fn copies_told(&self, group: u64, clock: &impl Clock) {
        let told = || self.copies.told.load(Acquire) >= group;
        self.wait_until(told, clock).await;
    }

    /// The group that waits, unless the cut of one of its snapshots does too.
    fn take_copies(&self) -> Option<(Vec<SlotRun>, u64)> {
        // Before the cut is looked for: what is waiting by then may be of its snapshot.
        let mut waiting = self.waiting();
        if waiting.slots.is_empty() || self.written.load(Acquire) <= self.queue().cut_batch {
            return None;
        }
        waiting.taken += 1;
        Some((std::mem::take(&mut waiting.slots), waiting.taken))
    }

    /// The table told something else than what was written; nobody needs it any more.
    pub(in crate::volume) fn mend_table(&self) {
        self.copies.damaged.store(true, Relaxed);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.copies.waiting)
    }
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Tells of what an earlier process published, or this one while nothing was told. To be done
    /// before anything counts again.
    pub(super) async fn catch_up(&self) -> Result<(), String> {
        if !self.journal.keeps_snapshots {
            return Ok(());
        }
        // Pages that a dead process wrote, before their shadows are written over.
        let flushed = self.area.flush().await;
        flushed.map_err(|errno| ImageFailure::Area(errno).to_string())?;
        let slots = self.index.untold().into_iter();
        self.commit_pages(slots.map(page_of).collect()).await
    }

    /// Tells of the copies that wait; whether there were any.
    pub(super) async fn write_copies(&self) -> Result<bool, String> {
        let Some((slots, group)) = self.journal.take_copies() else {
            return Ok(false);
        };
        let pages = |run: &SlotRun| page_of(run.first)..=page_of(run.first + run.count - 1);
        self.commit_pages(slots.iter().flat_map(pages).collect())
            .await?;
        self.journal.copies.told.fetch_max(group, Release);
        self.journal.done.notify(usize::MAX);
        Ok(true)
    }

    /// Writes a table anew that was damaged; whether it was. An image tells by now that the snapshots
    /// which needed it are lost.
    pub(super) async fn write_damaged(&self) -> Result<bool, String> {
        let damaged = self.journal.copies.damaged.swap(false, Relaxed);
        if damaged {
            let last = page_of(self.superblock.slots - 1);
            self.commit_pages((0..=last).collect()).await?;
        }
        Ok(damaged)
    }

    async fn commit_pages(&self, pages: BTreeSet<u32>) -> Result<(), String> {
        let pages: Vec<u32> = pages.into_iter().collect();
        for pages in pages.chunks(COMMIT_PAGES) {
            let written = self.commit(pages).await;
            written.map_err(|errno| ImageFailure::Area(errno).to_string())?;
        }
        Ok(())
    }

    /// One commit, see [`tidemark_store::cow::table`].
    async fn commit(&self, pages: &[u32]) -> Result<(), Errno> {
        let (layout, slots) = (self.layout(), self.superblock.slots);
        let (area, commit) = (self.superblock.area, self.state.next_commit());
        let mut told = Vec::with_capacity(pages.len() * PAGE_SLOTS as usize);
        let mut bytes = Vec::with_capacity(pages.len() * PAGE_BYTES);
        for page in pages {
            let of_page = page * PAGE_SLOTS..((page + 1) * PAGE_SLOTS).min(slots);
            let copies: Vec<_> = of_page
                .filter_map(|slot| self.index.copy_in(slot))
                .collect();
            let only = copies.iter().map(|(copy, _)| *copy);
            bytes.extend(encode_page(area, *page, commit, only));
            told.extend(copies.iter().map(|(copy, word)| (copy.slot, *word)));
        }
        let shadow = encode_shadow(area, commit, pages, &bytes);
        let at = layout.shadow(slots, commit).offset;
        self.area.write(at, &shadow, false).await?;
        self.area.flush().await?;
        self.journal.progress.fetch_add(1, Relaxed);
        for (page, bytes) in pages.iter().zip(bytes.chunks_exact(PAGE_BYTES)) {
            let at = layout.table(slots).offset + u64::from(*page) * PAGE_BYTES as u64;
            self.area.write(at, bytes, false).await?;
        }
        self.journal.progress.fetch_add(1, Relaxed);
        // Only now: a successor tells anew of what it finds untold.
        for (slot, word) in told {
            self.index.mark_told(slot, word);
        }
        Ok(())
    }
}
