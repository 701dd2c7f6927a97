//! One job: an operation, its turn, and a blocking thread that can be asked to stop.

use std::{sync::Arc, time::Duration};

use tidemark_proto::v1::{OperationKind, operation};
use tidemark_store::repository;

use super::{Backups, error::of_repository};
use crate::manager::{
    Error,
    operations::{CancelToken, OperationStatus, Progress},
};

/// How often progress is told.
const STEP: Duration = Duration::from_millis(200);

/// What a job has to do with its operation.
pub(super) struct Job {
    pub(super) cancel: CancelToken,
    pub(super) progress: Progress,
    /// Bytes of parts that are done.
    before: u64,
}

impl Backups {
    /// Starts a job. It waits for its turn, and goes on whatever becomes of the caller.
    pub(super) fn start<F, W>(
        &self,
        kind: OperationKind,
        subject: String,
        work: W,
    ) -> Result<OperationStatus, Error>
    where
        W: FnOnce(Self, Job) -> F + Send + 'static,
        F: Future<Output = Result<operation::Result, Error>> + Send,
    {
        let operation = self.operations.start(kind, subject, 0)?;
        let id = operation.id().to_owned();
        let job = Job {
            cancel: operation.cancel_token().clone(),
            progress: operation.progress(),
            before: 0,
        };
        let backups = self.clone();
        tokio::spawn(async move {
            let cancel = job.cancel.clone();
            let turns = Arc::clone(&backups.turns);
            let turn = tokio::select! {
                biased;
                cause = cancel.cancelled() => Err(cause.into()),
                turn = turns.acquire_owned() => turn.map_err(Error::internal),
            };
            let outcome = match turn {
                Ok(_turn) => work(backups, job).await,
                Err(error) => Err(error),
            };
            if outcome.is_ok() {
                // What is holes is not walked over.
                operation.progress().complete();
            }
            operation.finish_with(outcome);
        });
        self.operations
            .get(&id)
            .ok_or_else(|| Error::internal("a job's operation is not known"))
    }
}

impl Job {
    /// Runs work of a repository on a thread of its own, and tells how far it is.
    pub(super) async fn run<T: Send + 'static>(
        &mut self,
        name: &str,
        work: impl FnOnce(&repository::Progress) -> repository::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let told = Arc::new(repository::Progress::default());
        let worker = Arc::clone(&told);
        let mut done = tokio::task::spawn_blocking(move || work(&worker));
        let mut asked = None;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut done => break ended,
                cause = self.cancel.cancelled(), if asked.is_none() => {
                    told.cancel();
                    asked = Some(cause);
                }
                () = tokio::time::sleep(STEP) => self.tell(&told),
            }
        };
        self.tell(&told);
        let ended = ended.map_err(|why| Error::internal(format!("a job's thread ended: {why}")))?;
        ended.map_err(|error| match (error, asked) {
            (repository::Error::Cancelled, Some(cause)) => cause.into(),
            (error, _) => {
                tracing::warn!(repository = name, %error, "work on a repository failed");
                of_repository(name, error)
            }
        })
    }

    /// What work gave, or why it did not: that it was to stop, what its source or target said, or the
    /// repository.
    pub(super) fn outcome<T>(
        &self,
        name: &str,
        done: repository::Result<T>,
        failed: Option<Error>,
    ) -> Result<T, Error> {
        match (done, failed, self.cancel.cause()) {
            (Ok(done), _, _) => Ok(done),
            (Err(repository::Error::Cancelled), _, Some(cause)) => Err(cause.into()),
            (Err(_), Some(failed), _) => Err(failed),
            (Err(error), None, _) => Err(of_repository(name, error)),
        }
    }

    fn tell(&self, told: &repository::Progress) {
        let offset = told.offset.load(std::sync::atomic::Ordering::Relaxed);
        self.progress.set(self.before + offset);
    }

    /// A part of so many bytes is done.
    pub(super) fn part_done(&mut self, bytes: u64) {
        self.before += bytes;
        self.progress.set(self.before);
    }
}

/// Runs something that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|why| Error::internal(format!("a thread for a repository ended: {why}")))?
}
