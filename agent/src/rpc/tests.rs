//! The API over a real UNIX socket, with the generated client.

use std::sync::Arc;

use tidemark_proto::v1::{
    self, agent_service_client::AgentServiceClient,
    checkpoint_service_client::CheckpointServiceClient, event_service_client::EventServiceClient,
    group_service_client::GroupServiceClient, snapshot_service_client::SnapshotServiceClient,
    volume_service_client::VolumeServiceClient,
};
use tokio::{net::UnixStream, sync::oneshot, task::JoinHandle};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{First, listen, serve_until, status::DOMAIN};
use crate::{
    configuration::Source,
    manager::{Manager, tests::bench::Bench},
};

/// Without a configuration.
fn first() -> First {
    let path = "/nonexistent/tidemark.toml".into();
    let source = Source { path, given: false };
    let read = source.read();
    First { source, read }
}

struct Api {
    bench: Bench,
    manager: Arc<Manager>,
    channel: Channel,
    stop: oneshot::Sender<()>,
    server: JoinHandle<anyhow::Result<()>>,
}

impl Api {
    async fn start() -> Self {
        let bench = Bench::new();
        let manager = bench.start().await;
        let socket = bench.paths().public_socket();
        let listener = listen::bind(&socket, None).unwrap();
        let (stop, stopped) = oneshot::channel();
        let until = async {
            let _ = stopped.await;
        };
        let server = tokio::spawn(serve_until(
            Arc::clone(&manager),
            listener,
            None,
            first(),
            until,
        ));
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move {
                let stream = UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://tidemark");
        Self {
            channel: endpoint.connect_with_connector(connect).await.unwrap(),
            bench,
            manager,
            stop,
            server,
        }
    }

    fn volumes(&self) -> VolumeServiceClient<Channel> {
        VolumeServiceClient::new(self.channel.clone())
    }

    fn snapshots(&self) -> SnapshotServiceClient<Channel> {
        SnapshotServiceClient::new(self.channel.clone())
    }

    fn attach_request(&self, name: &str) -> v1::AttachVolumeRequest {
        let args = self.bench.attach_args(name);
        v1::AttachVolumeRequest {
            name: name.to_owned(),
            origin_path: args.origin_path.display().to_string(),
            store: Some(v1::StoreConfig {
                area_path: self.bench.area_path(name).display().to_string(),
                area_size_bytes: 1 << 20,
                ..v1::StoreConfig::default()
            }),
            ..v1::AttachVolumeRequest::default()
        }
    }
}

/// The reason in a status, and the field that it names.
fn told(status: &Status) -> (Code, String, Option<String>) {
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.domain, DOMAIN);
    (
        status.code(),
        info.reason,
        info.metadata.get("field").cloned(),
    )
}

fn invalid(field: &str) -> (Code, String, Option<String>) {
    (
        Code::InvalidArgument,
        "INVALID_FIELD".to_owned(),
        Some(field.to_owned()),
    )
}

fn create(volume: &str) -> v1::CreateSnapshotRequest {
    v1::CreateSnapshotRequest {
        volumes: vec![volume.to_owned()],
        ..v1::CreateSnapshotRequest::default()
    }
}

#[tokio::test]
async fn a_volume_and_a_snapshot_go_round() {
    let api = Api::start().await;
    api.bench.fake("data");
    let attached = api
        .volumes()
        .attach_volume(api.attach_request("data"))
        .await
        .unwrap();
    let volume = attached.into_inner().volume.unwrap();
    assert_eq!(volume.state(), v1::VolumeState::Attached);
    assert_eq!(volume.trust.unwrap().trust(), v1::Trust::Continuous);
    assert_eq!(volume.store.unwrap().full_policy(), v1::FullPolicy::Drop);

    let mut request = create("data");
    request
        .labels
        .insert("job".to_owned(), "nightly".to_owned());
    request.lease = Some(prost_types::Duration {
        seconds: 60,
        nanos: 0,
    });
    let made = api
        .snapshots()
        .create_snapshot(request)
        .await
        .unwrap()
        .into_inner();
    let made = &made.snapshots[0];
    assert_eq!(made.state(), v1::SnapshotState::Ready);
    assert_eq!(made.held.unwrap().nanos, 150_000);
    assert_eq!(made.labels["job"], "nightly");
    assert!(made.lease_expires_at.is_some());
    assert!(made.view_path.ends_with(&made.id));

    let get = v1::GetSnapshotRequest {
        id: made.id[..16].to_owned(),
    };
    let found = api
        .snapshots()
        .get_snapshot(get)
        .await
        .unwrap()
        .into_inner()
        .snapshot
        .unwrap();
    assert_eq!(found.id, made.id);
    assert_eq!(found.preserved_bytes, 4096);
    let listed = CheckpointServiceClient::new(api.channel.clone())
        .list_checkpoints(v1::ListCheckpointsRequest {
            volume: "data".to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.checkpoints[0].checkpoint, made.checkpoint);
    assert_eq!(listed.checkpoints[0].snapshot_id, made.id);
}

#[tokio::test]
async fn every_bad_attach_names_its_reason() {
    let api = Api::start().await;
    let good = api.attach_request("data");
    let store = good.store.clone().unwrap();
    let with_store = |store| v1::AttachVolumeRequest {
        store: Some(store),
        ..good.clone()
    };
    let cases = [
        (
            v1::AttachVolumeRequest {
                name: "No Name".to_owned(),
                ..good.clone()
            },
            "name",
        ),
        (
            v1::AttachVolumeRequest {
                origin_path: "a".to_owned(),
                ..good.clone()
            },
            "origin_path",
        ),
        (
            v1::AttachVolumeRequest {
                block_bytes: 4097,
                ..good.clone()
            },
            "block_bytes",
        ),
        (
            v1::AttachVolumeRequest {
                store: None,
                ..good.clone()
            },
            "store",
        ),
        (
            with_store(v1::StoreConfig {
                area_path: String::new(),
                ..store.clone()
            }),
            "store.area_path",
        ),
        (
            with_store(v1::StoreConfig {
                logical_volume: Some(v1::AreaLogicalVolume::default()),
                ..store.clone()
            }),
            "store.area_path",
        ),
        (
            with_store(v1::StoreConfig {
                full_policy: 77,
                ..store.clone()
            }),
            "store.full_policy",
        ),
        (
            with_store(v1::StoreConfig {
                full_policy: v1::FullPolicy::Slow.into(),
                max_write_delay: Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                }),
                ..store
            }),
            "store.max_write_delay",
        ),
    ];
    for (request, field) in cases {
        let status = api.volumes().attach_volume(request).await.unwrap_err();
        assert_eq!(told(&status), invalid(field));
    }
    let request = v1::AttachVolumeRequest {
        origin_path: "/nothing/here".to_owned(),
        ..api.attach_request("data")
    };
    let status = api.volumes().attach_volume(request).await.unwrap_err();
    assert_eq!(told(&status).1, "ORIGIN_UNSUITABLE");
    // The program that would serve it is not there.
    let status = api
        .volumes()
        .attach_volume(api.attach_request("data"))
        .await
        .unwrap_err();
    assert_eq!(told(&status).1, "INTERNAL");
    let listed = api
        .volumes()
        .list_volumes(v1::ListVolumesRequest {})
        .await
        .unwrap();
    assert!(listed.into_inner().volumes.is_empty());
}

#[tokio::test]
async fn unknown_things_and_bad_fields_are_told_apart() {
    let api = Api::start().await;
    api.bench.attach(&api.manager, "data").await;
    let mut volumes = api.volumes();
    let name = "nobody".to_owned();
    let not_found = |what: &str| (Code::NotFound, format!("{what}_NOT_FOUND"), None);
    let status = volumes
        .get_volume(v1::GetVolumeRequest { name: name.clone() })
        .await
        .unwrap_err();
    assert_eq!(told(&status), not_found("VOLUME"));
    let detach = v1::DetachVolumeRequest { name, force: true };
    let status = volumes.detach_volume(detach).await.unwrap_err();
    assert_eq!(told(&status), not_found("VOLUME"));

    let mut snapshots = api.snapshots();
    let id = "ab".repeat(16);
    let get = v1::GetSnapshotRequest { id: id.clone() };
    assert_eq!(
        told(&snapshots.get_snapshot(get).await.unwrap_err()),
        not_found("SNAPSHOT")
    );
    let delete = v1::DeleteSnapshotRequest { id: id.clone() };
    assert_eq!(
        told(&snapshots.delete_snapshot(delete).await.unwrap_err()),
        not_found("SNAPSHOT")
    );
    let renew = v1::RenewLeaseRequest { id, lease: None };
    assert_eq!(
        told(&snapshots.renew_lease(renew).await.unwrap_err()),
        invalid("lease")
    );
    let get = v1::GetSnapshotRequest { id: "%".to_owned() };
    assert_eq!(
        told(&snapshots.get_snapshot(get).await.unwrap_err()),
        invalid("id")
    );

    let both = v1::CreateSnapshotRequest {
        group: "g".to_owned(),
        ..create("data")
    };
    let cases = [
        (v1::CreateSnapshotRequest::default(), "volumes"),
        (both, "group"),
        (
            v1::CreateSnapshotRequest {
                freeze: 9,
                ..create("data")
            },
            "freeze",
        ),
        (
            v1::CreateSnapshotRequest {
                lease: Some(prost_types::Duration {
                    seconds: i64::MAX,
                    nanos: 0,
                }),
                ..create("data")
            },
            "lease",
        ),
        (
            v1::CreateSnapshotRequest {
                max_freeze: Some(prost_types::Duration::default()),
                ..create("data")
            },
            "max_freeze",
        ),
    ];
    for (request, field) in cases {
        let status = snapshots.create_snapshot(request).await.unwrap_err();
        assert_eq!(told(&status), invalid(field));
    }
    let mut twice = create("data");
    twice.volumes.push("data".to_owned());
    assert_eq!(
        told(&snapshots.create_snapshot(twice).await.unwrap_err()),
        invalid("volumes")
    );

    let mut groups = GroupServiceClient::new(api.channel.clone());
    let create = v1::CreateGroupRequest { group: None };
    assert_eq!(
        told(&groups.create_group(create).await.unwrap_err()),
        invalid("group")
    );
    let get = v1::GetGroupRequest {
        name: "g".to_owned(),
    };
    assert_eq!(
        told(&groups.get_group(get).await.unwrap_err()),
        not_found("GROUP")
    );

    let mut checkpoints = CheckpointServiceClient::new(api.channel.clone());
    let delete = v1::DeleteCheckpointRequest {
        volume: "data".to_owned(),
        checkpoint: Some(v1::Checkpoint {
            lineage: "zz".to_owned(),
            epoch: 1,
        }),
    };
    let status = checkpoints.delete_checkpoint(delete).await.unwrap_err();
    assert_eq!(told(&status), invalid("checkpoint"));
}

#[tokio::test]
async fn an_open_watch_ends_with_the_reason_when_the_agent_stops() {
    let api = Api::start().await;
    let mut events = EventServiceClient::new(api.channel.clone());
    let watch = v1::WatchEventsRequest::default();
    let mut stream = events.watch_events(watch).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap().event.unwrap();
    assert_eq!(first.kind(), v1::EventKind::AgentStarted);
    assert_eq!(first.sequence, 1);

    api.stop.send(()).unwrap();
    let status = stream.message().await.unwrap_err();
    assert_eq!(
        told(&status),
        (Code::Unavailable, "SHUTTING_DOWN".to_owned(), None)
    );
    api.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn kept_events_end_without_following() {
    let api = Api::start().await;
    let mut events = EventServiceClient::new(api.channel.clone());
    let watch = v1::WatchEventsRequest {
        no_follow: true,
        ..v1::WatchEventsRequest::default()
    };
    let mut stream = events.watch_events(watch).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn the_agent_tells_about_itself() {
    let api = Api::start().await;
    let mut agent = AgentServiceClient::new(api.channel.clone());
    let info = agent
        .get_server_info(v1::GetServerInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.api_version, "v1");
    assert!(
        info.features
            .iter()
            .any(|one| one.name == "transport.portable")
    );
    assert_eq!(info.limits.unwrap().min_block_bytes, 4096);

    let mut health = tonic_health::pb::health_client::HealthClient::new(api.channel.clone());
    for service in [
        "",
        "tidemark.v1.SnapshotService",
        "tidemark.v1.EventService",
    ] {
        let check = tonic_health::pb::HealthCheckRequest {
            service: service.to_owned(),
        };
        let status = health.check(check).await.unwrap().into_inner();
        assert_eq!(
            status.status(),
            tonic_health::pb::health_check_response::ServingStatus::Serving
        );
    }
}
