//! Between a stream's worker thread and its client: a short queue that either side can end.
//!
//! The worker waits for the client in [`Outlet::send`], and stops waiting when the operation is
//! cancelled or the client is gone. The client waits in [`Feed::next`], and hears of a
//! cancellation although the worker could not put it into a full queue.

use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TryRecvError},
};

use crate::manager::{
    Error,
    operations::{CancelCause, CancelToken, OperationGuard},
};

/// A message, and whether the stream is complete with it.
struct Item<T> {
    message: T,
    last: bool,
}

/// The worker's end. Its calls block: it belongs on a thread of its own.
pub(super) struct Outlet<T> {
    runtime: Handle,
    queue: mpsc::Sender<Result<Item<T>, Error>>,
    cancel: CancelToken,
}

/// The client's end of a stream. Dropping it stops the stream at once.
pub struct Feed<T> {
    queue: mpsc::Receiver<Result<Item<T>, Error>>,
    cancel: CancelToken,
    ended: bool,
}

/// Both ends of a queue of `len` messages. Must be called within a runtime.
pub(super) fn outlet<T: Send>(len: usize, cancel: &CancelToken) -> (Outlet<T>, Feed<T>) {
    let (sender, receiver) = mpsc::channel(len);
    let outlet = Outlet {
        runtime: Handle::current(),
        queue: sender,
        cancel: cancel.clone(),
    };
    let feed = Feed {
        queue: receiver,
        cancel: cancel.clone(),
        ended: false,
    };
    (outlet, feed)
}

impl<T: Send> Outlet<T> {
    /// Waits until the client takes a message, or for a reason not to.
    pub(super) fn send(&self, message: T) -> Result<(), Error> {
        let last = false;
        self.room()?.send(Ok(Item { message, last }));
        Ok(())
    }

    /// Ends the operation, then tells the client, if it still listens: whoever has the last
    /// message finds the operation ended.
    pub(super) fn finish(&self, outcome: Result<T, Error>, operation: OperationGuard) {
        match (outcome, self.room()) {
            (Ok(message), Ok(room)) => {
                operation.finish(Ok(()));
                let last = true;
                room.send(Ok(Item { message, last }));
            }
            (Err(error), Ok(room)) => {
                operation.finish(Err(error.clone()));
                room.send(Err(error));
            }
            // The client learns of a cancellation from its Feed.
            (Err(error), Err(_)) | (Ok(_), Err(error)) => operation.finish(Err(error)),
        }
    }

    fn room(&self) -> Result<mpsc::Permit<'_, Result<Item<T>, Error>>, Error> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                cause = self.cancel.cancelled() => Err(cause.into()),
                room = self.queue.reserve() => room.map_err(|_| CancelCause::ClientGone.into()),
            }
        })
    }
}

impl<T> Feed<T> {
    /// The next message. After the last one, or an error, comes `None`.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        if self.ended {
            return None;
        }
        let item = tokio::select! {
            biased;
            cause = self.cancel.cancelled() => self.after_cancel(cause),
            item = self.queue.recv() => item.unwrap_or_else(|| {
                Err(Error::internal("the stream's worker ended without a word"))
            }),
        };
        self.ended = !matches!(item, Ok(Item { last: false, .. }));
        Some(item.map(|item| item.message))
    }

    /// A last message that comes next wins: that stream is complete. Else the cancellation is
    /// what the client hears, and nothing more is sent.
    fn after_cancel(&mut self, cause: CancelCause) -> Result<Item<T>, Error> {
        match self.queue.try_recv() {
            Ok(Ok(item)) if item.last => Ok(item),
            Ok(_) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => Err(cause.into()),
        }
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel.cancel(CancelCause::ClientGone);
        }
    }
}
