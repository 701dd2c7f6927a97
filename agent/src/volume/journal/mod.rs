//! Durable tracking: what of the change map is on the area's medium before a change is issued.
//!
//! ```text
//! write ─ mark ─> region active? ──yes──> on to the origin
//!                        │ no
//!                        └─ queue Activate ─> keeper: one log write for all that wait ─> on
//!
//! housekeep ─ not changed for 1 to 2 s, or too many ─> queue its bits and Cold
//! ```
//!
//! A region (1 MiB) that is active counts as changed whole if the host stops, so there is a limit
//! on them, and they go cold soon. The bits of one that goes cold are queued before its Cold, under
//! the same lock that Activate takes, after it was made inactive for all to see: a change that was
//! marked before is among the bits, one that was marked later finds it inactive (I1).
//!
//! A cut does not touch the regions: what is active stays so, for the ended epoch too until all its
//! bits were queued.
//!
//! When the area fails, the host's writes go on without it (I7): the journal is wiped, so that it
//! tells nothing rather than too little, and begun anew with an image once the area works again.
//! Nothing is missing then, because marks in memory never stop.

mod closing;
mod copies;
mod endings;
mod image;
mod intents;
mod keep;
mod origin;
mod recover;
mod regions;
mod table;

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use event_listener::Event as Notice;
use futures_lite::future;
use tidemark_store::{
    changes::DenseMap,
    journal::{Packer, Placed, Record, Regions},
    state::{CheckpointEntry, Lineage, State},
    units::{BlockRange, Epoch, Geometry},
};

use copies::Copies;
use endings::Endings;
use origin::Watch;
pub(super) use origin::{Watched, compare};
pub(super) use recover::{Images, half_to_keep, images, recover, restore, wipe};
use regions::ActiveRegions;
pub(super) use table::Table;

use super::{Clock, lock};

/// Regions that may be active at a time in any volume: 4 GiB, which is then the most that a diff
/// over-reports for each epoch that had not been told exactly when the host stopped. A load that
/// changes more regions than these within seconds waits for the area time and again.
const ACTIVE: u64 = 4096;
/// Or this part of a large volume.
const ACTIVE_PART: u64 = 16;
/// Regions made active ahead of a sequential writer, when half of them are used: what it writes
/// while the area is told.
const AHEAD: u64 = 64;
/// A change of more regions than this is told of as such, and makes none of them active.
const MANY: u64 = 8;
/// For how long a change waits for the area while that does nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many times when the area does something.
const MAX_PATIENCE: u32 = 6;
/// Between two looks at which regions may go cold, in microseconds.
const LOOK_US: u64 = 1_000_000;
/// Regions that go cold, or are told for an ended epoch, while the lock is held once.
const AT_ONCE: usize = 64;
/// Housekeeping adds nothing to a queue that is this long, in bytes.
const MAX_QUEUED: usize = 256 << 10;
/// Log blocks that the queue has memory for from the start.
const QUEUE_BLOCKS: usize = 16;

/// Why a process starts with changes going on untold.
const UNTOLD: &str = "the area failed an earlier server, and does not tell yet what changed since";

/// How far tracking outlives the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Not at all: the area is not meant to.
    Volatile,
    /// Every change is told of durably before it is made.
    Durable,
    /// It should, but for this reason does not now.
    Suspended(String),
}

/// What is waiting to be written, and what was.
struct Queue {
    packer: Packer,
    /// Number of the batch that the packer will be; those before it were taken.
    batch: u64,
    /// Regions to become active when the batch with the number is written.
    activating: Vec<(u64, Regions)>,
    /// Ended epochs of which not every bit was queued.
    inexact: Vec<Arc<DenseMap>>,
    /// Where telling the oldest of them goes on.
    telling: u64,
    /// Where the search for regions to be made cold goes on.
    hand: u64,
    looked_us: u64,
    watch: Watch,
    endings: Endings,
    /// The batch with the last cut that left a snapshot.
    cut_batch: u64,
    suspended: Option<String>,
    /// Why it was, while the image that ends that is not written yet.
    resuming: Option<String>,
    /// Of that, what nobody was told yet.
    untold: Option<String>,
}

impl Queue {
    /// The batch that tells that a region becomes active, if one is to.
    fn asked(&self, region: u64) -> Option<u64> {
        let mut asked = self.activating.iter();
        let asked = asked.find(|(_, asked)| (asked.first..asked.end).contains(&region));
        asked.map(|(batch, _)| *batch)
    }
}

/// The journal of one volume. All methods may be called by many threads at once.
pub(super) struct Journal {
    geometry: Geometry,
    durable: bool,
    /// Snapshots are to outlive the host too.
    keeps_snapshots: bool,
    /// Most regions that are active at a time.
    max_active: u64,
    regions: ActiveRegions,
    /// Changes need not wait.
    open: AtomicBool,
    /// Nothing is to be told any more.
    closed: AtomicBool,
    /// Nothing is told any more, and the area holds nothing.
    ended: AtomicBool,
    queue: Mutex<Queue>,
    /// Batches below this number are on the medium.
    written: AtomicU64,
    /// Grows whenever the area answered.
    progress: AtomicU64,
    /// The keeper waits for the origin, as the host does.
    at_origin: AtomicBool,
    /// Tells a successor whether changes go on untold.
    state: Arc<State>,
    /// Of the newest image that was found or written.
    generation: AtomicU64,
    /// The half that it is in: the next one must not be written over it.
    half: AtomicU64,
    copies: Copies,
    /// Snapshots that end when the journal tells of it.
    ending: AtomicU64,
    work: Notice,
    done: Notice,
    closing: Notice,
}

impl Journal {
    /// A journal whose first image is still to be written; until then every change waits. Where a dead
    /// process let changes go on untold, they do so until what it left in the area was wiped.
    /// `found` is the highest generation of an image in the area, and the half of the one that is to
    /// be left alone, or zeros.
    pub(super) fn new(
        geometry: Geometry,
        durable: bool,
        keeps_snapshots: bool,
        max_active: Option<u64>,
        found: (u64, u64),
        state: Arc<State>,
    ) -> Self {
        let suspended = (durable && state.is_untold()).then(|| UNTOLD.to_owned());
        Self {
            geometry,
            durable,
            keeps_snapshots,
            max_active: max_active.unwrap_or(ACTIVE.max(geometry.regions() / ACTIVE_PART)),
            regions: ActiveRegions::new(if durable { geometry.regions() } else { 0 }),
            open: AtomicBool::new(!durable || suspended.is_some()),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            queue: Mutex::new(Queue {
                packer: Packer::with_capacity(QUEUE_BLOCKS),
                batch: 1,
                activating: Vec::with_capacity(64),
                inexact: Vec::new(),
                telling: 0,
                hand: 0,
                looked_us: 0,
                watch: Watch::default(),
                endings: Endings::default(),
                cut_batch: 0,
                untold: suspended.clone(),
                suspended,
                resuming: None,
            }),
            written: AtomicU64::new(1),
            progress: AtomicU64::new(0),
            at_origin: AtomicBool::new(false),
            state,
            generation: AtomicU64::new(found.0),
            half: AtomicU64::new(found.1),
            copies: Copies::default(),
            ending: AtomicU64::new(0),
            work: Notice::new(),
            done: Notice::new(),
            closing: Notice::new(),
        }
    }

    /// Whether tracking is to outlive the host.
    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether snapshots are to, too.
    pub(super) fn keeps_snapshots(&self) -> bool {
        self.keeps_snapshots
    }

    pub(super) fn durability(&self) -> Durability {
        if !self.durable {
            return Durability::Volatile;
        }
        let queue = self.queue();
        match queue.suspended.as_ref().or(queue.resuming.as_ref()) {
            Some(why) => Durability::Suspended(why.clone()),
            None => Durability::Durable,
        }
    }

    /// Why changes go on untold now.
    fn suspension(&self) -> Option<String> {
        self.queue().suspended.clone()
    }

    /// An image is on the medium: what it tells outlives the host.
    fn resumed(&self) {
        let mut queue = self.queue();
        queue.resuming = None;
        if queue.suspended.is_none() {
            self.state.set_untold(false);
        }
    }

    /// I1: returns when the marks of `blocks` in the running epoch, which were made before, outlive
    /// the host, or cannot be made to.
    pub(super) async fn admit(
        &self,
        blocks: BlockRange,
        map: impl Fn() -> Arc<DenseMap>,
        clock: &impl Clock,
    ) {
        if !self.durable || blocks.is_empty() {
            return;
        }
        // Either this sees what was done before the bits were read, or the bits have our marks.
        fence(SeqCst);
        if self.open.load(SeqCst) {
            return;
        }
        let regions = self.regions_of(blocks);
        let mut hot = regions.end - regions.first <= MANY;
        for region in regions.first..regions.end.min(regions.first + MANY) {
            hot &= self.regions.is_active(region);
            if self.regions.use_one(region) && hot {
                self.go_ahead(region, &map);
            }
        }
        if !hot {
            let batch = self.ask(blocks, regions, &map);
            self.wait_for(batch, clock).await;
        }
    }

    /// Returns when all that was queued so far is on the medium, or cannot be.
    pub(super) async fn settle(&self, clock: &impl Clock) {
        if self.durable {
            let batch = {
                let queue = self.queue();
                queue.batch - u64::from(queue.packer.is_empty())
            };
            self.wait_for(batch, clock).await;
        }
    }

    /// Ends an epoch by `roll`, which gives its map. No change is in flight.
    pub(super) fn cut(
        &self,
        checkpoint: CheckpointEntry,
        snapshot: Option<Placed>,
        roll: impl FnOnce() -> Option<Arc<DenseMap>>,
    ) -> bool {
        // Nobody may queue bits of the new epoch before the cut, nor forget those of the old one.
        let mut queue = self.queue();
        let Some(ended) = roll() else {
            return false;
        };
        if self.durable && queue.suspended.is_none() {
            queue.inexact.push(ended);
            if let Some(placed) = snapshot {
                self.add_snapshot(&mut queue, placed);
            }
            self.push(&mut queue, &Record::Cut(checkpoint));
        }
        true
    }

    /// Begins a lineage by `reset`. No change is in flight.
    pub(super) fn reset<E>(
        &self,
        lineage: &Lineage,
        reset: impl FnOnce() -> Result<Epoch, E>,
    ) -> Result<(), E> {
        let mut queue = self.queue();
        let epoch = reset()?;
        queue.inexact.clear();
        queue.telling = 0;
        let lineage = lineage.clone();
        self.push(&mut queue, &Record::Reset { lineage, epoch });
        Ok(())
    }

    /// Notes that a checkpoint was forgotten.
    pub(super) fn forget(&self, epoch: Epoch) {
        self.push(&mut self.queue(), &Record::Forget(epoch));
    }

    /// Makes regions cold that were not changed of late, and tells what changed in ended epochs.
    pub(super) fn housekeep(&self, now_us: u64, map: impl Fn() -> Arc<DenseMap>) {
        if !self.durable || self.open.load(Acquire) {
            return;
        }
        while self.tell_ended() {}
        self.wants_look(now_us);
        // A clock that was set back only makes the next look come sooner.
        if now_us.abs_diff(self.queue().looked_us) < LOOK_US {
            return;
        }
        let mut at = Some(0);
        while let Some(from) = at {
            let mut queue = self.queue();
            queue.looked_us = now_us;
            let room = queue.packer.len() < MAX_QUEUED;
            at = Some(from).filter(|_| room);
            for _ in 0..AT_ONCE {
                at = at.and_then(|from| self.regions.next_unused(from));
                if let Some(region) = at {
                    self.make_cold(&mut queue, region, &map());
                }
            }
        }
    }

    fn push(&self, queue: &mut Queue, record: &Record) {
        // Without a log nobody would read it, and the next image has it.
        if self.durable && queue.suspended.is_none() {
            queue.packer.push(record, self.geometry.region_blocks());
            self.work.notify(usize::MAX);
        }
    }

    async fn wait_for(&self, batch: u64, clock: &impl Clock) {
        self.wait_until(|| self.written.load(Acquire) > batch, clock)
            .await;
    }

    /// Returns when the keeper has `done` something, or cannot.
    async fn wait_until(&self, done: impl Fn() -> bool, clock: &impl Clock) {
        let written = async {
            loop {
                let listener = self.done.listen();
                if done() || self.open.load(Acquire) {
                    return true;
                }
                listener.await;
            }
        };
        let late = async {
            for _ in 0..MAX_PATIENCE {
                let before = self.progress.load(Relaxed);
                clock.sleep(PATIENCE).await;
                if self.progress.load(Relaxed) == before && !self.at_origin.load(Relaxed) {
                    break;
                }
            }
            false
        };
        if !future::or(pin!(written), pin!(late)).await {
            self.suspend("the area does not answer");
        }
    }

    /// Lets changes go on without being told of durably.
    pub(super) fn suspend(&self, why: &str) {
        let mut queue = self.queue();
        if queue.suspended.is_none() {
            self.state.set_untold(true);
            queue.suspended = Some(why.to_owned());
            queue.untold = Some(why.to_owned());
            queue.packer.take(&mut Vec::new());
            queue.activating.clear();
            queue.inexact.clear();
            queue.watch.forget();
        }
        self.open.store(true, SeqCst);
        drop(queue);
        self.done.notify(usize::MAX);
        self.work.notify(usize::MAX);
    }

    /// Why tracking was suspended, once.
    pub(super) fn untold(&self) -> Option<String> {
        self.durable.then(|| self.queue().untold.take()).flatten()
    }

    /// From now on changes wait for their regions; none is active.
    fn arm(&self) {
        let mut queue = self.queue();
        if self.closed.load(SeqCst) {
            return;
        }
        queue.resuming = queue.suspended.take();
        queue.inexact.clear();
        queue.watch.forget();
        queue.telling = 0;
        self.regions.deactivate_all();
        self.open.store(false, SeqCst);
        fence(SeqCst);
    }

    /// Takes the batch to be written next; `None` when nothing waits.
    fn take(&self, blocks: &mut Vec<u8>) -> Option<u64> {
        let mut queue = self.queue();
        if queue.packer.is_empty() {
            return None;
        }
        queue.packer.take(blocks);
        queue.batch += 1;
        Some(queue.batch - 1)
    }

    /// A batch is on the medium.
    fn commit(&self, batch: u64) {
        let mut queue = self.queue();
        if queue.suspended.is_some() {
            return;
        }
        queue.activating.retain(|(with, regions)| {
            if *with <= batch {
                self.regions.activate(*regions);
            }
            *with > batch
        });
        // An image is of an earlier moment than what was logged while it was written.
        self.written.fetch_max(batch + 1, Release);
        drop(queue);
        self.done.notify(usize::MAX);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}
