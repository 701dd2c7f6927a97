//! What is refused, and with which reason.

use std::{fs, path::Path};

use tidemark_proto::v1::{
    BackupRequest, ForgetPointsRequest, RemoveRepositoryRequest, Repository, RetentionPolicy,
};
use tidemark_tests::{
    Refusal,
    repositories::{backup_of, key_file, repository},
    world,
};

use super::{path, world_with_a_volume};

#[test]
fn bad_wishes_are_refused_with_their_reason() {
    let (daemon, repositories, _) = world_with_a_volume();
    let place = daemon.path("repo");
    let key = daemon.path("key");
    let reason = |answer: Result<_, Refusal>| answer.expect_err("refused").reason;

    let again = repositories.init("again", &place, Some(&key));
    assert_eq!(reason(again.map(drop)), "REPOSITORY_EXISTS");
    let taken = repositories.init("repo", &daemon.path("else"), None);
    assert_eq!(reason(taken.map(drop)), "REPOSITORY_EXISTS");
    assert!(
        !daemon.path("else").exists(),
        "nothing is made of a wish that is refused"
    );
    let nothing = repositories.add(repository("x", &daemon.path("nothing"), None));
    assert_eq!(reason(nothing.map(drop)), "REPOSITORY_NOT_FOUND");
    let relative = repositories.init("x", Path::new("somewhere"), None);
    assert_eq!(reason(relative.map(drop)), "INVALID_FIELD");

    let unknown = repositories.start_backup(backup_of("nowhere", "vol"));
    assert_eq!(reason(unknown.map(drop)), "REPOSITORY_NOT_FOUND");
    let volume = repositories.back_up_as(backup_of("repo", "nothing"));
    assert_eq!(reason(volume.map(drop)), "VOLUME_NOT_FOUND");
    let image = BackupRequest {
        repository: "repo".to_owned(),
        image_path: world::text(&daemon.path("no.img")),
        ..BackupRequest::default()
    };
    assert_eq!(
        reason(repositories.back_up_as(image).map(drop)),
        "ORIGIN_UNSUITABLE"
    );
    let both = BackupRequest {
        group: "g".to_owned(),
        ..backup_of("repo", "vol")
    };
    assert_eq!(
        reason(repositories.start_backup(both).map(drop)),
        "INVALID_FIELD"
    );
    let point = repositories.restore("repo", "latest", path(&daemon.path("r")));
    assert_eq!(reason(point.map(drop)), "POINT_NOT_FOUND");
    let all = ForgetPointsRequest {
        repository: "repo".to_owned(),
        policy: Some(RetentionPolicy::default()),
        ..ForgetPointsRequest::default()
    };
    assert_eq!(reason(repositories.forget(all).map(drop)), "INVALID_FIELD");

    // Known by another name on an agent that may only add, and with a key that does not fit.
    let api = daemon.api();
    let remove = RemoveRepositoryRequest {
        name: "repo".to_owned(),
    };
    api.call(repositories.service().remove_repository(remove))
        .expect("it is forgotten");
    let wrong = key_file(daemon.path("wrong"), 9);
    for (key, why) in [(None, "no key"), (Some(wrong.as_path()), "the wrong key")] {
        let refused = repositories.add(repository("repo", &place, key));
        assert_eq!(reason(refused.map(drop)), "REPOSITORY_KEY", "{why}");
    }
    let known = repositories.add(Repository {
        append_only: true,
        ..repository("adds", &place, Some(&key))
    });
    assert!(known.expect("it is known").append_only);
    let kept = repositories.back_up("adds", "vol");
    let forget = ForgetPointsRequest {
        repository: "adds".to_owned(),
        point_ids: vec![kept.id],
        ..ForgetPointsRequest::default()
    };
    assert_eq!(
        reason(repositories.forget(forget).map(drop)),
        "REPOSITORY_APPEND_ONLY"
    );
    assert_eq!(repositories.points("adds").len(), 1);
}

#[test]
fn a_repository_whose_disk_is_not_there_is_not_begun_anew() {
    let (daemon, repositories, _) = world_with_a_volume();
    let first = repositories.back_up("repo", "vol");
    let (place, away) = (daemon.path("repo"), daemon.path("away"));
    fs::rename(&place, &away).expect("a folder can be moved");
    let reason = |answer: Result<_, Refusal>| answer.expect_err("refused").reason;
    let backup = || repositories.back_up_as(backup_of("repo", "vol")).map(drop);
    assert_eq!(reason(backup()), "REPOSITORY_NOT_FOUND");
    assert!(!place.exists());
    // The mount point of a disk that is not mounted.
    fs::create_dir(&place).expect("a folder can be made");
    assert_eq!(reason(backup()), "REPOSITORY_NOT_FOUND");
    assert_eq!(fs::read_dir(&place).expect("a folder").count(), 0);
    fs::remove_dir(&place).expect("it is empty");
    fs::rename(&away, &place).expect("a folder can be moved");
    let next = repositories.back_up("repo", "vol");
    assert_eq!((next.full_reason.as_str(), next.base_id), ("", first.id));
}
