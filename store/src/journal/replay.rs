//! From image and log back to what was known.

use std::collections::{BTreeMap, BTreeSet};

use super::{BLOCK_BYTES, Header, Image, LogBlock, Placed, Record, RecordError, Regions, Span};
use crate::{
    changes::ChangeSet,
    state::{CheckpointEntry, Fate, Lineage},
    units::{BlockRange, Epoch, Geometry},
};

/// What tracking knew when the host stopped.
#[derive(Clone, PartialEq, Debug)]
pub struct Recovered {
    /// The lineage.
    pub lineage: Lineage,
    /// Checkpoints in any order.
    pub checkpoints: Vec<CheckpointEntry>,
    /// Changes between checkpoints, by last epoch ascending.
    pub ended: Vec<Span>,
    /// Changes since the last one; its last epoch was running.
    pub running: Span,
    /// Regions that were active: what was in flight may have changed them, or not.
    pub active: Vec<u64>,
    /// What was last remembered of the origin; empty when nothing was.
    pub origin: Vec<u8>,
    /// Snapshots by their places in the table. One that was not settled is lost.
    pub snapshots: Vec<Placed>,
    /// When the last log block or else the image was written, in microseconds since the UNIX epoch.
    pub written_us: u64,
    /// Log blocks that were read.
    pub log_blocks: u64,
}

/// A log that was written whole says what makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A record cannot be read.
    #[error("log block {block}: {source}")]
    Record {
        /// Number of the block in its log.
        block: u64,
        /// Why.
        source: RecordError,
    },
    /// A record names what is not there.
    #[error("log block {block}: {what}")]
    Senseless {
        /// Number of the block in its log.
        block: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Applies the log in `log` (whole blocks, from the log's first on) to the image. The log ends where
/// its sequence does.
pub fn replay(
    header: &Header,
    image: Image,
    log: &[u8],
    geometry: Geometry,
) -> Result<Recovered, ReplayError> {
    let mut replay = Replay::new(image, geometry)?;
    let mut written_us = header.written_us;
    let mut blocks = 0;
    for (bytes, number) in log.chunks_exact(BLOCK_BYTES).zip(0..) {
        let Some(block) = LogBlock::decode(bytes, header.log, number) else {
            break;
        };
        let records =
            block
                .records(geometry.region_blocks())
                .map_err(|source| ReplayError::Record {
                    block: number,
                    source,
                })?;
        for record in records {
            replay
                .apply(record)
                .map_err(|what| ReplayError::Senseless {
                    block: number,
                    what,
                })?;
        }
        written_us = written_us.max(block.written_us);
        blocks = number + 1;
    }
    Ok(replay.finish(written_us, blocks))
}

struct Replay {
    geometry: Geometry,
    image: Image,
    /// Active regions, each with the epoch in which it became so.
    active: BTreeMap<u64, Epoch>,
    /// Ended epochs of which the log may not tell everything.
    inexact: BTreeSet<Epoch>,
}

impl Replay {
    fn new(image: Image, geometry: Geometry) -> Result<Self, ReplayError> {
        let mut replay = Self {
            geometry,
            active: BTreeMap::new(),
            inexact: BTreeSet::new(),
            image,
        };
        for regions in std::mem::take(&mut replay.image.active) {
            replay
                .activate(regions)
                .map_err(|what| ReplayError::Senseless { block: 0, what })?;
        }
        Ok(replay)
    }

    fn apply(&mut self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::Activate(regions) => self.activate(regions)?,
            Record::Cold(region) => {
                self.active.remove(&region);
            }
            Record::Fine {
                epoch,
                region,
                bits,
            } => {
                let blocks = self.blocks(Regions {
                    first: region,
                    end: region.saturating_add(1),
                })?;
                if let Some(span) = self.span_of(epoch)? {
                    span.changes.insert_bits(blocks, &bits);
                }
            }
            Record::Whole { epoch, regions } => {
                let blocks = self.blocks(regions)?;
                if let Some(span) = self.span_of(epoch)? {
                    span.changes.insert(blocks);
                }
            }
            Record::Cut(checkpoint) => self.cut(checkpoint)?,
            Record::Exact(epoch) => {
                self.inexact.remove(&epoch);
            }
            Record::Forget(epoch) => self.image.checkpoints.retain(|entry| entry.epoch != epoch),
            Record::Reset { lineage, epoch } => self.reset(lineage, epoch),
            Record::Origin(facts) => self.image.origin = facts,
            Record::Snapshot(Placed { place, snapshot }) => {
                self.image.snapshots.insert(place, snapshot);
            }
            Record::Settled(epoch) => {
                for snapshot in self.image.snapshots.values_mut() {
                    snapshot.settled |= snapshot.epoch <= epoch;
                }
            }
            Record::End { id, fate } => {
                let all = self.image.snapshots.values_mut();
                for snapshot in all.filter(|snapshot| snapshot.id == id) {
                    snapshot.fate = fate;
                }
            }
        }
        Ok(())
    }

    fn activate(&mut self, regions: Regions) -> Result<(), &'static str> {
        self.blocks(regions)?;
        for region in regions.first..regions.end {
            self.active.entry(region).or_insert(self.image.running.last);
        }
        Ok(())
    }

    fn blocks(&self, regions: Regions) -> Result<BlockRange, &'static str> {
        if regions.first >= regions.end || regions.end > self.geometry.regions() {
            return Err("a region lies outside the volume");
        }
        Ok(self.geometry.blocks_of_regions(regions.first, regions.end))
    }

    /// The span that an epoch belongs to. One that was forgotten meanwhile is the next one's.
    /// `None` for one from before all that is kept: no checkpoint needs it.
    fn span_of(&mut self, epoch: Epoch) -> Result<Option<&mut Span>, &'static str> {
        if epoch > self.image.running.last {
            return Err("an epoch has not begun");
        }
        if epoch >= self.image.running.first {
            return Ok(Some(&mut self.image.running));
        }
        let mut ended = self.image.ended.iter_mut();
        Ok(ended.find(|span| epoch <= span.last))
    }

    fn cut(&mut self, checkpoint: CheckpointEntry) -> Result<(), &'static str> {
        let running = &mut self.image.running;
        if checkpoint.epoch != running.last {
            return Err("a cut ends an epoch that is not running");
        }
        let next = checkpoint.epoch.next();
        let begun = Span {
            first: next,
            last: next,
            changes: ChangeSet::default(),
        };
        let ended = std::mem::replace(running, begun);
        self.image.ended.push(ended);
        self.image.checkpoints.push(checkpoint);
        self.inexact.insert(checkpoint.epoch);
        Ok(())
    }

    fn reset(&mut self, lineage: Lineage, epoch: Epoch) {
        self.image.lineage = lineage;
        self.image.checkpoints.clear();
        self.image.ended.clear();
        self.inexact.clear();
        self.image.running = Span {
            first: epoch,
            last: epoch,
            changes: ChangeSet::default(),
        };
        for since in self.active.values_mut() {
            *since = epoch;
        }
    }

    /// What the log does not tell block by block counts as changed by whole regions.
    fn finish(mut self, written_us: u64, log_blocks: u64) -> Recovered {
        // A discard or zeroes that nobody flushed may be undone: the blocks hold what they held.
        for span in &mut self.image.ended {
            span.changes.forget_kinds();
        }
        self.image.running.changes.forget_kinds();
        for (region, since) in &self.active {
            let blocks = self.geometry.blocks_of_regions(*region, region + 1);
            let inexact = self.inexact.range(since..).copied();
            for epoch in inexact.chain([self.image.running.last]) {
                let spans = self.image.ended.iter_mut().chain([&mut self.image.running]);
                let mut spans = spans.filter(|span| epoch <= span.last);
                if let Some(span) = spans.next() {
                    span.changes.insert_coarse(blocks);
                }
            }
        }
        // A cut that did not happen left no snapshot.
        let running = self.image.running.first;
        let snapshots = self.image.snapshots.into_iter();
        let snapshots = snapshots.filter(|(_, snapshot)| snapshot.epoch < running);
        let snapshots = snapshots.map(|(place, mut snapshot)| {
            if !snapshot.settled && snapshot.fate == Fate::Live {
                snapshot.fate = Fate::Lost;
            }
            Placed { place, snapshot }
        });
        Recovered {
            snapshots: snapshots.collect(),
            lineage: self.image.lineage,
            checkpoints: self.image.checkpoints,
            ended: self.image.ended,
            running: self.image.running,
            active: self.active.into_keys().collect(),
            origin: self.image.origin,
            written_us,
            log_blocks,
        }
    }
}
