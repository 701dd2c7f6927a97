//! A control plane that dies, and servers that do.

use std::{os::unix::fs::symlink, time::Duration};

use tidemark_proto::private::SnapshotFate;
use tidemark_store::{catalog::SnapshotState, units::Id};

use super::bench::{Bench, count, create, create_args, until};

#[tokio::test]
async fn a_new_control_plane_finds_everything_again() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let kept = create(&manager, "a").await;
    let overflowed = create(&manager, "a").await;
    let unknown = create(&manager, "a").await;
    bench.kill(manager).await;
    {
        let mut state = fake.state();
        state.snapshots.get_mut(&overflowed.record.id).unwrap().1 = SnapshotFate::Overflowed;
        state.snapshots.remove(&unknown.record.id);
        // Cut by a control plane that died before it recorded it.
        state
            .snapshots
            .insert(Id([0xaa; 16]), (9, SnapshotFate::Live));
    }

    let manager = bench.start().await;
    while fake.state().live().len() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fake.state().live(), [kept.record.id]);
    let states: Vec<_> = manager
        .snapshots(None, true)
        .await
        .unwrap()
        .iter()
        .map(|one| one.record.state)
        .collect();
    let expected = [
        SnapshotState::Ready,
        SnapshotState::Overflowed,
        SnapshotState::Lost,
    ];
    assert_eq!(states, expected);
    assert_eq!(count(&manager, "SNAPSHOT_OVERFLOWED").await, 1);
    assert_eq!(count(&manager, "SNAPSHOT_LOST").await, 1);
    assert_eq!(count(&manager, "AGENT_STARTED").await, 2);
    assert_eq!(count(&manager, "VOLUME_SERVER_LOST").await, 0);
}

#[tokio::test]
async fn request_ids_are_remembered_across_restarts() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let mut args = create_args(&["a"]);
    args.request_id = "r1".to_owned();
    let first = manager.create_snapshots(args.clone()).await.unwrap();
    bench.kill(manager).await;
    let manager = bench.start().await;
    let second = manager.create_snapshots(args).await.unwrap();
    assert_eq!(first[0].record.id, second[0].record.id);
    assert_eq!(fake.state().live().len(), 1);
}

#[tokio::test]
async fn a_server_that_dies_is_told_and_found_again() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    fake.die().await;
    until(&manager, "a", |volume| volume.live.is_err()).await;
    let error = manager
        .create_snapshots(create_args(&["a"]))
        .await
        .unwrap_err();
    assert_eq!(error.reason_name(), "VOLUME_SERVER_UNAVAILABLE");
    // It cannot be started: the program is not there. That is told once, however often it fails.
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(count(&manager, "VOLUME_SERVER_LOST").await, 1);
    let not_served = manager.volume("a").await.unwrap().live.unwrap_err();
    assert!(not_served.why.contains("/nonexistent/tidemarkd"));
    // What the host writes waits for a server where it has the volume from us, and else passes by.
    assert!(not_served.untracked);
    symlink("/dev/null", bench.paths().volume("a").device_link()).unwrap();
    let not_served = manager.volume("a").await.unwrap().live.unwrap_err();
    assert!(!not_served.untracked);

    fake.state().begin_lineage("host restarted");
    fake.state().pid = 4343;
    fake.listen();
    while count(&manager, "VOLUME_SERVER_BACK").await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until(&manager, "a", |volume| volume.live.is_ok()).await;
    while count(&manager, "TRACKING_RESET").await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    manager.volume("a").await.unwrap();
    assert_eq!(count(&manager, "TRACKING_RESET").await, 1);
}
