//! Writes a stream into an image: distrusts every extent, closes durable sections.
//!
//! Order, for each section: check the extents, write them, sync the image, read back and compare,
//! and only then record how far the image is. A resumed pull starts at a recorded offset, so
//! everything below it is durable and verified, whatever died.

use anyhow::Context;
use indicatif::ProgressBar;
use tidemark_proto::v1::{DataBatch, DataExtent, DataTrailer, ExtentKind};
use tokio::sync::mpsc::Receiver;

use super::{
    record::Record,
    tally::{Counts, Tally},
    unpack::{corrupt, unpack},
    verify::{Written, compare_written},
};
use crate::{client::MAX_MESSAGE_BYTES, image::Image};

/// A section ends after this much data: what a dead pull has to fetch again, at most.
const SECTION_BYTES: u64 = 128 << 20;
/// And after this many extents: at 48 bytes each, 3 MiB of memory.
const SECTION_EXTENTS: usize = 1 << 16;
/// The most plain bytes that one extent may hold; the agent sends at most 1 MiB.
pub(crate) const MAX_EXTENT_BYTES: u64 = MAX_MESSAGE_BYTES as u64;

/// What follows a header.
#[derive(Debug)]
pub(crate) enum Part {
    /// Extents.
    Batch(DataBatch),
    /// The end.
    Trailer(DataTrailer),
}

/// How a stream is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// The volume's size.
    pub(crate) capacity: u64,
    /// What no extent tells of is zero: true of a full stream only.
    pub(crate) gaps_are_zero: bool,
    /// Read back what was written.
    pub(crate) read_back: bool,
}

/// An image being written. Lives across streams: a stream that is cut is resumed.
#[derive(Debug)]
pub(crate) struct Applier {
    image: Image,
    record: Record,
    mode: Mode,
    bar: ProgressBar,
    /// Everything below is written; where the next extent may start.
    position: u64,
    /// Of this stream.
    stream: Tally,
    /// Of all streams.
    total: Counts,
    /// Written since the section began.
    written: Vec<Written>,
    section_bytes: u64,
    /// What the state file says.
    recorded: u64,
    begun: bool,
    complete: bool,
}

impl Applier {
    /// Goes on at `start`.
    pub(crate) fn new(
        image: Image,
        record: Record,
        mode: Mode,
        start: u64,
        bar: ProgressBar,
    ) -> Self {
        Self {
            image,
            record,
            mode,
            bar,
            position: start,
            stream: Tally::default(),
            total: Counts::default(),
            written: Vec::new(),
            section_bytes: 0,
            recorded: start,
            begun: false,
            complete: false,
        }
    }

    /// Where a new stream has to start.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Whether a trailer was seen and held.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Sums over all streams.
    pub(crate) fn total(&self) -> Counts {
        self.total
    }

    /// Gives back what it was made of.
    pub(crate) fn into_parts(self) -> (Image, Record) {
        (self.image, self.record)
    }

    /// Writes down that the image changes now, and empties it for a full pull. The order is the
    /// point: a half-written image must never look like a good one.
    /// Only the first call does anything: later streams go on in the same image.
    pub(crate) fn begin(&mut self) -> anyhow::Result<()> {
        if self.begun {
            return Ok(());
        }
        self.record.progress(&self.image, self.position)?;
        if self.mode.gaps_are_zero && self.position == 0 {
            self.image.prepare_full(self.mode.capacity)?;
            // Where a kill leaves an image of another size, the next pull would take it for a
            // stranger's.
            self.record.progress(&self.image, self.position)?;
        }
        self.begun = true;
        Ok(())
    }

    /// Applies what comes until the sender is gone, and leaves a recorded section behind, also
    /// when the stream was cut.
    pub(crate) fn run(&mut self, parts: Receiver<Part>) -> anyhow::Result<()> {
        self.stream = Tally::default();
        let outcome = self.apply(parts);
        if outcome.is_err() {
            // The image's time moved on with us: written down, the next pull need not suspect a
            // stranger. When this fails too, it suspects one and compares everything.
            let _ = self.record.progress(&self.image, self.recorded);
        }
        outcome
    }

    fn apply(&mut self, mut parts: Receiver<Part>) -> anyhow::Result<()> {
        while let Some(part) = parts.blocking_recv() {
            match part {
                Part::Batch(batch) => self.batch(&batch)?,
                Part::Trailer(trailer) => self.trailer(&trailer)?,
            }
        }
        self.close_section()
    }

    fn batch(&mut self, batch: &DataBatch) -> anyhow::Result<()> {
        for extent in &batch.extents {
            self.extent(extent)?;
        }
        let resume = batch.resume_offset_bytes;
        if resume < self.position || resume > self.mode.capacity {
            return Err(corrupt(format!(
                "a batch that reaches {} says to resume at {resume}",
                self.position
            )));
        }
        self.skip_to(resume)?;
        if self.section_bytes >= SECTION_BYTES || self.written.len() >= SECTION_EXTENTS {
            self.close_section()?;
        }
        Ok(())
    }

    fn extent(&mut self, extent: &DataExtent) -> anyhow::Result<()> {
        let offset = extent.offset_bytes;
        let length = extent.length_bytes;
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.mode.capacity);
        let Some(end) = end.filter(|_| length > 0 && offset >= self.position) else {
            return Err(corrupt(format!(
                "extent {offset}+{length} is empty, out of order or past the end"
            )));
        };
        self.skip_to(offset)?;
        let sent_bytes = extent.data.len() as u64;
        let counts = match ExtentKind::try_from(extent.kind) {
            Ok(ExtentKind::Data) => {
                let hash = Some(self.data(extent)?);
                self.stream
                    .add(offset, length, ExtentKind::Data, hash.as_ref(), sent_bytes)
            }
            Ok(kind @ (ExtentKind::Zero | ExtentKind::Discarded)) => {
                if sent_bytes != 0 {
                    return Err(corrupt(format!(
                        "extent {offset}+{length} of zeros carries bytes"
                    )));
                }
                self.zero(offset, length)?;
                self.stream.add(offset, length, kind, None, sent_bytes)
            }
            Ok(ExtentKind::Unspecified) | Err(_) => {
                return Err(corrupt(format!(
                    "extent {offset}+{length} is of no known kind"
                )));
            }
        };
        self.position = end;
        self.total.add(&counts);
        Ok(())
    }

    /// Checks a data extent and writes it.
    fn data(&mut self, extent: &DataExtent) -> anyhow::Result<blake3::Hash> {
        let (plain, hash) = unpack(extent, MAX_EXTENT_BYTES)?;
        self.image
            .write_at(&plain, extent.offset_bytes)
            .with_context(|| {
                format!(
                    "writing {} at {}",
                    self.image.path().display(),
                    extent.offset_bytes
                )
            })?;
        self.section_bytes += extent.length_bytes;
        self.wrote(extent.offset_bytes, extent.length_bytes, Some(hash));
        self.bar.inc(extent.length_bytes);
        Ok(hash)
    }

    fn zero(&mut self, offset: u64, length: u64) -> anyhow::Result<()> {
        self.image
            .zero(offset, length)
            .with_context(|| format!("zeroing {} at {offset}", self.image.path().display()))?;
        self.wrote(offset, length, None);
        self.bar.inc(length);
        Ok(())
    }

    fn wrote(&mut self, offset: u64, length: u64, hash: Option<blake3::Hash>) {
        if self.mode.read_back {
            self.written.push(Written {
                offset,
                length,
                hash,
            });
        }
    }

    /// Passes over a range that the stream does not mention.
    fn skip_to(&mut self, offset: u64) -> anyhow::Result<()> {
        if self.mode.gaps_are_zero && offset > self.position {
            self.zero(self.position, offset - self.position)?;
        }
        self.position = self.position.max(offset);
        Ok(())
    }

    fn trailer(&mut self, trailer: &DataTrailer) -> anyhow::Result<()> {
        self.stream.check(trailer)?;
        self.skip_to(self.mode.capacity)?;
        self.complete = true;
        Ok(())
    }

    /// Makes what was written durable, reads it back, records how far the image is.
    fn close_section(&mut self) -> anyhow::Result<()> {
        let path = self.image.path().display().to_string();
        self.image
            .sync()
            .with_context(|| format!("syncing {path}"))?;
        compare_written(&self.image, &self.written)?;
        self.written.clear();
        self.section_bytes = 0;
        self.record.progress(&self.image, self.position)?;
        self.recorded = self.position;
        Ok(())
    }
}
