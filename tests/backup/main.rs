//! Backups into a repository, as an operator and an orchestrator see them.

mod care;
mod refused;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tidemark_proto::v1::{
    BackupRequest, CreateGroupRequest, Group, ListSnapshotsRequest, OperationState, RecoveryPoint,
    RemoveRepositoryRequest, Snapshot, Trust, restore_point_request::Target,
};
use tidemark_tests::{
    Api, Daemon, FsKind, Load, MIB, Mounted, Random, Repositories, image,
    programs::succeed,
    repositories::{backup_of, key_file, repository},
    world,
};

const VOLUME_BYTES: u64 = 64 * MIB + 512;
const AREA_BYTES: u64 = 64 * MIB;

fn path(target: &Path) -> Target {
    Target::Path(world::text(target))
}

/// Backs a snapshot up, and gives the point; the snapshot stays.
fn of_snapshot(repositories: &Repositories, name: &str, snapshot: &Snapshot) -> RecoveryPoint {
    let asked = BackupRequest {
        repository: name.to_owned(),
        snapshot_ids: vec![snapshot.id.clone()],
        ..BackupRequest::default()
    };
    let points = repositories.back_up_as(asked).expect("a backup");
    points.into_iter().next().expect("a point")
}

/// A volume `vol` with something in it, and an encrypted repository `repo`.
fn world_with_a_volume() -> (Daemon, Repositories, Random) {
    let daemon = Daemon::start();
    let mut random = Random::announced("backup");
    let origin = daemon.path("vol.img");
    image::striped(&origin, VOLUME_BYTES, &mut random);
    daemon
        .attach("vol", &origin, AREA_BYTES)
        .expect("an attach");
    let repositories = Repositories(daemon.api());
    let key = key_file(daemon.path("key"), 7);
    let made = repositories.init("repo", &daemon.path("repo"), Some(&key));
    assert_eq!(made.expect("a repository").id.len(), 32);
    (daemon, repositories, random)
}

fn device(api: &Api) -> PathBuf {
    api.volume("vol").expect("a volume").device_path.into()
}

#[test]
fn a_mounted_volume_has_a_history() {
    let daemon = Daemon::start();
    let volume = daemon.attach_new("vol", 192 * MIB, 192 * MIB);
    let api = daemon.api();
    let mounted = Mounted::fresh(
        FsKind::Ext4,
        volume.device_path.as_ref(),
        &daemon.path("mnt"),
    );
    let repositories = Repositories(daemon.api());
    let key = key_file(daemon.path("key"), 1);
    let place = daemon.path("repo");
    repositories
        .init("repo", &place, Some(&key))
        .expect("a repository");

    let mut history = Vec::new();
    for _ in 0..3 {
        Load::start(mounted.point()).finish();
        let snapshot = api.snapshot("vol");
        let point = of_snapshot(&repositories, "repo", &snapshot);
        history.push((point, image::digest(snapshot.view_path.as_ref())));
        api.release(&snapshot.id).expect("a release");
    }
    let busy = Load::start(mounted.point());
    let last = repositories.back_up("repo", "vol");
    busy.finish();

    let [first, second, third] = [0, 1, 2].map(|at| &history[at].0);
    assert!(first.full_reason.contains("first"), "{first:?}");
    for (point, base) in [(second, first), (third, second), (&last, third)] {
        assert_eq!(point.full_reason, "", "{point:?}");
        assert_eq!(point.base_id, base.id);
        assert_eq!(point.trust(), Trust::Continuous);
    }
    // Snapshots of backups are gone when these are done.
    let request = ListSnapshotsRequest::default();
    let left = api.call(api.snapshots().list_snapshots(request));
    assert_eq!(left.expect("a list").snapshots, []);
    for (point, frozen) in &history {
        let restored = daemon.path(&point.id);
        repositories
            .restore("repo", &point.id, path(&restored))
            .expect("a restore");
        assert_eq!(image::digest(&restored), *frozen);
        fs::remove_file(&restored).expect("it can go");
    }
    let restored = daemon.path("last.img");
    let done = repositories.restore("repo", "latest", path(&restored));
    assert!(done.expect("a restore").data_bytes > 0);
    FsKind::Ext4.assert_sound(&restored, daemon.world());
}

#[test]
fn a_restore_in_place_writes_what_differs() {
    let (daemon, repositories, mut random) = world_with_a_volume();
    let api = daemon.api();
    let before = api.snapshot("vol");
    let frozen = image::digest(before.view_path.as_ref());
    let point = of_snapshot(&repositories, "repo", &before);
    assert_eq!(point.capacity_bytes, VOLUME_BYTES);
    image::scribble(&device(&api), 8 * MIB, 3 * MIB, &mut random);

    let volume = || Target::Volume("vol".to_owned());
    let done = repositories.restore("repo", &point.id, volume());
    let written = done.expect("a restore").written_bytes;
    assert!((1..=3 * MIB + 8192).contains(&written), "{written}");
    let after = api.snapshot("vol");
    assert_eq!(image::digest(after.view_path.as_ref()), frozen);
    // What it wrote was tracked: the next backup stores nothing that is new.
    let next = of_snapshot(&repositories, "repo", &after);
    let work = next.work.expect("its cost");
    assert_eq!((next.full_reason.as_str(), work.new_bytes), ("", 0));
    let again = repositories.restore("repo", &next.id, volume());
    assert_eq!(again.expect("a restore").written_bytes, 0);
}

#[test]
fn a_full_backup_says_why_and_stores_nothing_twice() {
    let (daemon, repositories, _) = world_with_a_volume();
    let first = repositories.back_up("repo", "vol");
    let stored = first.work.expect("its cost").stored_bytes;
    let full = BackupRequest {
        full: true,
        tags: vec!["weekly".to_owned()],
        ..backup_of("repo", "vol")
    };
    let asked = repositories.back_up_as(full).expect("a backup").remove(0);
    assert_eq!(asked.full_reason, "it was asked for");
    assert_eq!(asked.tags, ["weekly"]);
    let reset = daemon
        .cli()
        .run(&["volume", "reset", "vol", "--reason", "a test"]);
    assert_eq!(reset.code, Some(0), "{reset:?}");
    let anew = repositories.back_up("repo", "vol");
    assert!(
        anew.full_reason.contains("tracking started anew"),
        "{anew:?}"
    );
    for point in [&asked, &anew] {
        let work = point.work.expect("its cost");
        assert_eq!(work.new_bytes, 0, "{point:?}");
        assert!(work.stored_bytes * 20 < stored, "{point:?}");
    }
}

#[test]
fn what_an_agent_knows_of_a_repository_is_only_a_cache() {
    let (daemon, repositories, _) = world_with_a_volume();
    let first = repositories.back_up("repo", "vol");
    let name = "repo".to_owned();
    let api = daemon.api();
    api.call(
        repositories
            .service()
            .remove_repository(RemoveRepositoryRequest { name }),
    )
    .expect("it is forgotten");
    let key = daemon.path("key");
    let known = repositories.add(repository("again", &daemon.path("repo"), Some(&key)));
    known.expect("it is there");
    assert_eq!(repositories.points("again"), std::slice::from_ref(&first));
    let next = repositories.back_up("again", "vol");
    assert_eq!((next.full_reason.as_str(), next.base_id), ("", first.id));
}

#[test]
fn an_agent_that_is_killed_goes_on_where_it_was() {
    let (mut daemon, repositories, _) = world_with_a_volume();
    let whole = {
        let place = daemon.path("whole");
        repositories
            .init("whole", &place, None)
            .expect("a repository");
        repositories
            .back_up("whole", "vol")
            .work
            .expect("its cost")
            .stored_bytes
    };
    let started = repositories.start_backup(backup_of("repo", "vol"));
    let id = started.expect("a job").id;
    tidemark_tests::host::eventually("some packs are stored", || {
        let packs = fs::read_dir(daemon.path("repo/packs"));
        let finished = repositories.operation(&id).state() != OperationState::Running;
        finished || packs.is_ok_and(|packs| packs.count() > 0)
    });
    daemon.kill();
    daemon.restart();
    let repositories = Repositories(daemon.api());
    let point = repositories.back_up("repo", "vol");
    let work = point.work.expect("its cost");
    assert!(
        work.stored_bytes < whole,
        "{} of {whole}",
        work.stored_bytes
    );
    let restored = daemon.path("restored");
    repositories
        .restore("repo", &point.id, path(&restored))
        .expect("a restore");
    let snapshot = daemon.api().snapshot("vol");
    image::assert_same(snapshot.view_path.as_ref(), &restored);
}

#[test]
fn a_cancelled_backup_leaves_no_point_and_no_snapshot() {
    let (daemon, repositories, _) = world_with_a_volume();
    // Both turns are taken, so that the third waits for as long as it takes.
    let jobs = [(); 3].map(|()| {
        let started = repositories.start_backup(backup_of("repo", "vol"));
        started.expect("a job").id
    });
    repositories.cancel(&jobs[2]);
    let ended = repositories.ended(&jobs[2]).expect("an operation");
    assert_eq!(ended.state(), OperationState::Cancelled, "{ended:?}");
    for id in &jobs[..2] {
        repositories.end(id).expect("the others are not disturbed");
    }
    assert_eq!(repositories.points("repo").len(), 2);
    let api = daemon.api();
    let request = ListSnapshotsRequest::default();
    let left = api.call(api.snapshots().list_snapshots(request));
    assert_eq!(left.expect("a list").snapshots, []);
}

#[test]
fn a_group_is_backed_up_at_one_moment() {
    let (daemon, repositories, _) = world_with_a_volume();
    daemon.attach_new("other", 16 * MIB, 16 * MIB);
    let api = daemon.api();
    let group = Group {
        name: "both".to_owned(),
        volumes: vec!["vol".to_owned(), "other".to_owned()],
    };
    let group = Some(group);
    api.call(api.groups().create_group(CreateGroupRequest { group }))
        .expect("a group");
    let asked = BackupRequest {
        repository: "repo".to_owned(),
        group: "both".to_owned(),
        request_id: "once".to_owned(),
        ..BackupRequest::default()
    };
    let points = repositories.back_up_as(asked.clone()).expect("a backup");
    let names: Vec<_> = points.iter().map(|point| point.name.as_str()).collect();
    assert_eq!(names, ["vol", "other"]);
    assert_eq!(points[0].created_at, points[1].created_at);
    // The same request is answered with what it made.
    assert_eq!(
        repositories.back_up_as(asked.clone()).expect("a replay"),
        points
    );
    let other = BackupRequest {
        full: true,
        ..asked
    };
    let refused = repositories
        .start_backup(other)
        .expect_err("another request");
    assert_eq!(refused.reason, "REQUEST_ID_REUSED");
    assert_eq!(repositories.points("repo").len(), 2);
}

#[test]
fn a_restored_file_has_its_name_when_all_of_it_is_there() {
    let (daemon, repositories, _) = world_with_a_volume();
    let point = repositories.back_up("repo", "vol");
    // A file system of its own, so that the attempt cannot fill the host's.
    let small = daemon.path("small");
    fs::create_dir(&small).expect("a directory can be made");
    let sized = |size: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&small);
        succeed(&mut mount);
    };
    sized("size=16m");
    let restored = small.join("disk.img");
    let refused = repositories.restore("repo", &point.id, path(&restored));
    let refused = refused.expect_err("a restore without space");
    assert_eq!(refused.reason, "TARGET_IO", "{refused:?}");
    assert!(!restored.exists());
    sized("remount,size=128m");
    let done = repositories.restore("repo", &point.id, path(&restored));
    let done = done.expect("a restore with space");
    assert!(done.written_bytes < done.data_bytes, "it went on: {done:?}");
    let now = daemon.api().snapshot("vol");
    image::assert_same(now.view_path.as_ref(), &restored);
    assert_eq!(fs::read_dir(&small).expect("its files").count(), 1);
}

#[test]
fn an_image_without_an_agent_is_stored_once() {
    let (daemon, repositories, mut random) = world_with_a_volume();
    let image = daemon.path("disk.raw");
    image::sparse(&image, 40 * MIB + 1536);
    image::scribble(&image, 5 * MIB, MIB, &mut random);
    let asked = BackupRequest {
        repository: "repo".to_owned(),
        image_path: world::text(&image),
        ..BackupRequest::default()
    };
    let first = repositories
        .back_up_as(asked.clone())
        .expect("a backup")
        .remove(0);
    assert_eq!(
        (first.name.as_str(), first.volume_id.as_str()),
        ("disk.raw", "")
    );
    let read = first.work.expect("its cost").read_bytes;
    assert!(read < 2 * MIB, "holes are not read: {read}");
    image::scribble(&image, 20 * MIB, 8192, &mut random);
    let second = repositories.back_up_as(asked).expect("a backup").remove(0);
    assert_eq!(second.base_id, first.id);
    assert!(second.work.expect("its cost").new_bytes <= 3 * 4096);
    let restored = daemon.path("restored");
    repositories
        .restore("repo", &second.id, path(&restored))
        .expect("a restore");
    image::assert_same(&image, &restored);
}
