//! What is remembered of the origin, to notice that others wrote to it while nobody tracked it.
//!
//! A file system's superblock lies in a known place and changes when the file system is mounted to
//! be written, or checked and mended. So its place is watched: once it was left alone for a moment,
//! what it holds is remembered, and before it is changed again that is taken back. For ext4 the
//! mounts are counted in it, which is remembered also while it changes:
//!
//! | | what is remembered of the mounts |
//! |---|---|
//! | before a write of the superblock is issued | what it makes of them, beside what they may be already |
//! | when the place was left alone, and the origin was flushed | what is there, and nothing beside it |
//!
//! A power cut leaves one of these states, whatever of the writes was lost. A mount by others makes yet
//! another: its time is later.

use tidemark_store::{
    journal::{Facts, Mounts, PAGES, Record},
    units::ByteRange,
};

use super::{
    super::{Clock, Volume},
    Journal, LOOK_US, Queue,
};
use crate::{
    disk::Disk,
    request::{Errno, Request},
    volume::preserve::Buffers,
};

/// A superblock that begins anywhere in the first page ends before these.
const SEEN_BYTES: usize = 4096;

/// The watch over the origin's superblock; under the journal's lock.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) seen: Option<Facts>,
    /// Changes of the place, and of all pages in which one may be.
    touched: [u64; 2],
    /// Of these, in flight.
    flying: [u64; 2],
    touched_us: u64,
    /// The batch that takes back what was remembered, or adds to it.
    batch: u64,
}

impl Watch {
    /// What was remembered is told nowhere any more.
    pub(super) fn forget(&mut self) {
        self.seen = self.seen.as_ref().map(Facts::changing);
    }
}

/// A change of the watched pages in flight.
pub(in crate::volume) struct Watched<'a> {
    journal: &'a Journal,
    in_place: bool,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut queue = self.journal.queue();
        queue.watch.flying[0] -= u64::from(self.in_place);
        queue.watch.flying[1] -= 1;
    }
}

impl Journal {
    /// Returns when a change of `bytes` may go on, which makes `mounts` of the superblock, without what
    /// is remembered of the origin being wrong; while it lasts nothing else is remembered.
    pub(in crate::volume) async fn watch(
        &self,
        bytes: ByteRange,
        mounts: Option<Mounts>,
        clock: &impl Clock,
    ) -> Option<Watched<'_>> {
        let meets = |other: &ByteRange| bytes.offset < other.end() && other.offset < bytes.end();
        if !self.durable || !PAGES.iter().any(meets) {
            return None;
        }
        let (watched, batch) = {
            let mut queue = self.queue();
            let seen = queue.watch.seen.as_ref();
            let in_place = seen.is_none_or(|seen| seen.may_change_with(bytes));
            let watched = Watched {
                journal: self,
                in_place,
            };
            queue.watch.touched[0] += u64::from(in_place);
            queue.watch.flying[0] += u64::from(in_place);
            queue.watch.touched[1] += 1;
            queue.watch.flying[1] += 1;
            if in_place {
                queue.watch.touched_us = clock.now_us();
                self.take_back(&mut queue, mounts);
            }
            (watched, if in_place { queue.watch.batch } else { 0 })
        };
        self.wait_for(batch, clock).await;
        Some(watched)
    }

    /// What the place holds counts no more, and its superblock may come to count `mounts`.
    fn take_back(&self, queue: &mut Queue, mounts: Option<Mounts>) {
        let Some(seen) = &mut queue.watch.seen else {
            return;
        };
        let news = mounts.is_some_and(|mounts| seen.may_become(mounts));
        if news || seen.sum.is_some() {
            seen.sum = None;
            let record = Record::Origin(seen.encode());
            self.push(queue, &record);
            queue.watch.batch = queue.batch;
        }
    }

    /// Whether the origin is to be looked at, with what must not change meanwhile.
    fn may_look(&self, now_us: u64) -> Option<[u64; 2]> {
        let queue = self.queue();
        let watch = &queue.watch;
        let rests = watch.flying[0] == 0
            && (watch.touched[0] == 0 || now_us.abs_diff(watch.touched_us) >= LOOK_US);
        let known = watch.seen.as_ref().is_some_and(|seen| seen.sum.is_some());
        (queue.suspended.is_none() && rests && !known).then_some(watch.touched)
    }

    /// Whether [`Journal::may_look`] became true with time.
    pub(super) fn wants_look(&self, now_us: u64) {
        if self.may_look(now_us).is_some() {
            self.work.notify(usize::MAX);
        }
    }

    /// Remembers what was seen, unless it was changed since.
    fn looked(&self, before: [u64; 2], seen: Facts) {
        let mut queue = self.queue();
        let watch = &mut queue.watch;
        let known = watch.seen.as_ref();
        let same_place = known.is_some_and(|known| known.place == seen.place);
        // Changes of another place than the one that was known counted as changes of any.
        let which = usize::from(!same_place);
        if watch.touched[which] == before[which] && watch.flying[which] == 0 {
            let record = Record::Origin(seen.encode());
            watch.seen = Some(seen);
            self.push(&mut queue, &record);
        } else if !same_place {
            // The new place is watched from now on.
            watch.seen = Some(seen.changing());
        }
    }
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Looks at the origin if its superblock was left alone; whether it did.
    pub(super) async fn look_at_origin(&self) -> bool {
        let Some(before) = self.journal.may_look(self.clock.now_us()) else {
            return false;
        };
        // What is read must be what a power cut leaves.
        let seen = match self.origin.flush().await {
            Ok(()) => look(&self.origin, &self.buffers).await,
            Err(errno) => Err(errno),
        };
        match seen {
            Ok(seen) => {
                self.journal.looked(before, seen);
                true
            }
            // An origin that fails has other worries; it is looked at again after the next change.
            Err(_) => false,
        }
    }

    /// What a request makes an ext's superblock count, if it writes one and that can be told.
    pub(in crate::volume) async fn mounts_made(&self, request: &Request<'_>) -> Option<Mounts> {
        match request {
            Request::Write { offset, from, .. } => Mounts::written(*offset, from),
            Request::WriteRegistered { offset, from, .. } => {
                let range = ByteRange::new(*offset, from.len.into());
                if !self.journal.durable || !Mounts::lie_in(range) {
                    return None;
                }
                let len = usize::try_from(from.len).unwrap_or(0).min(SEEN_BYTES);
                let mut buffer = self.buffers.take(len);
                let read = self.origin.contents(*from, &mut buffer).await;
                let mounts = read.ok().and_then(|()| Mounts::written(*offset, &buffer));
                self.buffers.put(buffer);
                mounts
            }
            Request::Read { .. }
            | Request::ReadRegistered { .. }
            | Request::Flush
            | Request::Discard { .. }
            | Request::WriteZeroes { .. } => None,
        }
    }
}

/// What the origin holds now.
pub(super) async fn look(origin: &impl Disk, buffers: &Buffers) -> Result<Facts, Errno> {
    let mut pages = [const { Vec::new() }; 2];
    for (page, range) in pages.iter_mut().zip(PAGES) {
        let len = origin
            .capacity()
            .saturating_sub(range.offset)
            .min(range.len);
        if len > 0 {
            let mut buffer = buffers.take(usize::try_from(len).unwrap_or(0));
            let read = origin.read(range.offset, &mut buffer).await;
            page.extend_from_slice(&buffer);
            buffers.put(buffer);
            read?;
        }
        page.resize(4096, 0);
    }
    Ok(Facts::of(&pages[0], &pages[1]))
}

/// Whether the origin is as it was when tracking stopped, as far as that is known; else why not.
pub(in crate::volume) async fn compare(
    stored: &[u8],
    origin: &impl Disk,
    buffers: &Buffers,
) -> Result<(), String> {
    let Some(seen) = Facts::decode(stored) else {
        return Ok(());
    };
    let now = look(origin, buffers).await;
    let now = now.map_err(|errno| format!("the volume's superblock cannot be read: {errno}"))?;
    seen.compare(&now)
        .map_err(|difference| difference.to_string())
}
