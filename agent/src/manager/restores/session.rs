//! One restore session.
//!
//! ```text
//!           write*             seal: digest equal
//!  begin -> OPEN ------------------------------> SEALED
//!            |  ^ seal cancelled        | seal: it differs, or an I/O error
//!            |  +--------               +------> FAILED <-- nothing came for IDLE_TIMEOUT
//!            +--------------------- abort -----> ABORTED
//! ```
//!
//! Writing and sealing need the [`Work`], which is behind a lock that is handed from one call to
//! the next: extents are in order, a seal sees all of them, and an end takes the target away
//! only when nobody writes to it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tidemark_proto::v1::{DataExtent, RestoreState};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{
    BeginRestore, Destination, IDLE_TIMEOUT, MAX_EXTENTS, OnEnd, RestoreStatus, extent,
    record::Record, target::Target,
};
use crate::{
    manager::{
        Error, ErrorReason,
        operations::{CancelCause, CancelToken},
    },
    volume::Kind,
};

/// Extents recorded by all open sessions.
pub(super) type Budget = Arc<AtomicUsize>;

/// What a session writes to, and what it wrote.
pub(super) struct Work {
    pub(super) target: Target,
    pub(super) record: Record,
    budget: Budget,
}

impl Work {
    pub(super) fn new(target: Target, budget: Budget) -> Self {
        Self {
            target,
            record: Record::default(),
            budget,
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let held = self.record.entries().len();
        self.budget.fetch_sub(held, Ordering::Relaxed);
    }
}

/// The exclusive right to the work; `None` inside once the session ended.
pub(super) type WorkGuard = OwnedMutexGuard<Option<Work>>;

pub(super) struct Session {
    pub(super) id: String,
    /// For events and operations: the volume, or the path.
    pub(super) subject: String,
    is_volume: bool,
    pub(super) capacity: u64,
    work: Arc<AsyncMutex<Option<Work>>>,
    /// Ends a write or a seal that is under way, because the session ends.
    pub(super) ending: CancelToken,
    summary: Mutex<Summary>,
    on_end: OnEnd,
}

struct Summary {
    state: RestoreState,
    written_bytes: u64,
    extents: u64,
    idle_since: Instant,
    expires_at: SystemTime,
    /// Why it failed.
    cause: String,
}

impl Session {
    pub(super) fn new(begin: &BeginRestore, work: Work, on_end: OnEnd) -> Self {
        let (subject, is_volume) = match &begin.destination {
            Destination::Volume(name) => (name.clone(), true),
            Destination::Path(path) => (path.display().to_string(), false),
        };
        Self {
            id: uuid::Uuid::new_v4().simple().to_string(),
            subject,
            is_volume,
            capacity: begin.capacity_bytes,
            work: Arc::new(AsyncMutex::new(Some(work))),
            ending: CancelToken::default(),
            summary: Mutex::new(Summary {
                state: RestoreState::Open,
                written_bytes: 0,
                extents: 0,
                idle_since: Instant::now(),
                expires_at: SystemTime::now() + IDLE_TIMEOUT,
                cause: String::new(),
            }),
            on_end,
        }
    }

    pub(super) fn status(&self) -> RestoreStatus {
        let summary = self.summary();
        RestoreStatus {
            id: self.id.clone(),
            subject: self.subject.clone(),
            is_volume: self.is_volume,
            state: summary.state,
            capacity_bytes: self.capacity,
            written_bytes: summary.written_bytes,
            extents: summary.extents,
            expires_at: (summary.state == RestoreState::Open).then_some(summary.expires_at),
            cause: summary.cause.clone(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.summary().state == RestoreState::Open
    }

    /// Waits for the work. Fails when the session ended.
    pub(super) async fn lock_work(&self) -> Result<WorkGuard, Error> {
        let work = self.work.clone().lock_owned().await;
        self.still_open(work)
    }

    /// Takes the work at once. VOLUME_BUSY when somebody has it.
    pub(super) fn try_lock_work(&self) -> Result<WorkGuard, Error> {
        let work = self.work.clone().try_lock_owned().map_err(|_| {
            Error::new(
                ErrorReason::VolumeBusy,
                format!(
                    "restore {} is being written or sealed: wait for that to end",
                    self.id
                ),
            )
        })?;
        self.still_open(work)
    }

    fn still_open(&self, work: WorkGuard) -> Result<WorkGuard, Error> {
        if work.is_some() && self.is_open() {
            return Ok(work);
        }
        Err(self.ended_error())
    }

    fn ended_error(&self) -> Error {
        let summary = self.summary();
        let why = match summary.state {
            RestoreState::Open | RestoreState::Unspecified => "is ending",
            RestoreState::Sealed => "is sealed",
            RestoreState::Aborted => "was aborted",
            RestoreState::Failed => "failed",
        };
        let cause = match summary.cause.as_str() {
            "" => String::new(),
            cause => format!(" ({cause})"),
        };
        Error::new(
            ErrorReason::RestoreNotFound,
            format!("restore {} {why}{cause}: begin another one", self.id),
        )
        .with("restore", &self.id)
    }

    /// Checks and writes extents in order; stops at the first that fails. What was written
    /// before it stays and counts. Blocks.
    pub(super) fn write(
        &self,
        work: &mut WorkGuard,
        extents: Vec<DataExtent>,
    ) -> Result<(), Error> {
        let Some(work) = work.as_mut() else {
            return Err(self.ended_error());
        };
        for wire in extents {
            self.ending.check().map_err(|_| self.ended_error())?;
            self.write_one(work, wire)?;
        }
        Ok(())
    }

    fn write_one(&self, work: &mut Work, wire: DataExtent) -> Result<(), Error> {
        let checked = extent::check(wire, self.capacity)?;
        let range = checked.extent.range;
        work.record.admit(range)?;
        claim_entry(&work.budget)?;
        let written = match checked.extent.kind {
            Kind::Data => work.target.write(range.offset, &checked.data),
            Kind::Zero | Kind::Discarded => work.target.zero(range, &self.ending),
        };
        if let Err(error) = written {
            work.budget.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        work.record.add(&checked);
        let mut summary = self.summary();
        summary.written_bytes = work.record.written_bytes();
        summary.extents += 1;
        summary.touch();
        Ok(())
    }

    /// Starts the idle time anew.
    pub(super) fn touch(&self) {
        self.summary().touch();
    }

    /// Ends the session and lets go of its target. Only the first end counts:
    /// `false` says that this was not it.
    pub(super) fn end(&self, mut work: WorkGuard, state: RestoreState, cause: &str) -> bool {
        // Closed before anybody learns of the end: what follows may open the target.
        *work = None;
        {
            let mut summary = self.summary();
            if summary.state != RestoreState::Open {
                return false;
            }
            summary.state = state;
            cause.clone_into(&mut summary.cause);
        }
        (self.on_end)(&self.status());
        true
    }

    /// Stops a write or a seal under way, then ends the session as ABORTED.
    pub(super) async fn abort(&self) -> Result<(), Error> {
        if !self.is_open() {
            return Err(self.ended_error());
        }
        self.ending.cancel(CancelCause::Asked);
        let work = self.work.clone().lock_owned().await;
        if self.end(work, RestoreState::Aborted, "aborted on request") {
            return Ok(());
        }
        // A seal that was nearly done won.
        Err(self.ended_error())
    }

    /// Returns once the session ended, which it does as FAILED when nothing came for
    /// [`IDLE_TIMEOUT`]. A write or seal under way is not idle.
    pub(super) async fn expire_when_idle(self: Arc<Self>) {
        while self.is_open() {
            let left = self.idle_left();
            if left.is_zero() {
                if let Ok(work) = self.work.clone().try_lock_owned() {
                    let cause = format!("nothing was written for {} s", IDLE_TIMEOUT.as_secs());
                    self.end(work, RestoreState::Failed, &cause);
                    return;
                }
                self.touch();
                continue;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn idle_left(&self) -> Duration {
        IDLE_TIMEOUT.saturating_sub(self.summary().idle_since.elapsed())
    }

    /// As if nothing had come for a while.
    #[cfg(test)]
    pub(super) fn age(&self, by: Duration) {
        let mut summary = self.summary();
        if let Some(earlier) = summary.idle_since.checked_sub(by) {
            summary.idle_since = earlier;
        }
    }

    fn summary(&self) -> MutexGuard<'_, Summary> {
        // Plain values: there is no invariant that a panic could leave half made.
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Summary {
    fn touch(&mut self) {
        self.idle_since = Instant::now();
        self.expires_at = SystemTime::now() + IDLE_TIMEOUT;
    }
}

fn claim_entry(budget: &Budget) -> Result<(), Error> {
    if budget.fetch_add(1, Ordering::Relaxed) < MAX_EXTENTS {
        return Ok(());
    }
    budget.fetch_sub(1, Ordering::Relaxed);
    Err(Error::new(
        ErrorReason::LimitReached,
        format!(
            "open restores hold {MAX_EXTENTS} extents, which is the limit: seal or abort one, or \
             send longer extents"
        ),
    ))
}
