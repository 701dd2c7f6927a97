//! Listing extents without their bytes: what a snapshot holds, what changed between two points.

use std::sync::Arc;

use tidemark_store::units::Id;

use super::past_the_end;
use crate::{
    manager::{Checkpoint, Error, LeaseGuard, Manager, Trust},
    volume::{Extent, ExtentPage, Kind},
};

/// Extents of a message when the client does not say. About 80 KiB on the wire.
pub const DEFAULT_LIST_EXTENTS: u32 = 4096;

/// Extents of a message, at most: a page of the private protocol, about 320 KiB on the wire.
pub const MAX_LIST_EXTENTS: u32 = 16_384;

/// Two points of one lineage; no second is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose changes.
    pub volume: String,
    /// After this point,
    pub since: Checkpoint,
    /// and up to this one.
    pub until: Option<Checkpoint>,
}

/// The sums of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes of all extents.
    pub changed_bytes: u64,
    /// Of these: zeroed or discarded.
    pub zero_bytes: u64,
    /// How many extents, neighbours of one kind merged.
    pub extents: u64,
}

/// A list that is read a message at a time.
pub struct ExtentList {
    manager: Arc<Manager>,
    what: What,
    capacity: u64,
    /// The first extent ends after it.
    after: u64,
    /// Where the next page starts; `None` when there is none.
    next: Option<u64>,
    max: u32,
    answered: bool,
}

enum What {
    Allocated { id: Id, _lease: LeaseGuard },
    Changed(Span),
}

impl ExtentList {
    /// Lists a snapshot's ranges that are not known to be zeros.
    pub async fn allocated(
        manager: Arc<Manager>,
        snapshot: &str,
        start: u64,
        max: u32,
    ) -> Result<Self, Error> {
        let record = manager.readable(snapshot).await?.record;
        let lease = manager.hold_lease(record.id).await?;
        let what = What::Allocated {
            id: record.id,
            _lease: lease,
        };
        Self::new(manager, what, record.capacity_bytes, start, max)
    }

    /// Lists what changed, and says how far that can be trusted.
    pub async fn changed(
        manager: Arc<Manager>,
        span: Span,
        start: u64,
        max: u32,
    ) -> Result<(Self, Trust), Error> {
        let volume = manager.volume(&span.volume).await?;
        let live = volume.live;
        let live = live.map_err(|not| Error::unavailable(&span.volume, not.why))?;
        let until = span.until.as_ref();
        let trust = manager.trust(&span.volume, Some((&span.since, until)));
        let trust = trust.await?;
        let what = What::Changed(span);
        Ok((
            Self::new(manager, what, live.capacity_bytes, start, max)?,
            trust,
        ))
    }

    fn new(
        manager: Arc<Manager>,
        what: What,
        capacity: u64,
        start: u64,
        max: u32,
    ) -> Result<Self, Error> {
        if start > capacity {
            return Err(past_the_end("starting_offset_bytes", start, capacity));
        }
        let max = if max == 0 { DEFAULT_LIST_EXTENTS } else { max };
        Ok(Self {
            manager,
            what,
            capacity,
            after: start,
            next: Some(start),
            max: max.min(MAX_LIST_EXTENTS),
            answered: false,
        })
    }

    /// Size of what is listed.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity
    }

    /// The next message; at least one is given, though it may be empty. Then `None`.
    pub async fn next(&mut self) -> Result<Option<Vec<Extent>>, Error> {
        while let Some(start) = self.next {
            let page = self.page(start).await?;
            self.next = page.next.filter(|next| *next < self.capacity);
            if self.next.is_some_and(|next| next <= start) {
                return Err(Error::internal(format!(
                    "the volume server answered a page that does not move on at offset {start}"
                )));
            }
            let extents = self.select(page.extents);
            if !extents.is_empty() {
                self.answered = true;
                return Ok(Some(extents));
            }
        }
        let first = !self.answered;
        self.answered = true;
        Ok(first.then(Vec::new))
    }

    /// The sums of what is left.
    pub async fn estimate(mut self) -> Result<Estimate, Error> {
        self.max = MAX_LIST_EXTENTS;
        let mut sums = Estimate::default();
        let mut last: Option<Extent> = None;
        while let Some(extents) = self.next().await? {
            for extent in extents {
                sums.changed_bytes += extent.range.len;
                if extent.kind != Kind::Data {
                    sums.zero_bytes += extent.range.len;
                }
                if !last.is_some_and(|last| are_neighbours(&last, &extent)) {
                    sums.extents += 1;
                }
                last = Some(extent);
            }
        }
        Ok(sums)
    }

    async fn page(&self, start: u64) -> Result<ExtentPage, Error> {
        let manager = &self.manager;
        let page = async {
            match &self.what {
                // Also asked at the very end: an unknown checkpoint is an error there too.
                What::Changed(span) => {
                    let until = span.until.as_ref();
                    manager
                        .changes_page(&span.volume, &span.since, until, start, self.max)
                        .await
                }
                What::Allocated { .. } if start >= self.capacity => Ok(ExtentPage {
                    extents: Vec::new(),
                    next: None,
                    over_report_bytes: 0,
                }),
                What::Allocated { id, .. } => manager.allocated_page(*id, start, self.max).await,
            }
        };
        tokio::select! {
            biased;
            () = manager.shutting_down() => Err(Error::shutting_down()),
            page = page => page,
        }
    }

    /// What of a page is listed, neighbours of one kind merged.
    fn select(&self, extents: Vec<Extent>) -> Vec<Extent> {
        let holes_too = matches!(self.what, What::Changed(_));
        let mut listed: Vec<Extent> = Vec::with_capacity(extents.len());
        for extent in extents {
            if extent.range.end() <= self.after || (extent.kind != Kind::Data && !holes_too) {
                continue;
            }
            match listed.last_mut() {
                Some(last) if are_neighbours(last, &extent) => last.range.len += extent.range.len,
                _ => listed.push(extent),
            }
        }
        listed
    }
}

fn are_neighbours(first: &Extent, second: &Extent) -> bool {
    first.kind == second.kind && first.range.end() == second.range.offset
}
