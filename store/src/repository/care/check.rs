//! Finding damage, and which recovery points it affects.
//!
//! The structure: configuration, keys, points, condemnations, indexes, the header and footer of each pack,
//! every node of every tree, and a place for every chunk. The data, all or a sample of the packs: each
//! pack against its name, each blob against its id.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use crate::{
    repository::{
        error::{Damage, Error, Result},
        format::{
            config::Config,
            name,
            node::{Leaf, Node},
            point::Point,
        },
        id::{Blob, Digest},
        index::{Fetcher, Table},
        limits::{BLOCK_BYTES, MAX_PACK_BYTES, MAX_RECORD_BYTES},
        open::Repository,
        tree::{Nodes, Root},
        writer::Progress,
    },
    units::Id,
};

/// How much of the data is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadData {
    /// None.
    None,
    /// About so many percent of the packs; another seed, others.
    Sample {
        /// From 0 to 100.
        percent: u8,
        /// Anything.
        seed: u64,
    },
    /// All.
    All,
}

/// Something that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// What.
    pub error: Error,
    /// Recovery points that need it, by the time when they were made.
    pub points: Vec<Id>,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Points looked at.
    pub points: usize,
    /// Packs looked at.
    pub packs: usize,
    /// Bytes of packs that were read whole.
    pub read_bytes: u64,
    /// Blobs that are nowhere whole.
    pub(super) lost: BTreeMap<Digest, Blob>,
    /// Packs that are not as they were stored.
    pub(super) damaged_packs: BTreeSet<Digest>,
}

/// A blob, or with a height only where it is a node of that height.
type Spot = (Digest, Option<u8>);
type Bad = BTreeMap<Spot, (Blob, Error)>;

/// One check.
struct Check<'a> {
    repository: &'a Repository,
    table: RwLock<Table>,
    points: Vec<(Id, Point)>,
    /// What is wrong with blobs that no pack has whole, or where they stand in a tree.
    bad: Bad,
    done: Checked,
}

impl Repository {
    /// Looks for damage. Ends with an error only where it cannot go on; what is wrong is in the answer.
    pub fn check(&self, data: ReadData, progress: &Progress) -> Result<Checked> {
        let points = self.points()?;
        let mut loaded = self.load()?;
        let mut unreadable = std::mem::take(&mut loaded.unreadable);
        // What somebody gave up already is not news.
        unreadable.retain(|pack| !loaded.is_condemned(*pack));
        let mut check = Check {
            repository: self,
            table: RwLock::new(loaded.table),
            points: points.points,
            bad: BTreeMap::new(),
            done: Checked::default(),
        };
        check.done.damaged_packs.extend(unreadable);
        let objects = points.damaged.into_iter().chain(loaded.damaged);
        objects.for_each(|error| check.found(error));
        check.head()?;
        check.packs(data, progress)?;
        check.trees(progress)?;
        check.affected()
    }
}

impl Check<'_> {
    fn found(&mut self, error: Error) {
        let points = Vec::new();
        self.done.findings.push(Finding { error, points });
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration and the keys.
    fn head(&mut self) -> Result<()> {
        let bytes = self.repository.read(name::CONFIG, MAX_RECORD_BYTES);
        let config = bytes.and_then(|bytes| {
            let config = Config::decode(&bytes)?;
            let keys = self.repository.vault.keys();
            keys.map_or(Ok(()), |keys| config.verify(keys, &bytes))
        });
        let keys = self.repository.keys().map(|_| ());
        for wrong in [config, keys].into_iter().filter_map(Result::err) {
            if !wrong.is_integrity() && !wrong.is_not_found() {
                return Err(wrong);
            }
            self.found(wrong);
        }
        Ok(())
    }

    /// Packs: what an index says against the footer, and the data.
    fn packs(&mut self, data: ReadData, progress: &Progress) -> Result<()> {
        let packs: Vec<_> = self.table().packs().to_vec();
        self.done.packs = packs.len() + self.done.damaged_packs.len();
        for (number, pack) in (0_u32..).zip(packs) {
            progress.go_on()?;
            if pack.condemned {
                self.condemned_pack(data, number, pack.name)?;
                continue;
            }
            let listed = self.repository.pack_list(pack.name, pack.bytes);
            let same = listed.and_then(|list| {
                let differs = || Error::damaged(name::pack(pack.name), Damage::Malformed);
                (list == self.table().list_of(number))
                    .then_some(())
                    .ok_or_else(differs)
            });
            // Also of a pack with a damaged footer: points may need what the index says of it.
            let read = match data.includes(pack.name) {
                true => self.read_pack(number, pack.name),
                false => Ok(()),
            };
            let mut told = false;
            for wrong in [same, read].into_iter().filter_map(Result::err) {
                if wrong.is_integrity() {
                    self.done.damaged_packs.insert(pack.name);
                    if !std::mem::replace(&mut told, true) {
                        self.found(wrong);
                    }
                } else if !wrong.is_not_found() {
                    // Gone is what a prune took.
                    return Err(wrong);
                }
            }
        }
        Ok(())
    }

    /// What is wrong with a pack that somebody gave up is no news, but a point may need its blobs all the
    /// same: of a backup that ran when it was condemned, or where nothing could be mended.
    fn condemned_pack(&mut self, data: ReadData, number: u32, pack: Digest) -> Result<()> {
        if !data.includes(pack) {
            return Ok(());
        }
        match self.read_pack(number, pack) {
            Err(why) if !why.is_integrity() && !why.is_not_found() => Err(why),
            _ => Ok(()),
        }
    }

    /// Reads a pack whole. Its damaged blobs are found one by one; the error is for what is left.
    fn read_pack(&mut self, number: u32, pack: Digest) -> Result<()> {
        let bytes = self.repository.read(&name::pack(pack), MAX_PACK_BYTES)?;
        self.done.read_bytes += bytes.len() as u64;
        let whole = Digest(*blake3::hash(&bytes).as_bytes()) == pack;
        let (places, info) = {
            let table = self.table();
            (
                table.places()[table.blobs_of(number)].to_vec(),
                *table.pack(number),
            )
        };
        let mut fetcher = Fetcher::new(self.repository, &self.table)?;
        let (mut plain, mut wrong) = (Vec::new(), Vec::new());
        for place in places {
            let from = place.offset as usize;
            let stored = bytes.get(from..from + place.entry.stored_bytes as usize);
            let opened = fetcher.open(&place, &info, stored.unwrap_or_default(), &mut plain);
            if let Err(why) = opened {
                let elsewhere = fetcher.fetch(place.entry.kind, place.entry.id, &mut plain);
                wrong.push((place, why, elsewhere.is_err()));
            }
        }
        if !wrong.is_empty() && !info.condemned {
            self.done.damaged_packs.insert(pack);
        }
        let none = wrong.is_empty();
        for (place, why, lost) in wrong {
            if lost {
                self.bad
                    .insert((place.entry.id, None), (place.entry.kind, why));
            } else if !info.condemned {
                self.found(why);
            }
        }
        if none && !whole {
            return Err(Error::damaged(name::pack(pack), Damage::Checksum));
        }
        Ok(())
    }

    /// Every node of every tree, and a place for every chunk.
    fn trees(&mut self, progress: &Progress) -> Result<()> {
        let mut seen = HashSet::new();
        let points = std::mem::take(&mut self.points);
        {
            let nodes = Nodes::new(self.repository, &self.table)?;
            for (_, point) in &points {
                progress.go_on()?;
                walk(
                    &nodes,
                    Root::of(point),
                    &self.table,
                    &mut seen,
                    &mut self.bad,
                )?;
            }
        }
        self.done.points = points.len();
        self.points = points;
        Ok(())
    }

    /// Says which points need what is bad.
    fn affected(mut self) -> Result<Checked> {
        let mut needed: BTreeMap<Spot, Vec<Id>> = BTreeMap::new();
        if !self.bad.is_empty() {
            let nodes = Nodes::new(self.repository, &self.table)?;
            for (id, point) in &self.points {
                let mut seen = HashSet::new();
                let mut ignored = BTreeMap::new();
                walk(
                    &nodes,
                    Root::of(point),
                    &self.table,
                    &mut seen,
                    &mut ignored,
                )?;
                for bad in self.bad.keys().filter(|bad| seen.contains(bad)) {
                    needed.entry(*bad).or_default().push(*id);
                }
            }
        }
        for (spot, (kind, error)) in std::mem::take(&mut self.bad) {
            let points = needed.remove(&spot).unwrap_or_default();
            if points.is_empty() && self.is_given_up(spot.0) {
                continue;
            }
            self.done.lost.insert(spot.0, kind);
            self.done.findings.push(Finding { error, points });
        }
        Ok(self.done)
    }
}

impl Check<'_> {
    /// Whether a blob is in condemned packs only.
    fn is_given_up(&self, blob: Digest) -> bool {
        let table = self.table();
        let mut places = table.find(blob).peekable();
        places.peek().is_some() && places.all(|place| table.pack(place.pack).condemned)
    }
}

impl ReadData {
    fn includes(self, pack: Digest) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Sample { percent, seed } => {
                // Names are digests: any mixing of them with the seed spreads evenly.
                let mixed = (pack.spread() ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                mixed % 100 < u64::from(percent)
            }
        }
    }
}

/// Goes on beside what it cannot read, which goes to `bad`.
fn walk(
    nodes: &Nodes<'_>,
    root: Root,
    table: &RwLock<Table>,
    seen: &mut HashSet<Spot>,
    bad: &mut Bad,
) -> Result<()> {
    // What is right at one height is wrong at another.
    let here = (root.id, Some(root.height));
    if root.id == Digest::ZEROS || !seen.insert(here) {
        return Ok(());
    }
    seen.insert((root.id, None));
    let node = match nodes.get(root.id, root.height) {
        Err(why @ Error::Damaged { .. }) => {
            bad.insert(here, (Blob::Node, why));
            return Ok(());
        }
        Err(why) if why.is_integrity() || why.is_not_found() => {
            bad.insert((root.id, None), (Blob::Node, why));
            return Ok(());
        }
        other => other?,
    };
    match &*node {
        Node::Leaf(leaf) => {
            for (number, id) in (0_u32..).zip(&leaf.chunks) {
                seen.insert((*id, None));
                if let Some(why) = lacks(table, leaf, number, *id) {
                    bad.entry((*id, None)).or_insert((Blob::Chunk, why));
                }
            }
            Ok(())
        }
        Node::Branch(branch) => branch.children.iter().try_for_each(|id| {
            let below = Root {
                id: *id,
                height: root.height - 1,
            };
            walk(nodes, below, table, seen, bad)
        }),
    }
}

/// What is wrong with a leaf's chunk as far as the table knows.
fn lacks(table: &RwLock<Table>, leaf: &Leaf, number: u32, id: Digest) -> Option<Error> {
    let table = table.read().unwrap_or_else(PoisonError::into_inner);
    let Some(place) = table.find(id).find(|place| place.entry.kind == Blob::Chunk) else {
        return Some(Error::Missing(id));
    };
    let blocks = place.entry.plain_bytes as usize / BLOCK_BYTES;
    let runs = leaf.runs.iter().filter(|run| run.chunk == number);
    let reaches = runs.map(|run| (run.start + run.blocks) as usize).max();
    (reaches > Some(blocks))
        .then(|| Error::damaged(format!("a run of chunk {id}"), Damage::Malformed))
}
