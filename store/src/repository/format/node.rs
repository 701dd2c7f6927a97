//! Nodes of the tree that says where an image's bytes are.

use std::collections::HashSet;

use crate::repository::{
    bytes::{Fields, put_varint},
    id::Digest,
    limits::{BLOCK_BYTES, FAN_OUT, LEAF_BLOCKS, MAX_CHUNK_BLOCKS, MAX_HEIGHT, MAX_NODE_BYTES},
};

/// Consecutive blocks of a leaf that are consecutive in a chunk too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// First block, counted from the leaf's.
    pub at: u32,
    /// How many.
    pub blocks: u32,
    /// Which of the leaf's chunks.
    pub chunk: u32,
    /// The run's first block within the chunk.
    pub start: u32,
}

impl Run {
    /// The first block after the run.
    pub const fn end(&self) -> u32 {
        self.at + self.blocks
    }

    /// Whether `next` goes on where this run ends, in the image and in the chunk.
    pub const fn joins(&self, next: &Self) -> bool {
        self.end() == next.at && self.chunk == next.chunk && self.start + self.blocks == next.start
    }
}

/// Where 4 MiB of an image are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Leaf {
    /// Chunks in the order of their first use.
    pub chunks: Vec<Digest>,
    /// What has data, ascending; all else is zeros.
    pub runs: Vec<Run>,
}

/// What is below a part of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Branch {
    /// 1 above leaves.
    pub height: u8,
    /// Each child's id; [`Digest::ZEROS`] where there is no data.
    pub children: [Digest; FAN_OUT],
}

/// A leaf or a branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// Height 0.
    Leaf(Leaf),
    /// Above.
    Branch(Box<Branch>),
}

impl Node {
    /// The stored form. A node without data has none: it is the id of zeros in its parent.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Leaf(leaf) => leaf.encode(),
            Self::Branch(branch) => branch.encode(),
        }
    }

    /// Reads the stored form; `None` unless it is the one form of a node.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_NODE_BYTES {
            return None;
        }
        let mut fields = Fields(bytes);
        match fields.u8()? {
            1 => Leaf::decode(fields).map(Self::Leaf),
            2 => Branch::decode(fields).map(|branch| Self::Branch(Box::new(branch))),
            _ => None,
        }
    }
}

impl Leaf {
    /// Adds a run behind all others, joined to the last one where it goes on.
    pub fn push(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.joins(&run) => last.blocks += run.blocks,
            _ => self.runs.push(run),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        for count in [self.runs.len(), self.chunks.len()] {
            bytes.extend(u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
        }
        for chunk in &self.chunks {
            bytes.extend(chunk.0);
        }
        let mut end = 0;
        for run in &self.runs {
            for number in [run.at - end, run.blocks, run.chunk, run.start] {
                put_varint(&mut bytes, number);
            }
            end = run.end();
        }
        bytes
    }

    fn decode(mut fields: Fields<'_>) -> Option<Self> {
        let (runs, chunks) = (fields.u16()?, fields.u16()?);
        if runs == 0 || u32::from(runs) > LEAF_BLOCKS || chunks > runs {
            return None;
        }
        let ids = fields.take(usize::from(chunks) * 32)?;
        let mut leaf = Self {
            chunks: ids
                .chunks_exact(32)
                .map(|id| Some(Digest(id.try_into().ok()?)))
                .collect::<Option<_>>()?,
            runs: Vec::with_capacity(runs.into()),
        };
        let distinct: HashSet<_> = leaf.chunks.iter().collect();
        if distinct.len() != leaf.chunks.len() || distinct.contains(&Digest::ZEROS) {
            return None;
        }
        let (mut end, mut used) = (0_u32, 0);
        for _ in 0..runs {
            let run = Run {
                at: end.checked_add(fields.varint()?)?,
                blocks: fields.varint()?,
                chunk: fields.varint()?,
                start: fields.varint()?,
            };
            let in_leaf = run.at.checked_add(run.blocks)? <= LEAF_BLOCKS;
            let in_chunk = run.start.checked_add(run.blocks)? <= MAX_CHUNK_BLOCKS;
            let joined = leaf.runs.last().is_some_and(|last| last.joins(&run));
            if run.blocks == 0 || !in_leaf || !in_chunk || joined || run.chunk > used {
                return None;
            }
            used = used.max(run.chunk + 1);
            end = run.end();
            leaf.runs.push(run);
        }
        fields.end()?;
        (used == u32::from(chunks)).then_some(leaf)
    }
}

impl Branch {
    /// A branch of this height without data.
    pub const fn new(height: u8) -> Self {
        Self {
            height,
            children: [Digest::ZEROS; FAN_OUT],
        }
    }

    /// Whether nothing below has data.
    pub fn is_zeros(&self) -> bool {
        self.children.iter().all(|child| *child == Digest::ZEROS)
    }

    fn encode(&self) -> Vec<u8> {
        let mut present = 0_u16;
        let mut ids = Vec::new();
        for (place, child) in self.children.iter().enumerate() {
            if *child != Digest::ZEROS {
                present |= 1 << place;
                ids.extend(child.0);
            }
        }
        let mut bytes = vec![2, self.height];
        bytes.extend(present.to_le_bytes());
        bytes.extend(ids);
        bytes
    }

    fn decode(mut fields: Fields<'_>) -> Option<Self> {
        let (height, present) = (fields.u8()?, fields.u16()?);
        if height == 0 || height > MAX_HEIGHT || present == 0 {
            return None;
        }
        let mut branch = Self::new(height);
        for (place, child) in branch.children.iter_mut().enumerate() {
            if present & (1 << place) != 0 {
                *child = fields.digest().filter(|id| *id != Digest::ZEROS)?;
            }
        }
        fields.end().map(|()| branch)
    }
}

/// The height of the lowest root that covers `blocks` blocks.
pub const fn root_height(blocks: u64) -> u8 {
    let mut height = 0;
    while height < MAX_HEIGHT && blocks_at(height) < blocks {
        height += 1;
    }
    height
}

/// Blocks that a node of this height covers.
pub const fn blocks_at(height: u8) -> u64 {
    // 2^10 blocks a leaf, 2^4 times as many a level, 2^50 at the highest.
    (LEAF_BLOCKS as u64) << (4 * height as u64)
}

/// Blocks of an image of so many bytes; the last one is filled up with zeros.
pub const fn image_blocks(capacity: u64) -> u64 {
    capacity.div_ceil(BLOCK_BYTES as u64)
}

const _: () = assert!(FAN_OUT == 16 && LEAF_BLOCKS == 1024);
const _: () =
    assert!(blocks_at(MAX_HEIGHT) * BLOCK_BYTES as u64 >= crate::units::MAX_CAPACITY_BYTES);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf() -> impl Strategy<Value = Leaf> {
        let piece = (0_u32..40, 1_u32..30, 0_u32..9, 0_u32..200);
        prop::collection::vec(piece, 1..40).prop_map(|pieces| {
            let mut leaf = Leaf::default();
            let mut end = 0;
            for (gap, blocks, chunk, start) in pieces {
                let at = end + gap;
                let blocks = blocks.min(LEAF_BLOCKS.saturating_sub(at));
                if blocks == 0 {
                    break;
                }
                let known = u32::try_from(leaf.chunks.len()).unwrap();
                if chunk >= known {
                    leaf.chunks
                        .push(Digest([u8::try_from(known + 1).unwrap(); 32]));
                }
                let chunk = chunk.min(known);
                leaf.push(Run {
                    at,
                    blocks,
                    chunk,
                    start,
                });
                end = at + blocks;
            }
            // What joining made longer than a chunk is none of a writer's.
            leaf.runs
                .retain(|run| run.start + run.blocks <= MAX_CHUNK_BLOCKS);
            leaf
        })
    }

    proptest! {
        #[test]
        fn a_leaf_reads_back_and_no_byte_of_it_is_idle(leaf in leaf(), at: prop::sample::Index, bit in 0_u8..8) {
            let bytes = Node::Leaf(leaf.clone()).encode();
            if let Some(read) = Node::decode(&bytes) {
                prop_assert_eq!(read, Node::Leaf(leaf));
            }
            let mut bent = bytes.clone();
            bent[at.index(bytes.len())] ^= 1_u8 << bit;
            // What decodes is the one form of what it says.
            if let Some(read) = Node::decode(&bent) {
                prop_assert_eq!(read.encode(), bent);
            }
        }

        #[test]
        fn a_branch_reads_back(height in 1..=MAX_HEIGHT, children in prop::array::uniform16(0_u8..4)) {
            let branch = Branch { height, children: children.map(|child| Digest([child; 32])) };
            let read = Node::decode(&Node::Branch(Box::new(branch.clone())).encode());
            prop_assert_eq!(read, (!branch.is_zeros()).then_some(Node::Branch(Box::new(branch))));
        }

        #[test]
        fn any_bytes_are_refused_or_in_their_one_form(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }
    }

    #[test]
    fn roots_are_as_low_as_they_can_be() {
        assert_eq!(root_height(1), 0);
        assert_eq!(root_height(1024), 0);
        assert_eq!(root_height(1025), 1);
        assert_eq!(root_height(1 << 14), 1);
        assert_eq!(root_height(image_blocks(1 << 60)), MAX_HEIGHT);
    }
}
