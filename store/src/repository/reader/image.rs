//! A recovery point as a whole image.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use crate::{
    repository::{
        error::{Damage, Error, Result},
        format::{
            node::{Run, image_blocks},
            point::Point,
        },
        id::{Blob, Digest},
        index::{Fetcher, Table},
        limits::{BLOCK_BYTES, LEAF_BLOCKS},
        open::Repository,
        tree::{Nodes, Root},
    },
    units::Id,
};

/// Chunks kept decoded for later reads: 16 MiB.
const KEPT_CHUNKS: usize = 16;

/// A recovery point that is open for reading.
pub struct Image<'a> {
    pub(super) repository: &'a Repository,
    pub(super) table: &'a RwLock<Table>,
    pub(super) nodes: Nodes<'a>,
    point: Point,
    kept: Mutex<VecDeque<(Digest, Arc<Vec<u8>>)>>,
    reading: Mutex<Fetcher<'a>>,
    reloaded: Mutex<u64>,
}

impl Repository {
    /// Reads where all blobs are, for images of this repository.
    pub fn table(&self) -> Result<RwLock<Table>> {
        self.load().map(|loaded| RwLock::new(loaded.table))
    }
}

impl<'a> Image<'a> {
    /// Opens a recovery point.
    pub fn open(repository: &'a Repository, table: &'a RwLock<Table>, id: Id) -> Result<Self> {
        let point = repository.point(id)?;
        Self::of(repository, table, point)
    }

    /// The image of a point.
    pub fn of(repository: &'a Repository, table: &'a RwLock<Table>, point: Point) -> Result<Self> {
        Ok(Self {
            repository,
            table,
            nodes: Nodes::new(repository, table)?,
            point,
            kept: Mutex::default(),
            reading: Mutex::new(Fetcher::new(repository, table)?),
            reloaded: Mutex::new(0),
        })
    }

    /// What the point says.
    pub const fn point(&self) -> &Point {
        &self.point
    }

    /// Size in bytes.
    pub const fn capacity(&self) -> u64 {
        self.point.capacity
    }

    /// Fills `into` with the image's bytes from `offset`; behind its end are zeros.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        into.fill(0);
        if into.is_empty() {
            return Ok(());
        }
        let leaf_bytes = u64::from(LEAF_BLOCKS) * BLOCK_BYTES as u64;
        let end = offset
            .saturating_add(into.len() as u64)
            .min(self.capacity());
        let leaves = offset / leaf_bytes..end.div_ceil(leaf_bytes);
        let root = Root::of(&self.point);
        self.again_if_moved(|| {
            let into = &mut *into;
            self.nodes
                .leaves(root, leaves.clone(), &mut |number, leaf| {
                    for run in &leaf.runs {
                        self.copy(number * leaf_bytes, run, &leaf.chunks, offset, end, into)?;
                    }
                    Ok(())
                })
        })
    }

    /// Copies what a run has of the bytes from `offset` to `end`.
    fn copy(
        &self,
        leaf: u64,
        run: &Run,
        chunks: &[Digest],
        offset: u64,
        end: u64,
        into: &mut [u8],
    ) -> Result<()> {
        let block = BLOCK_BYTES as u64;
        let begins = leaf + u64::from(run.at) * block;
        let from = begins.max(offset);
        let to = (begins + u64::from(run.blocks) * block).min(end);
        if from >= to {
            return Ok(());
        }
        let id = chunks[run.chunk as usize];
        let chunk = self.chunk(id)?;
        let skip = place(u64::from(run.start) * block + (from - begins));
        let (at, len) = (place(from - offset), place(to - from));
        let bytes = chunk.get(skip..skip + len).ok_or_else(|| too_short(id))?;
        into[at..at + len].copy_from_slice(bytes);
        Ok(())
    }

    fn chunk(&self, id: Digest) -> Result<Arc<Vec<u8>>> {
        if let Some((_, chunk)) = locked(&self.kept).iter().find(|(kept, _)| *kept == id) {
            return Ok(chunk.clone());
        }
        let mut plain = Vec::new();
        self.fetch(&mut locked(&self.reading), id, &mut plain)?;
        let chunk = Arc::new(plain);
        let mut kept = locked(&self.kept);
        kept.push_front((id, chunk.clone()));
        kept.truncate(KEPT_CHUNKS);
        Ok(chunk)
    }

    /// A chunk's bytes. Where it is not where it was, a prune moved it: where all blobs are is read
    /// again, once.
    pub(super) fn fetch(
        &self,
        fetcher: &mut Fetcher<'_>,
        id: Digest,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        self.again_if_moved(|| fetcher.fetch(Blob::Chunk, id, plain))
    }

    /// Does something that reads blobs, and does it again after reading where all blobs are where one
    /// was not there.
    pub(super) fn again_if_moved<T>(&self, mut read: impl FnMut() -> Result<T>) -> Result<T> {
        let before = *locked(&self.reloaded);
        match read() {
            Err(why) if why.is_not_found() || matches!(why, Error::Missing(_)) => {}
            other => return other,
        }
        {
            let mut reloaded = locked(&self.reloaded);
            if *reloaded == before {
                let table = self.repository.load()?.table;
                *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
                *reloaded += 1;
            }
        }
        read()
    }

    /// Blocks of the image.
    pub(super) const fn blocks(&self) -> u64 {
        image_blocks(self.point.capacity)
    }
}

/// A run reaches behind its chunk.
pub(super) fn too_short(chunk: Digest) -> Error {
    Error::damaged(format!("a run of chunk {chunk}"), Damage::Malformed)
}

/// An offset within a buffer.
fn place(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
