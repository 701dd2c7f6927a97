//! The public contract, as a client that knows only the `.proto` files meets it.

use std::{os::unix::fs::PermissionsExt, path::Path};

use tidemark_proto::v1::{
    AttachVolumeRequest, CancelOperationRequest, ChangeSpan, Checkpoint, CreateSnapshotRequest,
    EstimateChangesRequest, EventKind, ExtentKind, ExtentRange, GetOperationRequest,
    GetServerInfoRequest, HashExtentsRequest, ListChangedExtentsRequest, ListOperationsRequest,
    OperationState, ReadExtentsRequest, RenewLeaseRequest, Snapshot, SnapshotState, Trust,
    WatchEventsRequest, read_extents_response::Part,
};
use tidemark_tests::{
    Api, Daemon, KIB, MIB, Random,
    api::{attach_request, leased},
    host, image,
    pull::{self, Pull},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const SERVICES: [&str; 10] = [
    "AgentService",
    "ChangeService",
    "CheckpointService",
    "DataService",
    "EventService",
    "GroupService",
    "OperationService",
    "RestoreService",
    "SnapshotService",
    "VolumeService",
];

#[test]
fn a_stranger_finds_its_way_by_the_standard_services() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let health = api
        .call(HealthClient::new(api.channel()).check(request))
        .expect("health");
    assert_eq!(health.status(), ServingStatus::Serving);

    let names = reflected(&api);
    for service in SERVICES {
        let name = format!("tidemark.v1.{service}");
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    assert!(
        !names.iter().any(|name| name.contains("private")),
        "the private protocol stays private: {names:?}"
    );

    let info = api
        .call(api.agent().get_server_info(GetServerInfoRequest {}))
        .expect("server info");
    let portable = info
        .features
        .iter()
        .find(|feature| feature.name == "transport.portable");
    assert!(portable.expect("it is named").available, "{info:?}");
    let unexplained = info
        .features
        .iter()
        .find(|feature| !feature.available && feature.reason.is_empty());
    assert_eq!(unexplained, None, "what is not available says why");

    let socket = std::fs::metadata(daemon.socket()).expect("the socket is a file");
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
}

fn reflected(api: &Api) -> Vec<String> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(api.channel());
    let answers = api
        .gather(client.server_reflection_info(tokio_stream::once(request)))
        .expect("reflection answers");
    match answers
        .into_iter()
        .next()
        .and_then(|answer| answer.message_response)
    {
        Some(MessageResponse::ListServicesResponse(list)) => list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        other => panic!("no list of services: {other:?}"),
    }
}

#[test]
fn a_repeated_request_is_answered_as_the_first_was() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let origin = daemon.path("vol.img");
    image::sparse(&origin, 16 * MIB);
    let attach = AttachVolumeRequest {
        request_id: "attach-1".into(),
        ..attach_request("vol", &origin, &daemon.path("vol.area"), 16 * MIB)
    };
    let first = api.attach(attach.clone()).expect("an attach");
    let again = api.attach(attach).expect("the same attach");
    assert_eq!((first.id, first.server_pid), (again.id, again.server_pid));

    let create = CreateSnapshotRequest {
        volumes: vec!["vol".into()],
        request_id: "snapshot-1".into(),
        ..CreateSnapshotRequest::default()
    };
    let first = api.snapshot_as(create.clone()).expect("a snapshot");
    let again = api.snapshot_as(create.clone()).expect("the same snapshot");
    assert_eq!(first[0].id, again[0].id);
    assert_eq!(api.volume("vol").expect("a volume").live_snapshots, 1);

    let other = CreateSnapshotRequest {
        labels: [("why".to_owned(), "other".to_owned())].into(),
        ..create
    };
    let refused = api.snapshot_as(other).expect_err("the key is taken");
    assert_eq!(refused.reason, "REQUEST_ID_REUSED", "{refused:?}");
}

#[test]
fn operations_are_listed_cancelled_and_remembered() {
    let (daemon, api) = filled_volume(96 * MIB);
    let snapshot = api.snapshot("vol");
    let mut pull = Pull::new(&snapshot, None, &daemon.path("pulled.img"));
    let mut stream = pull.open(&api).expect("a stream opens");
    let header = api
        .next(&mut stream)
        .expect("a message")
        .expect("the header");
    assert!(pull.take(header).is_none());
    let id = pull.header.as_ref().expect("a header").operation_id.clone();
    assert!(api.running().iter().any(|operation| operation.id == id));

    let request = CancelOperationRequest { id: id.clone() };
    api.call(api.operations().cancel_operation(request))
        .expect("a cancel");

    let refused = loop {
        match api.next(&mut stream) {
            Ok(Some(message)) => assert!(pull.take(message).is_none(), "it was cancelled"),
            Ok(None) => panic!("a cancelled stream looks whole"),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.reason, "OPERATION_CANCELLED", "{refused:?}");
    assert_eq!(refused.code, tonic::Code::Cancelled, "{refused:?}");
    host::eventually("the operation is over", || api.running().is_empty());
    let request = GetOperationRequest { id: id.clone() };
    let operation = api
        .call(api.operations().get_operation(request))
        .expect("it is remembered")
        .operation
        .expect("an operation");
    assert_eq!(operation.state(), OperationState::Cancelled);
    let all = api
        .call(api.operations().list_operations(ListOperationsRequest {
            running_only: false,
        }))
        .expect("operations can be listed");
    assert!(all.operations.iter().any(|operation| operation.id == id));

    // What was cancelled can be asked for again, from where it stopped.
    pull.finish(&api).expect("the rest comes");
    image::assert_same(snapshot.view_path.as_ref(), &daemon.path("pulled.img"));
}

#[test]
fn events_come_in_order_and_outlive_a_restart() {
    let (mut daemon, api) = filled_volume(8 * MIB);
    let snapshot = api.snapshot("vol");
    api.release(&snapshot.id).expect("a release");
    daemon.stop();
    daemon.restart();
    api.detach("vol", false).expect("a detach");

    let events = api.events();
    let sequences: Vec<_> = events.iter().map(|event| event.sequence).collect();
    assert!(
        sequences.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{sequences:?}"
    );
    let expected = [
        EventKind::AgentStarted,
        EventKind::VolumeAttached,
        EventKind::SnapshotCreated,
        EventKind::SnapshotReleased,
        EventKind::AgentStarted,
        EventKind::VolumeDetached,
    ];
    let mut kinds = events.iter().map(tidemark_proto::v1::Event::kind);
    for kind in expected {
        assert!(
            kinds.any(|seen| seen == kind),
            "no {kind:?} in its place: {events:#?}"
        );
    }

    let after = sequences[1];
    let request = WatchEventsRequest {
        after_sequence: after,
        no_follow: true,
        ..WatchEventsRequest::default()
    };
    let later = api
        .gather(api.event().watch_events(request))
        .expect("later events");
    let first = later[0].event.as_ref().expect("an event");
    assert_eq!(
        first.sequence,
        after + 1,
        "nothing is told twice, nothing is left out"
    );
}

#[test]
fn changes_are_the_same_in_one_piece_and_in_pages() {
    let (daemon, api) = filled_volume(32 * MIB + 777);
    let volume = api.volume("vol").expect("a volume");
    let device = Path::new(&volume.device_path);
    let before = api.snapshot("vol");
    let mut random = Random::new(21);
    for number in 0..40 {
        image::scribble(device, number * 700 * KIB, 3 * KIB, &mut random);
    }
    let after = api.snapshot("vol");

    let whole = changes(&api, &before, &after, 0, 0);
    assert!(whole.len() >= 40, "{whole:?}");
    assert_eq!(
        whole,
        changes(&api, &before, &after, 0, 3),
        "pages of three"
    );
    let middle = whole[20].offset_bytes + 1;
    assert_eq!(
        whole[20..],
        changes(&api, &before, &after, middle, 0)[..],
        "the first ends after it"
    );

    let request = EstimateChangesRequest {
        span: Some(span(&before, &after)),
    };
    let estimate = api
        .call(api.changes().estimate_changes(request))
        .expect("an estimate");
    let sum: u64 = whole.iter().map(|extent| extent.length_bytes).sum();
    assert_eq!(estimate.changed_bytes, sum);
    assert_eq!(
        estimate.trust.expect("trust is told").trust(),
        Trust::Continuous
    );

    // The diff holds every byte that differs, and the data goes when it is released; the diff stays.
    let image = daemon.path("chain.img");
    pull::pull(&api, &before, None, &image).expect("a full pull");
    api.release(&before.id).expect("a release");
    assert_eq!(
        whole,
        changes(&api, &before, &after, 0, 0),
        "after the release"
    );
    pull::pull(&api, &after, before.checkpoint, &image).expect("a diff");
    image::assert_same(after.view_path.as_ref(), &image);
}

fn span(since: &Snapshot, until: &Snapshot) -> ChangeSpan {
    let point = |snapshot: &Snapshot| -> Option<Checkpoint> { snapshot.checkpoint.clone() };
    ChangeSpan {
        volume: "vol".into(),
        since: point(since),
        until: point(until),
    }
}

fn changes(
    api: &Api,
    since: &Snapshot,
    until: &Snapshot,
    start: u64,
    page: u32,
) -> Vec<ExtentRange> {
    let request = ListChangedExtentsRequest {
        span: Some(span(since, until)),
        starting_offset_bytes: start,
        max_results: page,
    };
    let messages = api
        .gather(api.changes().list_changed_extents(request))
        .expect("changes can be listed");
    assert!(!messages.is_empty(), "at least one message is sent");
    for message in &messages {
        assert_eq!(message.capacity_bytes, until.capacity_bytes);
        let limit = if page == 0 { usize::MAX } else { page as usize };
        assert!(
            message.extents.len() <= limit,
            "a page holds at most {limit}"
        );
    }
    messages
        .into_iter()
        .flat_map(|message| message.extents)
        .collect()
}

#[test]
fn hashes_and_chosen_ranges_agree_with_the_view() {
    let (_daemon, api) = filled_volume(5 * MIB + 777);
    let snapshot = api.snapshot("vol");
    let view = std::fs::read(&snapshot.view_path).expect("a view is a file");
    let request = HashExtentsRequest {
        snapshot_id: snapshot.id.clone(),
        start_offset_bytes: 0,
        piece_bytes: 0,
    };
    let hashes: Vec<_> = api
        .gather(api.data().hash_extents(request))
        .expect("hashes")
        .into_iter()
        .flat_map(|message| message.blake3)
        .collect();
    let expected: Vec<_> = view
        .chunks(1 << 20)
        .map(|piece| blake3::hash(piece).as_bytes().to_vec())
        .collect();
    assert_eq!(hashes, expected);

    // Any order, any alignment, to the last byte.
    let ranges = [(4 * MIB + 5, 1000), (17, 1), (5 * MIB, 777)].map(|(offset, len)| ExtentRange {
        offset_bytes: offset,
        length_bytes: len,
        kind: ExtentKind::Unspecified.into(),
    });
    let request = ReadExtentsRequest {
        snapshot_id: snapshot.id,
        ranges: ranges.to_vec(),
        ..ReadExtentsRequest::default()
    };
    let messages = api
        .gather(api.data().read_extents(request))
        .expect("ranges");
    let mut read = Vec::new();
    for message in messages {
        if let Some(Part::Batch(batch)) = message.part {
            for extent in batch.extents {
                assert_eq!(extent.kind(), ExtentKind::Data);
                read.extend_from_slice(&extent.data);
            }
        }
    }
    let expected: Vec<u8> = ranges
        .iter()
        .flat_map(|range| {
            let start = usize::try_from(range.offset_bytes).expect("an offset fits");
            let len = usize::try_from(range.length_bytes).expect("a length fits");
            view[start..start + len].to_vec()
        })
        .collect();
    assert!(read == expected, "the ranges hold the view's bytes");
}

#[test]
fn a_lease_ends_unless_it_is_renewed() {
    let (_daemon, api) = filled_volume(MIB);
    let short = api
        .snapshot_as(leased(&["vol"], 2))
        .expect("a snapshot")
        .remove(0);
    let long = api
        .snapshot_as(leased(&["vol"], 2))
        .expect("a snapshot")
        .remove(0);
    assert!(short.lease_expires_at.is_some());
    let request = RenewLeaseRequest {
        id: long.id.clone(),
        lease: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
    };
    api.call(api.snapshots().renew_lease(request))
        .expect("a renewal");
    host::eventually("the short lease ends", || {
        let now = api.get_snapshot(&short.id).expect("its record stays");
        now.state() == SnapshotState::Released
    });
    let now = api.get_snapshot(&long.id).expect("it is there");
    assert_eq!(now.state(), SnapshotState::Ready);
}

fn filled_volume(bytes: u64) -> (Daemon, Api) {
    let daemon = Daemon::start();
    let origin = daemon.path("vol.img");
    image::filled(&origin, bytes, &mut Random::new(20));
    daemon.attach("vol", &origin, 64 * MIB).expect("an attach");
    let api = daemon.api();
    (daemon, api)
}
