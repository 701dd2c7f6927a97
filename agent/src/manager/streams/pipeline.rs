//! A stream's stages on threads, so that reading, encoding and sending overlap.
//!
//! ```text
//! "tm-read"   Walk ----groups of pieces----> "tm-encode"   Encoder ----parts----> PartStream
//!             (blocks in pread)                            (waits for the client)
//! ```
//!
//! Whichever side ends first ends the others: a closed queue stops the thread before it, the
//! cancel token stops all. The encoding thread owns the operation and whatever must live as long
//! as the snapshot is read (the lease), and lets go of them last.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use tidemark_proto::v1::DataBatch;
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TryRecvError},
};

use super::{Encoder, GROUP_QUEUE, PART_QUEUE, PIECE_BYTES, Part, Piece, Subject, Walk, produce};
use crate::manager::{
    Error,
    operations::{CancelCause, CancelToken, OperationGuard, Progress},
};

/// Small pieces that travel together, so that a thread is not woken for each.
type Group = Result<Vec<Piece>, Error>;

/// Pieces in a group, at most: zero ranges have no data that would count.
const GROUP_PIECES: usize = 256;

/// Starts a stream. `keep` lives until the last byte was read. Must be called within a runtime.
pub fn spawn<S: Subject + 'static>(
    walk: Walk<S>,
    encoder: Encoder,
    operation: OperationGuard,
    keep: impl Send + 'static,
) -> Result<PartStream, Error> {
    let (groups, received) = sync_channel(GROUP_QUEUE);
    let (parts, client) = mpsc::channel(PART_QUEUE);
    let cancel = operation.cancel_token().clone();
    let sender = Sender {
        runtime: Handle::current(),
        parts,
        cancel: cancel.clone(),
        progress: operation.progress(),
        ascending: walk.is_ascending(),
    };
    start_thread("tm-read", move || read(walk, &groups))?;
    start_thread("tm-encode", move || {
        encode(received, encoder, &sender, operation);
        drop(keep);
    })?;
    Ok(PartStream {
        parts: client,
        cancel,
        state: State::Open,
    })
}

/// Starts a named thread; the kernel may refuse.
pub(super) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started: io::Result<_> = thread::Builder::new().name(name.into()).spawn(body);
    started.map(drop).map_err(|error| {
        Error::internal(format!("no thread for a stream could be started: {error}"))
    })
}

fn read<S: Subject>(walk: Walk<S>, groups: &SyncSender<Group>) {
    let mut group = Vec::new();
    let mut data_bytes = 0;
    for piece in walk {
        match piece {
            Ok(piece) => {
                let more = piece.data.len() as u64;
                let full = data_bytes + more > PIECE_BYTES || group.len() >= GROUP_PIECES;
                if full {
                    data_bytes = 0;
                    if groups.send(Ok(std::mem::take(&mut group))).is_err() {
                        return;
                    }
                }
                data_bytes += more;
                group.push(piece);
            }
            Err(error) => {
                // A failed send means that the encoder is gone, and with it the client.
                let _ = groups.send(Err(error));
                return;
            }
        }
    }
    let _ = groups.send(Ok(group));
}

fn encode(groups: Receiver<Group>, encoder: Encoder, sender: &Sender, operation: OperationGuard) {
    let pieces = groups.into_iter().flat_map(|group| match group {
        Ok(pieces) => pieces.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    });
    let mut trailer = None;
    let outcome = produce(pieces, encoder, |part| match part {
        Part::Batch(batch) => sender.send(batch),
        Part::Trailer(_) => {
            trailer = Some(part);
            Ok(())
        }
    });
    match (outcome, trailer) {
        // Whoever has the trailer finds the operation ended.
        (Ok(()), Some(trailer)) => sender.send_last(Ok(trailer), operation),
        (Ok(()), None) => {}
        (Err(error), _) => sender.send_last(Err(error), operation),
    }
}

struct Sender {
    runtime: Handle,
    parts: mpsc::Sender<Result<Part, Error>>,
    cancel: CancelToken,
    progress: Progress,
    ascending: bool,
}

impl Sender {
    /// Waits for the client to take a batch, or for a reason not to.
    fn send(&self, mut batch: DataBatch) -> Result<(), Error> {
        let room = self.room()?;
        if self.ascending {
            self.progress.set(batch.resume_offset_bytes);
        } else {
            // Ranges in any order have no offset below which everything was sent.
            batch.resume_offset_bytes = 0;
            let extents = batch.extents.iter();
            self.progress
                .add(extents.map(|extent| extent.length_bytes).sum());
        }
        room.send(Ok(Part::Batch(batch)));
        Ok(())
    }

    /// Ends the operation, then tells the client, if it still listens.
    fn send_last(&self, last: Result<Part, Error>, operation: OperationGuard) {
        match (last, self.room()) {
            (Ok(trailer), Ok(room)) => {
                operation.finish(Ok(()));
                room.send(Ok(trailer));
            }
            (Err(error), Ok(room)) => {
                operation.finish(Err(error.clone()));
                room.send(Err(error));
            }
            (Err(error), Err(_)) => operation.finish(Err(error)),
            // The client learns of the cancellation from its PartStream.
            (Ok(_), Err(error)) => operation.finish(Err(error)),
        }
    }

    fn room(&self) -> Result<mpsc::Permit<'_, Result<Part, Error>>, Error> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                cause = self.cancel.cancelled() => Err(cause.into()),
                room = self.parts.reserve() => room.map_err(|_| CancelCause::ClientGone.into()),
            }
        })
    }
}

/// The client's end of a stream. Dropping it stops the stream at once.
pub struct PartStream {
    parts: mpsc::Receiver<Result<Part, Error>>,
    cancel: CancelToken,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Open,
    Ended,
}

impl PartStream {
    /// The next part. A trailer or an error is the last; after it comes `None`.
    pub async fn next(&mut self) -> Option<Result<Part, Error>> {
        if self.state == State::Ended {
            return None;
        }
        let next = tokio::select! {
            biased;
            cause = self.cancel.cancelled() => self.after_cancel(cause),
            part = self.parts.recv() => part.unwrap_or_else(|| {
                Err(Error::internal("the stream's worker ended without a word"))
            }),
        };
        if !matches!(next, Ok(Part::Batch(_))) {
            self.state = State::Ended;
        }
        Some(next)
    }

    /// A trailer that comes next wins: that stream is complete. Else the cancellation is what the
    /// client hears, and nothing more is sent.
    fn after_cancel(&mut self, cause: CancelCause) -> Result<Part, Error> {
        match self.parts.try_recv() {
            Ok(Ok(trailer @ Part::Trailer(_))) => Ok(trailer),
            Ok(Ok(Part::Batch(_)) | Err(_))
            | Err(TryRecvError::Empty | TryRecvError::Disconnected) => Err(cause.into()),
        }
    }
}

impl Drop for PartStream {
    fn drop(&mut self) {
        if self.state == State::Open {
            self.cancel.cancel(CancelCause::ClientGone);
        }
    }
}
