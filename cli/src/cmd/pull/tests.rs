//! Pulls against a daemon in this process: every path of the decision, every fault of the stream.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Compress, PullArgs, Summary, Verify, pull,
    state::{Loaded, Phase, StateFile},
};
use crate::{
    cmd::snapshot::Freeze,
    exit::{Exit, Report},
    fake::{BLOCK, Fake, Injected, content},
};

/// Not a multiple of anything.
const CAPACITY: usize = (1 << 20) + 777;

fn args(target: PathBuf) -> PullArgs {
    PullArgs {
        source: "vol".to_owned(),
        target,
        state: None,
        full: false,
        overwrite: false,
        compress: Compress::None,
        verify: Verify::Sent,
        freeze: Freeze::Auto,
        keep_snapshot: false,
        reconnect_for: Duration::from_secs(60),
    }
}

async fn run(fake: &Fake, args: &PullArgs) -> Result<Summary, Exit> {
    let (_tell, context) = fake.context();
    pull(args, &context).await.map_err(|error| {
        println!("{error:#}");
        Report::of(&error).exit
    })
}

fn phase(image: &Path) -> Phase {
    match StateFile::beside(image).load().unwrap() {
        Loaded::Found(state) => state.phase,
        other => panic!("{other:?}"),
    }
}

/// A volume that was pulled once and changed since.
async fn pulled_and_changed() -> (Fake, PullArgs) {
    let fake = Fake::start(CAPACITY);
    fake.model().scribble(1, 3);
    let args = args(fake.path("image"));
    run(&fake, &args).await.unwrap();
    fake.model().scribble(77, 5);
    fake.model().discard(30..60);
    fake.model().write(CAPACITY - 10, b"the tail");
    (fake, args)
}

#[tokio::test]
async fn first_full_then_what_changed() {
    let (fake, args) = pulled_and_changed().await;
    let before: usize = fake.model().changed.values().next_back().unwrap().len();
    let second = run(&fake, &args).await.unwrap();
    assert_eq!(second.mode(), "incremental");
    assert_eq!(second.counts.extents, before as u64);
    assert_eq!(content(&args.target), fake.model().live);
    let third = run(&fake, &args).await.unwrap();
    assert_eq!((third.mode(), third.changed_bytes()), ("incremental", 0));
}

#[tokio::test]
async fn snapshots_are_given_back_and_old_checkpoints_forgotten() {
    let (fake, args) = pulled_and_changed().await;
    run(&fake, &args).await.unwrap();
    let model = fake.model();
    assert!(
        model
            .snapshots
            .values()
            .all(|snap| snap.leased && !snap.readable)
    );
    assert_eq!(model.checkpoints.iter().copied().collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_kept_snapshot_keeps_its_checkpoint() {
    let fake = Fake::start(CAPACITY);
    let mut args = args(fake.path("image"));
    args.keep_snapshot = true;
    run(&fake, &args).await.unwrap();
    args.keep_snapshot = false;
    run(&fake, &args).await.unwrap();
    assert!(fake.model().snapshots.values().next().unwrap().readable);
    assert!(fake.model().checkpoints.contains(&1));
}

#[tokio::test]
async fn compressed_and_compared_whole() {
    let (fake, mut args) = pulled_and_changed().await;
    args.compress = Compress::Zstd;
    args.verify = Verify::All;
    let summary = run(&fake, &args).await.unwrap();
    assert!(summary.counts.sent_bytes < summary.counts.data_bytes);
    assert_eq!(summary.verified, "all");
    assert_eq!(content(&args.target), fake.model().live);
}

#[tokio::test]
async fn a_cut_stream_goes_on_where_it_stopped() {
    for fault in [Injected::Cut(3), Injected::Truncate(3), Injected::Cut(0)] {
        let (fake, args) = pulled_and_changed().await;
        fake.model().faults.extend([fault, fault]);
        let summary = run(&fake, &args).await.unwrap();
        assert_eq!(summary.reconnects, 2, "{fault:?}");
        assert_eq!(content(&args.target), fake.model().live);
        let starts: Vec<u64> = fake
            .model()
            .asked
            .iter()
            .skip(1)
            .map(|asked| asked.start)
            .collect();
        assert_eq!(starts.len(), 3);
        assert!(starts.is_sorted(), "{starts:?}");
        assert_eq!(starts[1] > 0, !matches!(fault, Injected::Cut(0)));
    }
}

#[tokio::test]
async fn a_cut_full_stream_goes_on_too() {
    let fake = Fake::start(CAPACITY);
    fake.model().scribble(1, 2);
    fake.model().faults.push_back(Injected::Cut(7));
    let args = args(fake.path("image"));
    // What was there must not shine through where the volume is zero.
    std::fs::write(&args.target, vec![9; CAPACITY * 2]).unwrap();
    let args = PullArgs {
        overwrite: true,
        ..args
    };
    run(&fake, &args).await.unwrap();
    assert_eq!(content(&args.target), fake.model().live);
}

#[tokio::test]
async fn a_killed_daemon_comes_back() {
    let (mut fake, args) = pulled_and_changed().await;
    fake.model().faults.push_back(Injected::Stall(4));
    let (_tell, context) = fake.context();
    let pulling = args.clone();
    let pull = tokio::spawn(async move { pull(&pulling, &context).await });
    while fake.model().asked.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    fake.stop();
    tokio::time::sleep(Duration::from_millis(300)).await;
    fake.restart();
    let summary = pull.await.unwrap().unwrap();
    assert!(summary.reconnects > 0);
    assert_eq!(content(&args.target), fake.model().live);
}

#[tokio::test]
async fn a_daemon_that_stays_away_is_given_up() {
    let (fake, mut args) = pulled_and_changed().await;
    args.reconnect_for = Duration::ZERO;
    fake.model().faults.push_back(Injected::Cut(2));
    assert_eq!(run(&fake, &args).await.unwrap_err(), Exit::NoDaemon);
    assert!(matches!(
        phase(&args.target),
        Phase::InProgress {
            resume_offset_bytes: 1..,
            ..
        }
    ));
    let mut fake = fake;
    fake.stop();
    assert_eq!(run(&fake, &args).await.unwrap_err(), Exit::NoDaemon);
}

#[tokio::test]
async fn no_diff_means_full_with_the_cause() {
    let (fake, args) = pulled_and_changed().await;
    fake.model().reset("the origin was resized");
    let summary = run(&fake, &args).await.unwrap();
    assert_eq!(summary.mode(), "full");
    assert!(
        summary.why.contains("the origin was resized"),
        "{}",
        summary.why
    );
    assert_eq!(content(&args.target), fake.model().live);
    fake.model().checkpoints.clear();
    let summary = run(&fake, &args).await.unwrap();
    assert!(summary.why.contains("CHECKPOINT_GONE"), "{}", summary.why);
}

#[tokio::test]
async fn wrong_bytes_end_the_pull_and_mark_the_image() {
    for fault in [Injected::Corrupt(1), Injected::WrongDigest] {
        let (fake, args) = pulled_and_changed().await;
        fake.model().faults.push_back(fault);
        assert_eq!(run(&fake, &args).await.unwrap_err(), Exit::Integrity);
        assert!(matches!(phase(&args.target), Phase::Invalid { .. }));
        let summary = run(&fake, &args).await.unwrap();
        assert!(summary.why.contains("not valid"), "{}", summary.why);
        assert_eq!(content(&args.target), fake.model().live);
    }
}

#[tokio::test]
async fn a_difference_from_the_snapshot_is_found() {
    let (fake, mut args) = pulled_and_changed().await;
    args.verify = Verify::All;
    fake.model().wrong_hashes = true;
    assert_eq!(run(&fake, &args).await.unwrap_err(), Exit::Integrity);
    assert!(matches!(phase(&args.target), Phase::Invalid { .. }));
}

#[tokio::test]
async fn an_image_that_others_changed_is_pulled_in_full() {
    let (fake, args) = pulled_and_changed().await;
    let mut image = content(&args.target);
    image[5] ^= 1;
    std::fs::write(&args.target, image).unwrap();
    let summary = run(&fake, &args).await.unwrap();
    assert!(summary.why.contains("changed by others"), "{}", summary.why);
    std::fs::remove_file(&args.target).unwrap();
    let summary = run(&fake, &args).await.unwrap();
    assert!(summary.why.contains("missing"), "{}", summary.why);
    assert_eq!(content(&args.target), fake.model().live);
}

/// Interrupts a pull after `batches` batches.
async fn interrupted(fake: &Fake, args: &PullArgs, batches: usize) {
    fake.model().faults.push_back(Injected::Stall(batches));
    let asked = fake.model().asked.len();
    let (tell, context) = fake.context();
    let pulling = args.clone();
    let pull = tokio::spawn(async move { pull(&pulling, &context).await });
    while fake.model().asked.len() == asked {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    tell.send_replace(1);
    let error = pull.await.unwrap().unwrap_err();
    assert_eq!(Report::of(&error).exit, Exit::Interrupted);
}

#[tokio::test]
async fn an_interrupted_pull_goes_on_with_its_snapshot() {
    let (fake, args) = pulled_and_changed().await;
    interrupted(&fake, &args, 5).await;
    let frozen = fake.model().live.clone();
    fake.model().scribble(13, 2);
    let summary = run(&fake, &args).await.unwrap();
    assert!(summary.resumed_at > 0, "{}", summary.why);
    assert_eq!(summary.verified, "sent");
    assert_eq!(content(&args.target), frozen);
    run(&fake, &args).await.unwrap();
    assert_eq!(content(&args.target), fake.model().live);
}

#[tokio::test]
async fn when_the_snapshot_is_gone_the_diff_since_the_old_base_mends_all() {
    let (fake, args) = pulled_and_changed().await;
    interrupted(&fake, &args, 9).await;
    fake.model()
        .snapshots
        .values_mut()
        .for_each(|snap| snap.readable = false);
    // Some of what was applied changes again, and some goes back to what it was.
    fake.model().scribble(1, 7);
    let summary = run(&fake, &args).await.unwrap();
    assert_eq!((summary.mode(), summary.resumed_at), ("incremental", 0));
    assert_eq!(fake.model().asked.last().unwrap().since, Some(1));
    assert_eq!(content(&args.target), fake.model().live);
    assert_eq!(
        fake.model().checkpoints.iter().copied().collect::<Vec<_>>(),
        [3]
    );
}

#[tokio::test]
async fn after_a_kill_the_whole_image_is_compared() {
    let (fake, args) = pulled_and_changed().await;
    interrupted(&fake, &args, 5).await;
    // As if the pull had written on and died before it could write its state.
    let image = std::fs::OpenOptions::new()
        .write(true)
        .open(&args.target)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, &[3; BLOCK], (100 * BLOCK) as u64).unwrap();
    drop(image);
    // Block 100 is in the diff (a fifth of all are): it is mended, and the comparison holds.
    let summary = run(&fake, &args).await.unwrap();
    assert_eq!(summary.verified, "all");
    assert_eq!(content(&args.target), fake.model().live);
}

#[tokio::test]
async fn a_stranger_who_wrote_after_a_kill_is_found_out() {
    let (fake, args) = pulled_and_changed().await;
    interrupted(&fake, &args, 5).await;
    let image = std::fs::OpenOptions::new()
        .write(true)
        .open(&args.target)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, b"x", (BLOCK + 1) as u64).unwrap();
    drop(image);
    assert_eq!(run(&fake, &args).await.unwrap_err(), Exit::Integrity);
    assert_eq!(run(&fake, &args).await.unwrap().mode(), "full");
    assert_eq!(content(&args.target), fake.model().live);
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_left_alone() {
    let fake = Fake::start(CAPACITY);
    let mut args = args(fake.path("precious"));
    std::fs::write(&args.target, b"precious").unwrap();
    assert_eq!(run(&fake, &args).await.unwrap_err(), Exit::Failed);
    assert_eq!(content(&args.target), b"precious");
    assert!(fake.model().snapshots.is_empty());
    args.overwrite = true;
    assert_eq!(run(&fake, &args).await.unwrap().mode(), "full");
}

#[tokio::test]
async fn a_named_snapshot_is_pulled_and_stays() {
    let fake = Fake::start(CAPACITY);
    fake.model().scribble(1, 3);
    let mut args = args(fake.path("image"));
    args.keep_snapshot = true;
    run(&fake, &args).await.unwrap();
    let frozen = fake.model().live.clone();
    fake.model().scribble(2, 3);
    let id = fake.model().snapshots.keys().next().unwrap().clone();
    args.source = id;
    args.target = fake.path("other");
    run(&fake, &args).await.unwrap();
    assert_eq!(content(&args.target), frozen);
    assert!(fake.model().snapshots.values().all(|snap| snap.readable));
}

#[tokio::test]
async fn an_unknown_source_leaves_nothing_behind() {
    let fake = Fake::start(CAPACITY);
    let mut args = args(fake.path("image"));
    args.source = "nothing".to_owned();
    assert_eq!(run(&fake, &args).await.unwrap_err(), Exit::Failed);
    assert!(!args.target.exists());
}
