//! What a stream has to send, lazily: the engine's extent pages, clipped and made gapless where
//! the stream covers everything.

use std::collections::VecDeque;

use tidemark_store::units::ByteRange;

use super::Subject;
use crate::{
    manager::Error,
    volume::{Extent, Kind},
};

/// Which ranges a stream covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every byte from an offset on; what no page names is zeros.
    Whole {
        /// First byte.
        start: u64,
    },
    /// What the pages name from an offset on, and nothing else.
    Changed {
        /// First byte.
        start: u64,
    },
    /// These ranges in this order, all taken for data.
    Ranges(Vec<ByteRange>),
}

/// Yields extents in order. Pages are distrusted: they come from another process.
pub(super) struct Runs {
    capacity: u64,
    gaps_are_zero: bool,
    /// Everything below was yielded or lies in `ready`.
    position: u64,
    /// Where the next page starts; `None` when there is none.
    next_page: Option<u64>,
    ready: VecDeque<Extent>,
}

impl Runs {
    pub(super) fn new(scope: Scope, capacity: u64) -> Self {
        let (start, gaps_are_zero, ready) = match scope {
            Scope::Whole { start } => (Some(start), true, VecDeque::new()),
            Scope::Changed { start } => (Some(start), false, VecDeque::new()),
            Scope::Ranges(ranges) => {
                let extents = ranges.into_iter().map(|range| Extent {
                    range,
                    kind: Kind::Data,
                });
                (None, false, extents.collect())
            }
        };
        Self {
            capacity,
            gaps_are_zero,
            position: start.unwrap_or(capacity),
            next_page: start.filter(|start| *start < capacity),
            ready,
        }
    }

    /// The extent that comes next, which stays.
    pub(super) fn peek(&mut self, subject: &mut impl Subject) -> Result<Option<Extent>, Error> {
        while self.ready.is_empty() {
            let Some(start) = self.next_page else {
                return Ok(None);
            };
            self.load(subject, start)?;
        }
        Ok(self.ready.front().copied())
    }

    /// Removes the first `len` bytes of the extent that comes next.
    pub(super) fn consume(&mut self, len: u64) {
        if let Some(extent) = self.ready.pop_front()
            && len < extent.range.len
        {
            let range = ByteRange::new(extent.range.offset + len, extent.range.len - len);
            self.ready.push_front(Extent { range, ..extent });
        }
    }

    fn load(&mut self, subject: &mut impl Subject, start: u64) -> Result<(), Error> {
        let page = subject.page(start)?;
        for extent in page.extents {
            self.accept(extent)?;
        }
        let covered = page.next.unwrap_or(self.capacity).max(self.position);
        if covered > self.capacity || (page.next.is_some() && covered <= start) {
            return Err(disorder(start, "a page that does not move on"));
        }
        self.fill_gap(covered);
        self.position = covered;
        self.next_page = page.next.map(|_| covered).filter(|at| *at < self.capacity);
        Ok(())
    }

    fn accept(&mut self, extent: Extent) -> Result<(), Error> {
        let end = extent.range.end();
        if end > self.capacity {
            return Err(disorder(extent.range.offset, "an extent past the capacity"));
        }
        if end <= self.position {
            // Wholly below where this stream starts; a page may begin before it.
            return Ok(());
        }
        let offset = extent.range.offset.max(self.position);
        self.fill_gap(offset);
        self.ready.push_back(Extent {
            range: ByteRange::new(offset, end - offset),
            kind: extent.kind,
        });
        self.position = end;
        Ok(())
    }

    fn fill_gap(&mut self, end: u64) {
        if self.gaps_are_zero && end > self.position {
            self.ready.push_back(Extent {
                range: ByteRange::new(self.position, end - self.position),
                kind: Kind::Zero,
            });
        }
    }
}

fn disorder(at: u64, what: &str) -> Error {
    Error::internal(format!(
        "the volume server answered {what} at offset {at}: this is a defect, please report it"
    ))
}
