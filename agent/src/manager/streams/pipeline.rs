//! A stream's stages on threads, so that reading, encoding and sending overlap.
//!
//! ```text
//! "tm-read"   Walk ----groups of pieces----> "tm-encode"   Encoder ----parts----> Feed
//!             (blocks in pread)                            (waits for the client)
//! ```
//!
//! Whichever side ends first ends the others: a closed queue stops the thread before it, the
//! cancel token stops all. The encoding thread owns the operation and whatever must live as long
//! as the snapshot is read (the lease), and lets go of them last.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use tidemark_proto::v1::DataBatch;

use super::{
    Encoder, Feed, GROUP_QUEUE, PART_QUEUE, PIECE_BYTES, Part, Piece, Subject, Walk,
    outlet::{Outlet, outlet},
    produce,
};
use crate::manager::{
    Error,
    operations::{OperationGuard, Progress},
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
) -> Result<Feed<Part>, Error> {
    let (groups, received) = sync_channel(GROUP_QUEUE);
    let (outlet, feed) = outlet(PART_QUEUE, operation.cancel_token());
    let ascending = walk.is_ascending();
    start_thread("tm-read", move || read(walk, &groups))?;
    start_thread("tm-encode", move || {
        let client = Client {
            progress: operation.progress(),
            outlet,
            ascending,
        };
        encode(received, encoder, &client, operation);
        drop(keep);
    })?;
    Ok(feed)
}

/// Starts a named thread; the kernel may refuse.
pub(super) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = thread::Builder::new().name(name.into()).spawn(body);
    started.map(drop).map_err(|error| {
        Error::internal(format!("no thread for a stream could be started: {error}"))
    })
}

fn read<S: Subject>(walk: Walk<S>, groups: &SyncSender<Group>) {
    let mut group = Vec::new();
    let mut data_bytes = 0;
    // A send that fails means that the encoder is gone, and with it the client.
    for piece in walk {
        match piece {
            Ok(piece) => {
                let more = piece.data.len() as u64;
                if data_bytes + more > PIECE_BYTES || group.len() >= GROUP_PIECES {
                    data_bytes = 0;
                    if groups.send(Ok(std::mem::take(&mut group))).is_err() {
                        return;
                    }
                }
                data_bytes += more;
                group.push(piece);
            }
            Err(error) => {
                let _ = groups.send(Err(error));
                return;
            }
        }
    }
    let _ = groups.send(Ok(group));
}

fn encode(groups: Receiver<Group>, encoder: Encoder, client: &Client, operation: OperationGuard) {
    let pieces = groups.into_iter().flat_map(|group| match group {
        Ok(pieces) => pieces.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    });
    let mut trailer = None;
    let outcome = produce(pieces, encoder, |part| match part {
        Part::Batch(batch) => client.send(batch),
        Part::Trailer(_) => {
            trailer = Some(part);
            Ok(())
        }
    });
    let last = outcome.and_then(|()| {
        trailer.ok_or_else(|| Error::internal("a stream ended without its trailer"))
    });
    if last.is_ok() {
        client.progress.complete();
    }
    client.outlet.finish(last, operation);
}

struct Client {
    outlet: Outlet<Part>,
    progress: Progress,
    ascending: bool,
}

impl Client {
    fn send(&self, mut batch: DataBatch) -> Result<(), Error> {
        let position = batch.resume_offset_bytes;
        let lengths = batch.extents.iter().map(|extent| extent.length_bytes);
        let bytes = lengths.sum();
        if !self.ascending {
            // Ranges in any order have no offset below which everything was sent.
            batch.resume_offset_bytes = 0;
        }
        self.outlet.send(Part::Batch(batch))?;
        if self.ascending {
            self.progress.set(position);
        } else {
            self.progress.add(bytes);
        }
        Ok(())
    }
}
