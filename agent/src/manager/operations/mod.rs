//! The registry of long work: progress, waiting, watching and cancelling.
//!
//! ```text
//!            finish()                cancel() then finish() or drop
//! RUNNING ---------------> SUCCEEDED    RUNNING ---------------> CANCELLED
//! RUNNING ---------------> FAILED       (finish with an error, or drop without finish)
//! ```
//!
//! Whoever does the work owns an [`OperationGuard`]: an operation cannot stay RUNNING when its
//! worker is gone. Readers see it through [`Operations`] and never hold it alive.

mod cancel;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tidemark_proto::v1::{OperationKind, OperationState, operation};
use tokio::sync::watch;

pub use cancel::{CancelCause, CancelToken};

use super::{Error, ErrorReason};

/// Finished operations that stay known. At about 300 bytes each: 75 KiB.
pub const KEPT_FINISHED: usize = 256;

/// Operations that may run at once. Each stream has the memory of
/// [`super::streams::STREAM_MEMORY_BYTES`]: 32 of them hold at most 256 MiB.
pub const MAX_RUNNING: usize = 32;

/// An operation at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationStatus {
    /// 32 hex digits.
    pub id: String,
    /// What is done.
    pub kind: OperationKind,
    /// Whether it runs, and how it ended.
    pub state: OperationState,
    /// A volume, a snapshot's id or a path.
    pub subject: String,
    /// Bytes dealt with so far.
    pub done_bytes: u64,
    /// Bytes to deal with in all; 0 while unknown.
    pub total_bytes: u64,
    /// When it began.
    pub started_at: SystemTime,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<SystemTime>,
    /// Why it failed or was cancelled.
    pub error: Option<Error>,
    /// What it gave, of kinds that give something.
    pub result: Option<operation::Result>,
}

/// How many operations there are and were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that run, by kind.
    pub running: BTreeMap<OperationKind, u64>,
    /// Those that ended, by kind and how.
    pub ended: BTreeMap<(OperationKind, OperationState), u64>,
}

/// Every operation that runs, and the last that ended. Cheap to clone.
#[derive(Clone, Default)]
pub struct Operations {
    registry: Arc<Mutex<Registry>>,
}

#[derive(Default)]
struct Registry {
    /// Oldest first.
    running: Vec<Arc<Entry>>,
    /// In the order in which they ended.
    finished: VecDeque<Arc<Entry>>,
    /// All that ended, also those that are no longer known.
    ended: BTreeMap<(OperationKind, OperationState), u64>,
    closed: bool,
}

struct Entry {
    id: String,
    kind: OperationKind,
    subject: String,
    started_at: SystemTime,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    cancel: CancelToken,
    /// `None` while running. A send without a change tells of progress.
    end: watch::Sender<Option<End>>,
}

#[derive(Clone)]
struct End {
    state: OperationState,
    at: SystemTime,
    error: Option<Error>,
    result: Option<operation::Result>,
}

impl Operations {
    /// Registers work that begins now. `total_bytes` is 0 while unknown. Fails with
    /// LIMIT_REACHED when [`MAX_RUNNING`] run, with SHUTTING_DOWN when the agent goes down.
    pub fn start(
        &self,
        kind: OperationKind,
        subject: impl Into<String>,
        total_bytes: u64,
    ) -> Result<OperationGuard, Error> {
        let entry = Arc::new(Entry {
            id: uuid::Uuid::new_v4().simple().to_string(),
            kind,
            subject: subject.into(),
            started_at: SystemTime::now(),
            done_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(total_bytes),
            cancel: CancelToken::default(),
            end: watch::Sender::new(None),
        });
        let mut registry = self.lock();
        if registry.closed {
            return Err(CancelCause::ShuttingDown.into());
        }
        if registry.running.len() >= MAX_RUNNING {
            return Err(too_many());
        }
        registry.running.push(entry.clone());
        drop(registry);
        Ok(OperationGuard {
            registry: self.clone(),
            entry,
        })
    }

    /// An operation as it is now.
    pub fn get(&self, id: &str) -> Option<OperationStatus> {
        self.find(id).map(|entry| entry.status())
    }

    /// All known operations: finished ones in the order in which they ended, then running ones.
    pub fn list(&self, running_only: bool) -> Vec<OperationStatus> {
        let registry = self.lock();
        let finished = registry.finished.iter().filter(|_| !running_only);
        finished
            .chain(&registry.running)
            .map(|entry| entry.status())
            .collect()
    }

    /// How many run and how many ended, since this process started.
    pub fn tally(&self) -> Tally {
        let registry = self.lock();
        let mut running = BTreeMap::new();
        for entry in &registry.running {
            *running.entry(entry.kind).or_default() += 1;
        }
        Tally {
            running,
            ended: registry.ended.clone(),
        }
    }

    /// Asks an operation to end; it does so at its next step. No effect on a finished one.
    pub fn cancel(&self, id: &str) -> Option<OperationStatus> {
        let entry = self.find(id)?;
        entry.cancel.cancel(CancelCause::Asked);
        Some(entry.status())
    }

    /// Waits until an operation ends or `timeout` passes, and answers with what it is then.
    pub async fn wait(&self, id: &str, timeout: Duration) -> Option<OperationStatus> {
        let entry = self.find(id)?;
        let mut end = entry.end.subscribe();
        // Neither a timeout nor a vanished sender matters: the status is read below either way.
        let _ = tokio::time::timeout(timeout, end.wait_for(Option::is_some)).await;
        Some(entry.status())
    }

    /// Follows an operation: see [`Watch::next`].
    pub fn watch(&self, id: &str) -> Option<Watch> {
        let entry = self.find(id)?;
        Some(Watch {
            changes: entry.end.subscribe(),
            entry,
            stage: WatchStage::First,
        })
    }

    /// Ends all running work with [`CancelCause::ShuttingDown`] and refuses new work.
    pub fn shut_down(&self) {
        let mut registry = self.lock();
        registry.closed = true;
        for entry in &registry.running {
            entry.cancel.cancel(CancelCause::ShuttingDown);
        }
    }

    /// Returns when nothing runs any more. With [`Operations::shut_down`] before it: before the
    /// runtime goes, because workers use it.
    pub async fn drained(&self) {
        loop {
            let Some(entry) = self.lock().running.first().cloned() else {
                return;
            };
            let mut end = entry.end.subscribe();
            // The entry is held here, so the sender lives; either answer means: look again.
            let _ = end.wait_for(Option::is_some).await;
            // The end is published just before the registry is told.
            tokio::task::yield_now().await;
        }
    }

    fn find(&self, id: &str) -> Option<Arc<Entry>> {
        let registry = self.lock();
        let mut all = registry.running.iter().chain(&registry.finished);
        all.find(|entry| entry.id == id).cloned()
    }

    fn retire(&self, entry: &Arc<Entry>, state: OperationState) {
        let mut registry = self.lock();
        registry.running.retain(|other| other.id != entry.id);
        *registry.ended.entry((entry.kind, state)).or_default() += 1;
        registry.finished.push_back(entry.clone());
        if registry.finished.len() > KEPT_FINISHED {
            registry.finished.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // The registry holds no invariant that a panic between two statements could break.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many() -> Error {
    Error::new(
        ErrorReason::LimitReached,
        format!("{MAX_RUNNING} operations run, which is the limit: wait for one or cancel one"),
    )
}

impl Entry {
    fn status(&self) -> OperationStatus {
        let end = self.end.borrow().clone();
        OperationStatus {
            id: self.id.clone(),
            kind: self.kind,
            state: end
                .as_ref()
                .map_or(OperationState::Running, |end| end.state),
            subject: self.subject.clone(),
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            started_at: self.started_at,
            ended_at: end.as_ref().map(|end| end.at),
            error: end.as_ref().and_then(|end| end.error.clone()),
            result: end.and_then(|end| end.result),
        }
    }
}

/// The right to report on an operation, held by its worker.
///
/// Dropped without [`OperationGuard::finish`] it ends the operation: CANCELLED when it was asked
/// to stop, else FAILED.
pub struct OperationGuard {
    registry: Operations,
    entry: Arc<Entry>,
}

impl OperationGuard {
    /// The operation's id.
    pub fn id(&self) -> &str {
        &self.entry.id
    }

    /// Tells when to stop; may be cloned into threads and tasks.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.entry.cancel
    }

    /// A handle that only counts, for the thread that does the work.
    pub fn progress(&self) -> Progress {
        Progress(self.entry.clone())
    }

    /// Ends the operation. After a cancellation, an error means CANCELLED.
    pub fn finish(self, outcome: Result<(), Error>) {
        self.end(outcome.map(|()| None));
    }

    /// Ends the operation with what it gave.
    pub fn finish_with(self, outcome: Result<operation::Result, Error>) {
        self.end(outcome.map(Some));
    }

    fn end(&self, outcome: Result<Option<operation::Result>, Error>) {
        let state = match (&outcome, self.entry.cancel.cause()) {
            (Ok(_), _) => OperationState::Succeeded,
            (Err(_), Some(_)) => OperationState::Cancelled,
            (Err(_), None) => OperationState::Failed,
        };
        let (result, error) = match outcome {
            Ok(result) => (result, None),
            Err(error) => (None, Some(error)),
        };
        let first = self.entry.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                self.entry.log(state, error.as_ref());
                *end = Some(End {
                    state,
                    at: SystemTime::now(),
                    error,
                    result,
                });
            }
            first
        });
        if first {
            self.registry.retire(&self.entry, state);
        }
    }
}

impl Entry {
    fn log(&self, state: OperationState, error: Option<&Error>) {
        let (operation, kind) = (self.id.as_str(), self.kind.as_str_name());
        let kind = kind.trim_start_matches("OPERATION_KIND_");
        let subject = self.subject.as_str();
        match (state, error) {
            (OperationState::Failed, Some(error)) => {
                tracing::warn!(operation, kind, subject, %error, "an operation failed");
            }
            (OperationState::Cancelled, _) => {
                tracing::info!(operation, kind, subject, "an operation was cancelled");
            }
            _ => tracing::info!(operation, kind, subject, "an operation is done"),
        }
    }
}

impl Drop for OperationGuard {
    fn drop(&mut self) {
        let error = match self.entry.cancel.cause() {
            Some(cause) => cause.into(),
            None => Error::internal("the work ended without a result: the agent's log says more"),
        };
        // No effect after finish().
        self.end(Err(error));
    }
}

/// Counts an operation's progress.
#[derive(Clone)]
pub struct Progress(Arc<Entry>);

impl Progress {
    /// So many bytes more are done.
    pub fn add(&self, bytes: u64) {
        self.0.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.0.end.send_modify(|_| {});
    }

    /// So many bytes are done in all.
    pub fn set(&self, bytes: u64) {
        self.0.done_bytes.store(bytes, Ordering::Relaxed);
        self.0.end.send_modify(|_| {});
    }

    /// So many bytes are to be dealt with in all, as is known by now.
    pub fn set_total(&self, bytes: u64) {
        self.0.total_bytes.store(bytes, Ordering::Relaxed);
        self.0.end.send_modify(|_| {});
    }

    /// Everything is done, also where the last step did not reach the total: what is left of a
    /// volume after its last change, for one.
    pub fn complete(&self) {
        let total = self.0.total_bytes.load(Ordering::Relaxed);
        if total > 0 {
            self.set(total);
        }
    }
}

/// Follows one operation; slow watchers miss steps, never the end.
pub struct Watch {
    entry: Arc<Entry>,
    changes: watch::Receiver<Option<End>>,
    stage: WatchStage,
}

#[derive(PartialEq)]
enum WatchStage {
    First,
    Following,
    Ended,
}

impl Watch {
    /// The operation now, then at each step, last at its end; after that `None`.
    pub async fn next(&mut self) -> Option<OperationStatus> {
        match self.stage {
            WatchStage::Ended => return None,
            WatchStage::First => {}
            // The entry that this watch holds owns the sender, so it cannot be gone.
            WatchStage::Following => self.changes.changed().await.ok()?,
        }
        self.changes.borrow_and_update();
        let status = self.entry.status();
        self.stage = match status.ended_at {
            Some(_) => WatchStage::Ended,
            None => WatchStage::Following,
        };
        Some(status)
    }
}
