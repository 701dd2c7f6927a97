//! The slot table: which block of which epoch a slot of the area holds, on the area's medium, where
//! snapshots are to outlive the host.
//!
//! A page tells of 192 slots in eight sectors, each with its own checksum: a write that power tore
//! leaves every sector as it was or as it was to be. A sector says in which *commit* it was written.
//! Commits follow each other, each with what it tells of on the medium before the next begins, so
//! only slots of the newest may be told of and not hold their bytes.

use std::{collections::BTreeMap, sync::atomic::Ordering::Release};

use crate::{
    state::{MAX_SNAPSHOTS, State},
    units::{Epoch, Id},
};

use super::{Layer, index};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// Slots that a page tells of.
pub const PAGE_SLOTS: u32 = 8 * SECTOR_SLOTS;

const SECTOR_BYTES: usize = 512;
const SECTOR_SLOTS: u32 = 24;
const ENTRY_BYTES: usize = 20;
const ENTRIES: usize = 16;
/// The checksum covers the sector from here on.
const SUMMED: usize = 4;

const _: () = assert!(ENTRIES + SECTOR_SLOTS as usize * ENTRY_BYTES <= SECTOR_BYTES);

/// A preserved block, wherever it is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copy {
    /// Where it lies.
    pub slot: u32,
    /// Which block of the volume it is.
    pub block: u64,
    /// The epoch of its layer.
    pub epoch: Epoch,
    /// CRC32C of its bytes, filled up with zeros to a whole block.
    pub checksum: u32,
}

/// A sector of a slot table is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the slot table is damaged where it tells of slot {0}")]
pub struct TableError(pub u32);

/// What a page tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// Each copy with the commit in which its sector was written.
    pub copies: Vec<(u64, Copy)>,
    /// The newest commit of a sector; 0 when none was ever written.
    pub commit: u64,
}

/// The page that tells of a slot.
pub const fn page_of(slot: u32) -> u32 {
    slot / PAGE_SLOTS
}

/// Bytes of the table of so many slots.
pub const fn table_bytes(slots: u32) -> u64 {
    slots.div_ceil(PAGE_SLOTS) as u64 * PAGE_BYTES as u64
}

/// The stored form of a page, as written in a commit. `area` keeps one that another area left from
/// being believed.
pub fn encode_page(
    area: Id,
    page: u32,
    commit: u64,
    copy: impl Fn(u32) -> Option<Copy>,
) -> [u8; PAGE_BYTES] {
    let mut bytes = [0; PAGE_BYTES];
    let firsts = (page * PAGE_SLOTS..).step_by(SECTOR_SLOTS as usize);
    for (sector, first) in bytes.chunks_exact_mut(SECTOR_BYTES).zip(firsts) {
        sector[4..8].copy_from_slice(&first.to_le_bytes());
        sector[8..16].copy_from_slice(&commit.to_le_bytes());
        let entries = sector[ENTRIES..].chunks_exact_mut(ENTRY_BYTES);
        for (entry, slot) in entries.zip(first..first + SECTOR_SLOTS) {
            if let Some(copy) = copy(slot) {
                entry[..8].copy_from_slice(&copy.epoch.0.to_le_bytes());
                entry[8..16].copy_from_slice(&copy.block.to_le_bytes());
                entry[16..].copy_from_slice(&copy.checksum.to_le_bytes());
            }
        }
        let sum = checksum(area, sector);
        sector[..SUMMED].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// Reads a page. Zeros were never written.
pub fn decode_page(area: Id, page: u32, bytes: &[u8]) -> Result<Page, TableError> {
    let mut told = Page::default();
    let firsts = (page * PAGE_SLOTS..).step_by(SECTOR_SLOTS as usize);
    for (sector, first) in bytes.chunks_exact(SECTOR_BYTES).zip(firsts) {
        if sector.iter().all(|byte| *byte == 0) {
            continue;
        }
        let ours = half(sector, 0) == checksum(area, sector) && half(sector, 4) == first;
        if !ours {
            return Err(TableError(first));
        }
        let commit = word(sector, 8);
        told.commit = told.commit.max(commit);
        let entries = sector[ENTRIES..].chunks_exact(ENTRY_BYTES);
        for (entry, slot) in entries.zip(first..first + SECTOR_SLOTS) {
            let epoch = Epoch(word(entry, 0));
            if epoch.0 != 0 {
                let copy = Copy {
                    slot,
                    block: word(entry, 8),
                    epoch,
                    checksum: half(entry, 16),
                };
                told.copies.push((commit, copy));
            }
        }
    }
    Ok(told)
}

/// Writes copies to a state in which their snapshots are already; returns how many it took. A copy
/// of an epoch whose snapshot is not there is needed by nobody.
pub fn restore(state: &State, copies: impl IntoIterator<Item = Copy>) -> u32 {
    let layers: BTreeMap<Epoch, Layer> = (0..MAX_SNAPSHOTS)
        .filter_map(|place| Some((state.snapshot(place)?.epoch, Layer::at(place)?)))
        .collect();
    let mut taken = 0;
    let mut fresh = 0;
    for copy in copies {
        let layer = layers.get(&copy.epoch);
        let slot = copy.slot as usize;
        if let Some(layer) = layer.filter(|_| slot < state.slot_words().len()) {
            state.checksums()[slot].store(copy.checksum, Release);
            state.slot_words()[slot].store(index::told(copy.block, *layer), Release);
            fresh = fresh.max(u64::from(copy.slot) + 1);
            taken += 1;
        }
    }
    state.fresh().store(fresh, Release);
    taken
}

fn checksum(area: Id, sector: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&area.0), &sector[SUMMED..SECTOR_BYTES])
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AREA: Id = Id([3; 16]);

    fn copy(slot: u32) -> Option<Copy> {
        slot.is_multiple_of(3).then(|| Copy {
            slot,
            block: u64::from(slot) << 20,
            epoch: Epoch(7 + u64::from(slot)),
            checksum: slot.wrapping_mul(0x9E37_79B9),
        })
    }

    #[test]
    fn a_page_tells_what_was_put_into_it() {
        let bytes = encode_page(AREA, 2, 9, copy);
        let told = decode_page(AREA, 2, &bytes).unwrap();
        let slots = 2 * PAGE_SLOTS..3 * PAGE_SLOTS;
        let expected: Vec<_> = slots.filter_map(copy).map(|copy| (9, copy)).collect();
        assert_eq!((told.commit, told.copies), (9, expected));
        assert_eq!(decode_page(AREA, 2, &[0; PAGE_BYTES]), Ok(Page::default()));
        let first = TableError(2 * PAGE_SLOTS);
        assert_eq!(decode_page(Id([4; 16]), 2, &bytes), Err(first));
        assert_eq!(
            decode_page(AREA, 3, &bytes),
            Err(TableError(3 * PAGE_SLOTS))
        );
    }

    #[test]
    fn a_torn_page_is_old_and_new() {
        let mut bytes = encode_page(AREA, 0, 4, copy);
        let newer = encode_page(AREA, 0, 5, |slot| {
            copy(slot + 1).map(|c| Copy { slot, ..c })
        });
        bytes[512..1024].copy_from_slice(&newer[512..1024]);
        let told = decode_page(AREA, 0, &bytes).unwrap();
        assert_eq!(told.commit, 5);
        for (commit, copy) in told.copies {
            assert_eq!(commit, if (24..48).contains(&copy.slot) { 5 } else { 4 });
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_seen(at in 0..PAGE_BYTES, bit in 0..8) {
            let mut bytes = encode_page(AREA, 1, 9, copy);
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(decode_page(AREA, 1, &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(page in 0_u32..9, bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = decode_page(AREA, page, &bytes);
        }
    }
}
