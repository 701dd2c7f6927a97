//! Data streams: a snapshot's bytes, read, hashed, compressed and cut into batches.
//!
//! ```text
//!  extent pages + view file        thread "read"     thread "encode"         rpc
//!  Runs -> Walk (reads, tells zeros) --Piece--> Encoder (hash, zstd, pack) --Part--> client
//! ```
//!
//! The stages are plain iterators: they know neither gRPC nor threads. [`Subject`] is all that
//! they ask of the world; [`pipeline`] puts them on threads with bounded queues between them.

pub mod digest;
mod encode;
mod hashing;
mod list;
mod open;
mod outlet;
mod pipeline;
mod reader;
mod runs;
mod snapshot;
#[cfg(test)]
mod tests;
mod walk;
mod zero;

use std::io;

use tidemark_proto::v1::{DataBatch, DataTrailer};

pub use encode::Encoder;
pub use hashing::{
    DEFAULT_HASH_PIECE_BYTES, Hasher, MAX_HASH_PIECE_BYTES, MIN_HASH_PIECE_BYTES, PieceHashes,
    spawn_hasher,
};
pub use list::{DEFAULT_LIST_EXTENTS, Estimate, ExtentList, MAX_LIST_EXTENTS, Span};
pub use open::{DataStream, HashStream, MAX_RANGES, Streams, past_the_end};
pub use outlet::Feed;
pub use pipeline::spawn;
pub use reader::{Extents, SnapshotReader};
pub use runs::Scope;
pub use walk::{Piece, Walk};
pub(super) use zero::is_zero;

use super::Error;
use crate::volume::ExtentPage;

/// The longest data extent, and the grid that data extents are cut at.
pub const PIECE_BYTES: u64 = 1 << 20;

/// Plain data in a batch, at most: the contract's 1 MiB.
pub const BATCH_DATA_BYTES: u64 = 1 << 20;

/// Extents in a batch, at most. At about 70 bytes on the wire each they come to 280 KiB, which
/// leaves a full batch far below gRPC's customary message limit of 4 MiB.
pub const BATCH_EXTENTS: usize = 4096;

/// Groups of pieces between the reading and the encoding thread. A group has at most
/// [`PIECE_BYTES`] of data.
const GROUP_QUEUE: usize = 1;

/// Parts between the encoding thread and the client's connection.
const PART_QUEUE: usize = 1;

/// What one stream holds at most, in bytes: a piece being read, a group being gathered, those
/// queued, one being encoded and room for its compressed form; a batch being filled, those
/// queued, one being sent.
pub const STREAM_MEMORY_BYTES: u64 =
    PIECE_BYTES * (4 + GROUP_QUEUE as u64) + BATCH_DATA_BYTES * (2 + PART_QUEUE as u64);

/// What a stream asks of its snapshot. Calls may block; one thread makes them.
pub trait Subject: Send {
    /// A page of extents from `start` on: what the snapshot holds, or what changed.
    fn page(&mut self, start: u64) -> Result<ExtentPage, Error>;

    /// Fills `into` with the snapshot's bytes from `offset` on.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// `Err` with the typed reason when the snapshot's data is gone.
    fn check(&mut self) -> Result<(), Error>;
}

/// What a client receives after the header.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Some extents.
    Batch(DataBatch),
    /// The end of a complete stream.
    Trailer(DataTrailer),
}

/// Gives `take` all parts of a stream in order. Ends after the trailer, or at an error of
/// either side.
pub fn produce(
    pieces: impl IntoIterator<Item = Result<Piece, Error>>,
    mut encoder: Encoder,
    mut take: impl FnMut(Part) -> Result<(), Error>,
) -> Result<(), Error> {
    for piece in pieces {
        if let Some(batch) = encoder.push(piece?)? {
            take(Part::Batch(batch))?;
        }
    }
    encoder.finish().try_for_each(take)
}
