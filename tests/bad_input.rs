//! Calls with bad names, ids, ranges and fields: a clear answer, and nothing done.

use tidemark_proto::v1::{
    AttachVolumeRequest, ChangeSpan, Checkpoint, CreateGroupRequest, CreateSnapshotRequest,
    DeleteCheckpointRequest, DeleteSnapshotRequest, EstimateChangesRequest, ExtentRange,
    FreezeMode, GetGroupRequest, GetOperationRequest, GetRestoreRequest, Group, HashExtentsRequest,
    ListAllocatedExtentsRequest, ListChangedExtentsRequest, ReadExtentsRequest, RenewLeaseRequest,
    ResetTrackingRequest, StreamDataRequest,
};
use tidemark_tests::{
    Api, Daemon, MIB, Random,
    api::{Answer, attach_request},
    image,
    refused::{assert_refused, case},
};
use tonic::Code;

const BYTES: u64 = 16 * MIB + 512;
const AREA: u64 = 16 * MIB;
const NOBODY: &str = "00000000000000000000000000000000";

#[test]
fn unknown_names_and_ids_are_told_apart() {
    let daemon = Daemon::start();
    daemon.attach_new("vol", BYTES, AREA);
    let id = || NOBODY.to_owned();
    assert_refused(
        &daemon.api(),
        &[
            case("get a volume", Code::NotFound, "VOLUME_NOT_FOUND", |api| {
                api.volume("nobody").map(drop)
            }),
            case(
                "detach a volume",
                Code::NotFound,
                "VOLUME_NOT_FOUND",
                |api| api.detach("nobody", false),
            ),
            case(
                "snapshot a volume",
                Code::NotFound,
                "VOLUME_NOT_FOUND",
                |api| api.snapshot_as(of_volumes(&["vol", "nobody"])).map(drop),
            ),
            case(
                "get a snapshot",
                Code::NotFound,
                "SNAPSHOT_NOT_FOUND",
                |api| api.get_snapshot(NOBODY).map(drop),
            ),
            case(
                "release a snapshot",
                Code::NotFound,
                "SNAPSHOT_NOT_FOUND",
                |api| api.release(NOBODY),
            ),
            case(
                "delete a snapshot",
                Code::NotFound,
                "SNAPSHOT_NOT_FOUND",
                move |api| {
                    let request = DeleteSnapshotRequest { id: id() };
                    api.call(api.snapshots().delete_snapshot(request)).map(drop)
                },
            ),
            case(
                "renew a lease",
                Code::NotFound,
                "SNAPSHOT_NOT_FOUND",
                move |api| {
                    let lease = Some(prost_types::Duration {
                        seconds: 1,
                        nanos: 0,
                    });
                    let request = RenewLeaseRequest { id: id(), lease };
                    api.call(api.snapshots().renew_lease(request)).map(drop)
                },
            ),
            case(
                "stream a snapshot",
                Code::NotFound,
                "SNAPSHOT_NOT_FOUND",
                |api| stream(api, NOBODY, None, 0),
            ),
            case(
                "list what nobody holds",
                Code::NotFound,
                "SNAPSHOT_NOT_FOUND",
                move |api| {
                    let request = ListAllocatedExtentsRequest {
                        snapshot_id: id(),
                        ..ListAllocatedExtentsRequest::default()
                    };
                    api.gather(api.changes().list_allocated_extents(request))
                        .map(drop)
                },
            ),
            case("get a group", Code::NotFound, "GROUP_NOT_FOUND", |api| {
                let name = "nobody".to_owned();
                api.call(api.groups().get_group(GetGroupRequest { name }))
                    .map(drop)
            }),
            case(
                "get an operation",
                Code::NotFound,
                "OPERATION_NOT_FOUND",
                move |api| {
                    api.call(
                        api.operations()
                            .get_operation(GetOperationRequest { id: id() }),
                    )
                    .map(drop)
                },
            ),
            case(
                "get a restore",
                Code::NotFound,
                "RESTORE_NOT_FOUND",
                move |api| {
                    let request = GetRestoreRequest { restore_id: id() };
                    api.call(api.restores().get_restore(request)).map(drop)
                },
            ),
        ],
    );
}

#[test]
fn ranges_and_points_that_no_volume_has() {
    let daemon = Daemon::start();
    daemon.attach_new("vol", BYTES, AREA);
    let api = daemon.api();
    let snapshot = api.snapshot("vol");
    let point = snapshot.checkpoint.clone().expect("a checkpoint");
    let ids: [String; 3] = std::array::from_fn(|_| snapshot.id.clone());
    let [to_read, to_stream, to_hash] = ids;
    let unknown_lineage = Checkpoint {
        lineage: NOBODY.into(),
        ..point.clone()
    };
    let unknown_epoch = Checkpoint {
        epoch: point.epoch + 1000,
        ..point
    };
    // It tells what a client does next: where nothing was reset, there is no cause to give.
    let (lineage, epoch) = (unknown_lineage.clone(), unknown_epoch.clone());
    let streamed = snapshot.id.clone();
    assert_refused(
        &api,
        &[
            case(
                "read past the end",
                Code::OutOfRange,
                "OUT_OF_RANGE",
                move |api| read(api, &to_read, BYTES - 1, 2),
            ),
            case(
                "stream from past the end",
                Code::OutOfRange,
                "OUT_OF_RANGE",
                move |api| stream(api, &to_stream, None, BYTES + 4096),
            ),
            case(
                "hash from past the end",
                Code::OutOfRange,
                "OUT_OF_RANGE",
                move |api| {
                    let request = HashExtentsRequest {
                        snapshot_id: to_hash.clone(),
                        start_offset_bytes: 32 * MIB,
                        piece_bytes: 0,
                    };
                    api.gather(api.data().hash_extents(request)).map(drop)
                },
            ),
            case(
                "a diff of a lineage that never was",
                Code::FailedPrecondition,
                "CHECKPOINT_GONE",
                move |api| changes(api, &lineage),
            ),
            case(
                "a diff since no checkpoint",
                Code::FailedPrecondition,
                "CHECKPOINT_GONE",
                move |api| changes(api, &epoch),
            ),
            case(
                "an estimate of a lineage that never was",
                Code::FailedPrecondition,
                "CHECKPOINT_GONE",
                {
                    let since = unknown_lineage.clone();
                    move |api| {
                        let span = Some(span(&since));
                        let request = EstimateChangesRequest { span };
                        api.call(api.changes().estimate_changes(request)).map(drop)
                    }
                },
            ),
            case(
                "an increment of a lineage that never was",
                Code::FailedPrecondition,
                "CHECKPOINT_GONE",
                {
                    let since = unknown_lineage;
                    move |api| stream(api, &streamed, Some(since.clone()), 0)
                },
            ),
            case(
                "forget no checkpoint",
                Code::FailedPrecondition,
                "CHECKPOINT_GONE",
                move |api| {
                    let request = DeleteCheckpointRequest {
                        volume: "vol".into(),
                        checkpoint: Some(unknown_epoch.clone()),
                    };
                    api.call(api.checkpoints().delete_checkpoint(request))
                        .map(drop)
                },
            ),
        ],
    );
}

#[test]
fn a_point_before_a_reset_is_told_with_its_cause() {
    let daemon = Daemon::start();
    daemon.attach_new("vol", BYTES, AREA);
    let api = daemon.api();
    let before = api.snapshot("vol");
    let request = ResetTrackingRequest {
        name: "vol".into(),
        reason: "the disk was swapped".into(),
    };
    let reset = api.call(api.volumes().reset_tracking(request));
    let lineage = reset.expect("a reset").volume.expect("a volume").lineage;
    let old = before.checkpoint.expect("a checkpoint");
    assert_ne!(lineage, old.lineage);

    let after = api.snapshot("vol");
    let refused = [changes(&api, &old), stream(&api, &after.id, Some(old), 0)];

    for refused in refused {
        let refused = refused.expect_err("no diff reaches over a reset");
        assert_eq!(refused.reason, "TRACKING_RESET", "{refused:?}");
        assert_eq!(refused.code, Code::FailedPrecondition);
        let cause = refused.metadata.get("cause").map(String::as_str);
        assert!(
            cause.is_some_and(|cause| cause.contains("swapped")),
            "{refused:?}"
        );
    }
}

#[test]
fn fields_that_no_call_could_accept() {
    let daemon = Daemon::start();
    let volume = daemon.attach_new("vol", BYTES, AREA);
    assert_eq!(volume.block_bytes, 4096);
    let api = daemon.api();
    let mut cases = Vec::new();
    let names = ["", "-x", "a b", "A", "..", "a/b", "\u{e9}", "x\ny"];
    let long = "x".repeat(65);
    for name in names.into_iter().chain([long.as_str()]) {
        let request = fresh(&daemon, name);
        cases.push(case(
            "a name",
            Code::InvalidArgument,
            "INVALID_FIELD",
            move |api| api.attach(request.clone()).map(drop),
        ));
    }
    for block_bytes in [1, 512, 2048, 5000, 131_072, u32::MAX] {
        let request = AttachVolumeRequest {
            block_bytes,
            ..fresh(&daemon, "other")
        };
        cases.push(case(
            "a block size",
            Code::InvalidArgument,
            "INVALID_FIELD",
            move |api| api.attach(request.clone()).map(drop),
        ));
    }
    let mut relative = fresh(&daemon, "other");
    relative.origin_path = "other.img".into();
    cases.push(case(
        "a relative origin",
        Code::InvalidArgument,
        "INVALID_FIELD",
        move |api| api.attach(relative.clone()).map(drop),
    ));
    let storeless = AttachVolumeRequest {
        store: None,
        ..fresh(&daemon, "other")
    };
    cases.push(case(
        "no store",
        Code::InvalidArgument,
        "INVALID_FIELD",
        move |api| api.attach(storeless.clone()).map(drop),
    ));
    cases.push(case(
        "no volumes to cut",
        Code::InvalidArgument,
        "INVALID_FIELD",
        |api| api.snapshot_as(CreateSnapshotRequest::default()).map(drop),
    ));
    cases.push(case(
        "one volume twice",
        Code::InvalidArgument,
        "INVALID_FIELD",
        |api| api.snapshot_as(of_volumes(&["vol", "vol"])).map(drop),
    ));
    cases.push(case(
        "a group of nobody",
        Code::InvalidArgument,
        "INVALID_FIELD",
        |api| group(api, "empty", &[]),
    ));
    cases.push(case(
        "a group of strangers",
        Code::NotFound,
        "VOLUME_NOT_FOUND",
        |api| group(api, "strangers", &["nobody"]),
    ));
    cases.push(case(
        "a freeze of nothing",
        Code::FailedPrecondition,
        "FREEZE_FAILED",
        |api| {
            let request = CreateSnapshotRequest {
                freeze: FreezeMode::Require.into(),
                ..of_volumes(&["vol"])
            };
            api.snapshot_as(request).map(drop)
        },
    ));
    assert_refused(&api, &cases);
    assert_only(&daemon, &["vol"]);
}

fn fresh(daemon: &Daemon, name: &str) -> AttachVolumeRequest {
    let origin = daemon.path("fresh.img");
    image::filled(&origin, BYTES, &mut Random::new(31));
    attach_request(name, &origin, &daemon.path("fresh.area"), AREA)
}

fn of_volumes(names: &[&str]) -> CreateSnapshotRequest {
    CreateSnapshotRequest {
        volumes: names.iter().map(ToString::to_string).collect(),
        ..CreateSnapshotRequest::default()
    }
}

fn group(api: &Api, name: &str, volumes: &[&str]) -> Answer<()> {
    let group = Group {
        name: name.into(),
        volumes: volumes.iter().map(ToString::to_string).collect(),
    };
    let request = CreateGroupRequest { group: Some(group) };
    api.call(api.groups().create_group(request)).map(drop)
}

fn stream(api: &Api, id: &str, since: Option<Checkpoint>, start: u64) -> Answer<()> {
    let request = StreamDataRequest {
        snapshot_id: id.to_owned(),
        since,
        start_offset_bytes: start,
        ..StreamDataRequest::default()
    };
    api.gather(api.data().stream_data(request)).map(drop)
}

fn read(api: &Api, id: &str, offset_bytes: u64, length_bytes: u64) -> Answer<()> {
    let request = ReadExtentsRequest {
        snapshot_id: id.to_owned(),
        ranges: vec![ExtentRange {
            offset_bytes,
            length_bytes,
            kind: 0,
        }],
        ..ReadExtentsRequest::default()
    };
    api.gather(api.data().read_extents(request)).map(drop)
}

fn span(since: &Checkpoint) -> ChangeSpan {
    ChangeSpan {
        volume: "vol".into(),
        since: Some(since.clone()),
        until: None,
    }
}

fn changes(api: &Api, since: &Checkpoint) -> Answer<()> {
    let request = ListChangedExtentsRequest {
        span: Some(span(since)),
        ..ListChangedExtentsRequest::default()
    };
    api.gather(api.changes().list_changed_extents(request))
        .map(drop)
}

fn assert_only(daemon: &Daemon, names: &[&str]) {
    let listed = daemon.cli().json(&["volume", "list"]);
    let listed: Vec<_> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|volume| volume["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(listed, names);
}
