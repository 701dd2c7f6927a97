//! Programs around a freeze: their order, and what their failures cost.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidemark_config::{Configuration, Volume as Configured};
use tidemark_proto::v1::FreezeMode;

use super::bench::{Bench, count, create_args, reason};
use crate::manager::{Error, Manager, Snapshot};

/// Volumes `a` and `b`, mounted, with hooks.
async fn bench(required: bool) -> (Bench, Arc<Manager>) {
    let bench = Bench::new();
    let manager = bench.start().await;
    for name in ["a", "b"] {
        let fake = bench.attach(&manager, name).await;
        let device = format!("/dev/{name}");
        fake.state().device_path = device.clone();
        bench.kernel.mount(&device, &format!("/mnt/{name}"));
    }
    manager.configure(configured(required));
    (bench, manager)
}

fn configured(required: bool) -> BTreeMap<String, Configured> {
    let text: String = ["a", "b"]
        .iter()
        .map(|name| {
            format!(
                "[volume.{name}]\ndevice = \"/dev/{name}\"\narea = \"lv\"\n\
                 [volume.{name}.hooks]\nbefore-freeze = [\"/rest\", \"{name}\"]\n\
                 after-thaw = [\"/wake\", \"{name}\"]\ntimeout = \"7s\"\nrequired = {required}\n"
            )
        })
        .collect();
    Configuration::parse(&text).unwrap().volumes
}

async fn cut(manager: &Arc<Manager>) -> Result<Vec<Snapshot>, Error> {
    manager.create_snapshots(create_args(&["a", "b"])).await
}

/// What hooks and the kernel were asked, in order.
fn steps(bench: &Bench) -> Vec<String> {
    let steps = bench.journal().into_iter();
    steps
        .filter(|line| !line.contains("Describe") && !line.contains("Hello"))
        .collect()
}

fn hooks(bench: &Bench) -> Vec<String> {
    let steps = steps(bench).into_iter();
    steps.filter(|line| line.starts_with("hook ")).collect()
}

#[tokio::test]
async fn hooks_run_around_the_freeze_and_never_within() {
    let (bench, manager) = bench(true).await;
    cut(&manager).await.unwrap();
    let steps = steps(&bench);
    let at = |what: &str| steps.iter().position(|line| line == what).expect(what);
    let order = [
        "hook /rest a",
        "hook /rest b",
        "freeze 2",
        "thaw",
        "hook /wake b",
        "hook /wake a",
    ];
    assert!(order.is_sorted_by_key(|what| at(what)), "{steps:?}");
    let ran = bench.kernel.hooks.lock().unwrap().clone();
    assert_eq!(ran[0].within, Duration::from_secs(7));
    let told: BTreeMap<_, _> = ran[3].environment.iter().cloned().collect();
    assert_eq!(told["TIDEMARK_VOLUME"], "a");
    assert_eq!(told["TIDEMARK_HOOK"], "after-thaw");
    assert_eq!(told["TIDEMARK_OUTCOME"], "succeeded");
    assert_eq!(count(&manager, "HOOK_FAILED").await, 0);
}

#[tokio::test]
async fn an_application_that_does_not_rest_refuses_the_snapshot_and_all_wake() {
    let (bench, manager) = bench(true).await;
    let fail = |manager: &Arc<Manager>, name: &str, program: &str| {
        let mut volumes = configured(true);
        let hooks = &mut volumes.get_mut(name).unwrap().hooks;
        hooks.before_freeze[0] = program.to_owned();
        manager.configure(volumes);
    };
    fail(&manager, "b", "/bad");
    bench
        .kernel
        .failing_hooks
        .lock()
        .unwrap()
        .push("/bad".to_owned());
    let error = cut(&manager).await.unwrap_err();
    assert_eq!(reason(&error), "HOOK_FAILED");
    assert_eq!(error.metadata["volume"], "b");
    assert_eq!(
        hooks(&bench),
        [
            "hook /rest a",
            "hook /bad b",
            "hook /wake b",
            "hook /wake a"
        ]
    );
    assert!(!steps(&bench).iter().any(|line| line.starts_with("freeze")));
    // One that fails before any other began leaves the others alone.
    bench.journal.lock().unwrap().clear();
    fail(&manager, "a", "/bad");
    cut(&manager).await.unwrap_err();
    assert_eq!(hooks(&bench), ["hook /bad a", "hook /wake a"]);
    assert_eq!(count(&manager, "HOOK_FAILED").await, 2);
}

#[tokio::test]
async fn a_hook_that_need_not_succeed_is_told_and_passed_over() {
    let (bench, manager) = bench(false).await;
    bench
        .kernel
        .failing_hooks
        .lock()
        .unwrap()
        .push("/rest".to_owned());
    cut(&manager).await.unwrap();
    assert_eq!(count(&manager, "HOOK_FAILED").await, 2);
    assert_eq!(hooks(&bench).len(), 4);
}

#[tokio::test]
async fn applications_wake_when_the_freeze_fails() {
    let (bench, manager) = bench(true).await;
    bench
        .kernel
        .refuse
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let mut args = create_args(&["a", "b"]);
    args.freeze = FreezeMode::Require;
    let error = manager.create_snapshots(args).await.unwrap_err();
    assert_eq!(reason(&error), "FREEZE_FAILED");
    assert_eq!(hooks(&bench)[2..], ["hook /wake b", "hook /wake a"]);
    let woken = bench.kernel.hooks.lock().unwrap()[2].clone();
    assert!(
        woken
            .environment
            .contains(&("TIDEMARK_OUTCOME".to_owned(), "failed".to_owned()))
    );
}

#[tokio::test]
async fn a_snapshot_without_a_freeze_is_without_hooks() {
    let (bench, manager) = bench(true).await;
    let mut args = create_args(&["a"]);
    args.freeze = FreezeMode::None;
    manager.create_snapshots(args).await.unwrap();
    assert!(hooks(&bench).is_empty());
}

#[tokio::test]
async fn what_a_dead_control_plane_left_at_rest_is_woken_once() {
    let (bench, manager) = bench(true).await;
    let note = bench.paths().volume("b").at_rest();
    std::fs::write(&note, b"").unwrap();
    manager.wake_left_behind().await;
    assert_eq!(hooks(&bench), ["hook /wake b"]);
    assert!(!note.exists());
    cut(&manager).await.unwrap();
    assert!(!note.exists() && !bench.paths().volume("a").at_rest().exists());
}
