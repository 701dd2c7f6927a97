//! Whole runs, against a daemon in this process.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::Value;
use tidemark_proto::v1::{CheckFinding, CheckResult, ErrorReason, operation::Result as JobResult};

use crate::{
    exit::{Exit, Report},
    fake::{BLOCK, Fake, Fate},
};

struct Host {
    fake: Fake,
    config: PathBuf,
}

impl Host {
    /// One schedule, `nightly`, with a hook that writes down what it is told.
    async fn with(more: &str) -> Self {
        let fake = Fake::start(64 * BLOCK);
        fake.model().scribble(1, 2);
        fake.command("repo init vault /place").await.1.unwrap();
        let hook = fake.path("hook");
        let told = fake.path("told").display().to_string();
        let script = format!(
            "#!/bin/sh\necho \"$1 $(env | grep ^TIDEMARK_ | sort | tr '\\n' ' ')\" >> {told}\n"
        );
        fs::write(&hook, script).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let hook = hook.display();
        let text = format!(
            "[volume.vol]\ndevice = \"/dev/vol\"\narea = \"lv\"\n\
             [repository.vault]\nlocation = \"/place\"\n\
             [backup.nightly]\nvolumes = [\"vol\"]\nrepository = \"vault\"\ntags = [\"own\"]\n{more}\n\
             [backup.nightly.hooks]\nafter-backup = [\"{hook}\", \"after\"]\non-failure = [\"{hook}\", \"failed\"]\n"
        );
        let config = fake.path("tidemark.toml");
        fs::write(&config, text).unwrap();
        Self { fake, config }
    }

    async fn schedule(&self, what: &str) -> (Vec<String>, Result<(), Report>) {
        let state = self.fake.path("state");
        let (config, state) = (self.config.display(), state.display());
        let line = format!("schedule {what} --config {config} --state-dir {state}");
        self.fake.command(&line).await
    }

    fn record(&self) -> Value {
        let path = self.fake.path("state/schedules/nightly.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn told(&self) -> String {
        fs::read_to_string(self.fake.path("told")).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_run_backs_up_and_cares_for_its_own_points_only() {
    let host = Host::with("keep = { last = 2, within = \"3d\" }\ncheck-data-percent = 5").await;
    let (said, ended) = host.schedule("run nightly").await;
    ended.unwrap();
    assert_eq!(said.len(), 1, "one line for the journal: {said:?}");
    assert!(
        said[0].starts_with("schedule nightly: succeeded in "),
        "{said:?}"
    );
    assert!(said[0].contains("1 point in vault"), "{said:?}");
    assert!(
        said[0].ends_with("checked with 5 % of the data"),
        "{said:?}"
    );
    let asked = host.fake.model().vault.asked.clone();
    assert!(
        asked[0].contains("tags: [\"schedule:nightly\", \"own\"]"),
        "{asked:?}"
    );
    assert!(asked[0].contains("volumes: [\"vol\"]"));
    assert!(
        asked[1].contains("tags: [\"schedule:nightly\"]"),
        "{asked:?}"
    );
    assert!(asked[1].contains("host: \"host\"") && asked[1].contains("last: 2"));
    assert!(asked[2].contains("PruneRequest") && asked[3].contains("read_data_percent: 5"));
    let record = host.record();
    assert_eq!(record["outcome"], "succeeded");
    assert_eq!(record["points"].as_array().unwrap().len(), 1);
    assert!(record["pruned_at"].as_u64() > Some(0));
    let told = host.told();
    assert!(told.starts_with("after "), "{told}");
    assert!(
        told.contains("TIDEMARK_OUTCOME=succeeded") && told.contains("TIDEMARK_SCHEDULE=nightly")
    );
    // Pruned this week: not again.
    host.schedule("run nightly").await.1.unwrap();
    let prunes = |asked: &[String]| {
        asked
            .iter()
            .filter(|one| one.contains("PruneRequest"))
            .count()
    };
    assert_eq!(prunes(&host.fake.model().vault.asked), 1);
}

#[tokio::test]
async fn a_backup_that_fails_says_why_with_its_own_code() {
    let host = Host::with("").await;
    let failure = Fate::Fails(ErrorReason::RepositoryStorage, "the disk is gone");
    host.fake.model().vault.fates.push_back(failure);
    let (said, ended) = host.schedule("run nightly").await;
    let report = ended.unwrap_err();
    assert_eq!(report.exit, Exit::Failed);
    assert!(
        report.message.contains("the disk is gone"),
        "{}",
        report.message
    );
    assert!(report.advice().is_some());
    assert!(
        said[0].starts_with("schedule nightly: failed in "),
        "{said:?}"
    );
    assert_eq!(host.record()["reason"], "REPOSITORY_STORAGE");
    assert_eq!(host.record()["backed_up_at"], 0);
    let told = host.told();
    assert!(
        told.starts_with("failed ") && told.contains("TIDEMARK_REASON=REPOSITORY_STORAGE"),
        "{told}"
    );
    assert_eq!(
        host.fake.model().vault.asked.len(),
        1,
        "nothing is forgotten after it"
    );
}

#[tokio::test]
async fn what_fails_after_the_backup_leaves_it_in_part() {
    let host = Host::with("").await;
    let sound = || Fate::Gives(JobResult::Check(CheckResult::default()));
    // The backup, the prune, the check.
    let whole = host.schedule("--json run nightly").await;
    whole.1.unwrap();
    let mut record = host.record();
    record["pruned_at"] = 0.into();
    let path = host.fake.path("state/schedules/nightly.json");
    fs::write(path, record.to_string()).unwrap();
    let backup: Value = serde_json::from_str(&whole.0[0]).unwrap();
    assert_eq!(backup["run"]["outcome"], "succeeded");
    let points = host.fake.model().vault.points.clone();
    let result = JobResult::Backup(tidemark_proto::v1::BackupResult { points });
    host.fake.model().vault.fates.extend([
        Fate::Gives(result),
        Fate::Fails(ErrorReason::RepositoryStorage, "no more space"),
        sound(),
    ]);
    let report = host.schedule("run nightly").await.1.unwrap_err();
    assert_eq!(report.exit, Exit::Partial);
    assert_eq!(host.record()["outcome"], "partial");
    assert_eq!(host.record()["pruned_at"], 0);
    assert!(host.told().lines().last().unwrap().starts_with("failed "));
}

#[tokio::test]
async fn damage_is_told_with_the_code_of_damage() {
    let host = Host::with("prune = \"never\"").await;
    let finding = CheckFinding {
        message: "pack p".to_owned(),
        point_ids: Vec::new(),
    };
    let result = CheckResult {
        findings: vec![finding],
        total_findings: 1,
        ..CheckResult::default()
    };
    let first = host.schedule("run nightly").await;
    first.1.unwrap();
    let points = host.fake.model().vault.points.clone();
    let backup = JobResult::Backup(tidemark_proto::v1::BackupResult { points });
    let fates = [Fate::Gives(backup), Fate::Gives(JobResult::Check(result))];
    host.fake.model().vault.fates.extend(fates);
    let report = host.schedule("run nightly").await.1.unwrap_err();
    assert_eq!(report.exit, Exit::Integrity);
    assert!(
        report.message.contains("1 finding in repository vault"),
        "{}",
        report.message
    );
}

#[tokio::test]
async fn a_hook_that_fails_is_a_failure_of_its_own() {
    let host = Host::with("").await;
    fs::write(host.fake.path("hook"), "#!/bin/sh\nexit 7\n").unwrap();
    let report = host.schedule("run nightly").await.1.unwrap_err();
    assert_eq!(report.exit, Exit::Partial);
    assert!(
        report.message.contains("hook after-backup"),
        "{}",
        report.message
    );
    assert!(
        report.message.contains("exit status: 7"),
        "{}",
        report.message
    );
}

#[tokio::test]
async fn a_hook_that_hangs_is_ended_with_what_it_started() {
    let host = Host::with("").await;
    let left = host.fake.path("left");
    let script = format!(
        "#!/bin/sh\n(trap '' TERM; sleep 600) & echo $! > {}\nwait\n",
        left.display()
    );
    fs::write(host.fake.path("hook"), script).unwrap();
    let text = fs::read_to_string(&host.config).unwrap() + "timeout = \"1s\"\n";
    fs::write(&host.config, text).unwrap();
    let report = host.schedule("run nightly").await.1.unwrap_err();
    assert!(
        report.message.contains("it took more than 1.0 s"),
        "{}",
        report.message
    );
    let pid = fs::read_to_string(left).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    // It was killed, and may be dying still.
    while fs::read_to_string(&stat).is_ok_and(|state| !state.contains(") Z ")) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn two_runs_of_one_schedule_do_not_meet() {
    let host = Host::with("").await;
    let records = super::Records::below(&host.fake.path("state"));
    let lock = records.lock("nightly").unwrap();
    let report = host.schedule("run nightly").await.1.unwrap_err();
    assert_eq!(report.exit, Exit::Busy);
    drop(lock);
    host.schedule("run nightly").await.1.unwrap();
}

#[tokio::test]
async fn schedules_are_listed_with_how_they_went() {
    let host = Host::with("schedule = \"daily\"").await;
    let (said, ended) = host.schedule("list").await;
    ended.unwrap();
    assert!(
        said[1].starts_with("nightly ") && said[1].ends_with("never"),
        "{said:?}"
    );
    host.schedule("run nightly").await.1.unwrap();
    let said = host.schedule("list").await.0;
    assert!(said[1].contains("  succeeded "), "{said:?}");
    let report = host.schedule("run weekly").await.1.unwrap_err();
    assert_eq!(report.exit, Exit::Usage);
    assert_eq!(report.advice(), Some("the schedules are: nightly"));
}
