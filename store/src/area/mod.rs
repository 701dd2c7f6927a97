//! The area: the file or device that holds a volume's preserved blocks.
//!
//! ```text
//! superblock A (4 KiB) | superblock B (4 KiB) | ... up to `first_slot_bytes` | slot 0 | slot 1 | ...
//! ```
//!
//! A slot holds one block. Which block of which snapshot it holds, and its checksum, is in the
//! state file (see [`crate::cow`]). FORMAT.md, "Area", is the contract.

mod superblock;

pub use superblock::{SUPERBLOCK_BYTES, Superblock, SuperblockError};

use crate::units::{ByteRange, Geometry};

/// Where slots begin; what is between the superblocks and here is for later versions.
pub const FIRST_SLOT_BYTES: u64 = 1 << 20;
/// The fewest slots that make an area of use.
pub const MIN_SLOTS: u32 = 64;
/// The most slots: slot numbers have 32 bits, and the largest marks the end of a chain.
pub const MAX_SLOTS: u32 = u32::MAX - 1;

/// Slots that fit into an area of `capacity` bytes; 0 when it is too small.
pub fn slots_in(capacity: u64, geometry: Geometry) -> u32 {
    let slots = capacity.saturating_sub(FIRST_SLOT_BYTES) / geometry.block_bytes();
    u32::try_from(slots).unwrap_or(MAX_SLOTS).min(MAX_SLOTS)
}

/// The least capacity that is of use, in bytes.
pub fn min_capacity(geometry: Geometry) -> u64 {
    FIRST_SLOT_BYTES + u64::from(MIN_SLOTS) * geometry.block_bytes()
}

/// Where `count` slots from `slot` on lie.
pub fn slot_range(slot: u32, count: u32, geometry: Geometry) -> ByteRange {
    let block = geometry.block_bytes();
    ByteRange::new(
        FIRST_SLOT_BYTES + u64::from(slot) * block,
        u64::from(count) * block,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fill_the_area_and_not_more() {
        let geometry = Geometry::new(1 << 30, 4096).unwrap();
        assert_eq!(slots_in(0, geometry), 0);
        assert_eq!(slots_in(min_capacity(geometry), geometry), MIN_SLOTS);
        let capacity = FIRST_SLOT_BYTES + 4096 * 10 + 4095;
        let slots = slots_in(capacity, geometry);
        assert_eq!(slots, 10);
        assert!(slot_range(slots - 1, 1, geometry).end() <= capacity);
        assert_eq!(slots_in(u64::MAX, geometry), MAX_SLOTS);
    }
}
