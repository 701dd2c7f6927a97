//! Which blocks of a leaf are read, and where they are then.

use std::collections::HashMap;

use crate::repository::{
    format::node::{Leaf, Run},
    id::Digest,
    limits::LEAF_BLOCKS,
};

/// Most chunks that a leaf may refer to. Above it, what little it has of many chunks is read again and
/// stored together: a leaf that changes one block a backup is tidied after 60 of them and reads 60
/// blocks then, so tidying about doubles what such backups store, and no more.
pub(super) const MAX_LEAF_CHUNKS: usize = 64;
/// A chunk of which a leaf has no more blocks than this is tidied away.
const FEW_BLOCKS: u32 = 16;

/// Where a block of a leaf is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slot {
    /// Nowhere: it is zeros.
    Zeros,
    /// In a chunk of the base's leaf.
    Old {
        /// Which of its chunks.
        chunk: u32,
        /// Which block of the chunk.
        block: u32,
    },
    /// It must be read.
    Wanted,
    /// In a new chunk.
    New {
        /// Which.
        job: u64,
        /// Which block of it.
        block: u32,
    },
}

/// A leaf in the making.
pub(super) struct Draft {
    /// Its number in the image.
    pub(super) number: u64,
    /// A slot a block.
    pub(super) slots: Vec<Slot>,
    base: Leaf,
}

impl Draft {
    /// As the base's leaf.
    pub(super) fn new(number: u64, base: Option<Leaf>) -> Self {
        let base = base.unwrap_or_default();
        let mut slots = vec![Slot::Zeros; LEAF_BLOCKS as usize];
        for run in &base.runs {
            for n in 0..run.blocks {
                slots[(run.at + n) as usize] = Slot::Old {
                    chunk: run.chunk,
                    block: run.start + n,
                };
            }
        }
        Self {
            number,
            slots,
            base,
        }
    }

    /// The id of an old slot's chunk.
    pub(super) fn old_chunk(&self, chunk: u32) -> Digest {
        self.base.chunks[chunk as usize]
    }

    /// The base's leaf.
    pub(super) const fn base(&self) -> &Leaf {
        &self.base
    }

    /// Blocks `from` to `to` without it are zeros, or must be read.
    pub(super) fn change(&mut self, from: u32, to: u32, zeros: bool) {
        let slot = if zeros { Slot::Zeros } else { Slot::Wanted };
        self.slots[from as usize..to as usize].fill(slot);
    }

    /// Wants what is in too many too small pieces.
    pub(super) fn tidy(&mut self) {
        let mut used = vec![0_u32; self.base.chunks.len()];
        for slot in &self.slots {
            if let Slot::Old { chunk, .. } = slot {
                used[*chunk as usize] += 1;
            }
        }
        if used.iter().filter(|blocks| **blocks > 0).count() < MAX_LEAF_CHUNKS {
            return;
        }
        for slot in &mut self.slots {
            if matches!(slot, Slot::Old { chunk, .. } if used[*chunk as usize] <= FEW_BLOCKS) {
                *slot = Slot::Wanted;
            }
        }
    }

    /// Stretches of wanted blocks from `from` to `to` without it.
    pub(super) fn wanted(&self, from: u32, to: u32) -> Vec<std::ops::Range<u32>> {
        let mut found: Vec<std::ops::Range<u32>> = Vec::new();
        for at in from..to {
            if self.slots[at as usize] != Slot::Wanted {
                continue;
            }
            match found.last_mut() {
                Some(last) if last.end == at => last.end += 1,
                _ => found.push(at..at + 1),
            }
        }
        found
    }

    /// The new chunks that it needs, some of them more than once.
    pub(super) fn jobs(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::New { job, .. } => Some(*job),
            Slot::Zeros | Slot::Old { .. } | Slot::Wanted => None,
        })
    }

    /// The leaf, once `id_of` knows each new chunk; `None`: all zeros.
    pub(super) fn finish(&self, id_of: impl Fn(u64) -> Option<Digest>) -> Option<Leaf> {
        let mut leaf = Leaf::default();
        let mut numbers: HashMap<Digest, u32> = HashMap::new();
        for (at, slot) in (0..).zip(&self.slots) {
            let (id, start) = match *slot {
                Slot::Zeros | Slot::Wanted => continue,
                Slot::Old { chunk, block } => (self.old_chunk(chunk), block),
                Slot::New { job, block } => (id_of(job)?, block),
            };
            let chunk = *numbers.entry(id).or_insert_with(|| {
                leaf.chunks.push(id);
                u32::try_from(leaf.chunks.len() - 1).unwrap_or(u32::MAX)
            });
            leaf.push(Run {
                at,
                blocks: 1,
                chunk,
                start,
            });
        }
        (!leaf.runs.is_empty()).then_some(leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest([n; 32])
    }

    #[test]
    fn unchanged_blocks_stay_where_they_are() {
        let mut draft = Draft::new(0, None);
        draft.change(10, 20, false);
        for block in 10..20_u32 {
            draft.slots[block as usize] = Slot::New {
                job: 0,
                block: block - 10,
            };
        }
        let base = draft.finish(|_| Some(digest(1))).unwrap();
        assert_eq!((base.runs.len(), base.runs[0].blocks), (1, 10));

        let mut next = Draft::new(0, Some(base));
        next.change(12, 13, false);
        next.change(15, 17, true);
        assert_eq!(next.wanted(0, 1024), vec![12..13]);
        next.slots[12] = Slot::New { job: 7, block: 3 };
        assert_eq!(next.jobs().collect::<Vec<_>>(), [7]);
        let leaf = next.finish(|_| Some(digest(2))).unwrap();
        assert_eq!(leaf.chunks, [digest(1), digest(2)]);
        let runs: Vec<_> = leaf
            .runs
            .iter()
            .map(|run| (run.at, run.blocks, run.start))
            .collect();
        assert_eq!(runs, [(10, 2, 0), (12, 1, 3), (13, 2, 3), (17, 3, 7)]);
        next.change(0, 1024, true);
        assert_eq!(next.finish(|_| None), None);
    }

    #[test]
    fn many_small_pieces_are_read_again() {
        let chunks: u32 = 64;
        let mut leaf = Leaf::default();
        for chunk in 0..chunks {
            leaf.chunks.push(digest(u8::try_from(chunk + 1).unwrap()));
            let blocks = if chunk == 0 { 100 } else { 1 };
            leaf.push(Run {
                at: 200 * u32::from(chunk > 0) + chunk,
                blocks,
                chunk,
                start: 0,
            });
        }
        let mut draft = Draft::new(0, Some(leaf));
        draft.tidy();
        assert_eq!(draft.wanted(0, 1024), vec![201..264]);
    }
}
