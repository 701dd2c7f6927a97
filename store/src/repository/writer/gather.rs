//! Reads what a draft wants and makes chunks of it.
//!
//! A cell is a whole MiB of the image. What is wanted of a cell goes into one chunk, so that the same
//! MiB gives the same chunk wherever it stands, and what is wanted of several cells shares one while it
//! fits. A full backup starts anew with each leaf; an incremental fills chunks across leaves, for
//! scattered blocks compress well only together. What the image has twice is stored once (`repeats`).

use super::{
    backup::Source,
    plan::{Draft, Slot},
    repeats::{MAX_STRETCHES, Repeats, Stretch},
};
use crate::repository::{
    error::{Error, Result},
    format::node::image_blocks,
    limits::{BLOCK_BYTES, LEAF_BLOCKS, MAX_CHUNK_BLOCKS, MAX_CHUNK_BYTES},
};

const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
/// A full backup ends a chunk with its leaf when it has so many bytes.
const ENOUGH_BYTES: usize = MAX_CHUNK_BYTES / 4;

/// A chunk to be stored.
#[derive(Debug)]
pub(super) struct Job {
    /// Its number.
    pub(super) number: u64,
    /// Where its first block is in the image, in bytes.
    pub(super) offset: u64,
    /// Its whole blocks.
    pub(super) plain: Vec<u8>,
}

/// Fills chunks.
pub(super) struct Gatherer<'a> {
    source: &'a dyn Source,
    capacity: u64,
    across_leaves: bool,
    next: Job,
    cell: Vec<u8>,
    repeats: Repeats,
    /// Bytes read, and bytes with data of these.
    pub(super) read_bytes: u64,
    pub(super) data_bytes: u64,
}

impl<'a> Gatherer<'a> {
    pub(super) fn new(source: &'a dyn Source, capacity: u64, across_leaves: bool) -> Self {
        Self {
            source,
            capacity,
            across_leaves,
            next: Job {
                number: 0,
                offset: 0,
                plain: Vec::with_capacity(MAX_CHUNK_BYTES),
            },
            cell: Vec::with_capacity(MAX_CHUNK_BYTES),
            repeats: Repeats::new(image_blocks(capacity)),
            read_bytes: 0,
            data_bytes: 0,
        }
    }

    /// Reads what the draft wants and says in it where it will be; chunks that are full go to `send`.
    pub(super) fn gather(
        &mut self,
        draft: &mut Draft,
        send: &mut dyn FnMut(Job) -> Result<()>,
    ) -> Result<()> {
        let mut stretches = 0;
        for cell in 0..LEAF_BLOCKS / MAX_CHUNK_BLOCKS {
            let from = cell * MAX_CHUNK_BLOCKS;
            let blocks = self.read_cell(draft, from, from + MAX_CHUNK_BLOCKS)?;
            let blocks = self.without_repeats(draft, &blocks, &mut stretches)?;
            if blocks.is_empty() {
                continue;
            }
            if self.next.plain.len() + self.cell.len() > MAX_CHUNK_BYTES {
                self.flush(send)?;
            }
            let before = self.next.plain.len() / BLOCK_BYTES;
            if before == 0 {
                self.next.offset = byte_of(draft.number, blocks[0].0);
            }
            let job = self.next.number;
            for (block, (at, _)) in (before..).zip(&blocks) {
                let block = u32::try_from(block).unwrap_or(u32::MAX);
                draft.slots[*at as usize] = Slot::New { job, block };
            }
            let leaf_block = draft.number * u64::from(LEAF_BLOCKS);
            self.repeats.remember(&blocks, job, before, leaf_block);
            self.next.plain.append(&mut self.cell);
        }
        if !self.across_leaves && self.next.plain.len() >= ENOUGH_BYTES {
            self.flush(send)?;
        }
        Ok(())
    }

    /// The first chunk that a draft which is gathered now may refer to.
    pub(super) fn oldest(&self) -> u64 {
        self.repeats.oldest().unwrap_or(self.next.number)
    }

    /// Takes out of `self.cell` what earlier chunks have, and says in the draft that they do. Gives the
    /// other blocks' places in the leaf, with their checksums.
    fn without_repeats(
        &mut self,
        draft: &mut Draft,
        places: &[u32],
        stretches: &mut usize,
    ) -> Result<Vec<(u32, u32)>> {
        let checksums = self.cell.chunks(BLOCK_BYTES).map(crc32c::crc32c);
        let mut blocks: Vec<(u32, u32)> = places.iter().copied().zip(checksums).collect();
        // From the last, so that those before stay where they are.
        for stretch in self.repeats.find(&blocks).into_iter().rev() {
            let range = stretch.first..stretch.first + stretch.blocks;
            if *stretches == MAX_STRETCHES || !self.is_same(&stretch)? {
                continue;
            }
            *stretches += 1;
            self.data_bytes += (stretch.blocks * BLOCK_BYTES) as u64;
            for ((place, _), block) in blocks.drain(range.clone()).zip(stretch.start..) {
                let job = stretch.job;
                draft.slots[place as usize] = Slot::New { job, block };
            }
            let bytes = range.start * BLOCK_BYTES..range.end * BLOCK_BYTES;
            self.cell.drain(bytes);
        }
        Ok(blocks)
    }

    /// Whether blocks of the cell are what the earlier chunk has, which is what the source still has.
    fn is_same(&self, stretch: &Stretch) -> Result<bool> {
        let (from, len) = (stretch.first * BLOCK_BYTES, stretch.blocks * BLOCK_BYTES);
        let mut earlier = vec![0; len];
        let offset = stretch.image_block * BLOCK_BYTES as u64;
        read_image(self.source, self.capacity, offset, &mut earlier)?;
        Ok(self.cell[from..from + len] == earlier[..])
    }

    /// Sends what is left.
    pub(super) fn flush(&mut self, send: &mut dyn FnMut(Job) -> Result<()>) -> Result<()> {
        if self.next.plain.is_empty() {
            return Ok(());
        }
        self.data_bytes += self.next.plain.len() as u64;
        let fresh = Job {
            number: self.next.number + 1,
            offset: 0,
            plain: Vec::with_capacity(MAX_CHUNK_BYTES),
        };
        send(std::mem::replace(&mut self.next, fresh))
    }

    /// Reads the wanted blocks of a cell into `self.cell`, leaves out those of zeros, and gives the
    /// others' places in the leaf.
    fn read_cell(&mut self, draft: &mut Draft, from: u32, to: u32) -> Result<Vec<u32>> {
        self.cell.clear();
        let mut blocks = Vec::new();
        for stretch in draft.wanted(from, to) {
            let before = self.cell.len();
            let offset = byte_of(draft.number, stretch.start);
            let len = stretch.len() * BLOCK_BYTES;
            self.read(offset, len)?;
            // Blocks move up over those of zeros before them.
            let mut kept = before;
            for (at, n) in stretch.zip(0_usize..) {
                let block = before + n * BLOCK_BYTES;
                if self.cell[block..block + BLOCK_BYTES] == ZEROS {
                    draft.slots[at as usize] = Slot::Zeros;
                    continue;
                }
                if kept != block {
                    self.cell.copy_within(block..block + BLOCK_BYTES, kept);
                }
                kept += BLOCK_BYTES;
                blocks.push(at);
            }
            self.cell.truncate(kept);
        }
        Ok(blocks)
    }

    /// Adds `len` bytes of the image to the cell; behind the capacity are zeros.
    fn read(&mut self, offset: u64, len: usize) -> Result<()> {
        let before = self.cell.len();
        self.cell.resize(before + len, 0);
        read_image(self.source, self.capacity, offset, &mut self.cell[before..])?;
        self.read_bytes += len as u64;
        Ok(())
    }
}

/// Fills `into` with the image's bytes from `offset`; behind the capacity are zeros.
pub(super) fn read_image(
    source: &dyn Source,
    capacity: u64,
    offset: u64,
    into: &mut [u8],
) -> Result<()> {
    let there = capacity.saturating_sub(offset).min(into.len() as u64);
    let (there, behind) = into.split_at_mut(usize::try_from(there).unwrap_or(0));
    behind.fill(0);
    let len = there.len() as u64;
    source
        .read_at(offset, there)
        .map_err(|why| Error::Source { offset, len, why })
}

/// Where a block of a leaf is in the image.
pub(super) const fn byte_of(leaf: u64, block: u32) -> u64 {
    (leaf * LEAF_BLOCKS as u64 + block as u64) * BLOCK_BYTES as u64
}
