//! The running epoch's change map: three planes of a bit a block.
//!
//! ```text
//! header (4 KiB) | touched, 3 parts | changed | zeroed | discarded
//! ```
//!
//! `touched` has a bit for each 4 KiB page of a plane, set before the page is first written: a
//! reader skips the other pages, and so never makes the memory file system allocate them. A
//! volume of 1 TiB in 4 KiB blocks needs 32 MiB for `changed` when all of it is touched; the
//! other planes cost memory only where discards and zeroes happen.

use std::{io, path::Path, sync::atomic::Ordering::Relaxed};

use super::{ChangeSet, Kind};
use crate::{
    media::{Mapping, PAGE_BYTES},
    sync::AtomicU64,
    units::{BlockRange, Epoch, Id},
};

const MAGIC: u64 = u64::from_le_bytes(*b"TIDEDENS");
const PAGE_WORDS: usize = PAGE_BYTES / 8;
/// Blocks whose bits share a page.
const PAGE_BLOCKS: u64 = PAGE_BYTES as u64 * 8;
/// Blocks whose bits are turned into a set at a time, 4 MiB of them; divides the 2^32 of a part of
/// the set.
const RUN_BLOCKS: u64 = 1 << 25;

/// A plane of the map.
#[derive(Clone, Copy)]
enum Plane {
    Changed = 0,
    Zeroed = 1,
    Discarded = 2,
}

/// The change map of one epoch. All methods may be called by many threads at once.
#[derive(Debug)]
pub struct DenseMap {
    mapping: Mapping,
    epoch: Epoch,
    /// Words of `touched` for one plane.
    touched_words: usize,
    /// Words of one plane.
    plane_words: usize,
}

impl DenseMap {
    /// Makes the empty map of `epoch` for a volume of `blocks` blocks.
    pub fn create(path: &Path, lineage: Id, epoch: Epoch, blocks: u64) -> io::Result<Self> {
        let (touched_words, plane_words) = layout(blocks)?;
        let mapping = Mapping::create(path, total_words(touched_words, plane_words) * 8)?;
        let map = Self {
            mapping,
            epoch,
            touched_words,
            plane_words,
        };
        for (word, value) in map.header().iter().zip(header(lineage, epoch, blocks)) {
            word.store(value, Relaxed);
        }
        Ok(map)
    }

    /// Maps what a dead process left; an error when it is not the map asked for.
    pub fn open(path: &Path, lineage: Id, epoch: Epoch, blocks: u64) -> io::Result<Self> {
        let (touched_words, plane_words) = layout(blocks)?;
        let mapping = Mapping::open(path)?;
        if mapping.len() != total_words(touched_words, plane_words) * 8 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "wrong length"));
        }
        let map = Self {
            mapping,
            epoch,
            touched_words,
            plane_words,
        };
        let expected = header(lineage, epoch, blocks);
        if map
            .header()
            .iter()
            .zip(expected)
            .any(|(word, value)| word.load(Relaxed) != value)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "another map's header",
            ));
        }
        let pages = plane_words / PAGE_WORDS;
        let all = [Plane::Changed, Plane::Zeroed, Plane::Discarded];
        if all.iter().any(|plane| map.touches_past(*plane, pages)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it names pages that it does not have",
            ));
        }
        Ok(map)
    }

    /// The epoch whose changes it holds.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Records that `range` is about to hold new data.
    ///
    /// The caller has the range for itself until the change has reached the origin, so that no
    /// [`DenseMap::settle`] of an older request comes between.
    pub fn mark(&self, range: BlockRange) {
        for (index, mask) in words_of(range) {
            self.set(Plane::Changed, index, mask);
            self.clear(Plane::Zeroed, index, mask);
            self.clear(Plane::Discarded, index, mask);
        }
    }

    /// Records what a marked range became, once the origin has it.
    pub fn settle(&self, range: BlockRange, kind: Kind) {
        let plane = match kind {
            Kind::Data => return,
            Kind::Zero => Plane::Zeroed,
            Kind::Discarded => Plane::Discarded,
        };
        for (index, mask) in words_of(range) {
            self.set(plane, index, mask);
        }
    }

    /// Blocks marked so far.
    pub fn changed_blocks(&self) -> u64 {
        let mut sum = 0;
        self.each_touched_page(Plane::Changed, |_, words| {
            sum += words
                .iter()
                .map(|word| u64::from(word.load(Relaxed).count_ones()))
                .sum::<u64>();
        });
        sum
    }

    /// What is marked, from the block `start` on and perhaps some before it; exact once nothing can
    /// be marked any more.
    pub fn to_set(&self, start: u64) -> ChangeSet {
        let mut set = ChangeSet::default();
        for (plane, bits) in [
            (Plane::Changed, &mut set.changed),
            (Plane::Zeroed, &mut set.zeroed),
            (Plane::Discarded, &mut set.discarded),
        ] {
            // Pages in a row go in together: each insertion costs a walk over the set so far.
            let mut run = Vec::new();
            let mut first = 0;
            self.each_touched_page(plane, |page, words| {
                if (page + 1) * PAGE_BLOCKS <= start {
                    return;
                }
                let at = page * PAGE_BLOCKS;
                let follows = first + run.len() as u64 * 8 == at;
                if !follows || at.is_multiple_of(RUN_BLOCKS) {
                    bits.insert_bytes(first, &run);
                    run.clear();
                    first = at;
                }
                for word in words {
                    run.extend(word.load(Relaxed).to_le_bytes());
                }
            });
            bits.insert_bytes(first, &run);
        }
        set.normalise();
        set
    }

    /// The bits of `range`, its first block's lowest: at most 256 blocks from a multiple of 8 on.
    pub fn bits(&self, range: BlockRange) -> [u8; 32] {
        let mut bits = [0; 32];
        for (at, byte) in (range.start..range.end).step_by(8).zip(&mut bits) {
            let Ok(index) = usize::try_from(at / 64) else {
                break;
            };
            let page = index / PAGE_WORDS;
            if self.touched(Plane::Changed)[page / 64].load(Relaxed) & (1 << (page % 64)) != 0 {
                let word = self.plane(Plane::Changed)[index].load(Relaxed);
                *byte = word.to_le_bytes()[usize::from(at.to_le_bytes()[0] % 64 / 8)];
            }
        }
        bits
    }

    fn header(&self) -> &[AtomicU64] {
        self.mapping.words(0, 6)
    }

    fn touched(&self, plane: Plane) -> &[AtomicU64] {
        self.mapping.words(
            PAGE_WORDS + plane as usize * self.touched_words,
            self.touched_words,
        )
    }

    /// Whether pages past the last one are said to be touched.
    fn touches_past(&self, plane: Plane, pages: usize) -> bool {
        let past = self.touched(plane).get(pages / 64);
        past.is_some_and(|word| word.load(Relaxed) >> (pages % 64) != 0)
    }

    fn plane(&self, plane: Plane) -> &[AtomicU64] {
        let first =
            PAGE_WORDS + touched_span(self.touched_words) + plane as usize * self.plane_words;
        self.mapping.words(first, self.plane_words)
    }

    fn set(&self, plane: Plane, index: usize, mask: u64) {
        let page = index / PAGE_WORDS;
        let touched = &self.touched(plane)[page / 64];
        let bit = 1 << (page % 64);
        if touched.load(Relaxed) & bit == 0 {
            touched.fetch_or(bit, Relaxed);
        }
        let word = &self.plane(plane)[index];
        // A steady overwrite finds its bits set and writes no shared cache line.
        if word.load(Relaxed) & mask != mask {
            word.fetch_or(mask, Relaxed);
        }
    }

    fn clear(&self, plane: Plane, index: usize, mask: u64) {
        let page = index / PAGE_WORDS;
        if self.touched(plane)[page / 64].load(Relaxed) & (1 << (page % 64)) == 0 {
            return;
        }
        let word = &self.plane(plane)[index];
        if word.load(Relaxed) & mask != 0 {
            word.fetch_and(!mask, Relaxed);
        }
    }

    fn each_touched_page(&self, plane: Plane, mut visit: impl FnMut(u64, &[AtomicU64])) {
        let words = self.plane(plane);
        for (index, touched) in self.touched(plane).iter().enumerate() {
            let mut bits = touched.load(Relaxed);
            while bits != 0 {
                let page = index * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                visit(
                    page as u64,
                    &words[page * PAGE_WORDS..(page + 1) * PAGE_WORDS],
                );
            }
        }
    }
}

/// Words of one plane's part of `touched`, and words of a plane.
fn layout(blocks: u64) -> io::Result<(usize, usize)> {
    let pages = usize::try_from(blocks.div_ceil(PAGE_BLOCKS))
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "volume too large"))?;
    Ok((pages.div_ceil(64), pages * PAGE_WORDS))
}

/// Words of all of `touched`, filled up to a page so that planes start on one.
fn touched_span(touched_words: usize) -> usize {
    (3 * touched_words).next_multiple_of(PAGE_WORDS)
}

fn total_words(touched_words: usize, plane_words: usize) -> usize {
    PAGE_WORDS + touched_span(touched_words) + 3 * plane_words
}

fn header(lineage: Id, epoch: Epoch, blocks: u64) -> [u64; 6] {
    let [high, low] = crate::state::id_words(lineage);
    [MAGIC, 1, high, low, epoch.0, blocks]
}

/// The words that hold a range's bits, each with the mask of those bits.
fn words_of(range: BlockRange) -> impl Iterator<Item = (usize, u64)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let first = at % 64;
        let count = (64 - first).min(range.end - at);
        let mask = (u64::MAX >> (64 - count)) << first;
        let index = usize::try_from(at / 64).ok()?;
        at += count;
        Some((index, mask))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cover_a_range_once() {
        let words: Vec<_> = words_of(BlockRange::new(62, 130)).collect();
        assert_eq!(words, vec![(0, 0b11 << 62), (1, u64::MAX), (2, 0b11)]);
        assert_eq!(words_of(BlockRange::new(5, 5)).count(), 0);
    }

    #[test]
    fn a_successor_maps_the_same_marks_and_refuses_another_map() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dense");
        let lineage = Id([7; 16]);
        let map = DenseMap::create(&path, lineage, Epoch(4), 100_000).unwrap();
        map.mark(BlockRange::new(32_760, 32_775));
        map.settle(BlockRange::new(32_761, 32_763), Kind::Zero);
        map.mark(BlockRange::new(32_762, 32_763));
        drop(map);
        let map = DenseMap::open(&path, lineage, Epoch(4), 100_000).unwrap();
        assert_eq!(map.changed_blocks(), 15);
        let runs: Vec<_> = map.to_set(0).runs(0).collect();
        assert_eq!(
            runs,
            vec![
                (BlockRange::new(32_760, 32_761), Kind::Data),
                (BlockRange::new(32_761, 32_762), Kind::Zero),
                (BlockRange::new(32_762, 32_775), Kind::Data),
            ]
        );
        let mut bits = [0; 32];
        (bits[31], bits[30]) = (0xff, 0);
        assert_eq!(map.bits(BlockRange::new(32_512, 32_768)), bits);
        assert_eq!(map.bits(BlockRange::new(32_768, 32_784))[..2], [0x7f, 0]);
        assert_eq!(map.bits(BlockRange::new(65_536, 65_792)), [0; 32]);
        assert!(DenseMap::open(&path, lineage, Epoch(5), 100_000).is_err());
        assert!(DenseMap::open(&path, lineage, Epoch(4), 200_000).is_err());
    }

    #[test]
    fn a_map_that_names_pages_it_does_not_have_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dense");
        let blocks = 3 * PAGE_BLOCKS;
        for page in [2, 3, 63] {
            let map = DenseMap::create(&path, Id([7; 16]), Epoch(1), blocks).unwrap();
            map.touched(Plane::Zeroed)[0].store(1 << page, Relaxed);
            let opened = DenseMap::open(&path, Id([7; 16]), Epoch(1), blocks);
            assert_eq!(opened.is_ok(), page < 3, "page {page}");
        }
    }

    #[test]
    fn a_set_holds_what_is_marked_also_across_its_parts() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = (1 << 32) + 3 * PAGE_BLOCKS;
        let map =
            DenseMap::create(&dir.path().join("dense"), Id([7; 16]), Epoch(1), blocks).unwrap();
        let page = |number: u64| number * PAGE_BLOCKS;
        let part = (1 << 32) / PAGE_BLOCKS;
        let marked = [
            BlockRange::new(page(5) + 3, page(8) + 1),
            BlockRange::new(RUN_BLOCKS - 9, RUN_BLOCKS + 9),
            BlockRange::new(page(part - 2), page(part) - 1),
            BlockRange::new(page(part), page(part) + 70),
            BlockRange::new(blocks - 1, blocks),
        ];
        for range in marked {
            map.mark(range);
        }
        let runs: Vec<_> = map.to_set(0).runs(0).map(|(run, _)| run).collect();
        assert_eq!(runs, marked);
        let later = map.to_set(page(part) + 9);
        let runs: Vec<_> = later.runs(page(part) + 9).map(|(run, _)| run).collect();
        assert_eq!(
            runs,
            [BlockRange::new(page(part) + 9, marked[3].end), marked[4]]
        );
    }
}
