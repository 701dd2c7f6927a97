//! The changes of one or more epochs, as sets whose size follows the changes.

use roaring::{RoaringBitmap, RoaringTreemap};

use super::Kind;
use crate::units::BlockRange;

const MAGIC: [u8; 8] = *b"TIDESETS";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 16;

/// A set of block numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Blocks(RoaringTreemap);

impl Blocks {
    /// Adds the blocks whose bits are set, least significant bit first; `first` is the number of
    /// the first bit, a multiple of 8, and the bits do not cross a multiple of 2^32.
    pub(super) fn insert_bytes(&mut self, first: u64, bytes: &[u8]) {
        let (high, low) = split(first);
        let part = RoaringBitmap::from_lsb0_bytes(low, bytes);
        self.0 |= RoaringTreemap::from_bitmaps([(high, part)]);
    }

    /// Consecutive blocks of the set from `start` on, ascending. A run that crosses a multiple
    /// of 2^32 comes in two.
    fn ranges(&self, start: u64) -> impl Iterator<Item = BlockRange> {
        let (high, low) = split(start);
        self.0
            .bitmaps()
            .filter(move |(part, _)| *part >= high)
            .flat_map(move |(part, bitmap)| {
                let mut bits = bitmap.iter();
                if part == high {
                    bits.advance_to(low);
                }
                std::iter::from_fn(move || bits.next_range()).map(move |range| {
                    let base = u64::from(part) << 32;
                    BlockRange::new(
                        base | u64::from(*range.start()),
                        (base | u64::from(*range.end())) + 1,
                    )
                })
            })
    }
}

/// Which blocks changed in a span of epochs, and what they last became.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeSet {
    pub(super) changed: Blocks,
    /// A subset of `changed`.
    pub(super) zeroed: Blocks,
    /// A subset of `changed`, apart from `zeroed`.
    pub(super) discarded: Blocks,
    /// A subset of `changed`: known only by the region in which something was changing when the host
    /// stopped.
    pub(super) coarse: Blocks,
}

/// Stored bytes are not a change set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too short, or another magic or version.
    #[error("not a change set of this version")]
    NotASet,
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// The checksum matches but the content does not make sense.
    #[error("malformed content")]
    Malformed,
}

impl ChangeSet {
    /// Adds what happened later.
    pub fn absorb(&mut self, later: &Self) {
        // What either knows for certain is certain.
        if !self.coarse.0.is_empty() || !later.coarse.0.is_empty() {
            let exact = self.exact();
            self.coarse.0 -= later.exact();
            self.coarse.0 |= &later.coarse.0 - exact;
        }
        self.zeroed.0 -= &later.changed.0;
        self.discarded.0 -= &later.changed.0;
        self.changed.0 |= &later.changed.0;
        self.zeroed.0 |= &later.zeroed.0;
        self.discarded.0 |= &later.discarded.0;
    }

    /// Adds blocks whose content may be anything.
    pub fn insert(&mut self, blocks: BlockRange) {
        let mut added = RoaringTreemap::new();
        added.insert_range(blocks.start..blocks.end);
        self.insert_exact(&added);
    }

    /// Adds those of `blocks` whose bits are set, the first block's bit lowest; `blocks` starts at a
    /// multiple of 8 and crosses no multiple of 2^32.
    pub fn insert_bits(&mut self, blocks: BlockRange, bits: &[u8]) {
        let mut added = Blocks::default();
        added.insert_bytes(blocks.start, bits);
        added.0.remove_range(blocks.end..);
        self.insert_exact(&added.0);
    }

    fn insert_exact(&mut self, added: &RoaringTreemap) {
        self.changed.0 |= added;
        for other in [&mut self.zeroed, &mut self.discarded, &mut self.coarse] {
            other.0 -= added;
        }
    }

    /// Adds blocks that may have changed, or not.
    pub fn insert_coarse(&mut self, blocks: BlockRange) {
        let mut added = RoaringTreemap::new();
        added.insert_range(blocks.start..blocks.end);
        self.zeroed.0 -= &added;
        self.discarded.0 -= &added;
        added -= &self.changed.0;
        self.changed.0 |= &added;
        self.coarse.0 |= &added;
    }

    /// From now on every block may hold anything.
    pub fn forget_kinds(&mut self) {
        self.zeroed.0.clear();
        self.discarded.0.clear();
    }

    /// Blocks of the set that may not have changed: the most that is reported beyond the changes.
    pub fn coarse_blocks(&self) -> u64 {
        self.coarse.0.len()
    }

    fn exact(&self) -> RoaringTreemap {
        &self.changed.0 - &self.coarse.0
    }

    /// Number of changed blocks.
    pub fn len(&self) -> u64 {
        self.changed.0.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changed.0.is_empty()
    }

    /// Whether a block changed.
    pub fn contains(&self, block: u64) -> bool {
        self.changed.0.contains(block)
    }

    /// Runs of changed blocks of one kind from block `start` on, ascending; neighbours of one
    /// kind are merged.
    pub fn runs(&self, start: u64) -> impl Iterator<Item = (BlockRange, Kind)> + '_ {
        let mut changed = self.changed.ranges(start).peekable();
        let mut zeroed = self.zeroed.ranges(start).peekable();
        let mut discarded = self.discarded.ranges(start).peekable();
        let mut at = start;
        let pieces = std::iter::from_fn(move || {
            let run = loop {
                let run = *changed.peek()?;
                if run.end > at {
                    break run;
                }
                changed.next();
            };
            at = at.max(run.start);
            let mut end = run.end;
            let mut kind = Kind::Data;
            for (special, becomes) in [
                (&mut zeroed as &mut dyn PeekRange, Kind::Zero),
                (&mut discarded, Kind::Discarded),
            ] {
                match special.first_ending_after(at) {
                    Some(range) if range.start <= at => (kind, end) = (becomes, end.min(range.end)),
                    Some(range) => end = end.min(range.start),
                    None => {}
                }
            }
            let piece = (BlockRange::new(at, end), kind);
            at = end;
            Some(piece)
        });
        merge_neighbours(pieces)
    }

    /// Makes the subsets subsets again: a map that is being written may show a block's kind
    /// without its change, or two kinds. What is in doubt is data.
    pub(super) fn normalise(&mut self) {
        self.zeroed.0 &= &self.changed.0;
        self.discarded.0 &= &self.changed.0;
        let both = &self.zeroed.0 & &self.discarded.0;
        self.zeroed.0 -= &both;
        self.discarded.0 -= &both;
    }

    /// The stored form; see FORMAT.md, "Change sets".
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        for blocks in [&self.changed, &self.zeroed, &self.discarded, &self.coarse] {
            // Writing to a vector cannot fail.
            let _ = blocks.0.serialize_into(&mut bytes);
        }
        let sum = crc32c::crc32c(&bytes[HEADER_BYTES..]);
        bytes[12..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, mut body) = bytes
            .split_at_checked(HEADER_BYTES)
            .ok_or(DecodeError::NotASet)?;
        if header[..8] != MAGIC || header[8..12] != VERSION.to_le_bytes() {
            return Err(DecodeError::NotASet);
        }
        if header[12..] != crc32c::crc32c(body).to_le_bytes() {
            return Err(DecodeError::Checksum);
        }
        let mut next = || RoaringTreemap::deserialize_from(&mut body).map(Blocks);
        let set = (|| -> std::io::Result<Self> {
            Ok(Self {
                changed: next()?,
                zeroed: next()?,
                discarded: next()?,
                coarse: next()?,
            })
        })()
        .map_err(|_| DecodeError::Malformed)?;
        let subsets = set.zeroed.0.is_subset(&set.changed.0)
            && set.discarded.0.is_subset(&set.changed.0)
            && set.zeroed.0.is_disjoint(&set.discarded.0)
            && set.coarse.0.is_subset(&set.changed.0);
        if !subsets || !body.is_empty() {
            return Err(DecodeError::Malformed);
        }
        Ok(set)
    }
}

/// A peekable iterator of ranges, so that two of different types are handled alike.
trait PeekRange {
    fn first_ending_after(&mut self, at: u64) -> Option<BlockRange>;
}

impl<I: Iterator<Item = BlockRange>> PeekRange for std::iter::Peekable<I> {
    fn first_ending_after(&mut self, at: u64) -> Option<BlockRange> {
        while self.next_if(|range| range.end <= at).is_some() {}
        self.peek().copied()
    }
}

fn merge_neighbours(
    pieces: impl Iterator<Item = (BlockRange, Kind)>,
) -> impl Iterator<Item = (BlockRange, Kind)> {
    let mut pieces = pieces.peekable();
    std::iter::from_fn(move || {
        let (mut run, kind) = pieces.next()?;
        while let Some((next, _)) =
            pieces.next_if(|(next, next_kind)| next.start == run.end && *next_kind == kind)
        {
            run.end = next.end;
        }
        Some((run, kind))
    })
}

/// The two halves of a block number.
#[expect(clippy::cast_possible_truncation, reason = "each half has 32 bits")]
const fn split(block: u64) -> (u32, u32) {
    ((block >> 32) as u32, block as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn set_of(model: &BTreeMap<u64, Kind>) -> ChangeSet {
        let mut set = ChangeSet::default();
        for (block, kind) in model {
            set.changed.0.insert(*block);
            match kind {
                Kind::Data => false,
                Kind::Zero => set.zeroed.0.insert(*block),
                Kind::Discarded => set.discarded.0.insert(*block),
            };
        }
        set
    }

    fn any_model() -> impl Strategy<Value = BTreeMap<u64, Kind>> {
        // Around 2^32 too: the sets are kept in parts of that size.
        let block = prop_oneof![0_u64..200, (1_u64 << 32) - 20..(1_u64 << 32) + 20];
        let kind = prop_oneof![Just(Kind::Data), Just(Kind::Zero), Just(Kind::Discarded)];
        prop::collection::btree_map(block, kind, 0..150)
    }

    proptest! {
        #[test]
        fn runs_tell_each_block_once_in_order(model in any_model(), start in 0_u64..250) {
            let mut told = BTreeMap::new();
            let mut end = 0;
            let mut last = None;
            for (run, kind) in set_of(&model).runs(start) {
                prop_assert!(run.start >= end && !run.is_empty());
                prop_assert!(run.start > end || last != Some(kind), "neighbours not merged");
                (end, last) = (run.end, Some(kind));
                told.extend(run.blocks().map(|block| (block.0, kind)));
            }
            let expected: BTreeMap<_, _> = model.range(start..).map(|(b, k)| (*b, *k)).collect();
            prop_assert_eq!(told, expected);
        }

        #[test]
        fn without_kinds_the_same_blocks_are_data(model in any_model()) {
            let mut set = set_of(&model);
            set.forget_kinds();
            let data = model.into_keys().map(|block| (block, Kind::Data)).collect();
            prop_assert_eq!(set, set_of(&data));
        }

        #[test]
        fn a_later_change_decides_the_kind(first in any_model(), later in any_model()) {
            let mut set = set_of(&first);
            set.absorb(&set_of(&later));
            let mut both = first;
            both.extend(later);
            prop_assert_eq!(set, set_of(&both));
        }

        #[test]
        fn what_is_certain_once_stays_so(
            first in any_model(), whole in 0_u64..150, later in any_model(), bits in any::<[u8; 8]>(),
        ) {
            let mut set = set_of(&first);
            set.insert_coarse(BlockRange::new(whole, whole + 40));
            let unsure = (whole..whole + 40).filter(|block| !first.contains_key(block));
            let mut unsure: std::collections::BTreeSet<u64> = unsure.collect();
            prop_assert_eq!(set.coarse_blocks(), unsure.len() as u64);
            let mut stored = ChangeSet::decode(&set.encode()).unwrap();
            prop_assert_eq!(&stored, &set);
            stored.insert_bits(BlockRange::new(64, 124), &bits);
            for at in 0..60 {
                if bits[at / 8] & 1 << (at % 8) != 0 {
                    unsure.remove(&(64 + at as u64));
                }
            }
            prop_assert_eq!(stored.coarse_blocks(), unsure.len() as u64);
            stored.absorb(&set_of(&later));
            unsure.retain(|block| !later.contains_key(block));
            prop_assert_eq!(stored.coarse_blocks(), unsure.len() as u64);
            prop_assert!((whole..whole + 40).all(|block| stored.contains(block)));
        }

        #[test]
        fn stored_bytes_read_back_and_damage_is_seen(
            model in any_model(), at in any::<prop::sample::Index>(), bit in 0..8,
        ) {
            let set = set_of(&model);
            let mut bytes = set.encode();
            prop_assert_eq!(ChangeSet::decode(&bytes), Ok(set));
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(ChangeSet::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ChangeSet::decode(&bytes);
        }
    }
}
