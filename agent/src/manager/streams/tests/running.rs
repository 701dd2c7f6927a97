//! Streams and hash runs as operations on their threads.

use std::sync::atomic::Ordering;

use tidemark_proto::v1::{Compression, OperationKind, OperationState};

use super::{BLOCK, Fake, Sent, extent, full};
use crate::{
    manager::{
        ErrorReason,
        operations::{CancelCause, CancelToken, Operations},
        streams::{Encoder, Feed, Hasher, Part, Scope, Walk, spawn, spawn_hasher},
    },
    volume::Kind,
};

async fn spawned(subject: Fake, operations: &Operations) -> (Feed<Part>, String) {
    let operation = operations
        .start(OperationKind::StreamData, "s", subject.capacity)
        .unwrap();
    let id = operation.id().to_string();
    let token = operation.cancel_token().clone();
    let capacity = subject.capacity;
    let walk = Walk::new(subject, Scope::Whole { start: 0 }, capacity, BLOCK, token);
    let encoder = Encoder::new(Compression::None).unwrap();
    (spawn(walk, encoder, operation, ()).unwrap(), id)
}

#[tokio::test]
async fn threads_send_what_the_calling_thread_would() {
    let bytes: Vec<u8> = (0..9u32 << 20)
        .map(|i| (i >> 15).to_le_bytes()[0])
        .collect();
    let expected = full(Fake::whole(&bytes), 0);
    let operations = Operations::default();
    let (mut stream, id) = spawned(Fake::whole(&bytes), &operations).await;
    let mut sent = Sent::default();
    while let Some(part) = stream.next().await {
        match part.unwrap() {
            Part::Batch(batch) => sent.batches.push(batch),
            Part::Trailer(trailer) => sent.trailer = trailer,
        }
    }
    assert!(sent == expected);
    let status = operations.get(&id).unwrap();
    assert_eq!(status.state, OperationState::Succeeded);
    assert_eq!(status.done_bytes, status.total_bytes);
}

#[tokio::test]
async fn cancelling_ends_a_stream_that_nobody_reads() {
    for cause in [CancelCause::Asked, CancelCause::ShuttingDown] {
        let operations = Operations::default();
        let (mut stream, id) = spawned(Fake::whole(&vec![1; 32 << 20]), &operations).await;
        assert!(matches!(stream.next().await, Some(Ok(Part::Batch(_)))));
        match cause {
            CancelCause::Asked => drop(operations.cancel(&id)),
            _ => operations.shut_down(),
        }
        // The worker ends although the client takes nothing.
        operations.drained().await;
        assert_eq!(
            operations.get(&id).unwrap().state,
            OperationState::Cancelled
        );
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error, cause.into());
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_stream() {
    let operations = Operations::default();
    let (stream, id) = spawned(Fake::whole(&vec![1; 32 << 20]), &operations).await;
    drop(stream);
    operations.drained().await;
    let status = operations.get(&id).unwrap();
    assert_eq!(status.state, OperationState::Cancelled);
    assert_eq!(
        status.error.unwrap().reason,
        ErrorReason::OperationCancelled
    );
}

#[tokio::test]
async fn an_error_reaches_the_client_and_the_operation() {
    let operations = Operations::default();
    let mut subject = Fake::whole(&vec![1; 8 << 20]);
    subject.read_fails_at = Some(5 << 20);
    subject.dropped.store(true, Ordering::Relaxed);
    let (mut stream, id) = spawned(subject, &operations).await;
    let mut last = None;
    while let Some(part) = stream.next().await {
        last = Some(part);
    }
    assert_eq!(
        last.unwrap().unwrap_err().reason,
        ErrorReason::SnapshotOverflowed
    );
    let status = operations.get(&id).unwrap();
    assert_eq!(status.state, OperationState::Failed);
    assert_eq!(
        status.error.unwrap().reason,
        ErrorReason::SnapshotOverflowed
    );
}

/// Hashes of a snapshot as a client would compute them.
fn hashes_of(bytes: &[u8], piece: usize) -> Vec<[u8; 32]> {
    let pieces = bytes.chunks(piece);
    pieces
        .map(|piece| *blake3::hash(piece).as_bytes())
        .collect()
}

#[test]
fn hashes_equal_those_of_the_bytes_and_holes_are_not_read() {
    let mut bytes = vec![0; (40 << 20) + 1234];
    let mut extents = Vec::new();
    for (at, len) in [(70_000, 5000), (3 << 20, 3 << 20), ((40 << 20) + 1000, 234)] {
        bytes[at..at + len].fill(7);
        extents.push(extent(at as u64, len as u64, Kind::Data));
    }
    for (piece, start) in [(64 << 10, 0), (1 << 20, 4 << 20), (16 << 20, 0)] {
        let subject = Fake::new(&bytes, extents.clone());
        let reads = subject.reads.clone();
        let capacity = subject.capacity;
        let token = CancelToken::default();
        let mut hasher = Hasher::new(subject, start, capacity, piece, token);
        let mut hashes = Vec::new();
        while !hasher.is_done() {
            let message = hasher.next_message().unwrap();
            let expected = start + hashes.len() as u64 * u64::from(piece);
            assert_eq!(message.offset_bytes, expected);
            assert!(!message.hashes.is_empty());
            hashes.extend(message.hashes);
        }
        let from = usize::try_from(start).unwrap();
        assert!(hashes == hashes_of(&bytes[from..], usize::try_from(piece).unwrap()));
        // The holes, more than 34 MiB of the 40, were not read.
        assert!(reads.load(Ordering::Relaxed) <= 3 * 16 + 4);
    }
}

#[tokio::test]
async fn a_hash_run_is_an_operation() {
    let operations = Operations::default();
    let operation = operations
        .start(OperationKind::HashExtents, "s", 40 << 20)
        .unwrap();
    let id = operation.id().to_string();
    let subject = Fake::whole(&vec![1; 40 << 20]);
    let token = operation.cancel_token().clone();
    let hasher = Hasher::new(subject, 0, 40 << 20, 1 << 20, token);
    let mut feed = spawn_hasher(hasher, operation, ()).unwrap();
    let mut count = 0;
    while let Some(message) = feed.next().await {
        count += message.unwrap().hashes.len();
    }
    assert_eq!(count, 40);
    assert_eq!(
        operations.get(&id).unwrap().state,
        OperationState::Succeeded
    );
}

#[test]
fn a_hash_run_of_a_dropped_snapshot_fails() {
    let subject = Fake::whole(&[1; 4096]);
    subject.dropped.store(true, Ordering::Relaxed);
    let mut hasher = Hasher::new(subject, 0, 4096, 1 << 20, CancelToken::default());
    let error = hasher.next_message().unwrap_err();
    assert_eq!(error.reason, ErrorReason::SnapshotOverflowed);
}
