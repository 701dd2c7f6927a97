//! Reading nodes. Each is checked against its id and against the height at which it stands, so that no
//! tree is deeper than its root says and none leads back into itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use crate::repository::{
    error::{Damage, Error, Result},
    format::{
        node::{Leaf, Node, blocks_at, image_blocks, root_height},
        point::Point,
    },
    id::{Blob, Digest},
    index::{Fetcher, Table},
    limits::FAN_OUT,
    open::Repository,
};

/// Bytes of the nodes that are kept in memory: about 16,384 leaves of a full image, and as few as 400 of
/// one in the smallest pieces.
const KEPT_BYTES: usize = 16 << 20;

/// What a kept node takes besides.
const ASIDE_BYTES: usize = 160;

/// Where a tree begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    /// The root's id.
    pub id: Digest,
    /// Its height.
    pub height: u8,
}

impl Root {
    /// The root of an image of zeros of so many bytes.
    pub const fn zeros(capacity: u64) -> Self {
        Self {
            id: Digest::ZEROS,
            height: root_height(image_blocks(capacity)),
        }
    }

    /// The root of a point's tree.
    pub const fn of(point: &Point) -> Self {
        Self {
            id: point.root,
            height: root_height(image_blocks(point.capacity)),
        }
    }
}

/// Reads nodes and keeps some.
pub struct Nodes<'a> {
    reader: Mutex<Reader<'a>>,
}

struct Reader<'a> {
    fetcher: Fetcher<'a>,
    plain: Vec<u8>,
    kept: HashMap<Digest, Arc<Node>>,
    kept_bytes: usize,
}

impl Reader<'_> {
    fn keep(&mut self, id: Digest, node: Arc<Node>) {
        self.kept_bytes += match &*node {
            Node::Leaf(leaf) => size_of_val(&leaf.chunks[..]) + size_of_val(&leaf.runs[..]),
            Node::Branch(branch) => size_of_val(&**branch),
        };
        self.kept_bytes += ASIDE_BYTES;
        self.kept.insert(id, node);
    }
}

impl<'a> Nodes<'a> {
    /// The nodes of a repository.
    pub fn new(repository: &'a Repository, table: &'a RwLock<Table>) -> Result<Self> {
        Ok(Self {
            reader: Mutex::new(Reader {
                fetcher: Fetcher::new(repository, table)?,
                plain: Vec::new(),
                kept: HashMap::new(),
                kept_bytes: 0,
            }),
        })
    }

    /// A node that must stand at this height.
    pub fn get(&self, id: Digest, height: u8) -> Result<Arc<Node>> {
        let mut reader = self.reader();
        if let Some(node) = reader.kept.get(&id) {
            return at_height(node.clone(), id, height);
        }
        let reader = &mut *reader;
        reader.fetcher.fetch(Blob::Node, id, &mut reader.plain)?;
        let node = Node::decode(&reader.plain).ok_or_else(|| malformed(id))?;
        let node = at_height(Arc::new(node), id, height)?;
        if reader.kept_bytes >= KEPT_BYTES {
            reader.kept = HashMap::new();
            reader.kept_bytes = 0;
        }
        reader.keep(id, node.clone());
        Ok(node)
    }

    /// Keeps a node that was just made, which need not be stored yet.
    pub fn keep(&self, id: Digest, node: Node) {
        let mut reader = self.reader();
        if reader.kept_bytes < KEPT_BYTES {
            reader.keep(id, Arc::new(node));
        }
    }

    /// The leaf that says where the blocks of leaf number `number` are; `None`: they are zeros.
    pub fn leaf(&self, root: Root, number: u64) -> Result<Option<Leaf>> {
        let mut at = root;
        if number >= leaves_at(root.height) {
            return Ok(None);
        }
        loop {
            if at.id == Digest::ZEROS {
                return Ok(None);
            }
            match &*self.get(at.id, at.height)? {
                Node::Leaf(leaf) => return Ok(Some(leaf.clone())),
                Node::Branch(branch) => {
                    let below = at.height - 1;
                    let place = number / leaves_at(below) % FAN_OUT as u64;
                    at = Root {
                        id: branch.children[usize::try_from(place).unwrap_or(0)],
                        height: below,
                    };
                }
            }
        }
    }

    /// Calls `visit` with each leaf that has data and lies in `leaves`, ascending, with its number.
    pub fn leaves(
        &self,
        root: Root,
        leaves: std::ops::Range<u64>,
        visit: &mut dyn FnMut(u64, &Leaf) -> Result<()>,
    ) -> Result<()> {
        self.leaves_below(root, 0, &leaves, visit)
    }

    fn leaves_below(
        &self,
        at: Root,
        first: u64,
        leaves: &std::ops::Range<u64>,
        visit: &mut dyn FnMut(u64, &Leaf) -> Result<()>,
    ) -> Result<()> {
        let behind = first.saturating_add(leaves_at(at.height)) <= leaves.start;
        if at.id == Digest::ZEROS || behind || first >= leaves.end {
            return Ok(());
        }
        match &*self.get(at.id, at.height)? {
            Node::Leaf(leaf) => visit(first, leaf),
            Node::Branch(branch) => {
                let height = at.height - 1;
                for (id, place) in branch.children.into_iter().zip(0_u64..) {
                    let first = first + place * leaves_at(height);
                    self.leaves_below(Root { id, height }, first, leaves, visit)?;
                }
                Ok(())
            }
        }
    }

    /// Calls `visit` with each blob of a tree. Goes below a node only if `visit` says so for it.
    pub fn blobs(
        &self,
        root: Root,
        visit: &mut dyn FnMut(Blob, Digest) -> Result<bool>,
    ) -> Result<()> {
        if root.id == Digest::ZEROS || !visit(Blob::Node, root.id)? {
            return Ok(());
        }
        match &*self.get(root.id, root.height)? {
            Node::Leaf(leaf) => leaf
                .chunks
                .iter()
                .try_for_each(|chunk| visit(Blob::Chunk, *chunk).map(|_| ())),
            Node::Branch(branch) => branch.children.iter().try_for_each(|id| {
                let below = Root {
                    id: *id,
                    height: root.height - 1,
                };
                self.blobs(below, visit)
            }),
        }
    }

    fn reader(&self) -> MutexGuard<'_, Reader<'a>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves below a node of this height.
pub const fn leaves_at(height: u8) -> u64 {
    blocks_at(height) / blocks_at(0)
}

fn at_height(node: Arc<Node>, id: Digest, height: u8) -> Result<Arc<Node>> {
    let stands = match &*node {
        Node::Leaf(_) => 0,
        Node::Branch(branch) => branch.height,
    };
    (stands == height)
        .then_some(node)
        .ok_or_else(|| malformed(id))
}

fn malformed(id: Digest) -> Error {
    Error::damaged(format!("node {id}"), Damage::Malformed)
}
