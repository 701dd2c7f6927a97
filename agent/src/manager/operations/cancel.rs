//! Asking work to stop, from any thread or task.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

use crate::manager::{Error, ErrorReason};

/// Why work was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelCause {
    /// By `CancelOperation`.
    Asked,
    /// The agent is going down.
    ShuttingDown,
    /// Whoever read the result went away.
    ClientGone,
}

impl From<CancelCause> for Error {
    fn from(cause: CancelCause) -> Self {
        match cause {
            CancelCause::Asked | CancelCause::ClientGone => {
                Self::new(ErrorReason::OperationCancelled, cause.to_string())
            }
            CancelCause::ShuttingDown => Self::shutting_down(),
        }
    }
}

impl fmt::Display for CancelCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "the operation was cancelled on request",
            Self::ShuttingDown => "the agent is shutting down",
            Self::ClientGone => "the client went away",
        })
    }
}

impl std::error::Error for CancelCause {}

/// Tells work to stop. The first cause stays. Cheap to clone.
#[derive(Clone)]
pub struct CancelToken(Arc<watch::Sender<Option<CancelCause>>>);

impl Default for CancelToken {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl CancelToken {
    /// Asks the work to stop.
    pub fn cancel(&self, cause: CancelCause) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(cause);
            first
        });
    }

    /// Why the work has to stop, once it has to. For threads: ask before each step.
    pub fn cause(&self) -> Option<CancelCause> {
        *self.0.borrow()
    }

    /// `Err` once the work has to stop.
    pub fn check(&self) -> Result<(), CancelCause> {
        self.cause().map_or(Ok(()), Err)
    }

    /// Returns once the work has to stop. For tasks.
    pub async fn cancelled(&self) -> CancelCause {
        let mut causes = self.0.subscribe();
        loop {
            if let Some(cause) = *causes.borrow_and_update() {
                return cause;
            }
            if causes.changed().await.is_err() {
                // `self` holds the sender: this does not happen, and waiting is the safe answer.
                std::future::pending::<()>().await;
            }
        }
    }
}
