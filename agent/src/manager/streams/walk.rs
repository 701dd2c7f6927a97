//! First stage of a stream: reads what is to be sent and tells zeros from data.

use std::{collections::VecDeque, io};

use prost::bytes::Bytes;
use tidemark_store::units::ByteRange;

use super::{
    PIECE_BYTES, Subject,
    runs::{Runs, Scope},
    zero,
};
use crate::{
    manager::{Error, ErrorReason, operations::CancelToken},
    volume::{Extent, Kind},
};

/// An extent with its plain bytes, which are empty unless it is data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where and what.
    pub extent: Extent,
    /// As long as the extent when it is data.
    pub data: Bytes,
}

/// Yields a snapshot's pieces in order and, at the end of the snapshot, asks whether it lived to
/// see it. After an error it yields nothing more.
///
/// Data pieces never cross a multiple of [`PIECE_BYTES`], whatever the pages looked like and
/// wherever the walk started: a resumed stream is cut where the first one was.
pub struct Walk<S> {
    subject: S,
    block_bytes: u64,
    ascending: bool,
    runs: Runs,
    ready: VecDeque<Piece>,
    cancel: CancelToken,
    ended: bool,
}

impl<S: Subject> Walk<S> {
    /// A walk over a snapshot of `capacity` bytes. `block_bytes` is the grain of zero detection.
    pub fn new(
        subject: S,
        scope: Scope,
        capacity: u64,
        block_bytes: u64,
        cancel: CancelToken,
    ) -> Self {
        Self {
            subject,
            block_bytes: block_bytes.max(1),
            ascending: !matches!(scope, Scope::Ranges(_)),
            runs: Runs::new(scope, capacity),
            ready: VecDeque::new(),
            cancel,
            ended: false,
        }
    }

    /// Whether offsets only grow.
    pub(super) fn is_ascending(&self) -> bool {
        self.ascending
    }

    fn step(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            self.cancel.check()?;
            let Some(extent) = self.runs.peek(&mut self.subject)? else {
                // Whatever was read after the snapshot was dropped must not look complete.
                self.subject.check()?;
                return Ok(None);
            };
            match extent.kind {
                Kind::Data => self.read_data(extent.range.offset)?,
                Kind::Zero | Kind::Discarded => {
                    self.runs.consume(extent.range.len);
                    self.ready.push_back(Piece {
                        extent,
                        data: Bytes::new(),
                    });
                }
            }
        }
    }

    /// Reads data from `offset` to the end of the grid's cell or of the data.
    fn read_data(&mut self, offset: u64) -> Result<(), Error> {
        let range = self.data_in_cell(offset)?;
        let len = usize::try_from(range.len).map_err(Error::internal)?;
        let mut buffer = vec![0; len];
        let read = self.subject.read(offset, &mut buffer);
        read.map_err(|error| read_failed(&mut self.subject, range, &error))?;
        self.split(offset, Bytes::from(buffer));
        Ok(())
    }

    /// Neighbouring data, also over the edge of a page, up to the end of the cell.
    fn data_in_cell(&mut self, offset: u64) -> Result<ByteRange, Error> {
        let cell_end = (offset / PIECE_BYTES + 1).saturating_mul(PIECE_BYTES);
        let mut end = offset;
        while end < cell_end {
            match self.runs.peek(&mut self.subject)? {
                Some(Extent {
                    range,
                    kind: Kind::Data,
                }) if range.offset == end => {
                    let take = range.len.min(cell_end - end);
                    self.runs.consume(take);
                    end += take;
                }
                _ => break,
            }
        }
        Ok(ByteRange::new(offset, end - offset))
    }

    fn split(&mut self, offset: u64, bytes: Bytes) {
        for (run, zero) in zero::runs(&bytes, offset, self.block_bytes) {
            let range = ByteRange::new(offset + run.start as u64, run.len() as u64);
            let (kind, data) = if zero {
                (Kind::Zero, Bytes::new())
            } else {
                (Kind::Data, cut(&bytes, run.start, run.end))
            };
            let extent = Extent { range, kind };
            self.ready.push_back(Piece { extent, data });
        }
    }
}

/// What a failed read of the view means: the snapshot's fate, where it has met one.
pub(super) fn read_failed(
    subject: &mut impl Subject,
    range: ByteRange,
    error: &io::Error,
) -> Error {
    match subject.check() {
        Err(fate) => fate,
        Ok(()) => Error::new(
            ErrorReason::SourceIo,
            format!(
                "reading {range} of the view failed: {error}; the snapshot itself is live, so look \
                 for errors of the origin's device"
            ),
        ),
    }
}

/// A part of a buffer. Copied unless it is all of it: a slice would keep the whole buffer alive,
/// and a batch of small slices a buffer each, past every bound.
fn cut(bytes: &Bytes, start: usize, end: usize) -> Bytes {
    if end - start == bytes.len() {
        bytes.clone()
    } else {
        Bytes::copy_from_slice(&bytes[start..end])
    }
}

impl<S: Subject> Iterator for Walk<S> {
    type Item = Result<Piece, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}
