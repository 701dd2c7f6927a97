//! One backup, from its source to its recovery point.

use std::{
    collections::HashSet,
    io,
    sync::{
        RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{
    draft::{From, draft},
    settle::settle,
    sink::Sink,
};
use crate::{
    repository::{
        error::{Error, Result},
        format::{
            node::Node,
            point::{Made, Point, Trust, Work},
        },
        id::{Blob, Digest},
        open::Repository,
        tree::{Nodes, Root, edit},
    },
    units::{ByteRange, Epoch, Geometry, Id},
};

/// Where an image's bytes come from: a snapshot, which does not change while it is read.
pub trait Source: Sync {
    /// Fills `into` with the bytes from `offset`, all of which lie within the image.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A part of an image to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Where; within the image.
    pub range: ByteRange,
    /// It is known to hold zeros, and is not read.
    pub zeros: bool,
}

/// What a point says of its image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// Its size and its unit of tracking.
    pub geometry: Geometry,
    /// When the snapshot was taken, in microseconds since the UNIX epoch.
    pub created_us: u64,
    /// Which volume; [`Id::NIL`] for an image file.
    pub volume: Id,
    /// The lineage of tracking; [`Id::NIL`]: none.
    pub lineage: Id,
    /// The checkpoint within the lineage.
    pub epoch: Epoch,
    /// Which snapshot; [`Id::NIL`]: none.
    pub snapshot: Id,
    /// What the list of changes is worth.
    pub trust: Trust,
    /// Which host.
    pub host: String,
    /// The volume's name.
    pub name: String,
    /// Words of the operator.
    pub tags: Vec<String>,
}

/// How far a job is; and the way to stop it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the image that were read.
    pub read_bytes: AtomicU64,
    /// Where in the image it is.
    pub offset: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Asks the job to stop; it ends with [`Error::Cancelled`] and leaves no point.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(in crate::repository) fn go_on(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

/// One backup.
#[derive(Debug)]
pub struct Backup<'a> {
    /// Where to.
    pub repository: &'a Repository,
    /// What the point says.
    pub about: About,
    /// The point whose image was the same but for the changes; it must not be larger.
    pub base: Option<Id>,
    /// [`Made::Full`]: what is outside of the changes is zeros, and the base only saves space.
    pub made: Made,
    /// How far it is.
    pub progress: &'a Progress,
}

impl Backup<'_> {
    /// Reads the changes, which ascend and do not overlap, stores what is new, and puts the point.
    pub fn run(
        self,
        source: &dyn Source,
        changes: &mut dyn Iterator<Item = Result<Change>>,
    ) -> Result<(Id, Point)> {
        let started = Instant::now();
        let base = self.base.map(|id| Ok((id, self.repository.point(id)?)));
        let base: Option<(Id, Point)> = base.transpose()?;
        let capacity = self.about.geometry.capacity();
        if base
            .as_ref()
            .is_some_and(|(_, base)| base.capacity > capacity)
        {
            return Err(Error::BadImage("it is smaller than its base"));
        }
        if base.is_none() && self.made == Made::Incremental {
            return Err(Error::BadImage("an incremental backup needs a base"));
        }
        let loaded = self.repository.load()?;
        let table = RwLock::new(loaded.table);
        let sink = Sink::new(self.repository, &table, HashSet::new())?;
        sink.adopt();
        let nodes = Nodes::new(self.repository, &table)?;
        let old = base
            .as_ref()
            .map_or(Root::zeros(capacity), |(_, base)| Root::of(base));
        let mut work = Work::default();
        let from = From {
            source,
            base: old,
            nodes: &nodes,
            table: &table,
        };
        let (edits, mut coder) = draft(&self, &from, &sink, changes, &mut work)?;
        let below = match self.made {
            Made::Incremental => old,
            Made::Full(_) => Root::zeros(capacity),
        };
        let mut put = |node: Node| sink.put(&mut coder, Blob::Node, &node.encode(), capacity);
        let height = Root::zeros(capacity).height;
        let root = edit(&nodes, below, height, &edits, &mut put)?;
        sink.finish()?;
        (work.new_bytes, work.stored_bytes) = sink.written();
        work.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let point = self.point(root, base.as_ref().map(|(id, _)| *id), work);
        settle(self.repository, &table, &sink, &point).map(|id| (id, point))
    }

    fn point(&self, root: Digest, base: Option<Id>, work: Work) -> Point {
        let about = &self.about;
        let mut tags = about.tags.clone();
        tags.sort();
        tags.dedup();
        Point {
            root,
            capacity: about.geometry.capacity(),
            block_bytes: u32::try_from(about.geometry.block_bytes()).unwrap_or(u32::MAX),
            created_us: about.created_us,
            volume: about.volume,
            lineage: about.lineage,
            epoch: about.epoch,
            snapshot: about.snapshot,
            base: base.unwrap_or(Id::NIL),
            made: self.made.clone(),
            trust: about.trust,
            work,
            host: about.host.clone(),
            name: about.name.clone(),
            tags,
        }
    }
}
