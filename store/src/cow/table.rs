//! The slot table: which block of which epoch a slot of the area holds, on the area's medium, where
//! snapshots are to outlive the host.
//!
//! ```text
//! commit 6   shadow 0: pages 3, 9 ─ flush ─> counts ─> pages 3, 9 in their places
//! commit 7   shadow 1: pages 3, 4 ─ flush ─> counts ─> pages 3, 4 in their places
//! commit 8   shadow 0: ...
//! ```
//!
//! A page tells of 192 slots. Pages change in *commits*, which follow each other. A commit counts when
//! its *shadow* is on the medium; what power tears of the pages themselves, the shadow still has. The
//! flush of the next commit makes them certain before the one after that takes the shadow's place. A
//! number that is left out, by a process that died, leaves a shadow that is older than its pages.
//!
//! The bytes of slots reach the medium by the flush of their commit, so only those of the newest may
//! be told of and not hold what they should.

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

/// Pages that a commit writes at most.
pub const COMMIT_PAGES: usize = 32;
/// Bytes of a shadow: its header, then its pages.
pub const SHADOW_BYTES: usize = (1 + COMMIT_PAGES) * PAGE_BYTES;

const SHADOW_MAGIC: [u8; 4] = *b"TSHD";
/// The checksum covers the shadow from here on, as far as it has pages.
const SHADOW_SUMMED: usize = 8;
const SHADOW_PAGES: usize = 40;

const _: () = assert!(SHADOW_PAGES + COMMIT_PAGES * 4 <= PAGE_BYTES);

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

/// A commit as its shadow tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shadow<'a> {
    /// Its number.
    pub commit: u64,
    /// Its pages with their numbers.
    pub pages: Vec<(u32, &'a [u8])>,
}

/// The page that tells of a slot.
pub const fn page_of(slot: u32) -> u32 {
    slot / PAGE_SLOTS
}

/// Bytes of the table of so many slots.
pub const fn table_bytes(slots: u32) -> u64 {
    slots.div_ceil(PAGE_SLOTS) as u64 * PAGE_BYTES as u64
}

/// The stored form of a page, as written in a commit; copies of other pages' slots are left out.
/// `area` keeps one that another area left from being believed.
pub fn encode_page(
    area: Id,
    page: u32,
    commit: u64,
    copies: impl IntoIterator<Item = Copy>,
) -> [u8; PAGE_BYTES] {
    let mut bytes = [0; PAGE_BYTES];
    for copy in copies.into_iter().filter(|copy| page_of(copy.slot) == page) {
        let at = copy.slot % PAGE_SLOTS;
        let sector = (at / SECTOR_SLOTS) as usize * SECTOR_BYTES;
        let entry = sector + ENTRIES + (at % SECTOR_SLOTS) as usize * ENTRY_BYTES;
        bytes[entry..entry + 8].copy_from_slice(&copy.epoch.0.to_le_bytes());
        bytes[entry + 8..entry + 16].copy_from_slice(&copy.block.to_le_bytes());
        bytes[entry + 16..entry + 20].copy_from_slice(&copy.checksum.to_le_bytes());
    }
    let firsts = (page * PAGE_SLOTS..).step_by(SECTOR_SLOTS as usize);
    for (sector, first) in bytes.chunks_exact_mut(SECTOR_BYTES).zip(firsts) {
        sector[4..8].copy_from_slice(&first.to_le_bytes());
        sector[8..16].copy_from_slice(&commit.to_le_bytes());
        let sum = checksum(area, sector);
        sector[..SUMMED].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// Reads a page. Zeros were never written.
pub fn decode_page(area: Id, page: u32, bytes: &[u8]) -> Result<Page, TableError> {
    let mut told = Page::default();
    for (first, sector) in sectors(page, bytes) {
        let Some(commit) = commit_of(area, first, sector) else {
            return Err(TableError(first));
        };
        told.commit = told.commit.max(commit);
        let entries = sector[ENTRIES..].chunks_exact(ENTRY_BYTES);
        for (entry, slot) in entries.zip(first..first + SECTOR_SLOTS) {
            let epoch = Epoch(word(entry, 0));
            if epoch.0 != 0 && commit != 0 {
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

/// The newest commit of a page, whatever else became of it: a shadow of an earlier one is stale.
pub fn newest_commit(area: Id, page: u32, bytes: &[u8]) -> u64 {
    let commits = sectors(page, bytes).filter_map(|(first, sector)| commit_of(area, first, sector));
    commits.max().unwrap_or(0)
}

/// Sectors of a page with their first slots.
fn sectors(page: u32, bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let firsts = (page * PAGE_SLOTS..).step_by(SECTOR_SLOTS as usize);
    firsts.zip(bytes.chunks_exact(SECTOR_BYTES))
}

/// The commit of a sector, 0 of one that was never written; `None` when it is damaged.
fn commit_of(area: Id, first: u32, sector: &[u8]) -> Option<u64> {
    if sector.iter().all(|byte| *byte == 0) {
        return Some(0);
    }
    let ours = half(sector, 0) == checksum(area, sector) && half(sector, 4) == first;
    ours.then(|| word(sector, 8))
}

/// The stored form of a commit's shadow; `pages` has the pages' numbers and `bytes` the pages.
pub fn encode_shadow(area: Id, commit: u64, pages: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut shadow = vec![0; PAGE_BYTES];
    shadow[..4].copy_from_slice(&SHADOW_MAGIC);
    shadow[8..24].copy_from_slice(&area.0);
    shadow[24..32].copy_from_slice(&commit.to_le_bytes());
    let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
    shadow[32..36].copy_from_slice(&count.to_le_bytes());
    for (entry, page) in shadow[SHADOW_PAGES..].chunks_exact_mut(4).zip(pages) {
        entry.copy_from_slice(&page.to_le_bytes());
    }
    shadow.extend_from_slice(bytes);
    let sum = crc32c::crc32c(&shadow[SHADOW_SUMMED..]);
    shadow[4..SHADOW_SUMMED].copy_from_slice(&sum.to_le_bytes());
    shadow
}

/// Reads a shadow; `None` when it is not whole, or another area's.
pub fn decode_shadow(area: Id, bytes: &[u8]) -> Option<Shadow<'_>> {
    let (header, pages) = bytes.split_at_checked(PAGE_BYTES)?;
    let count = usize::try_from(half(header, 32)).ok()?;
    let pages = pages.get(..count.checked_mul(PAGE_BYTES)?)?;
    let whole = header[..4] == SHADOW_MAGIC
        && header[8..24] == area.0
        && count <= COMMIT_PAGES
        && half(header, 4) == crc32c::crc32c(&bytes[SHADOW_SUMMED..PAGE_BYTES + pages.len()]);
    let numbers = (0..count).map(|at| half(header, SHADOW_PAGES + 4 * at));
    whole.then(|| Shadow {
        commit: word(header, 24),
        pages: numbers.zip(pages.chunks_exact(PAGE_BYTES)).collect(),
    })
}

/// Puts copies into a state in which their snapshots are already.
#[derive(Debug)]
pub struct Restorer<'a> {
    state: &'a State,
    layers: BTreeMap<Epoch, Layer>,
    fresh: u32,
}

impl<'a> Restorer<'a> {
    /// Begins with a state that has no copies.
    pub fn new(state: &'a State) -> Self {
        let layer = |place| Some((state.snapshot(place)?.epoch, Layer::at(place)?));
        Self {
            layers: (0..MAX_SNAPSHOTS).filter_map(layer).collect(),
            fresh: 0,
            state,
        }
    }

    /// Puts a copy into the state. One of an epoch whose snapshot is not there is needed by nobody.
    pub fn put(&mut self, copy: &Copy) {
        let slot = copy.slot as usize;
        let layer = self.layers.get(&copy.epoch);
        if let Some(layer) = layer.filter(|_| slot < self.state.slot_words().len()) {
            self.state.checksums()[slot].store(copy.checksum, Release);
            self.state.slot_words()[slot].store(index::told(copy.block, *layer), Release);
            self.fresh = self.fresh.max(copy.slot + 1);
            self.state.fresh().store(u64::from(self.fresh), Release);
        }
    }

    /// Takes a copy out again.
    pub fn drop(&mut self, slot: u32) {
        if let Some(word) = self.state.slot_words().get(slot as usize) {
            word.store(0, Release);
        }
    }
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

    fn copies(page: u32) -> impl Iterator<Item = Copy> {
        (page * PAGE_SLOTS..(page + 1) * PAGE_SLOTS).filter_map(copy)
    }

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
        let bytes = encode_page(AREA, 2, 9, copies(2));
        let told = decode_page(AREA, 2, &bytes).unwrap();
        let expected: Vec<_> = copies(2).map(|copy| (9, copy)).collect();
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
    fn a_shadow_is_whole_or_none() {
        let pages = [3_u32, 9];
        let bytes: Vec<u8> = pages
            .iter()
            .flat_map(|page| encode_page(AREA, *page, 7, copies(*page)))
            .collect();
        let mut shadow = encode_shadow(AREA, 7, &pages, &bytes);
        let told = decode_shadow(AREA, &shadow).unwrap();
        assert_eq!(told.commit, 7);
        assert_eq!(told.pages, [(3, &bytes[..4096]), (9, &bytes[4096..])]);
        assert_eq!(decode_shadow(Id([4; 16]), &shadow), None);
        assert_eq!(decode_shadow(AREA, &shadow[..8192]), None);
        assert!(shadow.len() <= SHADOW_BYTES);
        // What an earlier one left behind it does not matter.
        shadow.resize(SHADOW_BYTES, 0x55);
        assert!(decode_shadow(AREA, &shadow).is_some());
        for at in (0..3 * PAGE_BYTES).step_by(61) {
            shadow[at] ^= 4;
            assert_eq!(decode_shadow(AREA, &shadow), None, "byte {at}");
            shadow[at] ^= 4;
        }
    }

    #[test]
    fn a_torn_page_is_old_and_new() {
        let mut bytes = encode_page(AREA, 0, 4, copies(0));
        let moved = copies(0).map(|copy| Copy {
            slot: copy.slot + 1,
            ..copy
        });
        let newer = encode_page(AREA, 0, 5, moved);
        bytes[512..1024].copy_from_slice(&newer[512..1024]);
        assert_eq!(newest_commit(AREA, 0, &bytes), 5);
        bytes[600] ^= 1;
        assert_eq!(newest_commit(AREA, 0, &bytes), 4);
        assert!(decode_page(AREA, 0, &bytes).is_err());
        bytes[600] ^= 1;
        let told = decode_page(AREA, 0, &bytes).unwrap();
        assert_eq!(told.commit, 5);
        for (commit, copy) in told.copies {
            assert_eq!(commit, if (24..48).contains(&copy.slot) { 5 } else { 4 });
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_seen(at in 0..PAGE_BYTES, bit in 0..8) {
            let mut bytes = encode_page(AREA, 1, 9, copies(1));
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(decode_page(AREA, 1, &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(page in 0_u32..9, bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = decode_page(AREA, page, &bytes);
            let _ = decode_shadow(AREA, &bytes);
        }
    }
}
