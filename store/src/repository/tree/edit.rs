//! The next tree from a tree and the leaves that differ. Costs the changed leaves and their paths.

use super::nodes::{Nodes, Root, leaves_at};
use crate::repository::{
    error::Result,
    format::node::{Branch, Node},
    id::Digest,
    limits::FAN_OUT,
};

/// Stores a node and gives its id.
pub type Put<'a> = dyn FnMut(Node) -> Result<Digest> + 'a;

/// The root, at `height`, of the tree that has `edits` (numbers of leaves, ascending, and their ids) and
/// else what `base` has. `base` must not be higher.
pub fn edit(
    nodes: &Nodes<'_>,
    base: Root,
    height: u8,
    edits: &[(u64, Digest)],
    put: &mut Put<'_>,
) -> Result<Digest> {
    below(nodes, base, height, 0, edits, put)
}

fn below(
    nodes: &Nodes<'_>,
    old: Root,
    height: u8,
    first: u64,
    edits: &[(u64, Digest)],
    put: &mut Put<'_>,
) -> Result<Digest> {
    let same = old.height == height || old.id == Digest::ZEROS;
    if edits.is_empty() && same {
        return Ok(old.id);
    }
    if height == 0 {
        return Ok(edits.first().map_or(old.id, |(_, id)| *id));
    }
    let mut branch = Branch::new(height);
    let mut olds = [Root {
        id: Digest::ZEROS,
        height: height - 1,
    }; FAN_OUT];
    if old.height < height {
        // A smaller image's tree is the first child of a bigger one's.
        olds[0] = old;
    } else if old.id != Digest::ZEROS
        && let Node::Branch(branch) = &*nodes.get(old.id, height)?
    {
        for (child, id) in olds.iter_mut().zip(branch.children) {
            child.id = id;
        }
    }
    let mut rest = edits;
    let mut first = first;
    for (child, old) in branch.children.iter_mut().zip(olds) {
        let end = first + leaves_at(height - 1);
        let (mine, others) = rest.split_at(rest.partition_point(|(leaf, _)| *leaf < end));
        *child = below(nodes, old, height - 1, first, mine, put)?;
        (rest, first) = (others, end);
    }
    if branch.is_zeros() {
        return Ok(Digest::ZEROS);
    }
    put(Node::Branch(Box::new(branch)))
}
