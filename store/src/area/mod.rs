//! The area: the file or device that holds a volume's preserved blocks.
//!
//! ```text
//! superblock A | superblock B | ... | journal, half 0 | journal, half 1 | slot 0 | ... | slot table
//! 0              4 KiB                64 KiB                            a whole MiB
//! ```
//!
//! The [`Layout`] follows from the volume's size. The journal is [`crate::journal`]'s. A slot holds
//! one block. Which block of which snapshot it holds, and its checksum, is in the state file (see
//! [`crate::cow`]), and where snapshots outlive the host in the slot table too. FORMAT.md, "Area", is
//! the contract.

mod superblock;

pub use superblock::{SUPERBLOCK_BYTES, Superblock, SuperblockError};

use crate::{
    cow::table::{self, PAGE_BYTES, PAGE_SLOTS, SHADOW_BYTES},
    units::{ByteRange, Geometry},
};

/// Where the journal begins.
const JOURNAL_BYTES: u64 = 64 << 10;
/// Slots begin on a multiple of this.
const ALIGN_BYTES: u64 = 1 << 20;
/// What a half of the journal has besides the room for images.
const LOG_BYTES: u64 = 256 << 10;
/// What a slot table has besides its pages.
const SHADOWS_BYTES: u64 = 2 * SHADOW_BYTES as u64;
/// The fewest slots that make an area of use.
pub const MIN_SLOTS: u32 = 64;
/// The most slots: slot numbers have 32 bits, and the largest marks the end of a chain.
pub const MAX_SLOTS: u32 = u32::MAX - 1;

/// Where things lie in the area of a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    block_bytes: u64,
    first_slot_bytes: u64,
}

impl Layout {
    /// The layout for a volume. A half of the journal has room for the change map of four epochs
    /// in which every block changed, 128 MiB a TiB, and 256 KiB or more for the log.
    pub const fn of(geometry: Geometry) -> Self {
        let map_bytes = geometry.blocks().div_ceil(8);
        let halves = 2 * (4 * map_bytes + LOG_BYTES);
        Self {
            block_bytes: geometry.block_bytes(),
            first_slot_bytes: (JOURNAL_BYTES + halves).next_multiple_of(ALIGN_BYTES),
        }
    }

    /// Where slots begin, in bytes.
    pub const fn first_slot_bytes(self) -> u64 {
        self.first_slot_bytes
    }

    /// A half of the journal, 0 or 1; both begin and end on a multiple of 4 KiB.
    pub const fn half(self, which: u64) -> ByteRange {
        let len = (self.first_slot_bytes - JOURNAL_BYTES) / 2 / 4096 * 4096;
        ByteRange::new(JOURNAL_BYTES + (which & 1) * len, len)
    }

    /// Slots that fit into an area of `capacity` bytes, with a slot table behind them or without; 0
    /// when it is too small.
    pub fn slots_in(self, capacity: u64, with_table: bool) -> u32 {
        let room = capacity.saturating_sub(self.first_slot_bytes);
        let slots = if with_table {
            let room = room.saturating_sub(SHADOWS_BYTES);
            let page_slots = u64::from(PAGE_SLOTS);
            let page_bytes = PAGE_BYTES as u64;
            let group = page_slots * self.block_bytes + page_bytes;
            let rest = (room % group).saturating_sub(page_bytes) / self.block_bytes;
            room / group * page_slots + rest
        } else {
            room / self.block_bytes
        };
        u32::try_from(slots).unwrap_or(MAX_SLOTS).min(MAX_SLOTS)
    }

    /// The least capacity that is of use, in bytes.
    pub fn min_capacity(self, with_table: bool) -> u64 {
        if with_table {
            return self.shadow(MIN_SLOTS, 1).end();
        }
        self.slots(0, MIN_SLOTS).end()
    }

    /// Where the slot table of an area with so many slots lies.
    pub fn table(self, slots: u32) -> ByteRange {
        let end = self.slots(0, slots).end();
        ByteRange::new(end, table::table_bytes(slots))
    }

    /// Where the table's shadow of a commit lies.
    pub fn shadow(self, slots: u32, commit: u64) -> ByteRange {
        let bytes = SHADOW_BYTES as u64;
        ByteRange::new(self.table(slots).end() + (commit & 1) * bytes, bytes)
    }

    /// Where `count` slots from `slot` on lie.
    pub fn slots(self, slot: u32, count: u32) -> ByteRange {
        ByteRange::new(
            self.first_slot_bytes + u64::from(slot) * self.block_bytes,
            u64::from(count) * self.block_bytes,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fill_the_area_and_not_more() {
        let layout = Layout::of(Geometry::new(1 << 30, 4096).unwrap());
        assert_eq!(layout.slots_in(0, false), 0);
        assert_eq!(
            layout.slots_in(layout.min_capacity(true) - 1, true),
            MIN_SLOTS - 1
        );
        assert_eq!(layout.slots_in(layout.min_capacity(true), true), MIN_SLOTS);
        let capacity = layout.first_slot_bytes() + 4096 * 10 + 4095;
        let slots = layout.slots_in(capacity, false);
        assert_eq!(slots, 10);
        assert!(layout.slots(slots - 1, 1).end() <= capacity);
        assert_eq!(layout.slots_in(u64::MAX, false), MAX_SLOTS);
        assert_eq!(layout.slots_in(u64::MAX, true), MAX_SLOTS);
    }

    #[test]
    fn the_slot_table_lies_behind_the_slots() {
        for block in [4096, 65536] {
            let layout = Layout::of(Geometry::new(1 << 30, block).unwrap());
            for more in (0..300 * u64::from(block)).step_by(4096) {
                let capacity = layout.min_capacity(true) + more;
                let slots = layout.slots_in(capacity, true);
                let table = layout.table(slots);
                assert_eq!(table.offset, layout.slots(slots - 1, 1).end());
                assert_eq!(table.end(), layout.shadow(slots, 6).offset);
                assert_eq!(
                    layout.shadow(slots, 6).end(),
                    layout.shadow(slots, 7).offset
                );
                assert!(layout.shadow(slots, 7).end() <= capacity, "{more}");
                // One more would not fit.
                assert!(layout.shadow(slots + 1, 7).end() > capacity, "{more}");
                assert!(table.offset.is_multiple_of(4096));
            }
        }
    }

    #[test]
    fn the_journal_lies_between_superblocks_and_slots() {
        for (capacity, first_slot) in [(512, 1 << 20), (1 << 30, 1 << 20), (1 << 40, 257 << 20)] {
            let layout = Layout::of(Geometry::new(capacity, 4096).unwrap());
            assert_eq!(layout.first_slot_bytes(), first_slot);
            let (first, second) = (layout.half(0), layout.half(1));
            assert!(first.offset >= 2 * SUPERBLOCK_BYTES as u64);
            assert_eq!((first.end(), first.len), (second.offset, second.len));
            assert!(second.end() <= first_slot);
            assert!(first.len >= LOG_BYTES + 4 * capacity / 4096 / 8);
        }
    }
}
