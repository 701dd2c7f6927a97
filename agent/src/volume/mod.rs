//! The engine: tracks and preserves what a volume's host changes, and serves its snapshots.
//!
//! - one request: [`Volume::serve`] in `serve`, with its leaves `plan` (what changes), `gate`
//!   (who may pass), `tracker` (marking), `preserve` and `room` (keeping old data);
//! - one snapshot: `cut` (the moment), `view` (its bytes), `extents` (what it holds and what
//!   changed);
//! - one life: `open` (taking up what a dead process left), and housekeeping here.
//!
//! The engine knows no transport, no thread and no clock of its own, so that a simulator can
//! drive it over any [`Disk`].

mod claim;
mod clock;
mod counters;
mod cut;
mod error;
mod events;
mod extents;
mod gate;
mod journal;
mod latency;
mod open;
mod plan;
mod preserve;
mod room;
mod serve;
mod tracker;
mod types;
mod view;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    time::Duration,
};

use event_listener::Event as Notice;
use tidemark_store::{
    area::{Layout, Superblock},
    cow::{Index, Layers},
    state::{self, State},
    units::{Epoch, Geometry, Id},
};

pub use claim::free_area;
pub use clock::{Clock, Step, SystemClock};
pub use error::{ChangeError, CutError, OpenError, ReleaseError, ViewError};
pub use journal::Durability;
pub use latency::{BOUNDS_US, Latency};
pub use open::{Continuity, Options};
pub use tracker::Tracker;
pub use types::{
    Checkpoint, Counters, Cut, Event, EventKind, Extent, ExtentPage, Fate, FullPolicy, HoldToken,
    Kind, Measurements, RequestKind, Requests, SnapshotStatus, Status,
};

use crate::disk::Disk;

/// For how long a reset of tracking may hold changes.
const RESET_HOLD: Duration = Duration::from_secs(5);
/// Slots that housekeeping looks at before it looks at anything else.
const HOUSEKEEPING_SLOTS: u32 = 1 << 16;

/// One volume: its origin, its area, and everything that is known of its past.
///
/// All methods may be called by many threads at once.
pub struct Volume<O, A, C> {
    geometry: Geometry,
    discard_zeroes: bool,
    origin: O,
    area: A,
    clock: C,
    policy: FullPolicy,
    superblock: Superblock,
    state: Arc<State>,
    layers: Layers,
    index: Index,
    tracker: tracker::MapTracker,
    gate: gate::Gate,
    journal: journal::Journal,
    recovered: Option<Epoch>,
    /// The epoch that ran when this process began.
    began: Epoch,
    hold: Mutex<Option<cut::Hold>>,
    tokens: Mutex<u64>,
    counters: counters::LiveCounters,
    events: events::EventLog,
    buffers: preserve::Buffers,
    diff_cache: Mutex<extents::DiffCache>,
    space_freed: Notice,
    filling: AtomicBool,
    wants_sweep: AtomicBool,
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Size and block size.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Where things lie in the area.
    fn layout(&self) -> Layout {
        Layout::of(self.geometry)
    }

    /// The volume now.
    pub fn status(&self) -> Status {
        let lineage = self.tracker.lineage();
        let block = self.geometry.block_bytes();
        let mut checkpoints: Vec<Checkpoint> = self
            .state
            .checkpoints()
            .into_iter()
            .map(|entry| Checkpoint {
                lineage: lineage.id,
                epoch: entry.epoch,
                created_us: entry.created_us,
            })
            .collect();
        checkpoints.sort_by_key(|checkpoint| checkpoint.epoch);
        Status {
            geometry: self.geometry,
            lineage: lineage.id,
            lineage_cause: lineage.cause,
            lineage_since_us: lineage.since_us,
            epoch: self.tracker.epoch(),
            store_capacity: u64::from(self.index.capacity()) * block,
            store_used: u64::from(self.index.used()) * block,
            snapshots: self.snapshots(),
            checkpoints,
            counters: self.counters.sums(),
            changed_bytes: self.tracker.changed_blocks() * block,
            durability: self.journal.durability(),
            keeps_snapshots: self.journal.keeps_snapshots(),
            recovered: self
                .recovered
                .filter(|_| self.tracker.epoch() == self.began),
        }
    }

    /// How long requests and holds took.
    pub fn measurements(&self) -> Measurements {
        self.counters.measurements()
    }

    /// Snapshots whose fate is still known, oldest first.
    pub fn snapshots(&self) -> Vec<SnapshotStatus> {
        let block = self.geometry.block_bytes();
        let status = |(layer, entry): (_, state::SnapshotEntry)| SnapshotStatus {
            id: entry.id,
            epoch: entry.epoch,
            fate: self.fate_of(&entry),
            preserved_bytes: u64::from(self.index.used_by(layer)) * block,
            created_us: entry.created_us,
        };
        self.layers.all().into_iter().map(status).collect()
    }

    /// Kept events after a sequence number, and whether some between are gone; waits up to `wait`
    /// for one. Blocks the thread.
    pub fn wait_events(&self, after: u64, wait: Duration) -> (Vec<Event>, bool) {
        self.events.wait(after, wait)
    }

    /// Does what a cut or a release left behind: seals change maps, frees slots, ends a hold that
    /// ran out, says that this process lives. To be called about every 100 ms, by one thread.
    pub fn housekeep(&self) {
        self.state.set_alive_us(self.clock.now_us());
        self.end_expired_hold();
        if let Err(error) = self.tracker.housekeep(&self.checkpoint_epochs()) {
            // Nothing is lost: the maps stay in their earlier form.
            tracing::warn!(%error, "change maps could not be put in order");
        }
        self.finish_ends();
        if self.wants_sweep.swap(false, AcqRel) {
            self.sweep();
        }
        self.note_calm();
        let now_us = self.clock.now_us();
        self.journal.housekeep(now_us, || self.tracker.current());
        if let Some(why) = self.journal.untold() {
            let message = format!(
                "tracking does not outlive the host now: {why}. It is tried again; the volume \
                 itself is not affected"
            );
            self.event(EventKind::DurabilitySuspended, Id::NIL, message);
        }
    }

    /// Frees every slot that no live snapshot needs.
    fn sweep(&self) {
        // The pass under way may have begun before the last release: one more whole one.
        let mut passes = 0;
        while passes < 2 {
            self.state.set_alive_us(self.clock.now_us());
            self.end_expired_hold();
            let sweep = self.index.sweep(&self.layers.live(), HOUSEKEEPING_SLOTS);
            passes += u8::from(sweep.finished);
            if sweep.freed > 0 {
                self.space_freed.notify(usize::MAX);
            }
        }
    }

    fn event(&self, kind: EventKind, snapshot: Id, message: String) {
        tracing::warn!(?kind, %message);
        self.events
            .add(self.clock.now_us(), kind, snapshot, message);
    }

    fn next_token(&self) -> u64 {
        let mut token = lock(&self.tokens);
        *token += 1;
        *token
    }
}

fn random_id() -> Id {
    Id(uuid::Uuid::new_v4().into_bytes())
}

fn random_u64() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic aborts the process; in tests a poisoned lock guards no invariant.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
