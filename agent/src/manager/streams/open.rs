//! Opening streams: finds the snapshot, checks what is asked, holds the lease, starts the work.

use std::{fs::File, sync::Arc};

use tidemark_proto::v1::{Compression, OperationKind};
use tidemark_store::units::{ByteRange, Id};

use super::{
    DEFAULT_HASH_PIECE_BYTES, Encoder, Feed, Hasher, MAX_HASH_PIECE_BYTES, MIN_HASH_PIECE_BYTES,
    Part, PieceHashes, Scope, Walk,
    snapshot::{Pages, SnapshotSubject},
    spawn, spawn_hasher,
};
use crate::manager::{
    Checkpoint, Error, ErrorReason, LeaseGuard, Manager, Snapshot, Trust,
    operations::{OperationGuard, Operations},
};

/// Ranges that one call may ask for.
pub const MAX_RANGES: usize = 65_536;

/// Opens the streams of one agent.
#[derive(Clone)]
pub struct Streams {
    pub(super) manager: Arc<Manager>,
    operations: Operations,
}

/// A stream that runs: what its header says, and the parts that follow.
pub struct DataStream {
    /// What is streamed.
    pub snapshot: Snapshot,
    /// For an incremental: where it starts from.
    pub since: Option<Checkpoint>,
    /// How far the volume's tracking can be trusted.
    pub trust: Trust,
    /// For progress and cancel.
    pub operation_id: String,
    /// Batches and the trailer.
    pub parts: Feed<Part>,
}

/// A hash run: what is hashed, and the hashes.
pub struct HashStream {
    /// Size of the snapshot.
    pub capacity_bytes: u64,
    /// Size of a piece.
    pub piece_bytes: u32,
    /// Hashes in order.
    pub messages: Feed<PieceHashes>,
}

/// A snapshot that stays readable while this lives.
pub(super) struct Held {
    pub(super) snapshot: Snapshot,
    pub(super) view: File,
    pub(super) lease: LeaseGuard,
}

impl Streams {
    /// Streams of the manager's snapshots.
    pub fn new(manager: Arc<Manager>, operations: Operations) -> Self {
        Self {
            manager,
            operations,
        }
    }

    /// Streams a snapshot from `start` on: all of it, or what changed since a point of its
    /// lineage. Fails with TRACKING_RESET or CHECKPOINT_GONE when only a full stream will do.
    pub async fn data(
        &self,
        snapshot: &str,
        since: Option<Checkpoint>,
        start: u64,
        compression: Compression,
    ) -> Result<DataStream, Error> {
        let held = self.hold(snapshot).await?;
        let capacity = held.snapshot.record.capacity_bytes;
        if start > capacity {
            return Err(past_the_end("start_offset_bytes", start, capacity));
        }
        let (pages, scope, total) = match since {
            None => (Pages::Allocated, Scope::Whole { start }, capacity),
            Some(since) => {
                self.check_since(&held.snapshot, since).await?;
                (Pages::Since(since), Scope::Changed { start }, capacity)
            }
        };
        self.start(held, since, pages, scope, total, compression)
            .await
    }

    /// Reads ranges of a snapshot in the order given.
    pub async fn ranges(
        &self,
        snapshot: &str,
        ranges: Vec<ByteRange>,
        compression: Compression,
    ) -> Result<DataStream, Error> {
        let held = self.hold(snapshot).await?;
        let total = check_ranges(&ranges, held.snapshot.record.capacity_bytes)?;
        let scope = Scope::Ranges(ranges);
        self.start(held, None, Pages::Allocated, scope, total, compression)
            .await
    }

    /// Hashes a snapshot piece by piece from `start` on. 0 for `piece_bytes` is the default.
    pub async fn hashes(
        &self,
        snapshot: &str,
        start: u64,
        piece_bytes: u32,
    ) -> Result<HashStream, Error> {
        let piece_bytes = check_piece(start, piece_bytes)?;
        let held = self.hold(snapshot).await?;
        let capacity_bytes = held.snapshot.record.capacity_bytes;
        if start > capacity_bytes {
            return Err(past_the_end("start_offset_bytes", start, capacity_bytes));
        }
        let kind = OperationKind::HashExtents;
        let operation = self.begin(kind, held.snapshot.record.id, capacity_bytes)?;
        let (subject, lease) = self.subject(held, Pages::Allocated, &operation);
        let token = operation.cancel_token().clone();
        let hasher = Hasher::new(subject, start, capacity_bytes, piece_bytes, token);
        Ok(HashStream {
            capacity_bytes,
            piece_bytes,
            messages: spawn_hasher(hasher, operation, lease)?,
        })
    }

    async fn start(
        &self,
        held: Held,
        since: Option<Checkpoint>,
        pages: Pages,
        scope: Scope,
        total: u64,
        compression: Compression,
    ) -> Result<DataStream, Error> {
        let snapshot = held.snapshot.clone();
        let until = snapshot.checkpoint();
        let span = since.as_ref().map(|since| (since, Some(&until)));
        let trust = self.manager.trust(&snapshot.record.volume, span).await?;
        let kind = OperationKind::StreamData;
        let operation = self.begin(kind, snapshot.record.id, total)?;
        let operation_id = operation.id().to_owned();
        let (subject, lease) = self.subject(held, pages, &operation);
        let walk = Walk::new(
            subject,
            scope,
            snapshot.record.capacity_bytes,
            snapshot.record.block_bytes.into(),
            operation.cancel_token().clone(),
        );
        let parts = spawn(walk, Encoder::new(compression)?, operation, lease)?;
        Ok(DataStream {
            snapshot,
            since,
            trust,
            operation_id,
            parts,
        })
    }

    fn begin(&self, kind: OperationKind, id: Id, total: u64) -> Result<OperationGuard, Error> {
        self.operations.start(kind, id.to_string(), total)
    }

    fn subject(
        &self,
        held: Held,
        pages: Pages,
        operation: &OperationGuard,
    ) -> (SnapshotSubject, LeaseGuard) {
        let cancel = operation.cancel_token().clone();
        let manager = Arc::clone(&self.manager);
        let subject = SnapshotSubject::new(manager, &held.snapshot, held.view, pages, cancel);
        (subject, held.lease)
    }

    /// Finds a snapshot, keeps its lease from ending and opens its view.
    pub(super) async fn hold(&self, snapshot: &str) -> Result<Held, Error> {
        let found = self.manager.readable(snapshot).await?;
        let lease = self.manager.hold_lease(found.record.id).await?;
        // Its lease may have ended between the two.
        let id = found.record.id.to_string();
        let snapshot = self.manager.readable(&id).await?;
        let path = snapshot.view_path.clone().unwrap_or_default();
        let opening = tokio::task::spawn_blocking(move || (File::open(&path), path));
        let (view, path) = opening.await.map_err(Error::internal)?;
        match view {
            Ok(view) => Ok(Held {
                snapshot,
                view,
                lease,
            }),
            Err(error) => {
                // Dropped a moment ago, or its server died: the typed reason says more.
                self.manager.readable(&id).await?;
                Err(Error::unavailable(
                    &snapshot.record.volume,
                    format!("its view {} cannot be opened: {error}", path.display()),
                ))
            }
        }
    }

    /// Whether what changed since a point can be told, before somebody promises it.
    pub async fn check_since(&self, snapshot: &Snapshot, since: Checkpoint) -> Result<(), Error> {
        let until = snapshot.checkpoint();
        let volume = &snapshot.record.volume;
        if since.lineage != until.lineage {
            // Says why when `since` is of a past lineage; else the snapshot itself is.
            self.manager
                .changes_page(volume, &since, None, 0, 1)
                .await?;
            return Err(Error::tracking_reset(
                volume,
                "the snapshot is of an older lineage than the checkpoint",
            ));
        }
        if since.epoch > until.epoch {
            return Err(Error::invalid(
                "since",
                format!(
                    "epoch {} is after the snapshot's, {}",
                    since.epoch, until.epoch
                ),
            ));
        }
        let probe = self
            .manager
            .changes_page(volume, &since, Some(&until), 0, 1);
        probe.await.map(drop)
    }
}

/// The sum of their lengths.
fn check_ranges(ranges: &[ByteRange], capacity: u64) -> Result<u64, Error> {
    if ranges.len() > MAX_RANGES {
        return Err(Error::invalid(
            "ranges",
            format!("{} are more than {MAX_RANGES}: ask in parts", ranges.len()),
        ));
    }
    let mut total = 0u64;
    for range in ranges {
        if range.is_empty() {
            return Err(Error::invalid("ranges", format!("range {range} is empty")));
        }
        if range.offset > capacity || range.len > capacity - range.offset {
            return Err(past_the_end("ranges", range, capacity));
        }
        total = total.saturating_add(range.len);
    }
    Ok(total)
}

fn check_piece(start: u64, piece_bytes: u32) -> Result<u32, Error> {
    let piece_bytes = match piece_bytes {
        0 => DEFAULT_HASH_PIECE_BYTES,
        other => other,
    };
    let good = MIN_HASH_PIECE_BYTES..=MAX_HASH_PIECE_BYTES;
    if !piece_bytes.is_power_of_two() || !good.contains(&piece_bytes) {
        return Err(Error::invalid(
            "piece_bytes",
            format!(
                "{piece_bytes} is no power of two from {MIN_HASH_PIECE_BYTES} to \
                 {MAX_HASH_PIECE_BYTES}"
            ),
        ));
    }
    if !start.is_multiple_of(piece_bytes.into()) {
        return Err(Error::invalid(
            "start_offset_bytes",
            format!("{start} is no multiple of piece_bytes, {piece_bytes}"),
        ));
    }
    Ok(piece_bytes)
}

/// The OUT_OF_RANGE error for a field.
pub fn past_the_end(field: &str, what: impl std::fmt::Display, capacity: u64) -> Error {
    Error::new(
        ErrorReason::OutOfRange,
        format!("{field}: {what} lies past the capacity of {capacity} bytes"),
    )
    .with("field", field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_against_the_capacity() {
        let range = ByteRange::new;
        assert_eq!(check_ranges(&[range(0, 10), range(3, 7)], 10).unwrap(), 17);
        let reason = |ranges: &[ByteRange]| check_ranges(ranges, 10).unwrap_err().reason;
        assert_eq!(reason(&[range(0, 11)]), ErrorReason::OutOfRange);
        assert_eq!(reason(&[range(u64::MAX, 1)]), ErrorReason::OutOfRange);
        assert_eq!(reason(&[range(5, u64::MAX)]), ErrorReason::OutOfRange);
        assert_eq!(reason(&[range(5, 0)]), ErrorReason::InvalidField);
        let many = vec![range(0, 1); MAX_RANGES + 1];
        assert_eq!(reason(&many), ErrorReason::InvalidField);
    }

    #[test]
    fn pieces_are_powers_of_two_within_bounds() {
        assert_eq!(check_piece(0, 0).unwrap(), DEFAULT_HASH_PIECE_BYTES);
        assert_eq!(check_piece(128 << 10, 64 << 10).unwrap(), 64 << 10);
        for (start, piece) in [(0, 1), (0, 32 << 10), (0, 32 << 20), (0, 100_000), (1, 0)] {
            assert!(check_piece(start, piece).is_err());
        }
    }
}
