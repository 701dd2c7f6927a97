//! Snapshots of one and of many volumes, and every step that can fail.

use std::{sync::atomic::Ordering, time::Duration};

use tidemark_proto::{private::FailureKind, v1::FreezeMode};
use tidemark_store::catalog::{Consistency, SnapshotState};

use super::bench::{Bench, count, create, create_args, reason};
use crate::manager::Group;

#[tokio::test]
async fn no_volume_is_cut_before_all_are_held() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let slow = bench.attach(&manager, "a").await;
    bench.attach(&manager, "b").await;
    bench.attach(&manager, "c").await;
    slow.state().drain = Duration::from_millis(30);

    let made = manager
        .create_snapshots(create_args(&["c", "a", "b"]))
        .await
        .unwrap();
    let names: Vec<_> = made.iter().map(|one| one.record.volume.as_str()).collect();
    assert_eq!(names, ["c", "a", "b"]);
    assert!(
        made.iter()
            .all(|one| one.record.set_id == made[0].record.set_id)
    );
    let journal = bench.journal();
    let last_hold = journal
        .iter()
        .rposition(|line| line.ends_with("Hold"))
        .unwrap();
    let first_cut = journal
        .iter()
        .position(|line| line.ends_with("Cut"))
        .unwrap();
    assert!(last_hold < first_cut, "{journal:?}");
    assert_eq!(count(&manager, "SNAPSHOT_CREATED").await, 3);
}

#[tokio::test]
async fn a_hold_that_fails_lets_all_go_and_leaves_nothing() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let good = bench.attach(&manager, "a").await;
    let bad = bench.attach(&manager, "b").await;
    bad.state().fail.insert("Hold", FailureKind::CutTimeout);

    let error = manager
        .create_snapshots(create_args(&["a", "b"]))
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "CUT_TIMEOUT");
    assert_eq!(error.metadata["volume"], "b");
    assert!(!good.state().is_held());
    assert!(good.state().live().is_empty());
    assert!(manager.snapshots(None, true).await.unwrap().is_empty());
    assert_eq!(count(&manager, "SNAPSHOT_CREATED").await, 0);
}

#[tokio::test]
async fn a_cut_that_fails_takes_the_others_back() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let good = bench.attach(&manager, "a").await;
    let bad = bench.attach(&manager, "b").await;
    bad.state().fail.insert("Cut", FailureKind::CutTimeout);

    let mut args = create_args(&["a", "b"]);
    args.request_id = "r1".to_owned();
    let error = manager.create_snapshots(args.clone()).await.unwrap_err();
    assert_eq!(reason(&error), "CUT_TIMEOUT");
    assert!(good.state().live().is_empty());
    assert!(manager.snapshots(None, true).await.unwrap().is_empty());

    // A failed call leaves its request id free.
    bad.state().fail.clear();
    assert_eq!(manager.create_snapshots(args).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_repeated_request_answers_as_the_first_did() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let mut args = create_args(&["a"]);
    args.request_id = "r1".to_owned();
    args.labels.insert("job".to_owned(), "nightly".to_owned());

    let (first, second) = tokio::join!(
        manager.create_snapshots(args.clone()),
        manager.create_snapshots(args.clone())
    );
    assert_eq!(first.unwrap()[0].record.id, second.unwrap()[0].record.id);
    assert_eq!(fake.state().live().len(), 1);

    args.labels.clear();
    let error = manager.create_snapshots(args.clone()).await.unwrap_err();
    assert_eq!(reason(&error), "REQUEST_ID_REUSED");
    let mut attach = bench.attach_args("b");
    attach.request_id = args.request_id;
    let error = manager.attach(attach).await.unwrap_err();
    assert_eq!(reason(&error), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn mounted_file_systems_are_frozen_around_the_cut() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    bench.attach(&manager, "b").await;
    fake.state().device_path = "/dev/a".to_owned();
    bench.kernel.mount("/dev/a", "/mnt/a");

    let made = manager
        .create_snapshots(create_args(&["a", "b"]))
        .await
        .unwrap();
    assert_eq!(made[0].record.consistency, Consistency::FileSystem);
    assert_eq!(made[0].record.frozen_us, Some(900));
    assert_eq!(made[0].record.held_us, 150);
    assert_eq!(made[1].record.consistency, Consistency::Crash);
    assert_eq!(made[1].record.frozen_us, None);
    let journal = bench.journal();
    assert_eq!(journal.first().unwrap(), "freeze 1");
    // Devices for the views are made when nobody waits any more.
    let thaw = journal.iter().position(|entry| entry == "thaw").unwrap();
    let after = &journal[thaw + 1..];
    assert!(!after.is_empty(), "{journal:?}");
    assert!(
        after.iter().all(|entry| entry.contains("PresentViews")),
        "{journal:?}"
    );

    let mut args = create_args(&["a"]);
    args.freeze = FreezeMode::None;
    let made = manager.create_snapshots(args).await.unwrap();
    assert_eq!(made[0].record.consistency, Consistency::Crash);
}

#[tokio::test]
async fn a_cut_that_fails_thaws() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    fake.state().device_path = "/dev/a".to_owned();
    bench.kernel.mount("/dev/a", "/mnt/a");
    fake.state().fail.insert("Hold", FailureKind::CutTimeout);
    manager
        .create_snapshots(create_args(&["a"]))
        .await
        .unwrap_err();
    assert!(bench.journal().contains(&"thaw".to_owned()));
}

#[tokio::test]
async fn require_needs_a_file_system_that_stays_frozen() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let mut args = create_args(&["a"]);
    args.freeze = FreezeMode::Require;
    let error = manager.create_snapshots(args.clone()).await.unwrap_err();
    assert_eq!(reason(&error), "FREEZE_FAILED");

    fake.state().device_path = "/dev/a".to_owned();
    bench.kernel.mount("/dev/a", "/mnt/a");
    bench.kernel.refuse.store(true, Ordering::SeqCst);
    let error = manager.create_snapshots(args.clone()).await.unwrap_err();
    assert_eq!(reason(&error), "FREEZE_FAILED");
    assert!(error.message.contains("cannot be frozen"));

    bench.kernel.refuse.store(false, Ordering::SeqCst);
    bench.kernel.watchdog_strikes.store(true, Ordering::SeqCst);
    let error = manager.create_snapshots(args).await.unwrap_err();
    assert_eq!(reason(&error), "FREEZE_FAILED");
    assert!(fake.state().live().is_empty());
    assert!(fake.state().checkpoints.is_empty());
    assert_eq!(count(&manager, "FREEZE_TIMEOUT").await, 1);
}

#[tokio::test]
async fn auto_falls_back_and_never_claims_more() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    fake.state().device_path = "/dev/a".to_owned();
    bench.kernel.mount("/dev/a", "/mnt/a");

    bench.kernel.watchdog_strikes.store(true, Ordering::SeqCst);
    let made = create(&manager, "a").await;
    assert_eq!(made.record.consistency, Consistency::Crash);
    assert_eq!(count(&manager, "FREEZE_TIMEOUT").await, 1);

    bench.kernel.refuse.store(true, Ordering::SeqCst);
    let made = create(&manager, "a").await;
    assert_eq!(made.record.consistency, Consistency::Crash);
    assert_eq!(made.record.frozen_us, None);
}

#[tokio::test]
async fn groups_are_cut_as_one() {
    let bench = Bench::new();
    let manager = bench.start().await;
    bench.attach(&manager, "a").await;
    bench.attach(&manager, "b").await;
    let group = Group {
        name: "g".to_owned(),
        volumes: vec!["b".to_owned(), "a".to_owned()],
    };
    manager.create_group(group.clone()).await.unwrap();
    let error = manager.create_group(group.clone()).await.unwrap_err();
    assert_eq!(reason(&error), "GROUP_EXISTS");
    let missing = Group {
        name: "h".to_owned(),
        volumes: vec!["nobody".to_owned()],
    };
    let error = manager.create_group(missing).await.unwrap_err();
    assert_eq!(reason(&error), "VOLUME_NOT_FOUND");

    let mut args = create_args(&[]);
    args.group = "g".to_owned();
    let made = manager.create_snapshots(args.clone()).await.unwrap();
    assert_eq!(made[0].record.volume, "b");
    assert_eq!(manager.groups().await.unwrap(), [group]);
    manager.delete_group("g").await.unwrap();
    let error = manager.create_snapshots(args).await.unwrap_err();
    assert_eq!(reason(&error), "GROUP_NOT_FOUND");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_half_cut() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    fake.state().drain = Duration::from_millis(20);
    let call = manager.create_snapshots(create_args(&["a"]));
    let cut_short = tokio::time::timeout(Duration::from_millis(5), call).await;
    assert!(cut_short.is_err());
    while manager.snapshots(None, false).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!fake.state().is_held());
}

#[tokio::test]
async fn releasing_keeps_the_checkpoint_and_deleting_does_not() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let first = create(&manager, "a").await;
    let second = create(&manager, "a").await;
    assert_eq!(
        second.view_path,
        Some(format!("/views/{}", second.record.id).into())
    );

    let id = first.record.id.to_string();
    for _ in 0..2 {
        let released = manager.release_snapshot(&id).await.unwrap();
        assert_eq!(released.record.state, SnapshotState::Released);
        assert_eq!(released.view_path, None);
    }
    assert_eq!(count(&manager, "SNAPSHOT_RELEASED").await, 1);
    assert_eq!(fake.state().checkpoints, [1, 2]);
    let error = manager.readable(&id).await.unwrap_err();
    assert_eq!(reason(&error), "SNAPSHOT_RELEASED");
    let error = manager
        .allocated_page(first.record.id, 0, 0)
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "SNAPSHOT_RELEASED");

    let listed = manager.checkpoints("a").await.unwrap();
    assert_eq!(listed[0].snapshot, Some(first.record.id));
    let error = manager
        .delete_checkpoint("a", listed[1].checkpoint)
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "VOLUME_BUSY");
    manager
        .delete_snapshot(&second.record.id.to_string())
        .await
        .unwrap();
    assert_eq!(fake.state().checkpoints, [1]);
    let error = manager
        .snapshot(&second.record.id.to_string())
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "SNAPSHOT_NOT_FOUND");
    manager
        .delete_checkpoint("a", listed[0].checkpoint)
        .await
        .unwrap();
    assert!(manager.checkpoints("a").await.unwrap().is_empty());
}

#[tokio::test]
async fn diffs_tell_past_lineages_from_ones_never_made() {
    let bench = Bench::new();
    let manager = bench.start().await;
    bench.attach(&manager, "a").await;
    let made = create(&manager, "a").await;
    let since = made.checkpoint();
    let page = manager.changes_page("a", &since, None, 0, 0).await.unwrap();
    assert_eq!(page.extents.len(), 1);
    assert_eq!(page.next, None);

    let mut never = since;
    never.epoch.0 = 99;
    let error = manager
        .changes_page("a", &never, None, 0, 0)
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "CHECKPOINT_GONE");
    never.lineage.0 = [0xee; 16];
    let error = manager
        .changes_page("a", &never, None, 0, 0)
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "CHECKPOINT_GONE");
    let error = manager
        .changes_page("a", &since, Some(&never), 0, 0)
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "INVALID_FIELD");

    manager
        .reset_tracking("a", "restored by hand")
        .await
        .unwrap();
    let error = manager
        .changes_page("a", &since, None, 0, 0)
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "TRACKING_RESET");
    assert_eq!(error.metadata["cause"], "restored by hand");
    assert_eq!(count(&manager, "TRACKING_RESET").await, 1);
    let error = manager.delete_checkpoint("a", since).await.unwrap_err();
    assert_eq!(reason(&error), "TRACKING_RESET");
}

#[tokio::test]
async fn ids_resolve_from_prefixes() {
    let bench = Bench::new();
    let manager = bench.start().await;
    bench.attach(&manager, "a").await;
    let made = create(&manager, "a").await;
    let id = made.record.id.to_string();
    let found = manager.snapshot(&id[..20].to_uppercase()).await.unwrap();
    assert_eq!(found.record.id, made.record.id);
    for bad in ["", "xyz", "' OR 1=1", &"0".repeat(33)] {
        let error = manager.snapshot(bad).await.unwrap_err();
        assert_eq!(reason(&error), "INVALID_FIELD");
    }
}

#[tokio::test]
async fn the_fates_of_snapshots_are_told_once() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let made = create(&manager, "a").await;
    let id = made.record.id;
    {
        let mut state = fake.state();
        state.snapshots.get_mut(&id).unwrap().1 = tidemark_proto::private::SnapshotFate::Overflowed;
    }
    fake.tell(
        tidemark_proto::private::VolumeEventKind::SnapshotOverflowed,
        Some(id),
        "the store filled",
    );
    let error = loop {
        match manager.hold_lease(id).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(reason(&error), "SNAPSHOT_OVERFLOWED");
    manager.snapshot(&id.to_string()).await.unwrap();
    assert_eq!(count(&manager, "SNAPSHOT_OVERFLOWED").await, 1);
}
