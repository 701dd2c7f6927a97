//! Log blocks: records packed into 4 KiB with a checksum and a place in the sequence.
//!
//! Blocks of a log follow each other without a gap. The first that is not the next of its log ends
//! it: it was torn, or never written, or is left from an earlier log. Nothing that was promised lies
//! behind it, because a block counts as written only when those before it are on the medium.

use super::record::{Record, RecordError};
use crate::bytes::Fields;

/// Size of a log block.
pub const BLOCK_BYTES: usize = 4096;
const MAGIC: [u8; 4] = *b"TJNL";
/// The checksum covers the block from here on.
const SUMMED: usize = 8;
const BODY: usize = 40;
/// Longest stored form of a record: an origin's facts.
const _: () = assert!(BODY + 3 + super::record::MAX_ORIGIN_BYTES < BLOCK_BYTES);

/// Packs records into the bodies of blocks.
#[derive(Debug)]
pub struct Packer {
    blocks: Vec<u8>,
    /// Bytes used of the last block.
    used: usize,
    scratch: Vec<u8>,
}

impl Packer {
    /// Room for `blocks` blocks is made at once, so that adding to them does not allocate.
    pub fn with_capacity(blocks: usize) -> Self {
        Self {
            blocks: Vec::with_capacity(blocks * BLOCK_BYTES),
            used: BLOCK_BYTES,
            scratch: Vec::with_capacity(BLOCK_BYTES),
        }
    }

    /// Adds a record.
    pub fn push(&mut self, record: &Record, region_bits: u64) {
        self.scratch.clear();
        record.encode(region_bits, &mut self.scratch);
        if self.blocks.is_empty() || self.used + self.scratch.len() > BLOCK_BYTES {
            self.finish_block();
            self.blocks.resize(self.blocks.len() + BLOCK_BYTES, 0);
            self.used = BODY;
        }
        let at = self.blocks.len() - BLOCK_BYTES + self.used;
        self.blocks[at..at + self.scratch.len()].copy_from_slice(&self.scratch);
        self.used += self.scratch.len();
    }

    /// Whole blocks, still without their headers; empties the packer. `into` is emptied first and
    /// its memory is kept for the next blocks.
    pub fn take(&mut self, into: &mut Vec<u8>) {
        self.finish_block();
        into.clear();
        std::mem::swap(into, &mut self.blocks);
        self.used = BLOCK_BYTES;
    }

    /// Bytes of the blocks so far.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether no record was added.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Notes how much of the last block is used.
    fn finish_block(&mut self) {
        if let Some(start) = self.blocks.len().checked_sub(BLOCK_BYTES) {
            let used = u16::try_from(self.used - BODY).unwrap_or(0);
            self.blocks[start + 32..start + 34].copy_from_slice(&used.to_le_bytes());
        }
    }
}

/// Gives packed blocks their headers: they become the blocks from number `sequence` on of a log,
/// written at `now_us` (microseconds since the UNIX epoch). `log` is the log's own random number: blocks
/// that an earlier log left in the same place never look like its next ones.
pub fn seal(blocks: &mut [u8], log: u64, sequence: u64, now_us: u64) {
    for (block, sequence) in blocks.chunks_exact_mut(BLOCK_BYTES).zip(sequence..) {
        block[..4].copy_from_slice(&MAGIC);
        block[8..16].copy_from_slice(&log.to_le_bytes());
        block[16..24].copy_from_slice(&sequence.to_le_bytes());
        block[24..32].copy_from_slice(&now_us.to_le_bytes());
        let sum = crc32c::crc32c(&block[SUMMED..]);
        block[4..SUMMED].copy_from_slice(&sum.to_le_bytes());
    }
}

/// A log block that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogBlock<'a> {
    /// When it was written, in microseconds since the UNIX epoch.
    pub written_us: u64,
    body: &'a [u8],
}

impl<'a> LogBlock<'a> {
    /// The block with number `sequence` of a log; `None` when these bytes are something else, which
    /// is the log's end.
    pub fn decode(bytes: &'a [u8], log: u64, sequence: u64) -> Option<Self> {
        let mut fields = Fields(bytes.get(..BLOCK_BYTES)?);
        let ours = fields.take(4)? == MAGIC
            && fields.u32()? == crc32c::crc32c(&bytes[SUMMED..BLOCK_BYTES])
            && fields.u64()? == log
            && fields.u64()? == sequence;
        if !ours {
            return None;
        }
        let written_us = fields.u64()?;
        let used = usize::from(fields.u16()?);
        let body = bytes
            .get(BODY..BODY + used)
            .filter(|_| BODY + used <= BLOCK_BYTES)?;
        Some(Self { written_us, body })
    }

    /// Its records. An error means that the block was written by another program version, or
    /// wrongly: its checksum matches.
    pub fn records(&self, region_bits: u64) -> Result<Vec<Record>, RecordError> {
        Record::decode_all(self.body, region_bits)
    }
}
