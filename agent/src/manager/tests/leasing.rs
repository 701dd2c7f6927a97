//! Leases, under a clock that tests move.

use std::time::Duration;

use tidemark_proto::private::FailureKind;
use tidemark_store::catalog::SnapshotState;
use tokio::time::sleep;

use super::bench::{Bench, count, create_args, reason};
use crate::manager::Manager;

const LEASE: Duration = Duration::from_secs(60);

/// Lets wall time pass and looks at the leases, as the task does. The task may be at one of them
/// itself: a look leaves that one out, so it is waited for, and looked at again.
async fn pass(bench: &Bench, manager: &Manager, time: Duration) {
    bench.pass(time);
    manager.look_at_leases().await.unwrap();
    while manager.leases.is_ending() {
        sleep(Duration::from_millis(1)).await;
    }
    manager.look_at_leases().await.unwrap();
}

/// The manager's own task may be ending the lease already, and then `pass` leaves it to that.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_ended_lease_frees_the_data_once() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let mut args = create_args(&["a"]);
    args.lease = Some(LEASE);
    let made = manager.create_snapshots(args).await.unwrap().remove(0);
    let id = made.record.id.to_string();

    pass(&bench, &manager, LEASE / 2).await;
    manager.renew_lease(&id, LEASE).await.unwrap();
    pass(&bench, &manager, LEASE * 3 / 4).await;
    assert_eq!(fake.state().live().len(), 1);

    pass(&bench, &manager, LEASE / 2).await;
    until(|| fake.state().live().is_empty()).await;
    while manager.snapshot(&id).await.unwrap().record.state == SnapshotState::Ready {
        sleep(Duration::from_millis(5)).await;
    }
    let found = manager.snapshot(&id).await.unwrap().record;
    assert_eq!(found.state, SnapshotState::Released);
    assert_eq!(found.state_reason, "lease expired");
    assert_eq!(count(&manager, "LEASE_EXPIRED").await, 1);
    assert_eq!(count(&manager, "SNAPSHOT_RELEASED").await, 0);
    let error = manager.renew_lease(&id, LEASE).await.unwrap_err();
    assert_eq!(reason(&error), "LEASE_EXPIRED");
    let error = manager.readable(&id).await.unwrap_err();
    assert_eq!(reason(&error), "LEASE_EXPIRED");
    let held = manager.hold_lease(made.record.id).await;
    assert_eq!(
        held.err().map(|error| reason(&error)),
        Some("LEASE_EXPIRED")
    );
}

#[tokio::test]
async fn a_held_lease_does_not_end_and_has_its_length_afterwards() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let mut args = create_args(&["a"]);
    args.lease = Some(LEASE);
    let made = manager.create_snapshots(args).await.unwrap().remove(0);

    let first = manager.hold_lease(made.record.id).await.unwrap();
    let second = manager.hold_lease(made.record.id).await.unwrap();
    pass(&bench, &manager, LEASE * 3).await;
    drop(first);
    pass(&bench, &manager, LEASE * 3).await;
    assert_eq!(fake.state().live().len(), 1);
    // What a restart would find leaves time to come back.
    let record = manager
        .snapshot(&made.record.id.to_string())
        .await
        .unwrap()
        .record;
    let left = record.lease_expires_us.unwrap() - manager.clock().now_us();
    assert!(left >= 25_000_000, "{left}");

    pass(&bench, &manager, LEASE / 4).await;
    drop(second);
    while manager.leases.is_held(made.record.id) {
        sleep(Duration::from_millis(1)).await;
    }
    pass(&bench, &manager, LEASE * 3 / 4).await;
    assert_eq!(fake.state().live().len(), 1);
    pass(&bench, &manager, LEASE / 2).await;
    assert!(fake.state().live().is_empty());
}

#[tokio::test]
async fn a_lease_that_ended_while_nobody_looked_is_enforced_after_a_restart() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let mut args = create_args(&["a"]);
    args.lease = Some(LEASE);
    manager.create_snapshots(args).await.unwrap();
    bench.kill(manager).await;

    bench.pass(LEASE * 2);
    assert_eq!(fake.state().live().len(), 1);
    let manager = bench.start().await;
    pass(&bench, &manager, Duration::ZERO).await;
    assert!(fake.state().live().is_empty());
    assert_eq!(count(&manager, "LEASE_EXPIRED").await, 1);
}

#[tokio::test]
async fn a_release_that_fails_is_tried_again() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let mut args = create_args(&["a"]);
    args.lease = Some(LEASE);
    manager.create_snapshots(args).await.unwrap();
    fake.state().fail.insert("Release", FailureKind::Io);
    pass(&bench, &manager, LEASE + Duration::from_secs(1)).await;
    assert_eq!(count(&manager, "LEASE_EXPIRED").await, 0);
    fake.state().fail.clear();
    pass(&bench, &manager, Duration::from_secs(10)).await;
    assert_eq!(count(&manager, "LEASE_EXPIRED").await, 1);
}
