//! What a repository holds, and where images change.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use super::marks::Marks;
use crate::{
    repository::{
        error::Result,
        format::{
            node::Node,
            point::{Point, Work},
        },
        id::Digest,
        index::{Loaded, Table},
        open::Repository,
        tree::{Nodes, Root, nodes::leaves_at},
        writer::Progress,
    },
    units::Id,
};

/// What a repository holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Each point with when its snapshot was taken and what it took; the oldest first.
    pub growth: Vec<(Id, u64, Work)>,
    /// Sizes of all images together, in bytes.
    pub image_bytes: u64,
    /// Packs,
    pub packs: usize,
    /// and their bytes.
    pub stored_bytes: u64,
    /// Blobs that points need,
    pub needed_blobs: usize,
    /// their stored bytes,
    pub needed_bytes: u64,
    /// and their plain bytes.
    pub plain_bytes: u64,
    /// Packs that are condemned.
    pub condemned_packs: usize,
}

impl Repository {
    /// What the repository holds. Fails where something is damaged.
    pub fn stats(&self, progress: &Progress) -> Result<Stats> {
        let points = self.points()?;
        let growth = points.points.iter();
        let growth = growth.map(|(id, point)| (*id, point.created_us, point.work));
        let mut stats = Stats {
            growth: growth.collect(),
            image_bytes: points.points.iter().map(|(_, point)| point.capacity).sum(),
            ..Stats::default()
        };
        let Loaded { table, .. } = self.load()?;
        let table = RwLock::new(table);
        let marks = Marks::of_all_points(self, points, &table, progress)?;
        let table = table.into_inner().unwrap_or_else(PoisonError::into_inner);
        stats.packs = table.packs().len();
        stats.stored_bytes = table.packs().iter().map(|pack| pack.bytes).sum();
        stats.condemned_packs = table.packs().iter().filter(|pack| pack.condemned).count();
        let mut counted: HashSet<Digest> = HashSet::new();
        for (number, place) in table.places().iter().enumerate() {
            if marks.has(number) && counted.insert(place.entry.id) {
                stats.needed_blobs += 1;
                stats.needed_bytes += u64::from(place.entry.stored_bytes);
                stats.plain_bytes += u64::from(place.entry.plain_bytes);
            }
        }
        Ok(stats)
    }

    /// The leaves (4 MiB each, by number) in which two images may differ, ascending. Costs the nodes
    /// that differ.
    pub fn differing_leaves(
        &self,
        table: &RwLock<Table>,
        one: &Point,
        other: &Point,
    ) -> Result<Vec<u64>> {
        let nodes = Nodes::new(self, table)?;
        let mut found = Vec::new();
        let (one, other) = (Root::of(one), Root::of(other));
        differ(&nodes, one, other, 0, &mut found)?;
        Ok(found)
    }
}

fn differ(
    nodes: &Nodes<'_>,
    one: Root,
    other: Root,
    first: u64,
    found: &mut Vec<u64>,
) -> Result<()> {
    let zeros = |root: Root| root.id == Digest::ZEROS;
    if (one.id == other.id && one.height == other.height) || (zeros(one) && zeros(other)) {
        return Ok(());
    }
    let height = one.height.max(other.height);
    if height == 0 {
        found.push(first);
        return Ok(());
    }
    let below = height - 1;
    let (ones, others) = (
        children(nodes, one, height)?,
        children(nodes, other, height)?,
    );
    for ((one, other), place) in ones.into_iter().zip(others).zip(0_u64..) {
        differ(nodes, one, other, first + place * leaves_at(below), found)?;
    }
    Ok(())
}

/// What a node of this height would have below it; a lower tree is the first child of a higher one.
fn children(nodes: &Nodes<'_>, root: Root, height: u8) -> Result<[Root; 16]> {
    let mut below = [Root {
        id: Digest::ZEROS,
        height: height - 1,
    }; 16];
    if root.height < height {
        below[0] = root;
    } else if root.id != Digest::ZEROS
        && let Node::Branch(branch) = &*nodes.get(root.id, height)?
    {
        for (child, id) in below.iter_mut().zip(branch.children) {
            child.id = id;
        }
    }
    Ok(below)
}
