//! Recovery points into another repository, which may have other keys or none.
//!
//! Trees are copied from below: a node's id follows from its children's, and theirs from the
//! target's key. What the target has already is read where its id must be computed anew, and not
//! stored again.

use std::{
    collections::{HashMap, HashSet},
    sync::RwLock,
};

use crate::{
    repository::{
        error::{Error, Result},
        format::{
            node::{Branch, Leaf, Node},
            point::{Made, Point},
        },
        id::{Blob, Digest},
        index::{Fetcher, Table},
        open::Repository,
        tree::{Nodes, Root},
        writer::{
            Progress,
            settle::settle,
            sink::{Coder, Sink},
        },
    },
    units::Id,
};

/// One copy.
struct Copy<'a, 'n> {
    nodes: &'a Nodes<'n>,
    fetcher: Fetcher<'a>,
    sink: &'a Sink<'a>,
    coder: Coder,
    plain: Vec<u8>,
    /// What the target calls what was copied.
    copied: HashMap<Digest, Digest>,
    progress: &'a Progress,
}

impl Repository {
    /// Copies recovery points of this repository to `to`; gives their ids there. A point that `to`
    /// has already (the same image at the same time of the same volume) is not put twice.
    pub fn copy(&self, ids: &[Id], to: &Self, progress: &Progress) -> Result<Vec<Id>> {
        let points: Vec<Point> = ids
            .iter()
            .map(|id| self.point(*id))
            .collect::<Result<_>>()?;
        let table = self.table()?;
        let there: RwLock<Table> = to.table()?;
        let sink = Sink::new(to, &there, HashSet::new())?;
        sink.adopt();
        let nodes = Nodes::new(self, &table)?;
        let mut copy = Copy {
            nodes: &nodes,
            fetcher: Fetcher::new(self, &table)?,
            sink: &sink,
            coder: Coder::new()?,
            plain: Vec::new(),
            copied: HashMap::new(),
            progress,
        };
        let known = to.points()?.points;
        let mut put = Vec::with_capacity(points.len());
        for mut point in points {
            let before = sink.written();
            point.root = copy.tree(Root::of(&point))?;
            let same = known.iter().find(|(_, known)| is_same(known, &point));
            if let Some((id, _)) = same {
                put.push(*id);
                continue;
            }
            sink.finish()?;
            point.base = Id::NIL;
            if point.made == Made::Incremental {
                point.made = Made::Full("copied from another repository".into());
            }
            let after = sink.written();
            point.work.new_bytes = after.0 - before.0;
            point.work.stored_bytes = after.1 - before.1;
            put.push(settle(to, &there, &sink, &point)?);
        }
        Ok(put)
    }
}

impl Copy<'_, '_> {
    fn tree(&mut self, root: Root) -> Result<Digest> {
        if root.id == Digest::ZEROS {
            return Ok(root.id);
        }
        if let Some(copied) = self.copied.get(&root.id) {
            return Ok(*copied);
        }
        self.progress.go_on()?;
        let node = match &*self.nodes.get(root.id, root.height)? {
            Node::Leaf(leaf) => {
                let chunks = leaf.chunks.iter().map(|chunk| self.chunk(*chunk));
                let chunks = chunks.collect::<Result<_>>()?;
                let runs = leaf.runs.clone();
                Node::Leaf(Leaf { chunks, runs })
            }
            Node::Branch(branch) => {
                let mut children = [Digest::ZEROS; 16];
                for (new, old) in children.iter_mut().zip(branch.children) {
                    *new = self.tree(Root {
                        id: old,
                        height: root.height - 1,
                    })?;
                }
                Node::Branch(Box::new(Branch {
                    height: branch.height,
                    children,
                }))
            }
        };
        let id = self.put(Blob::Node, &node.encode())?;
        self.copied.insert(root.id, id);
        Ok(id)
    }

    fn chunk(&mut self, old: Digest) -> Result<Digest> {
        if let Some(copied) = self.copied.get(&old) {
            return Ok(*copied);
        }
        let mut plain = std::mem::take(&mut self.plain);
        let fetched = self.fetcher.fetch(Blob::Chunk, old, &mut plain);
        let id = fetched.and_then(|()| self.put(Blob::Chunk, &plain));
        self.plain = plain;
        let id = id?;
        self.copied.insert(old, id);
        Ok(id)
    }

    fn put(&mut self, kind: Blob, plain: &[u8]) -> Result<Digest, Error> {
        self.sink.put(&mut self.coder, kind, plain, 0)
    }
}

fn is_same(a: &Point, b: &Point) -> bool {
    let of = |point: &Point| (point.root, point.capacity, point.created_us, point.volume);
    of(a) == of(b) && (&a.host, &a.name) == (&b.host, &b.name)
}
