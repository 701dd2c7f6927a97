//! Writing an image, piece by piece, while the log goes on in the other half.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tidemark_store::{
    area::Layout,
    changes::{DenseMap, HistoryError},
    journal::{BLOCK_BYTES, Header, Item, Placed, Regions, Span, seal},
    state::{CheckpointEntry, Lineage},
    units::{Epoch, Id},
};

use super::super::{Clock, tracker::MapTracker};
use crate::{disk::Disk, request::Errno};

/// Bytes written at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes of log that a new half must have room for.
const LOG_ROOM: u64 = 64 << 10;

/// All that an image tells, at one moment. Change maps go on being marked: what they have more when
/// they are written was marked by changes that are in the log too.
pub(super) struct Capture {
    pub(super) lineage: Lineage,
    pub(super) checkpoints: Vec<CheckpointEntry>,
    /// First and last epoch of the change maps that are still to be written.
    pub(super) spans: VecDeque<(Epoch, Epoch)>,
    pub(super) current: Arc<DenseMap>,
    pub(super) active: Vec<Regions>,
    pub(super) snapshots: Vec<Placed>,
    pub(super) origin: Option<Vec<u8>>,
    /// The last batch whose records the image makes unnecessary.
    pub(super) batch: u64,
}

/// The half of the journal that a log is in.
#[derive(Clone, Copy)]
pub(super) struct Log {
    pub(super) which: u64,
    pub(super) number: u64,
    /// Number of the next block.
    pub(super) next: u64,
    /// Where the log's first block lies.
    start: u64,
    end: u64,
}

impl Log {
    /// Where the next block goes.
    pub(super) fn at(&self) -> u64 {
        self.start + self.next * BLOCK_BYTES as u64
    }

    /// Bytes that still fit.
    pub(super) fn room(&self) -> u64 {
        self.end - self.at()
    }

    /// Whether it is time for the next image.
    pub(super) fn is_filling(&self) -> bool {
        self.room() < (self.end - self.start) / 2
    }
}

/// An image was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageFailure {
    #[error("the area cannot be written: {0}")]
    Area(Errno),
    /// Something changed meanwhile; the next try may succeed.
    #[error("a change map was put in order meanwhile")]
    Again,
    #[error("what is to be kept does not fit into the area's journal")]
    TooLarge,
    #[error("{0}")]
    State(#[from] HistoryError),
}

/// An image on its way to the medium.
pub(super) struct ImageWriter {
    layout: Layout,
    which: u64,
    header: Header,
    /// Bytes that are not yet written; the last piece of the image comes last.
    buffer: Vec<u8>,
    written: u64,
    capture: Capture,
    finished: bool,
    /// Log blocks that were written to the other half since the capture.
    carried: Vec<u8>,
}

impl ImageWriter {
    pub(super) fn new(layout: Layout, header: Header, which: u64, capture: Capture) -> Self {
        let mut buffer = Vec::with_capacity(2 * PIECE_BYTES);
        Item::Lineage(&capture.lineage).encode(&mut buffer);
        for checkpoint in &capture.checkpoints {
            Item::Checkpoint(*checkpoint).encode(&mut buffer);
        }
        for regions in &capture.active {
            Item::Active(*regions).encode(&mut buffer);
        }
        for placed in &capture.snapshots {
            Item::Snapshot(*placed).encode(&mut buffer);
        }
        if let Some(origin) = &capture.origin {
            Item::Origin(origin).encode(&mut buffer);
        }
        Self {
            layout,
            which,
            header,
            buffer,
            written: 0,
            capture,
            finished: false,
            carried: Vec::new(),
        }
    }

    /// The last batch that the image tells of.
    pub(super) fn batch(&self) -> u64 {
        self.capture.batch
    }

    /// Log blocks that were written elsewhere meanwhile.
    pub(super) fn carry(&mut self, blocks: &[u8]) {
        self.carried.extend_from_slice(blocks);
    }

    /// Writes a piece; whether all of the image is written.
    pub(super) async fn step(
        &mut self,
        area: &impl Disk,
        tracker: &MapTracker,
    ) -> Result<bool, ImageFailure> {
        while self.buffer.len() < PIECE_BYTES && !self.finished {
            self.add_span(tracker)?;
        }
        let len = match self.finished {
            true => self.buffer.len(),
            false => self.buffer.len() / BLOCK_BYTES * BLOCK_BYTES,
        };
        let rest = self.buffer.split_off(len);
        let mut piece = std::mem::replace(&mut self.buffer, rest);
        self.header.body_crc = crc32c::crc32c_append(self.header.body_crc, &piece);
        self.header.body_bytes += piece.len() as u64;
        if self.header.log_start() + LOG_ROOM > self.layout.half(self.which).len {
            return Err(ImageFailure::TooLarge);
        }
        piece.resize(piece.len().next_multiple_of(BLOCK_BYTES), 0);
        let at = self.layout.half(self.which).offset + Header::BODY + self.written;
        for (chunk, at) in piece.chunks(PIECE_BYTES).zip((at..).step_by(PIECE_BYTES)) {
            let written = area.write(at, chunk, false).await;
            written.map_err(ImageFailure::Area)?;
        }
        self.written += piece.len() as u64;
        Ok(self.finished)
    }

    fn add_span(&mut self, tracker: &MapTracker) -> Result<(), ImageFailure> {
        match self.capture.spans.pop_front() {
            Some((first, last)) => {
                let changes = tracker.span(first, last)?.ok_or(ImageFailure::Again)?;
                let span = Span {
                    first,
                    last,
                    changes,
                };
                Item::Ended(&span).encode(&mut self.buffer);
            }
            None => {
                let epoch = self.capture.current.epoch();
                let span = Span {
                    first: epoch,
                    last: epoch,
                    changes: self.capture.current.to_set(0),
                };
                Item::Running(&span).encode(&mut self.buffer);
                self.finished = true;
            }
        }
        Ok(())
    }

    /// Makes the image count: the log follows it, then comes its header, and the earlier one goes.
    pub(super) async fn finish(
        mut self,
        area: &impl Disk,
        clock: &impl Clock,
        progress: &AtomicU64,
    ) -> Result<Log, ImageFailure> {
        let half = self.layout.half(self.which);
        let start = half.offset + self.header.log_start();
        let mut log = Log {
            which: self.which,
            number: self.header.log,
            next: 0,
            start,
            end: start + (half.end() - start) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64,
        };
        if log.room() < self.carried.len() as u64 + LOG_ROOM {
            return Err(ImageFailure::Again);
        }
        self.header.written_us = clock.now_us();
        seal(&mut self.carried, log.number, 0, self.header.written_us);
        let nothing = vec![0; BLOCK_BYTES];
        let old_header = self.layout.half(self.which ^ 1).offset;
        let done = async {
            if !self.carried.is_empty() {
                area.write(log.at(), &self.carried, false).await?;
                progress.fetch_add(1, Relaxed);
            }
            area.flush().await?;
            progress.fetch_add(1, Relaxed);
            area.write(half.offset, &self.header.encode(), true).await?;
            progress.fetch_add(1, Relaxed);
            // Or damage to the new header would bring an old truth back.
            area.write(old_header, &nothing, true).await
        };
        done.await.map_err(ImageFailure::Area)?;
        log.next += (self.carried.len() / BLOCK_BYTES) as u64;
        Ok(log)
    }
}

/// The header of an image that is about to be written.
pub(super) fn begin_header(area: Id, generation: u64, log: u64) -> Header {
    Header {
        generation,
        area,
        log,
        body_bytes: 0,
        body_crc: 0,
        written_us: 0,
    }
}
