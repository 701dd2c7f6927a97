//! Areas on logical volumes: made, found again, and never left behind.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use tidemark_store::catalog::EventRecord;

use super::bench::{Bench, events, reason};
use crate::manager::{AreaChoice, AttachArgs, Manager};

/// What is made of 64 MiB.
const DEFAULT_BYTES: u64 = 256 << 20;

fn args(bench: &Bench, volume: &str, name: &str) -> AttachArgs {
    AttachArgs {
        area: AreaChoice::LogicalVolume(name.to_owned()),
        area_size_bytes: 0,
        ..bench.attach_args(volume)
    }
}

/// A program whose servers do not start.
fn failing(bench: &Bench) -> PathBuf {
    let program = bench.dir.path().join("server");
    let script = "#!/bin/sh\necho 'error ORIGIN_IN_USE somebody has it'; exit 1\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

async fn until_made(bench: &Bench, names: &[(&str, bool)]) {
    let names: Vec<_> = names
        .iter()
        .map(|(name, active)| ((*name).to_owned(), *active))
        .collect();
    while bench.kernel.group.names() != names {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn detached(manager: &Manager) -> EventRecord {
    let told = events(manager).await;
    let mut told = told
        .into_iter()
        .filter(|record| record.event.kind == "EVENT_KIND_VOLUME_DETACHED");
    told.next_back().expect("a detach is told")
}

#[tokio::test]
async fn a_volume_that_cannot_be_served_leaves_no_area() {
    let bench = Bench::new();
    let manager = bench.start_with(&failing(&bench)).await;
    let error = manager.attach(args(&bench, "a", "")).await.unwrap_err();
    assert_eq!(reason(&error), "ORIGIN_IN_USE");
    assert_eq!(bench.kernel.group.names(), []);
    assert!(manager.volumes().await.unwrap().is_empty());
}

#[tokio::test]
async fn names_and_sizes_are_chosen_before_anything_is_made() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let group = &bench.kernel.group;
    for (volume, wish, path) in [
        ("a", "", "/dev/vg/home-tidemark"),
        ("b", "", "/dev/vg/home-tidemark-2"),
        ("c", "mine", "/dev/vg/mine"),
    ] {
        bench.fake(volume);
        let made = manager.attach(args(&bench, volume, wish)).await.unwrap();
        assert_eq!(made.record.area_path, PathBuf::from(path));
        assert_eq!(made.record.area_size_bytes, DEFAULT_BYTES);
        assert!(made.record.area_made);
    }
    let refused = |args: AttachArgs| {
        let manager = Arc::clone(&manager);
        async move { manager.attach(args).await.unwrap_err() }
    };
    for taken in ["home", "mine"] {
        let error = refused(args(&bench, "d", taken)).await;
        assert_eq!(reason(&error), "AREA_IN_USE");
    }
    let mut small = args(&bench, "d", "");
    small.area_size_bytes = 4096;
    let error = refused(small).await;
    assert_eq!(reason(&error), "AREA_NO_SPACE");
    assert!(error.metadata.contains_key("needed_bytes"), "{error:?}");
    group.free_extents.store(63, Ordering::SeqCst);
    let error = refused(args(&bench, "d", "")).await;
    assert_eq!(reason(&error), "AREA_NO_SPACE");
    assert_eq!(error.metadata["volume_group"], "vg");
    assert_eq!(error.metadata["free_bytes"], (252_u64 << 20).to_string());
    assert_eq!(error.metadata["needed_bytes"], DEFAULT_BYTES.to_string());
    group.broken.store(true, Ordering::SeqCst);
    assert_eq!(reason(&refused(args(&bench, "d", "")).await), "UNSUPPORTED");
    assert_eq!(manager.volumes().await.unwrap().len(), 3);
}

#[tokio::test]
async fn an_area_is_activated_and_one_that_was_only_recorded_is_made() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.fake("a");
    // The server answers already, so nothing but the record is made: as after a death in between.
    manager.attach(args(&bench, "a", "")).await.unwrap();
    assert_eq!(bench.kernel.group.names(), []);
    bench.kill(manager).await;
    fake.die().await;

    let manager = bench.start_with(&failing(&bench)).await;
    until_made(&bench, &[("home-tidemark", true)]).await;
    bench.kill(manager).await;
    let group = &bench.kernel.group;
    group.made.lock().unwrap()[0].1 = false;
    let manager = bench.start_with(&failing(&bench)).await;
    until_made(&bench, &[("home-tidemark", true)]).await;

    manager.detach("a", false).await.unwrap();
    assert_eq!(group.names(), []);
    let told = detached(&manager).await;
    assert!(told.event.message.contains("home-tidemark was removed"));
}

#[tokio::test]
async fn an_area_that_cannot_be_removed_is_not_forgotten() {
    let bench = Bench::new();
    let manager = bench.start_with(&failing(&bench)).await;
    let fake = bench.fake("a");
    manager.attach(args(&bench, "a", "")).await.unwrap();
    fake.die().await;
    let group = &bench.kernel.group;
    until_made(&bench, &[("home-tidemark", true)]).await;
    group.broken.store(true, Ordering::SeqCst);
    manager.detach("a", false).await.unwrap();
    let told = detached(&manager).await;
    assert!(told.event.message.contains("could not be removed yet"));
    assert_eq!(group.names().len(), 1);
    bench.kill(manager).await;

    group.broken.store(false, Ordering::SeqCst);
    let manager = bench.start().await;
    until_made(&bench, &[]).await;
    assert!(manager.volumes().await.unwrap().is_empty());
}
