//! Cuts: one moment for a volume, or for several together.
//!
//! ```text
//! open ──hold──> held ──cut──> open, next epoch
//!                 │ unhold, or the hold's time ran out
//!                 └──────────> open, same epoch
//! ```
//!
//! Volumes of a group are all held before the first is cut. From then on each may go on by
//! itself: what is written to one after its cut cannot be followed by a write to another before
//! that one's cut, because that one is still held.

use std::time::Duration;

use tidemark_store::{
    changes::HistoryError,
    cow::LayersError,
    journal::Placed,
    state::{CheckpointEntry, Fate, Lineage, MAX_CHECKPOINTS, MAX_SNAPSHOTS},
    units::{Epoch, Id},
};

use super::{
    Checkpoint, Clock, Cut, CutError, EventKind, HoldToken, ReleaseError, Step, Tracker, Volume,
    gate::CloseError, lock,
};
use crate::{disk::Disk, request::Errno};

/// A hold in force; its times are [`Clock::elapsed_us`], so that no setting of the host's clock
/// makes it longer.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    token: HoldToken,
    began_us: u64,
    ends_us: u64,
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Stops changes from entering and waits for those in flight, at most `max`. After `max` the
    /// hold ends by itself at the next [`Volume::housekeep`].
    pub async fn hold(&self, max: Duration) -> Result<HoldToken, CutError> {
        // Whatever may wait or fail comes before the gate closes.
        self.tracker
            .prepare()
            .map_err(|error| state_error(&error))?;
        let began_us = self.clock.elapsed_us();
        let closed = match self.clock.omits(Step::Drain) {
            true => self.gate.shut(),
            false => self.gate.close(self.clock.sleep(max)).await,
        };
        closed.map_err(|error| match error {
            CloseError::Closed => CutError::Busy,
            CloseError::TimedOut => {
                self.note_hold(began_us);
                CutError::TimedOut
            }
        })?;
        let mut hold = lock(&self.hold);
        let token = HoldToken(self.next_token());
        *hold = Some(Hold {
            token,
            began_us,
            ends_us: began_us.saturating_add(u64::try_from(max.as_micros()).unwrap_or(u64::MAX)),
        });
        Ok(token)
    }

    /// Ends the epoch under a hold, makes a checkpoint and, with an id, a snapshot; lets changes
    /// go on, also when it fails.
    pub fn cut(&self, token: HoldToken, snapshot: Option<Id>) -> Result<Cut, CutError> {
        let mut held = lock(&self.hold);
        let hold = held
            .filter(|hold| hold.token == token)
            .ok_or(CutError::TimedOut)?;
        let outcome = self.cut_held(&hold, snapshot);
        *held = None;
        self.gate.open();
        self.note_hold(hold.began_us);
        outcome.inspect(|_| self.forget_surplus())
    }

    /// I4: no change is in flight. What is recorded before the epoch ends counts only once it
    /// has: a process that dies in between has made no cut.
    fn cut_held(&self, hold: &Hold, snapshot: Option<Id>) -> Result<Cut, CutError> {
        if self.clock.elapsed_us() > hold.ends_us {
            return Err(CutError::TimedOut);
        }
        let now_us = self.clock.now_us();
        let epoch = self.tracker.epoch();
        let placed = match snapshot {
            Some(id) => Some(self.add_layer(id, epoch, now_us)?),
            None => None,
        };
        let entry = CheckpointEntry {
            epoch,
            created_us: now_us,
        };
        self.state.add_checkpoint(entry);
        let lineage = self.tracker.lineage().id;
        let ended = || {
            let ended = self.tracker.current();
            self.tracker.roll().then_some(ended)
        };
        if !self.journal.cut(entry, placed, ended) {
            self.state.remove_checkpoint(epoch);
            snapshot.map(|id| self.layers.end(id, Fate::Lost));
            return Err(CutError::State(Errno::EIO));
        }
        Ok(Cut {
            checkpoint: Checkpoint {
                lineage,
                epoch,
                created_us: now_us,
            },
            held: Duration::from_micros(self.clock.elapsed_us().saturating_sub(hold.began_us)),
        })
    }

    fn add_layer(&self, id: Id, epoch: Epoch, now_us: u64) -> Result<Placed, CutError> {
        let added = self.layers.add(id, epoch, now_us, &self.index);
        let (layer, snapshot) = added.map_err(|error| match error {
            LayersError::Full => CutError::TooManySnapshots(MAX_SNAPSHOTS),
            LayersError::Exists(id) => CutError::Exists(id),
        })?;
        let place = layer.number();
        Ok(Placed { place, snapshot })
    }

    /// Returns when every cut, reset and change so far outlives the host, or cannot be made to:
    /// before it does, a cut may be undone by a power cut.
    pub async fn settle(&self) {
        // What was written before a cut and lost with the host would differ from the cut's data,
        // and no change after the cut tells so.
        if self.journal.is_durable() {
            let flushed = match self.settle_snapshots().await {
                Ok(false) => self.origin.flush().await,
                flushed => flushed.map(drop),
            };
            if let Err(errno) = flushed {
                self.journal
                    .suspend(&format!("the origin cannot be flushed: {errno}"));
            }
        }
        self.journal.settle(&self.clock).await;
    }

    /// Lets changes go on without a cut; nothing when the hold ended already.
    pub fn unhold(&self, token: HoldToken) {
        let mut hold = lock(&self.hold);
        if let Some(ended) = hold.take_if(|hold| hold.token == token) {
            self.gate.open();
            self.note_hold(ended.began_us);
        }
    }

    /// Measures a hold that has ended.
    fn note_hold(&self, began_us: u64) {
        let took_us = self.clock.elapsed_us().saturating_sub(began_us);
        self.counters.holds.note(took_us);
    }

    /// Ends a hold whose time ran out: its owner may be dead.
    pub(super) fn end_expired_hold(&self) {
        let mut hold = lock(&self.hold);
        let ran_out = |hold: &mut Hold| self.clock.elapsed_us() > hold.ends_us;
        if self.clock.omits(Step::EndHold) {
            return;
        }
        if let Some(ended) = hold.take_if(ran_out) {
            self.gate.open();
            self.note_hold(ended.began_us);
        }
    }

    /// Gives a snapshot's data back. Its checkpoint stays. Where snapshots outlive the host, a power
    /// cut may bring this one back until [`Volume::ends_told`] returns.
    pub fn release(&self, id: Id) -> Result<(), ReleaseError> {
        let entry = self
            .layers
            .get(id)
            .ok_or(ReleaseError::SnapshotNotFound(id))?;
        if self.fate_of(&entry) == Fate::Live {
            self.end_snapshot(id, Fate::Released, "");
        }
        Ok(())
    }

    /// Forgets a checkpoint: diffs can no longer be asked against it. A snapshot's data stays.
    pub fn forget(&self, epoch: Epoch) -> Result<(), ReleaseError> {
        let known = self.state.remove_checkpoint(epoch);
        if known {
            self.journal.forget(epoch);
        }
        known
            .then_some(())
            .ok_or(ReleaseError::CheckpointNotFound(epoch))
    }

    /// Starts a new lineage, for example because the origin was changed behind our back: every
    /// older checkpoint answers `TrackingReset` with this cause. Snapshots stay.
    pub async fn reset_tracking(&self, cause: &str) -> Result<Id, CutError> {
        let token = self.hold(super::RESET_HOLD).await?;
        let lineage = Lineage {
            id: super::random_id(),
            cause: cause.to_owned(),
            since_us: self.clock.now_us(),
        };
        let reset = || self.tracker.reset(&lineage).map(|()| self.tracker.epoch());
        let outcome = self.journal.reset(&lineage, reset);
        let outcome = outcome.map_err(|error| state_error(&error));
        if outcome.is_ok() {
            for entry in self.state.checkpoints() {
                self.state.remove_checkpoint(entry.epoch);
            }
            *lock(&self.diff_cache) = None;
        }
        self.unhold(token);
        outcome?;
        self.settle().await;
        self.event(
            EventKind::TrackingReset,
            Id::NIL,
            format!("tracking started anew: {cause}"),
        );
        Ok(lineage.id)
    }

    /// Epochs of the checkpoints, ascending.
    pub(super) fn checkpoint_epochs(&self) -> Vec<Epoch> {
        let mut epochs: Vec<Epoch> = self.state.checkpoints().iter().map(|c| c.epoch).collect();
        epochs.sort_unstable();
        epochs
    }

    /// Keeps a place free for the next checkpoint.
    fn forget_surplus(&self) {
        let epochs = self.checkpoint_epochs();
        for epoch in &epochs[..epochs.len().saturating_sub(MAX_CHECKPOINTS - 1)] {
            let why = format!("a volume keeps {} of them", MAX_CHECKPOINTS - 1);
            self.forget_for_room(*epoch, &why);
        }
    }

    /// Forgets a checkpoint that nobody asked to be forgotten.
    pub(super) fn forget_for_room(&self, epoch: Epoch, why: &str) {
        self.state.remove_checkpoint(epoch);
        self.journal.forget(epoch);
        let message = format!("checkpoint {epoch} was forgotten: {why}");
        self.event(EventKind::CheckpointForgotten, Id::NIL, message);
    }
}

fn state_error(error: &HistoryError) -> CutError {
    CutError::State(error.raw_os_error().map_or(Errno::EIO, Errno))
}
