//! Attaching and detaching.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use tidemark_proto::private::FailureKind;
use tidemark_store::catalog::FullPolicy;

use super::bench::{Bench, count, create, reason};
use crate::manager::AreaChoice;

#[tokio::test]
async fn a_volume_comes_and_goes() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let volume = manager.volume("a").await.unwrap();
    assert_eq!(volume.record.block_bytes, 4096);
    assert_eq!(volume.live.unwrap().server_pid, 4242);

    let made = create(&manager, "a").await;
    let error = manager.detach("a", false).await.unwrap_err();
    assert_eq!(reason(&error), "VOLUME_BUSY");
    fake.state().device_path = "/dev/a".to_owned();
    bench.kernel.mount("/dev/a", "/mnt/a");
    let error = manager.detach("a", true).await.unwrap_err();
    assert_eq!(reason(&error), "VOLUME_BUSY");
    assert_eq!(error.metadata["mount_point"], "/mnt/a");
    bench.kernel.mounted.lock().unwrap().clear();

    manager.detach("a", true).await.unwrap();
    assert!(manager.volumes().await.unwrap().is_empty());
    let error = manager.volume("a").await.unwrap_err();
    assert_eq!(reason(&error), "VOLUME_NOT_FOUND");
    let error = manager
        .readable(&made.record.id.to_string())
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "SNAPSHOT_RELEASED");
    assert_eq!(count(&manager, "VOLUME_DETACHED").await, 1);
    assert!(!bench.paths().volume("a").dir().exists());

    // The name may be used again; what was tracked then is another lineage.
    let fake = bench.fake("a");
    fake.state().begin_lineage("attached");
    manager.attach(bench.attach_args("a")).await.unwrap();
    let error = manager
        .changes_page("a", &made.checkpoint(), None, 0, 0)
        .await
        .unwrap_err();
    assert_eq!(reason(&error), "TRACKING_RESET");
    assert_eq!(error.metadata["cause"], "detached");
}

#[tokio::test]
async fn a_server_that_will_not_stop_is_still_looked_after() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    fake.state().fail.insert("Stop", FailureKind::Busy);
    let error = manager.detach("a", true).await.unwrap_err();
    assert_eq!(reason(&error), "VOLUME_BUSY");
    assert!(manager.volume("a").await.unwrap().live.is_ok());
    fake.state().fail.clear();
    manager.detach("a", false).await.unwrap();
}

#[tokio::test]
async fn origins_and_areas_are_not_shared() {
    let bench = Bench::new();
    let manager = bench.start().await;
    bench.attach(&manager, "a").await;
    let first = bench.attach_args("a");
    fs::write(bench.area_path("a"), b"area").unwrap();

    let error = manager.attach(first.clone()).await.unwrap_err();
    assert_eq!(reason(&error), "VOLUME_EXISTS");

    let mut args = bench.attach_args("b");
    args.origin_path = bench.dir.path().join("link");
    std::os::unix::fs::symlink(&first.origin_path, &args.origin_path).unwrap();
    let error = manager.attach(args.clone()).await.unwrap_err();
    assert_eq!(reason(&error), "ORIGIN_IN_USE");
    args = bench.attach_args("b");
    args.area = first.area.clone();
    assert_eq!(
        reason(&manager.attach(args.clone()).await.unwrap_err()),
        "AREA_IN_USE"
    );
    args.area = AreaChoice::At(args.origin_path.clone());
    assert_eq!(
        reason(&manager.attach(args.clone()).await.unwrap_err()),
        "AREA_ON_VOLUME"
    );
    args = bench.attach_args("b");
    args.origin_path = bench.dir.path().join("nothing");
    assert_eq!(
        reason(&manager.attach(args.clone()).await.unwrap_err()),
        "ORIGIN_UNSUITABLE"
    );
    args.origin_path = bench.dir.path().to_owned();
    assert_eq!(
        reason(&manager.attach(args).await.unwrap_err()),
        "ORIGIN_UNSUITABLE"
    );
    assert_eq!(manager.volumes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn bad_arguments_name_their_field() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let good = bench.attach_args("a");
    let mut bad = Vec::new();
    for name in ["", "A", "-a", "a/b", "../a", &"x".repeat(65)] {
        let mut args = good.clone();
        args.name = name.to_owned();
        bad.push((args, "name"));
    }
    let mut args = good.clone();
    args.origin_path = PathBuf::from("relative");
    bad.push((args, "origin_path"));
    let mut args = good.clone();
    args.area = AreaChoice::At(PathBuf::from("/tmp/../etc"));
    bad.push((args, "store.area_path"));
    let mut args = good.clone();
    args.area = AreaChoice::LogicalVolume("vg/area".to_owned());
    bad.push((args, "store.logical_volume.name"));
    let mut args = good.clone();
    args.block_bytes = 5000;
    bad.push((args, "block_bytes"));
    let mut args = good.clone();
    args.area_size_bytes = u64::MAX;
    bad.push((args, "store.area_size_bytes"));
    let mut args = good.clone();
    args.policy = FullPolicy::Slow {
        max_write_delay_ms: 0,
    };
    bad.push((args, "store.max_write_delay"));
    let mut args = good;
    args.request_id = "r".repeat(129);
    bad.push((args, "request_id"));
    for (args, field) in bad {
        let error = manager.attach(args).await.unwrap_err();
        assert_eq!(reason(&error), "INVALID_FIELD");
        assert_eq!(error.metadata["field"], field);
    }
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing() {
    let bench = Bench::new();
    let program = bench.dir.path().join("server");
    let script = |body: &str| {
        fs::write(&program, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let manager = bench.start_with(&program).await;
    let mut args = bench.attach_args("a");
    args.request_id = "r1".to_owned();

    script("echo 'error AREA_NO_SPACE the area needs 1 GiB'; exit 1");
    let error = manager.attach(args.clone()).await.unwrap_err();
    assert_eq!(reason(&error), "AREA_NO_SPACE");
    assert!(error.message.contains("1 GiB"), "{error}");
    script("echo 'it broke' >&2; exit 3");
    let error = manager.attach(args.clone()).await.unwrap_err();
    assert_eq!(reason(&error), "VOLUME_SERVER_UNAVAILABLE");
    assert!(error.message.contains("it broke"), "{error}");
    assert!(manager.volumes().await.unwrap().is_empty());
    assert!(!bench.paths().volume("a").dir().exists());

    // Neither the name nor the request id is spent.
    bench.fake("a");
    let first = manager.attach(args.clone()).await.unwrap();
    let again = manager.attach(args).await.unwrap();
    assert_eq!(first.record, again.record);
    assert_eq!(count(&manager, "VOLUME_ATTACHED").await, 1);
}

#[tokio::test]
async fn a_program_that_does_not_run_costs_no_server() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    let before = fake.state().pid;
    let error = manager.hand_over("a").await.unwrap_err();
    assert!(error.message.contains("does not run"), "{error:?}");
    assert_eq!(fake.state().pid, before);
    assert!(manager.volume("a").await.unwrap().live.is_ok());
}
