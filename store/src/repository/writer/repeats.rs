//! Blocks that the image has more than once, as copies of files leave them, where chunks do not match.
//!
//! A stretch of a cell that is the same as a stretch of an earlier chunk of this backup refers to that
//! chunk. Checksums find it, and the source, which does not change, is read again to be sure. A reader of
//! the stretch decodes the other chunk whole, so it must be long, and a leaf may have few of them.

use std::collections::VecDeque;

/// Blocks that are remembered: the last 4 GiB of data, in at most 16 MiB.
const MAX_BLOCKS: usize = 1 << 20;
/// The shortest stretch, in blocks: 64 KiB.
const LEAST_BLOCKS: usize = 16;
/// Most stretches of a leaf. A restore decodes at most so many further chunks for its 4 MiB.
pub(super) const MAX_STRETCHES: usize = 8;

/// Neighbouring blocks of the image that are neighbours in a chunk.
struct Known {
    job: u64,
    /// The first one's number in the chunk, and in the image.
    start: u32,
    image_block: u64,
    checksums: Vec<u32>,
}

/// Where a checksum was seen.
#[derive(Clone, Copy, Default)]
struct Seen {
    checksum: u32,
    /// Which block of what is known, and above these 8 bits the low bits of that one's number.
    at: u32,
}

/// Blocks of a cell that may be the same as earlier ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    /// The first among the cell's blocks, and how many.
    pub(super) first: usize,
    pub(super) blocks: usize,
    /// The earlier chunk, and which of its blocks is the first.
    pub(super) job: u64,
    pub(super) start: u32,
    /// Number of that block in the image.
    pub(super) image_block: u64,
}

/// What a backup has seen of late.
pub(super) struct Repeats {
    /// Found by checksums; what is newer takes a place. One that is left of a stretch is enough.
    seen: Vec<Seen>,
    known: VecDeque<Known>,
    /// How many are no longer known.
    gone: u32,
    blocks: usize,
}

impl Repeats {
    /// For an image of so many blocks.
    pub(super) fn new(image_blocks: u64) -> Self {
        let blocks = usize::try_from(image_blocks).unwrap_or(MAX_BLOCKS);
        Self {
            seen: vec![Seen::default(); blocks.clamp(1, MAX_BLOCKS).next_power_of_two()],
            known: VecDeque::new(),
            gone: 0,
            blocks: 0,
        }
    }

    /// The earliest chunk that a stretch may be found in.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.known.front().map(|known| known.job)
    }

    /// Stretches of a cell that look like earlier ones. `blocks` are its blocks' places in the leaf,
    /// ascending, with their checksums.
    pub(super) fn find(&self, blocks: &[(u32, u32)]) -> Vec<Stretch> {
        let mut found: Vec<Stretch> = Vec::new();
        let (mut free, mut n) = (0, 0);
        while n < blocks.len() {
            let around = self.around(blocks, free, n);
            match around.filter(|stretch| stretch.blocks >= LEAST_BLOCKS) {
                None => n += 1,
                Some(stretch) => {
                    n = stretch.first + stretch.blocks;
                    free = n;
                    found.push(stretch);
                }
            }
        }
        found
    }

    /// The longest stretch around block `n` that begins at `free` or later.
    fn around(&self, blocks: &[(u32, u32)], free: usize, n: usize) -> Option<Stretch> {
        let (_, checksum) = blocks[n];
        let seen = self.seen[self.slot(checksum)];
        let number = (seen.at >> 8).wrapping_sub(self.gone) & (u32::MAX >> 8);
        let known = self.known.get(number as usize)?;
        let at = (seen.at & 0xff) as usize;
        let same = |n: usize, at: usize| known.checksums.get(at) == Some(&blocks[n].1);
        let neighbours = |n: usize| blocks[n].0 + 1 == blocks[n + 1].0;
        if seen.checksum != checksum || !same(n, at) {
            return None;
        }
        let (mut first, mut begin) = (n, at);
        while first > free && begin > 0 && neighbours(first - 1) && same(first - 1, begin - 1) {
            (first, begin) = (first - 1, begin - 1);
        }
        let (mut last, mut end) = (n, at);
        while last + 1 < blocks.len() && neighbours(last) && same(last + 1, end + 1) {
            (last, end) = (last + 1, end + 1);
        }
        Some(Stretch {
            first,
            blocks: last + 1 - first,
            job: known.job,
            start: known.start + u32::try_from(begin).unwrap_or(0),
            image_block: known.image_block + begin as u64,
        })
    }

    /// Remembers blocks of a leaf that a chunk has from its block `start` on. `leaf_block` is the number of
    /// the leaf's first block in the image.
    pub(super) fn remember(
        &mut self,
        blocks: &[(u32, u32)],
        job: u64,
        start: usize,
        leaf_block: u64,
    ) {
        let mut before = start;
        for stretch in blocks.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
            if stretch.len() >= LEAST_BLOCKS {
                self.know(Known {
                    job,
                    start: u32::try_from(before).unwrap_or(0),
                    image_block: leaf_block + u64::from(stretch[0].0),
                    checksums: stretch.iter().map(|(_, checksum)| *checksum).collect(),
                });
            }
            before += stretch.len();
        }
    }

    fn know(&mut self, known: Known) {
        let number = u32::try_from(self.known.len()).unwrap_or(0);
        let number = self.gone.wrapping_add(number) << 8;
        for (at, checksum) in (0_u32..).zip(&known.checksums) {
            let slot = self.slot(*checksum);
            self.seen[slot] = Seen {
                checksum: *checksum,
                at: number | at & 0xff,
            };
        }
        self.blocks += known.checksums.len();
        self.known.push_back(known);
        while self.blocks > MAX_BLOCKS
            && let Some(oldest) = self.known.pop_front()
        {
            self.blocks -= oldest.checksums.len();
            self.gone = self.gone.wrapping_add(1);
        }
    }

    fn slot(&self, checksum: u32) -> usize {
        checksum as usize & (self.seen.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(places: std::ops::Range<u32>, first: u32) -> Vec<(u32, u32)> {
        places.zip(first..).collect()
    }

    #[test]
    fn stretches_are_found_wherever_they_begin() {
        let mut repeats = Repeats::new(4096);
        repeats.remember(&cell(10..60, 1000), 3, 5, 1024);
        let looked = [cell(0..7, 1), cell(7..40, 1010), cell(40..50, 500)].concat();
        let found = Stretch {
            first: 7,
            blocks: 33,
            job: 3,
            start: 15,
            image_block: 1044,
        };
        assert_eq!(repeats.find(&looked), [found]);
        // A gap in the cell ends one, and what is short is none.
        let broken = [cell(0..15, 1000), cell(16..32, 1015)].concat();
        let found = repeats.find(&broken);
        assert_eq!((found.len(), found[0].first, found[0].start), (1, 15, 20));
        assert_eq!(repeats.find(&cell(0..15, 1000)), []);
    }

    #[test]
    fn what_is_too_long_ago_is_forgotten() {
        let mut repeats = Repeats::new(u64::MAX);
        let chunks = u32::try_from(MAX_BLOCKS / 256).unwrap() + 1;
        for chunk in 0..chunks {
            let job = u64::from(chunk);
            repeats.remember(&cell(0..256, chunk * 256), job, 0, job * 1024);
        }
        assert_eq!(repeats.oldest(), Some(1));
        assert_eq!(repeats.find(&cell(0..256, 0)), []);
        let found = repeats.find(&cell(0..256, 5 * 256));
        assert_eq!((found.len(), found[0].job, found[0].blocks), (1, 5, 256));
    }
}
