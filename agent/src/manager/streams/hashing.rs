//! BLAKE3 of each piece of a snapshot, for clients that compare rather than fetch.

use tidemark_store::units::ByteRange;

use super::{
    Feed, PIECE_BYTES, Subject,
    digest::ExtentHash,
    outlet::{Outlet, outlet},
    pipeline::start_thread,
    runs::{Runs, Scope},
    walk::read_failed,
};
use crate::{
    manager::{
        Error,
        operations::{CancelToken, OperationGuard},
    },
    volume::{Extent, Kind},
};

/// The smallest piece that may be asked for.
pub const MIN_HASH_PIECE_BYTES: u32 = 64 << 10;
/// The largest piece that may be asked for.
pub const MAX_HASH_PIECE_BYTES: u32 = 16 << 20;
/// The piece when none is asked for.
pub const DEFAULT_HASH_PIECE_BYTES: u32 = 1 << 20;

/// Hashes in a message, at most: 32 KiB of them.
const HASHES_A_MESSAGE: usize = 1024;

/// A message is sent once so much was read for it, so that a client sees steady progress.
const READ_A_MESSAGE_BYTES: u64 = 64 << 20;

/// Messages between the hashing thread and the client's connection.
const MESSAGE_QUEUE: usize = 2;

/// How many bytes are read and hashed at once. One buffer of it and one piece of zeros' hash
/// are all that a run holds.
const READ_BYTES: u64 = PIECE_BYTES;

/// Hashes of consecutive pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PieceHashes {
    /// Where the first piece starts.
    pub offset_bytes: u64,
    /// In order.
    pub hashes: Vec<ExtentHash>,
}

/// Yields the hash of each piece in order; the last piece may be short. Ranges that are known to
/// be zeros are not read.
pub struct Hasher<S> {
    subject: S,
    runs: Runs,
    capacity: u64,
    piece_bytes: u64,
    position: u64,
    /// For the message that is being made.
    read_bytes: u64,
    cancel: CancelToken,
    buffer: Vec<u8>,
    /// The hash of a whole piece of zeros, once one was met.
    zero_piece: Option<ExtentHash>,
}

impl<S: Subject> Hasher<S> {
    /// A run over a snapshot of `capacity` bytes from `start` on, which is a multiple of
    /// `piece_bytes`.
    pub fn new(
        subject: S,
        start: u64,
        capacity: u64,
        piece_bytes: u32,
        cancel: CancelToken,
    ) -> Self {
        Self {
            subject,
            runs: Runs::new(Scope::Whole { start }, capacity),
            capacity,
            piece_bytes: piece_bytes.max(1).into(),
            position: start,
            read_bytes: 0,
            cancel,
            buffer: Vec::new(),
            zero_piece: None,
        }
    }

    /// The next message; the last one of all is known by its end, the capacity.
    pub fn next_message(&mut self) -> Result<PieceHashes, Error> {
        let offset_bytes = self.position;
        let mut hashes = Vec::new();
        self.read_bytes = 0;
        while self.position < self.capacity
            && hashes.len() < HASHES_A_MESSAGE
            && self.read_bytes < READ_A_MESSAGE_BYTES
        {
            hashes.push(self.next_piece()?);
        }
        if self.position >= self.capacity {
            self.subject.check()?;
        }
        Ok(PieceHashes {
            offset_bytes,
            hashes,
        })
    }

    /// Whether every piece was hashed.
    pub fn is_done(&self) -> bool {
        self.position >= self.capacity
    }

    fn next_piece(&mut self) -> Result<ExtentHash, Error> {
        self.cancel.check()?;
        let end = self.capacity.min(self.position + self.piece_bytes);
        let whole = end - self.position == self.piece_bytes;
        if whole && self.skip_zero_piece(end)? {
            return Ok(self.zero_hash());
        }
        let mut hasher = blake3::Hasher::new();
        while self.position < end {
            let range = self.hash_next(end, &mut hasher)?;
            self.position = range.end();
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Steps over a piece that lies within one range of zeros.
    fn skip_zero_piece(&mut self, end: u64) -> Result<bool, Error> {
        let Some(Extent { range, kind }) = self.runs.peek(&mut self.subject)? else {
            return Err(run_short());
        };
        let zero = kind != Kind::Data && range.end() >= end;
        if zero {
            self.runs.consume(end - self.position);
            self.position = end;
        }
        Ok(zero)
    }

    fn zero_hash(&mut self) -> ExtentHash {
        let len = self.piece_bytes;
        *self.zero_piece.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new();
            let zeros = [0; 4096];
            for _ in 0..len / 4096 {
                hasher.update(&zeros);
            }
            *hasher.finalize().as_bytes()
        })
    }

    /// Hashes the next stretch of one kind, at most to `end`.
    fn hash_next(&mut self, end: u64, hasher: &mut blake3::Hasher) -> Result<ByteRange, Error> {
        let Some(extent) = self.runs.peek(&mut self.subject)? else {
            return Err(run_short());
        };
        let len = extent.range.len.min(end - self.position).min(READ_BYTES);
        let range = ByteRange::new(self.position, len);
        self.buffer.clear();
        self.buffer
            .resize(usize::try_from(len).map_err(Error::internal)?, 0);
        if extent.kind == Kind::Data {
            let read = self.subject.read(range.offset, &mut self.buffer);
            read.map_err(|error| read_failed(&mut self.subject, range, &error))?;
            self.read_bytes += len;
        }
        hasher.update(&self.buffer);
        self.runs.consume(len);
        Ok(range)
    }
}

fn run_short() -> Error {
    Error::internal("the extents of a whole snapshot ended before its capacity")
}

/// Starts a hash run on a thread. `keep` lives until the last byte was read. Must be called
/// within a runtime.
pub fn spawn_hasher<S: Subject + 'static>(
    mut hasher: Hasher<S>,
    operation: OperationGuard,
    keep: impl Send + 'static,
) -> Result<Feed<PieceHashes>, Error> {
    let (outlet, feed) = outlet(MESSAGE_QUEUE, operation.cancel_token());
    start_thread("tm-hash", move || {
        let last = hash_all(&mut hasher, &outlet, &operation);
        outlet.finish(last, operation);
        drop(keep);
    })?;
    Ok(feed)
}

fn hash_all<S: Subject>(
    hasher: &mut Hasher<S>,
    outlet: &Outlet<PieceHashes>,
    operation: &OperationGuard,
) -> Result<PieceHashes, Error> {
    let progress = operation.progress();
    loop {
        let message = hasher.next_message()?;
        progress.set(hasher.position);
        if hasher.is_done() {
            return Ok(message);
        }
        outlet.send(message)?;
    }
}
