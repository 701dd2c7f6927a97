//! What keeps a repository small and sound.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_proto::v1::{
    CopyPointsRequest, ForgetPointsRequest, GetStatsRequest, PruneRequest, RepairRequest,
    RetentionPolicy, operation::Result as Gave,
};
use tidemark_tests::{MIB, image, programs::succeed, repositories::repository};

use super::{device, path, world_with_a_volume};

#[test]
fn old_points_go_and_what_is_kept_is_copied() {
    let (daemon, repositories, mut random) = world_with_a_volume();
    let api = daemon.api();
    for at in 0..4 {
        image::scribble(&device(&api), at * 8 * MIB, MIB, &mut random);
        repositories.back_up("repo", "vol");
    }
    let forget = |dry_run| ForgetPointsRequest {
        repository: "repo".to_owned(),
        policy: Some(RetentionPolicy {
            last: 2,
            ..RetentionPolicy::default()
        }),
        dry_run,
        ..ForgetPointsRequest::default()
    };
    for dry_run in [true, false] {
        let said = repositories.forget(forget(dry_run)).expect("an answer");
        let kept = said
            .verdicts
            .iter()
            .map(|verdict| verdict.kept_because.join(" "));
        assert_eq!(kept.collect::<Vec<_>>(), ["", "", "last 2", "last 1"]);
        let left = repositories.points("repo").len();
        assert_eq!(left, if dry_run { 4 } else { 2 });
    }
    let asked = PruneRequest {
        repository: "repo".to_owned(),
        grace: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..PruneRequest::default()
    };
    let started = api
        .call(repositories.service().prune(asked))
        .expect("a prune");
    let gave = repositories.end(&started.operation.expect("a job").id);
    // Nothing is an hour old.
    let Gave::Prune(pruned) = gave.expect("a prune") else {
        panic!("a prune gives what it did")
    };
    assert_eq!(pruned.deleted_packs, 0);

    repositories
        .init("other", &daemon.path("other"), None)
        .expect("a repository");
    let asked = CopyPointsRequest {
        repository: "repo".to_owned(),
        to_repository: "other".to_owned(),
        ..CopyPointsRequest::default()
    };
    let started = api
        .call(repositories.service().copy_points(asked))
        .expect("a copy");
    repositories
        .end(&started.operation.expect("a job").id)
        .expect("a copy");
    let restored = daemon.path("restored");
    repositories
        .restore("other", "latest", path(&restored))
        .expect("a restore");
    let now = api.snapshot("vol");
    image::assert_same(now.view_path.as_ref(), &restored);

    let asked = GetStatsRequest {
        repository: "repo".to_owned(),
    };
    let started = api
        .call(repositories.service().get_stats(asked))
        .expect("a job");
    let gave = repositories.end(&started.operation.expect("a job").id);
    let Gave::Stats(stats) = gave.expect("numbers") else {
        panic!("it gives numbers")
    };
    assert_eq!(stats.points.len(), 2);
    assert_eq!(stats.points[0].changed_permille, [0; 0]);
    // The last change lies at 24 MiB, in leaves of 4 MiB.
    let mut changed = [0; 17];
    changed[6] = 1000;
    assert_eq!(stats.points[1].changed_permille, changed);
}

#[test]
fn damage_is_found_named_and_mended() {
    let (daemon, repositories, _) = world_with_a_volume();
    let point = repositories.back_up("repo", "vol");
    let (place, mirror) = (daemon.path("repo"), daemon.path("mirror"));
    succeed(Command::new("cp").arg("-r").arg(&place).arg(&mirror));
    assert_eq!(repositories.check("repo").total_findings, 0);
    let pack = largest(&place.join("packs"));
    let file = File::options()
        .read(true)
        .write(true)
        .open(&pack)
        .expect("a pack");
    let middle = file.metadata().expect("its size").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], middle)
        .expect("a byte");

    let found = repositories.check("repo");
    assert!(found.total_findings > 0);
    let name = pack
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let named = |message: &str| message.contains(&name);
    assert!(
        found.findings.iter().any(|f| named(&f.message)),
        "{found:?}"
    );
    let affected = found.findings.iter().flat_map(|finding| &finding.point_ids);
    assert!(affected.clone().any(|id| *id == point.id), "{found:?}");
    let target = daemon.path("restored");
    let refused = repositories.restore("repo", &point.id, path(&target));
    let refused = refused.expect_err("a restore of what is damaged");
    assert_eq!(refused.reason, "DATA_CORRUPT", "{refused:?}");

    let key = daemon.path("key");
    repositories
        .add(repository("mirror", &mirror, Some(&key)))
        .expect("a mirror");
    let asked = RepairRequest {
        repository: "repo".to_owned(),
        second_repository: "mirror".to_owned(),
    };
    let api = daemon.api();
    let started = api
        .call(repositories.service().repair(asked))
        .expect("a job");
    let gave = repositories.end(&started.operation.expect("a job").id);
    let Gave::Repair(repaired) = gave.expect("a repair") else {
        panic!("it gives what it mended")
    };
    assert!(
        repaired.fetched_blobs > 0 && repaired.lost_blobs == 0,
        "{repaired:?}"
    );
    repositories
        .restore("repo", &point.id, path(&target))
        .expect("a restore of what was mended");
    let now = api.snapshot("vol");
    image::assert_same(now.view_path.as_ref(), &target);
}

fn largest(folder: &Path) -> PathBuf {
    let files = files_below(folder);
    let size = |path: &PathBuf| fs::metadata(path).expect("its size").len();
    files.into_iter().max_by_key(size).expect("there are files")
}

/// All files below.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}
