//! All of an image onto a target, by several threads.
//!
//! The tree is walked in windows of 64 MiB. Within one, chunks are read in the order in which they lie
//! in their packs, neighbours in one go; each is decoded once, checked, and written wherever the window
//! has it.

use std::{
    collections::HashMap,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
};

use super::image::{Image, too_short};
use crate::repository::{
    error::{Error, Result},
    format::{name, node::Leaf},
    id::Digest,
    index::{Fetcher, PackInfo, Place},
    limits::{BLOCK_BYTES, LEAF_BLOCKS, MAX_THREADS},
    tree::Root,
    writer::Progress,
};

const WINDOW_LEAVES: usize = 16;
/// Most bytes of a pack that are read in one go.
const SPAN_BYTES: u32 = 4 << 20;
const BLOCK: u64 = BLOCK_BYTES as u64;
const LEAF_BYTES: u64 = LEAF_BLOCKS as u64 * BLOCK;
/// Zeros are compared and written in pieces of so many bytes.
const ZEROS: &[u8] = &[0; 256 << 10];

/// Where an image goes.
pub trait Target: Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Fills `into` from `offset`. Asked only of a target that has something.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// What a target has before the restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Onto {
    /// Zeros: zeros need not be written.
    Zeros,
    /// Something: what is the same already is not written.
    Difference,
}

/// What a restore did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes with data in the image.
    pub data_bytes: u64,
}

/// Where a chunk's blocks go.
#[derive(Clone, Copy, Debug)]
struct Use {
    offset: u64,
    start: u32,
    blocks: u32,
}

/// Work for a thread.
enum Job {
    /// Neighbouring chunks of one pack.
    Span(PackInfo, Vec<(Place, Vec<Use>)>),
    /// Zeros from an offset, so many bytes.
    Zeros(u64, u64),
}

struct Shared<'a, 'i> {
    image: &'a Image<'i>,
    target: &'a dyn Target,
    onto: Onto,
    written: AtomicU64,
    stop: AtomicBool,
    failed: Mutex<Option<Error>>,
}

impl Image<'_> {
    /// Writes the whole image to the target. The target need not be flushed afterwards by anyone but
    /// the caller.
    pub fn restore(
        &self,
        target: &dyn Target,
        onto: Onto,
        progress: &Progress,
    ) -> Result<Restored> {
        let shared = Shared {
            image: self,
            target,
            onto,
            written: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            failed: Mutex::new(None),
        };
        let threads = thread::available_parallelism().map_or(2, usize::from) + 1;
        let threads = threads.min(MAX_THREADS);
        let (jobs, queue) = mpsc::sync_channel(2);
        let queue = Mutex::new(queue);
        let walked = thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| shared.work_off(&queue));
            }
            shared.walk(jobs, progress)
        });
        let mut failed = shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = failed.take() {
            return Err(why);
        }
        Ok(Restored {
            written_bytes: shared.written.load(Ordering::Relaxed),
            data_bytes: walked?,
        })
    }
}

impl Shared<'_, '_> {
    /// Sends all there is to do; gives the bytes with data.
    fn walk(&self, jobs: SyncSender<Job>, progress: &Progress) -> Result<u64> {
        let image = self.image;
        let root = Root::of(image.point());
        let leaves = image.blocks().div_ceil(u64::from(LEAF_BLOCKS));
        let mut data = 0;
        for first in (0..leaves).step_by(WINDOW_LEAVES) {
            progress.go_on()?;
            progress.offset.store(first * LEAF_BYTES, Ordering::Relaxed);
            let end = (first + WINDOW_LEAVES as u64).min(leaves);
            let (uses, mut zeros, bytes) = image.again_if_moved(|| {
                let (mut uses, mut zeros) = (HashMap::new(), Gaps::new(first * LEAF_BYTES));
                let mut bytes = 0;
                image.nodes.leaves(root, first..end, &mut |number, leaf| {
                    bytes += collect(number, leaf, image.capacity(), &mut uses, &mut zeros);
                    Ok(())
                })?;
                Ok((uses, zeros, bytes))
            })?;
            data += bytes;
            zeros.until((end * LEAF_BYTES).min(image.capacity()));
            let mut work = self.spans(uses)?;
            if self.onto == Onto::Difference {
                work.extend(
                    zeros
                        .found
                        .iter()
                        .map(|(offset, len)| Job::Zeros(*offset, *len)),
                );
            }
            for job in work {
                if self.stop.load(Ordering::Relaxed) || jobs.send(job).is_err() {
                    return Err(Error::Cancelled);
                }
            }
        }
        Ok(data)
    }

    /// Chunks as they lie in packs, neighbours together.
    fn spans(&self, uses: HashMap<Digest, Vec<Use>>) -> Result<Vec<Job>> {
        let table = self
            .image
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut placed = Vec::with_capacity(uses.len());
        for (id, uses) in uses {
            let best = table
                .find(id)
                .min_by_key(|place| table.pack(place.pack).condemned);
            placed.push((*best.ok_or(Error::Missing(id))?, uses));
        }
        placed.sort_by_key(|(place, _)| (place.pack, place.offset));
        let mut jobs: Vec<Job> = Vec::new();
        let mut end = 0;
        for (place, uses) in placed {
            let behind = place.offset + place.entry.stored_bytes;
            if let Some(Job::Span(pack, chunks)) = jobs.last_mut()
                && let Some((first, _)) = chunks.first()
                && pack.name == table.pack(place.pack).name
                && end == place.offset
                && behind - first.offset <= SPAN_BYTES
            {
                chunks.push((place, uses));
            } else {
                let pack = *table.pack(place.pack);
                jobs.push(Job::Span(pack, vec![(place, uses)]));
            }
            end = behind;
        }
        Ok(jobs)
    }

    fn work_off(&self, queue: &Mutex<Receiver<Job>>) {
        let mut worker = match Worker::new(self) {
            Ok(worker) => Some(worker),
            Err(why) => {
                self.fail(why);
                None
            }
        };
        loop {
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            // After a failure the queue is only emptied, so that nobody waits on it.
            if let Some(worker) = worker
                .as_mut()
                .filter(|_| !self.stop.load(Ordering::Relaxed))
                && let Err(why) = worker.work(job)
            {
                self.fail(why);
            }
        }
    }

    fn fail(&self, why: Error) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(why);
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One thread's buffers.
struct Worker<'a, 'i> {
    shared: &'a Shared<'a, 'i>,
    fetcher: Fetcher<'a>,
    span: Vec<u8>,
    plain: Vec<u8>,
    there: Vec<u8>,
}

impl<'a, 'i> Worker<'a, 'i> {
    fn new(shared: &'a Shared<'a, 'i>) -> Result<Self> {
        let image = shared.image;
        Ok(Self {
            shared,
            fetcher: Fetcher::new(image.repository, image.table)?,
            span: Vec::new(),
            plain: Vec::new(),
            there: Vec::new(),
        })
    }

    fn work(&mut self, job: Job) -> Result<()> {
        match job {
            Job::Span(pack, chunks) => self.span(&pack, &chunks),
            Job::Zeros(offset, len) => {
                let mut at = offset;
                while at < offset + len {
                    let piece = (offset + len - at).min(ZEROS.len() as u64);
                    self.write(at, &ZEROS[..usize::try_from(piece).unwrap_or(0)])?;
                    at += piece;
                }
                Ok(())
            }
        }
    }

    fn span(&mut self, pack: &PackInfo, chunks: &[(Place, Vec<Use>)]) -> Result<()> {
        let (Some((first, _)), Some((last, _))) = (chunks.first(), chunks.last()) else {
            return Ok(());
        };
        let len = last.offset + last.entry.stored_bytes - first.offset;
        self.span.resize(len as usize, 0);
        let name = name::pack(pack.name);
        let read =
            self.shared
                .image
                .repository
                .read_range(&name, first.offset.into(), &mut self.span);
        for (place, uses) in chunks {
            let mut plain = std::mem::take(&mut self.plain);
            let from = (place.offset - first.offset) as usize;
            let stored = &self.span[from..from + place.entry.stored_bytes as usize];
            let opened = read.is_ok() && self.fetcher.open(place, pack, stored, &mut plain).is_ok();
            if !opened {
                // Another pack may have it whole.
                let image = self.shared.image;
                image.fetch(&mut self.fetcher, place.entry.id, &mut plain)?;
            }
            let written = uses
                .iter()
                .try_for_each(|used| self.write_use(place.entry.id, used, &plain));
            self.plain = plain;
            written?;
        }
        Ok(())
    }

    fn write_use(&mut self, id: Digest, used: &Use, plain: &[u8]) -> Result<()> {
        let from = used.start as usize * BLOCK_BYTES;
        let to = from + used.blocks as usize * BLOCK_BYTES;
        let bytes = plain.get(from..to).ok_or_else(|| too_short(id))?;
        // What fills up the last block is not the image's.
        let room = self.shared.image.capacity().saturating_sub(used.offset);
        let len = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.write(used.offset, &bytes[..len])
    }

    /// Writes what is not there yet.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let target = self.shared.target;
        let failed = |offset: u64, len: usize, why| Error::Target {
            offset,
            len: len as u64,
            why,
        };
        let put = |offset: u64, bytes: &[u8]| {
            let len = bytes.len();
            self.shared.written.fetch_add(len as u64, Ordering::Relaxed);
            target
                .write_at(offset, bytes)
                .map_err(|why| failed(offset, len, why))
        };
        if self.shared.onto == Onto::Zeros {
            return put(offset, bytes);
        }
        self.there.resize(bytes.len(), 0);
        target
            .read_at(offset, &mut self.there)
            .map_err(|why| failed(offset, bytes.len(), why))?;
        // Stretches of blocks that differ.
        let mut from = 0;
        while from < bytes.len() {
            let differs = |at: usize| {
                let end = (at + BLOCK_BYTES).min(bytes.len());
                bytes[at..end] != self.there[at..end]
            };
            let mut to = from;
            while to < bytes.len() && differs(to) {
                to += BLOCK_BYTES;
            }
            if to > from {
                put(offset + from as u64, &bytes[from..to.min(bytes.len())])?;
            }
            from = to + BLOCK_BYTES;
        }
        Ok(())
    }
}

/// Stretches of zeros between runs.
struct Gaps {
    end: u64,
    found: Vec<(u64, u64)>,
}

impl Gaps {
    const fn new(from: u64) -> Self {
        Self {
            end: from,
            found: Vec::new(),
        }
    }

    /// Data begins at `offset`.
    fn until(&mut self, offset: u64) {
        if offset > self.end {
            self.found.push((self.end, offset - self.end));
        }
        self.end = self.end.max(offset);
    }
}

/// Takes in a leaf's runs; gives its bytes with data.
fn collect(
    number: u64,
    leaf: &Leaf,
    capacity: u64,
    uses: &mut HashMap<Digest, Vec<Use>>,
    zeros: &mut Gaps,
) -> u64 {
    let mut data = 0;
    for run in &leaf.runs {
        let offset = number * LEAF_BYTES + u64::from(run.at) * BLOCK;
        if offset >= capacity {
            break;
        }
        let end = (offset + u64::from(run.blocks) * BLOCK).min(capacity);
        zeros.until(offset);
        zeros.end = end;
        data += end - offset;
        uses.entry(leaf.chunks[run.chunk as usize])
            .or_default()
            .push(Use {
                offset,
                start: run.start,
                blocks: run.blocks,
            });
    }
    data
}
