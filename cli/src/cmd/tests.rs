//! Commands on repositories, as whole lines, against a daemon in this process.

use serde_json::Value;
use tidemark_proto::v1::{
    CheckFinding, CheckResult, ErrorReason, RepairResult, operation::Result as JobResult,
};

use crate::{
    exit::Exit,
    fake::{BLOCK, Fake, Fate},
};

async fn with_repository() -> Fake {
    let fake = Fake::start(64 * BLOCK);
    fake.model().scribble(1, 2);
    fake.command("repo init r /place").await.1.unwrap();
    fake
}

async fn json(fake: &Fake, line: &str) -> Value {
    let (said, ended) = fake.command(&format!("--json {line}")).await;
    ended.unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    serde_json::from_str(&said[0]).unwrap()
}

#[tokio::test]
async fn a_backup_tells_what_it_took() {
    let fake = with_repository().await;
    let line = "backup --to r vol --tag daily";
    let (said, ended) = fake.command(line).await;
    ended.unwrap();
    assert_eq!(said[0], format!("{:032x} of vol: full, the first", 1));
    assert_eq!(said.last().unwrap(), "  tags daily");
    let second = json(&fake, line).await;
    assert_eq!(second["kind"], "BACKUP");
    assert_eq!(second["result"]["points"][0]["full_reason"], "");
    assert_eq!(
        second["result"]["points"][0]["base_id"],
        format!("{:032x}", 1)
    );
    let asked = fake.model().vault.asked[0].clone();
    assert!(asked.contains("request_id: \"") && !asked.contains("request_id: \"\""));
}

#[tokio::test]
async fn a_detached_backup_prints_its_operation_only() {
    let fake = with_repository().await;
    fake.model().vault.fates.push_back(Fate::Stuck);
    let (said, ended) = fake.command("backup --to r vol --detach").await;
    ended.unwrap();
    assert_eq!(said, ["job1", "note: `tidemark job wait` waits for it"]);
}

#[tokio::test]
async fn snapshots_and_images_are_named_for_the_daemon() {
    let fake = with_repository().await;
    let id = fake.model().cut(false).id;
    let line = format!("backup --to r --snapshot {id}");
    fake.command(&line).await.1.unwrap();
    fake.command("backup --to r --image some.img --name x")
        .await
        .1
        .unwrap();
    let asked = fake.model().vault.asked.clone();
    assert!(asked[0].contains(&format!("snapshot_ids: [\"{id}\"]")));
    let here = std::env::current_dir().unwrap().join("some.img");
    assert!(
        asked[1].contains(&format!("image_path: {here:?}")),
        "{}",
        asked[1]
    );
    assert!(asked[1].contains("image_name: \"x\""));
}

#[tokio::test]
async fn points_are_listed_and_damage_is_not_hidden() {
    let fake = with_repository().await;
    fake.command("backup --to r vol --tag a").await.1.unwrap();
    fake.command("backup --to r vol").await.1.unwrap();
    fake.model().vault.damaged.push("point x: \x1b".to_owned());
    let (said, ended) = fake.command("snapshots r --tag a").await;
    ended.unwrap();
    assert!(said[0].starts_with("POINT"));
    assert_eq!(said[2], "! damaged: point x: \u{fffd}");
    let all = json(&fake, "snapshots r").await;
    assert_eq!(all["points"].as_array().unwrap().len(), 2);
    assert_eq!(all["damaged"][0], "point x: \x1b");
}

#[tokio::test]
async fn forgetting_says_why_and_a_dry_run_only_says() {
    let fake = with_repository().await;
    for _ in 0..3 {
        fake.command("backup --to r vol").await.1.unwrap();
    }
    let (said, ended) = fake.command("forget r --keep-last 1 --dry-run").await;
    ended.unwrap();
    assert!(said[1].ends_with("would be forgotten"), "{said:?}");
    assert!(said[3].ends_with("kept: last"), "{said:?}");
    assert_eq!(said[4], "2 points would be forgotten, 1 kept");
    assert_eq!(fake.model().vault.points.len(), 3);
    fake.command("forget r --keep-last 1").await.1.unwrap();
    assert_eq!(fake.model().vault.points.len(), 1);
}

#[tokio::test]
async fn findings_are_an_integrity_failure() {
    let fake = with_repository().await;
    fake.command("check r --read-data").await.1.unwrap();
    assert!(fake.model().vault.asked[0].contains("read_data_percent: 100"));
    let finding = CheckFinding {
        message: "pack p at 17".to_owned(),
        point_ids: vec!["aa".to_owned()],
    };
    let result = JobResult::Check(CheckResult {
        findings: vec![finding],
        total_findings: 1,
        ..Default::default()
    });
    let fate = Fate::Gives(result);
    fake.model().vault.fates.extend([fate.clone(), fate]);
    let (said, ended) = fake.command("check r").await;
    let report = ended.unwrap_err();
    assert_eq!(report.exit, Exit::Integrity);
    assert_eq!(report.message, "1 finding in repository r");
    assert_eq!(said[..2], ["pack p at 17", "  needed by aa"]);
    let (said, _) = fake.command("--json check r").await;
    let document: Value = serde_json::from_str(&said[0]).unwrap();
    assert_eq!(document["result"]["findings"][0]["point_ids"][0], "aa");
}

#[tokio::test]
async fn what_cannot_be_mended_is_one_too() {
    let fake = with_repository().await;
    fake.command("repair r").await.1.unwrap();
    let result = RepairResult {
        lost_blobs: 2,
        lost_point_ids: vec!["aa".to_owned()],
        ..Default::default()
    };
    let fate = Fate::Gives(JobResult::Repair(result));
    fake.model().vault.fates.push_back(fate);
    let report = fake.command("repair r --from r").await.1.unwrap_err();
    assert_eq!(report.exit, Exit::Integrity);
    let message =
        "repository r is still damaged: 2 pieces and 1 recovery point could not be mended";
    assert_eq!(report.message, message);
}

#[tokio::test]
async fn pruning_and_copying_ask_for_what_was_said() {
    let fake = with_repository().await;
    fake.command("repo init second /other").await.1.unwrap();
    fake.command("backup --to r vol").await.1.unwrap();
    let (said, _) = fake.command("prune r --dry-run --max-waste 20").await;
    assert_eq!(
        said,
        ["a dry run: nothing of this was done", "nothing to delete"]
    );
    let (said, _) = fake.command("copy r --to second").await;
    assert_eq!(said[1], "1 recovery point copied");
    let asked = fake.model().vault.asked.clone();
    assert!(asked[1].contains("seconds: 86400") && asked[1].contains("Some(20)"));
    let report = fake.command("copy r --to third").await.1.unwrap_err();
    let reason = ErrorReason::RepositoryNotFound.as_str_name();
    assert!(reason.ends_with(&report.reason.unwrap()));
}

#[tokio::test]
async fn jobs_are_shown_with_their_results() {
    let fake = with_repository().await;
    fake.command("prune r").await.1.unwrap();
    let (said, ended) = fake.command("job show job").await;
    ended.unwrap();
    assert_eq!(said[0], "job1  PRUNE SUCCEEDED");
    assert_eq!(said.last().unwrap(), "nothing to delete");
    let (said, ended) = fake.command("job wait job1").await;
    ended.unwrap();
    assert_eq!(said, ["operation job1 SUCCEEDED", "nothing to delete"]);
    let listed = json(&fake, "job list --all").await;
    assert_eq!(listed[0]["result"]["deleted_packs"], 0);
}

#[tokio::test]
async fn an_older_daemon_says_so_in_a_sentence() {
    let fake = Fake::start(BLOCK);
    fake.model().vault.unknown = true;
    for line in ["repo list", "backup --to r vol", "snapshots r", "check r"] {
        let report = fake.command(line).await.1.unwrap_err();
        assert_eq!(report.exit, Exit::Failed, "{line}");
        let sentence = "the daemon is older than this command and cannot do that";
        assert_eq!(report.message, sentence, "{line}");
    }
    let (_tell, context) = fake.context();
    let client = context.client().await.unwrap();
    let known = super::repo::list_if_any(&client).await.unwrap();
    assert!(known.is_empty());
}
