//! Reading a snapshot while the volume is being written.
//!
//! **I3 exact views.** What has no copy yet is read from the origin, and then the index is asked
//! about every block: a block that was overwritten during the read has been published before
//! (I2), so its copy is found and taken instead. The write path never waits for readers. A
//! snapshot that ended meanwhile may have lost its slots, so its fate is asked for last of all.

use tidemark_store::{
    cow::Found,
    state::{Fate, SnapshotEntry},
    units::{Block, BlockRange, ByteRange, Epoch, Id},
};

use super::{Clock, Step, ViewError, Volume};
use crate::{
    disk::{Disk, Run},
    request::Errno,
};

/// Copies read from the store in one go, at most.
const COPIES_AT_ONCE: u32 = 256;

/// Copies of consecutive blocks that lie in consecutive slots.
struct Copies {
    first: Block,
    found: Vec<Found>,
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Fills `into` with the bytes of the snapshot's moment, or fails: it never gives others.
    /// After an error the content of `into` means nothing.
    pub async fn read_view(&self, id: Id, offset: u64, into: &mut [u8]) -> Result<(), ViewError> {
        let snapshot = self.live_snapshot(id)?;
        let range = ByteRange::new(offset, into.len() as u64);
        if !self.geometry.contains(range) {
            return Err(ViewError::OutOfRange(range));
        }
        let blocks = self.geometry.touched(range);
        let early = self.clock.omits(Step::AskAgain);
        let early = early.then(|| self.copies(blocks, snapshot.epoch));
        self.read_origin_parts(blocks, snapshot.epoch, range, into)
            .await?;
        for copies in early.unwrap_or_else(|| self.copies(blocks, snapshot.epoch)) {
            self.read_copies(&copies, id, range, into).await?;
        }
        self.live_snapshot(id).map(drop)
    }

    /// The run of a view that starts at `offset`: a hole where the origin has one and had one at
    /// the cut.
    pub async fn view_run(&self, id: Id, offset: u64) -> Result<Run, ViewError> {
        let snapshot = self.live_snapshot(id)?;
        let run = self
            .origin
            .run_at(offset)
            .await
            .map_err(ViewError::Origin)?;
        let blocks = self
            .geometry
            .touched(ByteRange::new(offset, run.end - offset));
        // As with reads: the origin first, then the index.
        let copied = |block: &u64| self.index.find(*block, snapshot.epoch).is_some();
        let limit = blocks
            .end
            .min(blocks.start + u64::from(COPIES_AT_ONCE) * 64);
        let first = (blocks.start..limit).find(copied).unwrap_or(limit);
        let run = match (run.hole, first) {
            (false, _) => run,
            (true, first) if first == blocks.start => Run {
                end: run.end.min(self.end_of(Block(first))),
                hole: false,
            },
            (true, first) => Run {
                end: run
                    .end
                    .min(self.geometry.bytes_of(BlockRange::new(first, first)).offset),
                hole: true,
            },
        };
        self.live_snapshot(id).map(|_| run)
    }

    /// The entry of a snapshot that can be read, or why it cannot.
    pub(super) fn live_snapshot(&self, id: Id) -> Result<SnapshotEntry, ViewError> {
        let entry = self.layers.get(id).ok_or(ViewError::NotFound(id))?;
        match self.fate_of(&entry) {
            Fate::Live => Ok(entry),
            Fate::Released => Err(ViewError::Released(id)),
            Fate::Overflowed => Err(ViewError::Overflowed(id)),
            Fate::Lost => Err(ViewError::Lost(id)),
        }
    }

    fn end_of(&self, block: Block) -> u64 {
        self.geometry
            .bytes_of(BlockRange::new(block.0, block.0 + 1))
            .end()
    }

    /// Reads every run of `blocks` that has no copy.
    async fn read_origin_parts(
        &self,
        blocks: BlockRange,
        epoch: Epoch,
        range: ByteRange,
        into: &mut [u8],
    ) -> Result<(), ViewError> {
        let mut at = blocks.start;
        while at < blocks.end {
            let copied = |block: &u64| self.index.find(*block, epoch).is_some();
            let start = (at..blocks.end)
                .find(|block| !copied(block))
                .unwrap_or(blocks.end);
            let end = (start..blocks.end).find(copied).unwrap_or(blocks.end);
            let part = self.geometry.bytes_of(BlockRange::new(start, end));
            if let Some((offset, part)) = overlap(part, range, into) {
                self.origin
                    .read(offset, part)
                    .await
                    .map_err(ViewError::Origin)?;
            }
            at = end;
        }
        Ok(())
    }

    /// The copies that a view of `epoch` reads in `blocks`, as the index has them now.
    fn copies(&self, blocks: BlockRange, epoch: Epoch) -> Vec<Copies> {
        let mut runs: Vec<Copies> = Vec::new();
        for block in blocks.blocks() {
            let Some(found) = self.index.find(block.0, epoch) else {
                continue;
            };
            match runs.last_mut() {
                Some(run) if run.continues_with(block, found) => run.found.push(found),
                _ => runs.push(Copies {
                    first: block,
                    found: vec![found],
                }),
            }
        }
        runs
    }

    async fn read_copies(
        &self,
        copies: &Copies,
        id: Id,
        range: ByteRange,
        into: &mut [u8],
    ) -> Result<(), ViewError> {
        let count = copies.found.len();
        let block_len = usize::try_from(self.geometry.block_bytes()).unwrap_or(usize::MAX);
        let mut buffer = self.buffers.take(count * block_len);
        let read = self.read_slots(copies, &mut buffer).await;
        if read.is_ok() {
            let end = copies.first.0 + count as u64;
            let bytes = self.geometry.bytes_of(BlockRange::new(copies.first.0, end));
            if let Some((offset, part)) = overlap(bytes, range, into) {
                let skip = usize::try_from(offset - bytes.offset).unwrap_or(usize::MAX);
                part.copy_from_slice(&buffer[skip..skip + part.len()]);
            }
        }
        self.buffers.put(buffer);
        read.map_err(|why| self.lost_unless_ended(id, &why))
    }

    /// Reads whole slots and checks each against its checksum.
    async fn read_slots(&self, copies: &Copies, buffer: &mut [u8]) -> Result<(), String> {
        let first = copies.found[0].slot;
        let count = u32::try_from(copies.found.len()).unwrap_or(u32::MAX);
        let place = self.layout().slots(first, count);
        let read: Result<(), Errno> = self.area.read(place.offset, buffer).await;
        read.map_err(|errno| {
            format!("the store cannot be read at byte {}: {errno}", place.offset)
        })?;
        let block_len = usize::try_from(self.geometry.block_bytes()).unwrap_or(usize::MAX);
        for (found, bytes) in copies.found.iter().zip(buffer.chunks_exact(block_len)) {
            if crc32c::crc32c(bytes) != found.checksum {
                let at = self.layout().slots(found.slot, 1).offset;
                return Err(format!(
                    "the store is damaged at byte {at}: checksum mismatch"
                ));
            }
        }
        Ok(())
    }

    /// A bad copy of a snapshot that ended meanwhile is no damage: its slot was given away.
    fn lost_unless_ended(&self, id: Id, why: &str) -> ViewError {
        match self.live_snapshot(id) {
            Err(ended) => ended,
            Ok(_) => {
                self.end_snapshot(id, Fate::Lost, why);
                ViewError::Lost(id)
            }
        }
    }
}

impl Copies {
    fn continues_with(&self, block: Block, found: Found) -> bool {
        let count = self.found.len() as u64;
        count < u64::from(COPIES_AT_ONCE)
            && block.0 == self.first.0 + count
            && self
                .found
                .last()
                .is_some_and(|last| found.slot == last.slot + 1)
    }
}

/// The bytes that `part` and `range` share, and their place in `into`, which is `range`'s.
fn overlap(part: ByteRange, range: ByteRange, into: &mut [u8]) -> Option<(u64, &mut [u8])> {
    let start = part.offset.max(range.offset);
    let end = part.end().min(range.end());
    let from = usize::try_from(start.checked_sub(range.offset)?).ok()?;
    let to = usize::try_from(end.checked_sub(range.offset)?).ok()?;
    (start < end).then(|| (start, &mut into[from..to]))
}
