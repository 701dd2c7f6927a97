//! Trackers: what fills change maps.
//!
//! A capture asks a [`Tracker`] for diffs and never which one it was. Today there is one, fed by
//! the engine with each request; a second opinion that watches the kernel's block layer fits the
//! same seam.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tidemark_store::{
    changes::{ChangeSet, DenseMap, History, HistoryError},
    state::{Lineage, State},
    units::Epoch,
};

use super::plan::Change;

/// Knows which blocks changed in which epoch.
pub trait Tracker: Send + Sync {
    /// The span of unbroken tracking.
    fn lineage(&self) -> Lineage;

    /// The running epoch.
    fn epoch(&self) -> Epoch;

    /// What changed after `since` and up to `until`, from the block `start` on and perhaps some
    /// before it. `None` is now, and then the answer holds at least what had changed when it was
    /// asked.
    fn changes(
        &self,
        since: Epoch,
        until: Option<Epoch>,
        start: u64,
    ) -> Result<ChangeSet, HistoryError>;

    /// Makes the next epoch's map, so that [`Tracker::roll`] neither waits nor fails.
    fn prepare(&self) -> Result<(), HistoryError>;

    /// Ends the running epoch. No change is in flight; `false` without a prepared map.
    fn roll(&self) -> bool;
}

/// The interposer's own tracker: marks each change before it is issued.
pub(super) struct MapTracker {
    state: Arc<State>,
    dir: PathBuf,
    blocks: u64,
    /// Swapped only while no change is in flight.
    current: RwLock<Arc<DenseMap>>,
    prepared: Mutex<Option<DenseMap>>,
    /// Maps of ended epochs that `history` has not taken over yet: a cut never waits for it.
    ended: Mutex<Vec<Arc<DenseMap>>>,
    history: Mutex<History>,
}

impl MapTracker {
    /// Takes up the state's lineage and epoch.
    pub(super) fn open(state: Arc<State>, dir: &Path, blocks: u64) -> Result<Self, HistoryError> {
        let (history, map) = History::open(dir, state.lineage().id, state.epoch(), blocks)?;
        Ok(Self::with(state, dir, blocks, history, map))
    }

    /// Begins the lineage that the state names, with no past.
    pub(super) fn create(state: Arc<State>, dir: &Path, blocks: u64) -> Result<Self, HistoryError> {
        let history = History::create(dir)?;
        let map = history.create_map(state.lineage().id, state.epoch(), blocks)?;
        Ok(Self::with(state, dir, blocks, history, map))
    }

    fn with(state: Arc<State>, dir: &Path, blocks: u64, history: History, map: DenseMap) -> Self {
        Self {
            state,
            dir: dir.to_owned(),
            blocks,
            current: RwLock::new(Arc::new(map)),
            prepared: Mutex::default(),
            ended: Mutex::default(),
            history: Mutex::new(history),
        }
    }

    /// I1: records a change before it reaches the origin.
    pub(super) fn mark(&self, change: &Change) {
        self.current().mark(change.touched);
    }

    /// Records what a change made of the blocks it covers, once the origin has it.
    pub(super) fn settle(&self, change: &Change) {
        self.current().settle(change.settled, change.kind);
    }

    /// Blocks changed in the running epoch.
    pub(super) fn changed_blocks(&self) -> u64 {
        self.current().changed_blocks()
    }

    /// Begins a new lineage with the next epoch and forgets the past. No change is in flight.
    pub(super) fn reset(&self, lineage: &Lineage) -> Result<(), HistoryError> {
        let mut history = lock(&self.history);
        lock(&self.ended).clear();
        *lock(&self.prepared) = None;
        let epoch = self.epoch().next();
        *history = History::create(&self.dir)?;
        let map = history.create_map(lineage.id, epoch, self.blocks)?;
        self.state.commit_lineage(lineage, epoch);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        Ok(())
    }

    /// Seals, merges and drops maps of ended epochs; `checkpoints` is ascending.
    pub(super) fn housekeep(&self, checkpoints: &[Epoch]) -> Result<(), HistoryError> {
        let mut history = self.history_with_ended();
        if history.needs_housekeeping(checkpoints) {
            history.housekeep(checkpoints)?;
        }
        Ok(())
    }

    /// First and last epoch of the change maps of ended epochs, ascending.
    pub(super) fn spans(&self) -> Vec<(Epoch, Epoch)> {
        self.history_with_ended().spans()
    }

    /// The changes of the map with these epochs; `None` when it was merged or dropped meanwhile.
    pub(super) fn span(
        &self,
        first: Epoch,
        last: Epoch,
    ) -> Result<Option<ChangeSet>, HistoryError> {
        self.history_with_ended().span(first, last)
    }

    /// The running epoch's map.
    pub(super) fn current(&self) -> Arc<DenseMap> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn history_with_ended(&self) -> MutexGuard<'_, History> {
        let mut history = lock(&self.history);
        for map in lock(&self.ended).drain(..) {
            history.push(map);
        }
        history
    }
}

impl Tracker for MapTracker {
    fn lineage(&self) -> Lineage {
        self.state.lineage()
    }

    fn epoch(&self) -> Epoch {
        self.state.epoch()
    }

    fn changes(
        &self,
        since: Epoch,
        until: Option<Epoch>,
        start: u64,
    ) -> Result<ChangeSet, HistoryError> {
        // The running map first: if a cut ends its epoch meanwhile, this is still that epoch's.
        let current = self.current();
        let history = self.history_with_ended();
        match until {
            Some(until) => history.diff(since, until),
            None => {
                let mut sum = history.diff(since, Epoch(current.epoch().0.saturating_sub(1)))?;
                sum.absorb(&current.to_set(start));
                Ok(sum)
            }
        }
    }

    fn prepare(&self) -> Result<(), HistoryError> {
        let next = self.epoch().next();
        let mut prepared = lock(&self.prepared);
        if prepared.as_ref().is_none_or(|map| map.epoch() != next) {
            let history = lock(&self.history);
            *prepared = Some(history.create_map(self.lineage().id, next, self.blocks)?);
        }
        Ok(())
    }

    fn roll(&self) -> bool {
        let next = self.epoch().next();
        let Some(map) = lock(&self.prepared)
            .take()
            .filter(|map| map.epoch() == next)
        else {
            return false;
        };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::replace(&mut *current, Arc::new(map));
        lock(&self.ended).push(ended);
        self.state.commit_epoch(next);
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
