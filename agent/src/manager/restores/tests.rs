//! Sessions over temporary files, among them streams that go back to where they came from.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use prost::bytes::Bytes;
use tempfile::TempDir;
use tidemark_proto::v1::OperationState;

use super::{target::create, *};
use crate::host::patience;

const CAPACITY: u64 = 8 << 20;

struct Bench {
    restores: Restores,
    operations: Operations,
    ends: Arc<Mutex<Vec<RestoreStatus>>>,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let operations = Operations::default();
        let ends: Arc<Mutex<Vec<RestoreStatus>>> = Arc::default();
        let seen = ends.clone();
        let on_end: OnEnd = Arc::new(move |end| seen.lock().unwrap().push(end.clone()));
        Self {
            restores: Restores::new(operations.clone(), on_end),
            operations,
            ends,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    async fn begin(&self) -> String {
        let begin = begin(&self.path());
        let path = self.path();
        let status = self.restores.begin_on(begin, move || open(&path)).await;
        status.unwrap().id
    }

    async fn seal(&self, id: &str, digest: &[u8]) -> (RestoreStatus, OperationStatus) {
        let operation = self.restores.seal(id, digest).unwrap();
        let hour = Duration::from_secs(3600);
        let ended = self.operations.wait(&operation.id, hour).await.unwrap();
        (self.restores.get(id).unwrap(), ended)
    }
}

fn begin(path: &Path) -> BeginRestore {
    BeginRestore {
        destination: Destination::Path(path.to_owned()),
        capacity_bytes: CAPACITY,
        create: true,
        request_id: String::new(),
    }
}

fn open(path: &Path) -> Result<Target, Error> {
    let file = match create(path, CAPACITY).unwrap() {
        Some(file) => file,
        None => File::options().read(true).write(true).open(path).unwrap(),
    };
    Ok(Target::new(path, file, true))
}

fn data(offset: u64, bytes: &[u8]) -> DataExtent {
    DataExtent {
        offset_bytes: offset,
        length_bytes: bytes.len() as u64,
        kind: 1,
        data: Bytes::copy_from_slice(bytes),
        compression: 1,
        blake3: Bytes::copy_from_slice(blake3::hash(bytes).as_bytes()),
    }
}

fn zero(offset: u64, len: u64, kind: i32) -> DataExtent {
    DataExtent {
        offset_bytes: offset,
        length_bytes: len,
        kind,
        ..DataExtent::default()
    }
}

/// The contract's digest, written anew.
fn digest(extents: &[DataExtent]) -> [u8; 32] {
    let mut digest = blake3::Hasher::new();
    for extent in extents {
        digest.update(&extent.offset_bytes.to_le_bytes());
        digest.update(&extent.length_bytes.to_le_bytes());
        digest.update(&[u8::try_from(extent.kind).unwrap()]);
        digest.update(&extent.blake3);
    }
    *digest.finalize().as_bytes()
}

#[tokio::test]
async fn what_is_written_and_sealed_is_there() {
    let bench = Bench::new();
    std::fs::write(bench.path(), vec![0xEE; usize::try_from(CAPACITY).unwrap()]).unwrap();
    let id = bench.begin().await;
    let extents = vec![
        data(1 << 20, &[5; 300_000]),
        zero(0, 1 << 20, 2),
        zero((1 << 20) + 300_000, CAPACITY - (1 << 20) - 300_000 - 7, 3),
        data(CAPACITY - 7, b"the end"),
    ];
    let (first, rest) = extents.split_at(1);
    bench.restores.write(&id, first.to_vec()).await.unwrap();
    let status = bench.restores.write(&id, rest.to_vec()).await.unwrap();
    assert_eq!((status.extents, status.written_bytes), (4, CAPACITY));

    let (status, operation) = bench.seal(&id, &digest(&extents)).await;
    assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
    assert_eq!(operation.done_bytes, operation.total_bytes);
    assert_eq!(status.state, RestoreState::Sealed);
    let mut expected = vec![0; usize::try_from(CAPACITY).unwrap()];
    expected[1 << 20..(1 << 20) + 300_000].fill(5);
    let end = expected.len() - 7;
    expected[end..].copy_from_slice(b"the end");
    assert!(std::fs::read(bench.path()).unwrap() == expected);
    let ends = bench.ends.lock().unwrap();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].state, RestoreState::Sealed);
}

#[tokio::test]
async fn a_wrong_digest_fails_the_session() {
    let bench = Bench::new();
    let id = bench.begin().await;
    let extents = [data(0, b"a"), data(1, b"b")];
    bench.restores.write(&id, extents.to_vec()).await.unwrap();
    let swapped = [extents[1].clone(), extents[0].clone()];
    let (status, operation) = bench.seal(&id, &digest(&swapped)).await;
    assert_eq!(operation.state, OperationState::Failed);
    assert_eq!(operation.error.unwrap().reason, ErrorReason::DigestMismatch);
    assert_eq!(status.state, RestoreState::Failed);
    let error = bench.restores.write(&id, vec![]).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::RestoreNotFound);
    assert_eq!(bench.ends.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn reading_back_finds_what_changed_on_the_target() {
    for (at, what) in [(5000, "data"), (2 << 20, "zeros")] {
        let bench = Bench::new();
        let id = bench.begin().await;
        let extents = [data(0, &[1; 8192]), zero(1 << 20, 4 << 20, 2)];
        bench.restores.write(&id, extents.to_vec()).await.unwrap();
        let file = File::options().write(true).open(bench.path()).unwrap();
        file.write_all_at(b"x", at).unwrap();
        let (status, operation) = bench.seal(&id, &digest(&extents)).await;
        let error = operation.error.unwrap();
        assert_eq!(error.reason, ErrorReason::DigestMismatch, "{what}");
        assert!(error.metadata.contains_key("offset"), "{error}");
        assert_eq!(status.state, RestoreState::Failed);
    }
}

#[tokio::test]
async fn a_bad_extent_leaves_those_before_it() {
    let bench = Bench::new();
    let id = bench.begin().await;
    let good = data(0, &[1; 4096]);
    let pair = vec![good.clone(), zero(0, 1, 0)];
    assert!(bench.restores.write(&id, pair).await.is_err());
    for bad in [data(4095, b"overlap"), data(CAPACITY, b"x"), zero(0, 1, 0)] {
        let error = bench.restores.write(&id, vec![bad]).await.unwrap_err();
        assert_ne!(error.reason, ErrorReason::Internal);
        assert_eq!(bench.restores.get(&id).unwrap().extents, 1);
    }
    let (status, _) = bench.seal(&id, &digest(&[good])).await;
    assert_eq!(status.state, RestoreState::Sealed);
}

#[tokio::test]
async fn begin_is_idempotent_and_exclusive() {
    let bench = Bench::new();
    let calls = Arc::new(AtomicBool::new(false));
    let mut arguments = begin(&bench.path());
    arguments.request_id = "r1".into();
    let path = bench.path();
    let first = bench
        .restores
        .begin_on(arguments.clone(), move || open(&path));
    let first = first.await.unwrap();
    let called = calls.clone();
    let never = move || {
        called.store(true, Ordering::Relaxed);
        Err(Error::internal("not to be called"))
    };
    let again = bench.restores.begin_on(arguments.clone(), never.clone());
    assert_eq!(again.await.unwrap().id, first.id);
    arguments.capacity_bytes += 1;
    let reused = bench
        .restores
        .begin_on(arguments.clone(), never.clone())
        .await;
    assert_eq!(reused.unwrap_err().reason, ErrorReason::RequestIdReused);
    let busy = bench.restores.begin_on(begin(&bench.path()), never).await;
    assert_eq!(busy.unwrap_err().reason, ErrorReason::VolumeBusy);
    assert!(!calls.load(Ordering::Relaxed));
    bench.restores.abort(&first.id).await.unwrap();
    bench.begin().await;
}

#[tokio::test]
async fn an_aborted_session_lets_go_of_its_target() {
    let bench = Bench::new();
    let id = bench.begin().await;
    let other = File::open(bench.path()).unwrap();
    assert!(other.try_lock().is_err());
    bench.restores.abort(&id).await.unwrap();
    patience::lock(&other).unwrap();
    drop(other);
    assert_eq!(
        bench.restores.get(&id).unwrap().state,
        RestoreState::Aborted
    );
    assert!(bench.restores.abort(&id).await.is_err());
    assert!(bench.restores.seal(&id, &[0; 32]).is_err());
}

#[tokio::test]
async fn an_idle_session_fails() {
    let bench = Bench::new();
    let id = bench.begin().await;
    let session = bench.restores.find(&id).unwrap();
    session.age(IDLE_TIMEOUT);
    session.clone().expire_when_idle().await;
    let status = session.status();
    assert_eq!(status.state, RestoreState::Failed);
    assert!(status.cause.contains("nothing was written"));
    assert_eq!(bench.ends.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_cancelled_seal_leaves_the_session_open() {
    let bench = Bench::new();
    let id = bench.begin().await;
    let extents = [data(0, &[1; 8192])];
    bench.restores.write(&id, extents.to_vec()).await.unwrap();
    let session = bench.restores.find(&id).unwrap();
    let work = session.try_lock_work().unwrap();
    let busy = bench.restores.seal(&id, &digest(&extents)).unwrap_err();
    assert_eq!(busy.reason, ErrorReason::VolumeBusy);

    let operation = bench
        .operations
        .start(OperationKind::SealRestore, "image", 0);
    let operation = operation.unwrap();
    let operation_id = operation.id().to_owned();
    bench.operations.cancel(&operation_id);
    seal::run(&session, work, &digest(&extents), operation);
    let ended = bench.operations.get(&operation_id).unwrap();
    assert_eq!(ended.state, OperationState::Cancelled);
    assert!(bench.ends.lock().unwrap().is_empty());
    let (status, _) = bench.seal(&id, &digest(&extents)).await;
    assert_eq!(status.state, RestoreState::Sealed);
}

#[tokio::test]
async fn unknown_sessions_are_told_of_restarts() {
    let bench = Bench::new();
    let error = bench.restores.write("nope", vec![]).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::RestoreNotFound);
    assert!(error.message.contains("restart"));
}

#[tokio::test]
async fn ended_sessions_are_forgotten_in_order() {
    let bench = Bench::new();
    let first = bench.begin().await;
    bench.restores.abort(&first).await.unwrap();
    for _ in 0..KEPT_ENDED + 1 {
        let id = bench.begin().await;
        bench.restores.abort(&id).await.unwrap();
    }
    assert!(bench.restores.get(&first).is_err());
    assert_eq!(bench.restores.known().len(), KEPT_ENDED + 1);
}
