//! Jobs that are interrupted, lost and found.

use std::time::Duration;

use tidemark_proto::v1::ErrorReason;
use tokio::sync::watch;

use crate::{
    context::Interrupt,
    exit::Exit,
    fake::{BLOCK, Fake, Fate},
};

/// A daemon whose next job has that fate.
async fn fated(fate: Fate) -> Fake {
    let fake = Fake::start(8 * BLOCK);
    fake.command("repo init r /place").await.1.unwrap();
    fake.model().vault.fates.push_back(fate);
    fake
}

/// Sends the `times`th signal once somebody watches the job.
async fn signal(fake: &Fake, tell: &watch::Sender<u32>, times: u32) {
    let reached = || {
        let model = fake.model();
        let job = model.vault.jobs.get("job1");
        job.is_some_and(|job| job.watched > 0 && (times < 2 || job.cancelled))
    };
    while !reached() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tell.send_replace(times);
}

#[tokio::test]
async fn the_first_signal_cancels_and_waits() {
    let fake = fated(Fate::Hangs).await;
    let (tell, interrupt) = Interrupt::manual();
    let backup = fake.interruptible("backup --to r vol", interrupt);
    let (_, (said, ended)) = tokio::join!(signal(&fake, &tell, 1), backup);
    let report = ended.unwrap_err();
    assert_eq!(report.exit, Exit::Interrupted);
    assert_eq!(report.message, "operation job1 was cancelled");
    assert_eq!(
        said,
        ["note: cancelling; a second interrupt does not wait for it"]
    );
    assert!(fake.model().vault.jobs["job1"].cancelled);
}

#[tokio::test]
async fn the_second_signal_leaves() {
    let fake = fated(Fate::Stuck).await;
    let (tell, interrupt) = Interrupt::manual();
    let prune = fake.interruptible("prune r", interrupt);
    let signals = async {
        signal(&fake, &tell, 1).await;
        signal(&fake, &tell, 2).await;
    };
    let (_, (_, ended)) = tokio::join!(signals, prune);
    let report = ended.unwrap_err();
    assert_eq!(report.exit, Exit::Interrupted);
    assert!(report.message.contains("job1 was not waited for"));
}

#[tokio::test]
async fn a_lost_connection_is_made_anew() {
    let fake = fated(Fate::Cut).await;
    let (said, ended) = fake.command("prune r").await;
    ended.unwrap();
    assert_eq!(said, ["nothing to delete"]);
    assert_eq!(fake.model().vault.jobs["job1"].watched, 2);
}

#[tokio::test]
async fn an_operation_that_died_with_its_daemon_is_told_of() {
    let fake = fated(Fate::Gone).await;
    let report = fake.command("backup --to r vol").await.1.unwrap_err();
    assert_eq!(report.exit, Exit::NoDaemon);
    assert!(report.message.contains("restarted meanwhile"));
}

#[tokio::test]
async fn a_failure_has_the_exit_code_of_its_reason() {
    for (reason, exit) in [
        (ErrorReason::RepositoryKey, Exit::Denied),
        (ErrorReason::RepositoryStorage, Exit::Failed),
        (ErrorReason::DataCorrupt, Exit::Integrity),
    ] {
        let fake = fated(Fate::Fails(reason, "so it is")).await;
        let report = fake.command("check r").await.1.unwrap_err();
        assert_eq!(report.exit, exit);
        assert_eq!(report.message, "operation job1 failed: so it is");
    }
}
