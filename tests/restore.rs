//! Restores: to a new image, to a device, to a volume; refused when the bytes are not right.

use std::path::{Path, PathBuf};

use tidemark_proto::v1::{
    AbortRestoreRequest, BeginRestoreRequest, Compression, DataExtent, EventKind, ExtentKind,
    GetRestoreRequest, OperationState, Restore, RestoreState, SealRestoreRequest,
    WaitOperationRequest, WriteRestoreRequest, begin_restore_request::Target,
};
use tidemark_tests::{
    Api, Daemon, FsKind, MIB, Mounted, Random, api::Answer, cli::code, host, image, pull, world,
};

const BYTES: u64 = 48 * MIB + 777;
const PIECE: u64 = 256 * 1024;

#[test]
fn push_to_a_new_image_gives_the_same_image() {
    let daemon = Daemon::start();
    let source = daemon.path("source.img");
    image::striped(&source, BYTES, &mut Random::new(11));
    let target = daemon.path("restored.img");

    daemon.cli().ok(&["push", &text(&source), &text(&target)]);

    image::assert_same(&source, &target);
}

#[test]
fn push_to_a_volume_is_tracked_like_any_change() {
    let daemon = Daemon::start();
    let source = daemon.path("source.img");
    image::striped(&source, BYTES, &mut Random::new(12));
    let origin = daemon.path("vol.img");
    image::filled(&origin, BYTES, &mut Random::new(13));
    daemon.attach("vol", &origin, 128 * MIB).expect("an attach");
    let api = daemon.api();
    let before = api.snapshot("vol");
    let old = daemon.path("old.img");
    pull::pull(&api, &before, None, &old).expect("a full pull");

    daemon.cli().ok(&["push", &text(&source), "volume:vol"]);

    let after = api.snapshot("vol");
    image::assert_same(after.view_path.as_ref(), &source);
    image::assert_same(before.view_path.as_ref(), &old);
    pull::pull(&api, &after, before.checkpoint, &old).expect("a diff");
    image::assert_same(&old, &source);
    for id in [before.id, after.id] {
        api.release(&id).expect("a release");
    }
    api.detach("vol", false).expect("a detach");
    image::assert_same(&origin, &source);
}

#[test]
fn push_never_overwrites_a_mounted_volume() {
    let daemon = Daemon::start();
    let volume = daemon.attach_new("vol", BYTES, 64 * MIB);
    let mounted = Mounted::fresh(
        FsKind::Ext4,
        volume.device_path.as_ref(),
        &daemon.path("mnt"),
    );
    let file = mounted.point().join("file");
    image::filled(&file, MIB, &mut Random::new(14));
    let source = daemon.path("source.img");
    image::sparse(&source, BYTES);

    let ended = daemon.cli().run(&["push", &text(&source), "volume:vol"]);

    assert_eq!(ended.code, Some(code::BUSY), "{ended:?}");
    let copy = daemon.path("copy");
    std::fs::copy(&file, copy).expect("the file system lives on");
}

#[test]
fn a_wrong_digest_fails_the_seal() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let restore = begin(&api, &daemon.path("restored.img"), BYTES).expect("a session");
    write(&api, &restore.id, vec![extent(0, 1)]).expect("a write");

    let ended = seal(&api, &restore.id, vec![0; 32]);

    assert_eq!(
        ended,
        (OperationState::Failed, "DIGEST_MISMATCH".to_owned())
    );
    assert_eq!(state(&api, &restore.id), RestoreState::Failed);
    assert_ended_event(&api);
}

#[test]
fn extents_may_come_in_any_order_and_in_many_calls() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let target = daemon.path("restored.img");
    let restore = begin(&api, &target, BYTES).expect("a session");
    let extents = [extent(3 * PIECE, 3), extent(0, 1), extent(PIECE, 2)];
    for extent in &extents {
        write(&api, &restore.id, vec![extent.clone()]).expect("a write");
    }

    let ended = seal(&api, &restore.id, digest_of(&extents));

    assert_eq!(ended, (OperationState::Succeeded, String::new()));
    assert_eq!(state(&api, &restore.id), RestoreState::Sealed);
    let expected = daemon.path("expected.img");
    image::sparse(&expected, BYTES);
    for extent in &extents {
        put(&expected, extent);
    }
    image::assert_same(&expected, &target);
}

#[test]
fn damaged_bytes_are_refused_before_they_are_written() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let restore = begin(&api, &daemon.path("restored.img"), BYTES).expect("a session");
    let mut damaged = extent(0, 1);
    let mut bytes = damaged.data.to_vec();
    bytes[1000] ^= 1;
    damaged.data = bytes.into();

    let refused = write(&api, &restore.id, vec![damaged]).expect_err("a damaged extent");

    assert_eq!(refused.reason, "DATA_CORRUPT", "{refused:?}");
    let past = DataExtent {
        offset_bytes: BYTES - 1000,
        ..extent(0, 1)
    };
    let refused = write(&api, &restore.id, vec![past]).expect_err("an extent past the end");
    assert_eq!(refused.reason, "OUT_OF_RANGE", "{refused:?}");
}

#[test]
fn an_aborted_session_lets_go_of_its_target() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let target = daemon.path("restored.img");
    let restore = begin(&api, &target, BYTES).expect("a session");
    let second = begin(&api, &target, BYTES).expect_err("a session is exclusive");
    assert!(
        matches!(second.reason.as_str(), "ORIGIN_IN_USE" | "VOLUME_BUSY"),
        "{second:?}"
    );

    let request = AbortRestoreRequest {
        restore_id: restore.id.clone(),
    };
    api.call(api.restores().abort_restore(request))
        .expect("an abort");

    assert_eq!(state(&api, &restore.id), RestoreState::Aborted);
    assert_ended_event(&api);
    let late = write(&api, &restore.id, vec![extent(0, 1)]).expect_err("it is over");
    assert!(!late.reason.is_empty(), "{late:?}");
    begin(&api, &target, BYTES).expect("the target is free again");
}

fn text(path: &Path) -> String {
    world::text(path)
}

fn begin(api: &Api, target: &Path, capacity_bytes: u64) -> Answer<Restore> {
    let request = BeginRestoreRequest {
        target: Some(Target::Path(text(target))),
        capacity_bytes,
        create: true,
        ..BeginRestoreRequest::default()
    };
    let answer = api.call(api.restores().begin_restore(request))?;
    Ok(answer.restore.expect("a begin answers with its session"))
}

fn write(api: &Api, id: &str, extents: Vec<DataExtent>) -> Answer<()> {
    let request = WriteRestoreRequest {
        restore_id: id.to_owned(),
        extents,
    };
    let messages = tokio_stream::once(request);
    api.call(api.restores().write_restore(messages)).map(drop)
}

/// Seals, waits for the end, and gives its state and reason.
fn seal(api: &Api, id: &str, digest: Vec<u8>) -> (OperationState, String) {
    let request = SealRestoreRequest {
        restore_id: id.to_owned(),
        digest: digest.into(),
    };
    let answer = api
        .call(api.restores().seal_restore(request))
        .expect("a seal begins");
    let id = answer.operation.expect("an operation").id;
    let request = WaitOperationRequest { id, timeout: None };
    let ended = api
        .call(api.operations().wait_operation(request))
        .expect("an operation can be waited for")
        .operation
        .expect("an operation");
    let reason = ended.error_reason().as_str_name();
    let reason = reason.trim_start_matches("ERROR_REASON_");
    let reason = if reason == "UNSPECIFIED" { "" } else { reason };
    (ended.state(), reason.to_owned())
}

fn state(api: &Api, id: &str) -> RestoreState {
    let request = GetRestoreRequest {
        restore_id: id.to_owned(),
    };
    api.call(api.restores().get_restore(request))
        .expect("a session can be looked at")
        .restore
        .expect("a session")
        .state()
}

fn assert_ended_event(api: &Api) {
    host::eventually("the end of the session is in the events", || {
        api.events()
            .iter()
            .any(|event| event.kind() == EventKind::RestoreEnded)
    });
}

fn extent(offset_bytes: u64, seed: u64) -> DataExtent {
    let mut data = vec![0; usize::try_from(PIECE).expect("a piece fits")];
    Random::new(seed).fill(&mut data);
    DataExtent {
        offset_bytes,
        length_bytes: PIECE,
        kind: ExtentKind::Data.into(),
        blake3: blake3::hash(&data).as_bytes().to_vec().into(),
        data: data.into(),
        compression: Compression::None.into(),
    }
}

/// As DataService's comment says.
fn digest_of(extents: &[DataExtent]) -> Vec<u8> {
    let mut digest = blake3::Hasher::new();
    for extent in extents {
        digest.update(&extent.offset_bytes.to_le_bytes());
        digest.update(&extent.length_bytes.to_le_bytes());
        digest.update(&[u8::try_from(extent.kind).expect("a kind is one byte")]);
        digest.update(&extent.blake3);
    }
    digest.finalize().as_bytes().to_vec()
}

fn put(image: &PathBuf, extent: &DataExtent) {
    use std::os::unix::fs::FileExt;
    std::fs::File::options()
        .write(true)
        .open(image)
        .and_then(|file| file.write_all_at(&extent.data, extent.offset_bytes))
        .expect("an image takes data");
}
