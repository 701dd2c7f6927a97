//! The threads of a backup: one drafts leaves and reads what they want, the others store chunks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread,
};

use super::{
    backup::{Backup, Change, Source},
    compare::Comparer,
    gather::{Gatherer, Job},
    plan::{Draft, Slot},
    sink::{Coder, Sink},
};
use crate::repository::{
    error::{Error, Result},
    format::{
        node::{Node, image_blocks},
        point::{Made, Work},
    },
    id::{Blob, Digest},
    index::Table,
    limits::{BLOCK_BYTES, LEAF_BLOCKS, MAX_THREADS},
    tree::{Nodes, Root},
};

/// What a backup reads.
pub(super) struct From<'a, 'n> {
    pub(super) source: &'a dyn Source,
    pub(super) base: Root,
    pub(super) nodes: &'a Nodes<'n>,
    pub(super) table: &'a RwLock<Table>,
}

/// Leaves that differ from the base's, ascending.
pub(super) type Edits = Vec<(u64, Digest)>;

/// Stores all chunks and leaves; gives the leaves that differ.
pub(super) fn draft(
    backup: &Backup<'_>,
    from: &From<'_, '_>,
    sink: &Sink<'_>,
    changes: &mut dyn Iterator<Item = Result<Change>>,
    work: &mut Work,
) -> Result<(Edits, Coder)> {
    let shared = Shared {
        sink,
        failed: Mutex::new(None),
        stop: AtomicBool::new(false),
    };
    let full = matches!(backup.made, Made::Full(_));
    let capacity = backup.about.geometry.capacity();
    // A full read compares with its base.
    let comparer = (full && from.base.id != Digest::ZEROS)
        .then(|| Comparer::new(backup.repository, from.table, from.source, capacity));
    // One more than there are processors, for one of them may be storing a pack.
    let threads = thread::available_parallelism().map_or(2, usize::from) + 1;
    let threads = threads.min(MAX_THREADS);
    let (jobs, queue) = mpsc::sync_channel::<Job>(2);
    let (done, results) = mpsc::channel();
    let queue = Mutex::new(queue);
    let mut drafter = Drafter {
        backup,
        base: from.base,
        nodes: from.nodes,
        sink,
        comparer: comparer.transpose()?,
        gatherer: Gatherer::new(from.source, capacity, !full),
        jobs: Some(jobs),
        results,
        ids: BTreeMap::new(),
        pending: VecDeque::new(),
        coder: Coder::new()?,
        edits: Vec::new(),
    };
    let drafted = thread::scope(|scope| {
        for _ in 0..threads {
            let (queue, done, shared) = (&queue, done.clone(), &shared);
            scope.spawn(move || work_off(queue, &done, shared));
        }
        drop(done);
        let drafted = drafter.run(changes, &shared.stop);
        drafter.jobs = None;
        drafted
    });
    shared.failure()?;
    drafted?;
    let compared = drafter.comparer.as_ref();
    let compared = compared.map_or(0, |comparer| comparer.read_bytes);
    work.read_bytes = drafter.gatherer.read_bytes + compared;
    work.changed_bytes = drafter.gatherer.data_bytes;
    Ok((drafter.edits, drafter.coder))
}

/// What the threads of one backup share.
struct Shared<'a> {
    sink: &'a Sink<'a>,
    failed: Mutex<Option<Error>>,
    stop: AtomicBool,
}

impl Shared<'_> {
    fn fail(&self, why: Error) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(why);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What went wrong first, if anything did.
    fn failure(&self) -> Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take().map_or(Ok(()), Err)
    }
}

/// A worker: stores chunks until there are no more.
fn work_off(queue: &Mutex<Receiver<Job>>, done: &Sender<(u64, Digest)>, shared: &Shared<'_>) {
    let mut coder = match Coder::new() {
        Ok(coder) => Some(coder),
        Err(why) => {
            shared.fail(why);
            None
        }
    };
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // After a failure the queue is only emptied, so that nobody waits on it.
        let Some(coder) = coder
            .as_mut()
            .filter(|_| !shared.stop.load(Ordering::Relaxed))
        else {
            continue;
        };
        match shared.sink.put(coder, Blob::Chunk, &job.plain, job.offset) {
            // The drafter may be gone already, which is no news.
            Ok(id) => drop(done.send((job.number, id))),
            Err(why) => shared.fail(why),
        }
    }
}

/// Drafts leaves and finishes them in order.
struct Drafter<'a, 'n> {
    backup: &'a Backup<'a>,
    base: Root,
    nodes: &'a Nodes<'n>,
    sink: &'a Sink<'a>,
    comparer: Option<Comparer<'a>>,
    gatherer: Gatherer<'a>,
    jobs: Option<SyncSender<Job>>,
    results: Receiver<(u64, Digest)>,
    ids: BTreeMap<u64, Digest>,
    /// Each with the number of the first chunk that it may refer to.
    pending: VecDeque<(u64, Draft)>,
    coder: Coder,
    edits: Vec<(u64, Digest)>,
}

impl Drafter<'_, '_> {
    fn run(
        &mut self,
        changes: &mut dyn Iterator<Item = Result<Change>>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let blocks = image_blocks(self.backup.about.geometry.capacity());
        let mut draft: Option<Draft> = None;
        let mut behind = 0;
        for change in changes {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let (mut from, to, zeros) = self.blocks_of(change?, blocks)?;
            from = from.max(behind);
            behind = behind.max(to);
            while from < to {
                let number = from / u64::from(LEAF_BLOCKS);
                let first = number * u64::from(LEAF_BLOCKS);
                let end = to.min(first + u64::from(LEAF_BLOCKS));
                if draft.as_ref().is_none_or(|draft| draft.number != number) {
                    if let Some(draft) = draft.take() {
                        self.draft(draft)?;
                    }
                    draft = Some(self.begin(number)?);
                }
                if let Some(draft) = &mut draft {
                    let within = |block: u64| u32::try_from(block - first).unwrap_or(LEAF_BLOCKS);
                    draft.change(within(from), within(end), zeros);
                }
                from = end;
            }
        }
        if let Some(draft) = draft.take() {
            self.draft(draft)?;
        }
        let Self { gatherer, jobs, .. } = self;
        gatherer.flush(&mut |job| send(jobs.as_ref(), job))?;
        self.jobs = None;
        self.finish_all()
    }

    /// The blocks that a change touches, and whether they are known to be zeros.
    fn blocks_of(&self, change: Change, blocks: u64) -> Result<(u64, u64, bool)> {
        let (range, block) = (change.range, BLOCK_BYTES as u64);
        if !self.backup.about.geometry.contains(range) {
            return Err(Error::BadImage("a change lies outside of it"));
        }
        let last = range.end() == self.backup.about.geometry.capacity();
        let whole = range.offset % block == 0 && (range.end() % block == 0 || last);
        let to = range.end().div_ceil(block).min(blocks);
        Ok((range.offset / block, to, change.zeros && whole))
    }

    fn begin(&self, number: u64) -> Result<Draft> {
        let full = matches!(self.backup.made, Made::Full(_));
        let base = if full && self.comparer.is_none() {
            None
        } else {
            self.nodes.leaf(self.base, number)?
        };
        let mut draft = Draft::new(number, base);
        if full {
            // Only what is listed has data.
            draft.slots.fill(Slot::Zeros);
        }
        Ok(draft)
    }

    fn draft(&mut self, mut draft: Draft) -> Result<()> {
        let progress = self.backup.progress;
        progress.go_on()?;
        if let Some(comparer) = &mut self.comparer {
            comparer.keep_equal(&mut draft)?;
        }
        draft.tidy();
        let Self { gatherer, jobs, .. } = self;
        let oldest = gatherer.oldest();
        gatherer.gather(&mut draft, &mut |job| send(jobs.as_ref(), job))?;
        let read = self.gatherer.read_bytes;
        progress.read_bytes.store(read, Ordering::Relaxed);
        let offset = draft.number * u64::from(LEAF_BLOCKS) * BLOCK_BYTES as u64;
        progress.offset.store(offset, Ordering::Relaxed);
        self.pending.push_back((oldest, draft));
        while let Ok((job, id)) = self.results.try_recv() {
            self.ids.insert(job, id);
        }
        self.finish_ready()
    }

    /// Finishes the drafts at the front whose chunks are all stored.
    fn finish_ready(&mut self) -> Result<()> {
        while self.is_ready() {
            let Some((oldest, draft)) = self.pending.pop_front() else {
                return Ok(());
            };
            let leaf = draft.finish(|job| self.ids.get(&job).copied());
            let id = match leaf {
                None => Digest::ZEROS,
                Some(leaf) => {
                    let plain = Node::Leaf(leaf).encode();
                    let at = draft.number * u64::from(LEAF_BLOCKS) * BLOCK_BYTES as u64;
                    self.sink.put(&mut self.coder, Blob::Node, &plain, at)?
                }
            };
            self.edits.push((draft.number, id));
            // Later drafts refer to nothing older.
            self.ids = self.ids.split_off(&oldest);
        }
        Ok(())
    }

    /// Whether all chunks of the first draft are stored.
    fn is_ready(&self) -> bool {
        let first = self.pending.front();
        first.is_some_and(|(_, draft)| draft.jobs().all(|job| self.ids.contains_key(&job)))
    }

    fn finish_all(&mut self) -> Result<()> {
        while let Ok((job, id)) = self.results.recv() {
            self.ids.insert(job, id);
        }
        // Chunks are only missing where a worker failed, which says why.
        self.finish_ready()
    }
}

fn send(jobs: Option<&SyncSender<Job>>, job: Job) -> Result<()> {
    // Workers leave only when the sender is gone.
    jobs.and_then(|jobs| jobs.send(job).ok())
        .ok_or(Error::Cancelled)
}
