use std::time::Duration;

use tidemark_proto::v1::{OperationKind, OperationState};

use super::{CancelCause, KEPT_FINISHED, MAX_RUNNING, OperationGuard, Operations};
use crate::manager::{Error, ErrorReason};

fn start(operations: &Operations) -> OperationGuard {
    operations
        .start(OperationKind::StreamData, "vol", 100)
        .unwrap()
}

#[test]
fn an_operation_ends_as_its_worker_says() {
    let operations = Operations::default();
    let guard = start(&operations);
    let id = guard.id().to_string();
    guard.progress().add(40);
    let status = operations.get(&id).unwrap();
    assert_eq!(status.state, OperationState::Running);
    assert_eq!((status.done_bytes, status.total_bytes), (40, 100));
    assert_eq!(operations.list(true).len(), 1);

    guard.finish(Ok(()));
    let status = operations.get(&id).unwrap();
    assert_eq!(status.state, OperationState::Succeeded);
    assert!(status.ended_at.is_some() && status.error.is_none());
    assert!(operations.list(true).is_empty());
    assert_eq!(operations.list(false).len(), 1);
    assert!(operations.get("no such").is_none());
}

#[test]
fn a_dropped_guard_ends_its_operation() {
    let operations = Operations::default();
    let failed = start(&operations);
    let failed_id = failed.id().to_string();
    drop(failed);
    let status = operations.get(&failed_id).unwrap();
    assert_eq!(status.state, OperationState::Failed);
    assert_eq!(status.error.unwrap().reason, ErrorReason::Internal);

    let cancelled = start(&operations);
    let id = cancelled.id().to_string();
    assert_eq!(
        operations.cancel(&id).unwrap().state,
        OperationState::Running
    );
    assert_eq!(cancelled.cancel_token().check(), Err(CancelCause::Asked));
    drop(cancelled);
    let status = operations.get(&id).unwrap();
    assert_eq!(status.state, OperationState::Cancelled);
    assert_eq!(
        status.error.unwrap().reason,
        ErrorReason::OperationCancelled
    );
}

#[test]
fn an_error_without_a_cancel_is_a_failure() {
    let operations = Operations::default();
    let guard = start(&operations);
    let id = guard.id().to_string();
    let error = Error::new(ErrorReason::DigestMismatch, "differs");
    guard.finish(Err(error.clone()));
    let status = operations.get(&id).unwrap();
    assert_eq!(status.state, OperationState::Failed);
    assert_eq!(status.error, Some(error));
}

#[test]
fn the_registry_is_bounded() {
    let operations = Operations::default();
    let running: Vec<_> = (0..MAX_RUNNING).map(|_| start(&operations)).collect();
    let refused = operations.start(OperationKind::StreamData, "vol", 0);
    assert_eq!(refused.err().unwrap().reason, ErrorReason::LimitReached);
    drop(running);
    for _ in 0..KEPT_FINISHED {
        start(&operations).finish(Ok(()));
    }
    let kept = operations.list(false);
    assert_eq!(kept.len(), KEPT_FINISHED);
    assert!(kept.iter().all(|o| o.state == OperationState::Succeeded));
}

#[test]
fn shutting_down_cancels_all_and_refuses_more() {
    let operations = Operations::default();
    let guard = start(&operations);
    operations.shut_down();
    assert_eq!(
        guard.cancel_token().cause(),
        Some(CancelCause::ShuttingDown)
    );
    // The first cause stays.
    operations.cancel(guard.id());
    assert_eq!(
        guard.cancel_token().cause(),
        Some(CancelCause::ShuttingDown)
    );
    let refused = operations.start(OperationKind::HashExtents, "vol", 0);
    assert_eq!(refused.err().unwrap().reason, ErrorReason::ShuttingDown);
}

#[tokio::test]
async fn waiting_ends_with_the_operation_or_the_timeout() {
    let operations = Operations::default();
    let guard = start(&operations);
    let id = guard.id().to_string();
    let early = operations
        .wait(&id, Duration::from_millis(1))
        .await
        .unwrap();
    assert_eq!(early.state, OperationState::Running);
    let waiter = tokio::spawn({
        let (operations, id) = (operations.clone(), id.clone());
        async move { operations.wait(&id, Duration::from_secs(3600)).await }
    });
    tokio::task::yield_now().await;
    guard.finish(Ok(()));
    let late = waiter.await.unwrap().unwrap();
    assert_eq!(late.state, OperationState::Succeeded);
}

#[tokio::test]
async fn a_watch_conflates_steps_and_shows_the_end() {
    let operations = Operations::default();
    let guard = start(&operations);
    let mut watch = operations.watch(guard.id()).unwrap();
    assert_eq!(watch.next().await.unwrap().done_bytes, 0);
    let progress = guard.progress();
    progress.add(10);
    progress.add(10);
    assert_eq!(watch.next().await.unwrap().done_bytes, 20);
    progress.add(10);
    guard.finish(Ok(()));
    let last = watch.next().await.unwrap();
    assert_eq!(
        (last.done_bytes, last.state),
        (30, OperationState::Succeeded)
    );
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_token_wakes_whoever_waits() {
    let operations = Operations::default();
    let guard = start(&operations);
    let token = guard.cancel_token().clone();
    let waiter = tokio::spawn(async move { token.cancelled().await });
    tokio::task::yield_now().await;
    operations.cancel(guard.id());
    assert_eq!(waiter.await.unwrap(), CancelCause::Asked);
}

#[test]
fn what_ended_is_counted_also_when_it_is_forgotten() {
    let operations = Operations::default();
    let running = start(&operations);
    for _ in 0..=KEPT_FINISHED {
        start(&operations).finish(Ok(()));
    }
    drop(start(&operations));
    let tally = operations.tally();
    let ended = |state| tally.ended[&(OperationKind::StreamData, state)];
    assert_eq!(ended(OperationState::Succeeded), KEPT_FINISHED as u64 + 1);
    assert_eq!(ended(OperationState::Failed), 1);
    assert_eq!(tally.running[&OperationKind::StreamData], 1);
    running.finish(Ok(()));
    assert!(operations.tally().running.is_empty());
}
