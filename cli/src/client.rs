//! The connection to the daemon: gRPC over its UNIX socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tidemark_proto::v1::{
    agent_service_client::AgentServiceClient, change_service_client::ChangeServiceClient,
    checkpoint_service_client::CheckpointServiceClient, data_service_client::DataServiceClient,
    event_service_client::EventServiceClient, group_service_client::GroupServiceClient,
    operation_service_client::OperationServiceClient,
    repository_service_client::RepositoryServiceClient,
    restore_service_client::RestoreServiceClient, snapshot_service_client::SnapshotServiceClient,
    volume_service_client::VolumeServiceClient,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::exit::{Exit, Fault};

/// A batch is at most 1 MiB of payload; extent headers and growth fit many times over.
pub(crate) const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Eight batches may be under way on one stream before the agent has to wait for us.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Several streams of one connection share this.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A daemon that is stopped, not dead, leaves the socket open: ask whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Calls to one daemon. Cheap to clone; connects again by itself when the daemon comes back.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    channel: Channel,
}

macro_rules! services {
    ($($name:ident: $service:ident,)*) => {
        impl Client {
            $(
                /// Calls of this service.
                pub(crate) fn $name(&self) -> $service<Channel> {
                    $service::new(self.channel.clone())
                        .max_decoding_message_size(MAX_MESSAGE_BYTES)
                }
            )*
        }
    };
}

services! {
    agent: AgentServiceClient,
    volumes: VolumeServiceClient,
    snapshots: SnapshotServiceClient,
    groups: GroupServiceClient,
    checkpoints: CheckpointServiceClient,
    changes: ChangeServiceClient,
    data: DataServiceClient,
    restores: RestoreServiceClient,
    operations: OperationServiceClient,
    repositories: RepositoryServiceClient,
    events: EventServiceClient,
}

impl Client {
    /// Connects, and says precisely why it could not.
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        // The channel would flatten the errno away; a first connection of our own keeps it.
        UnixStream::connect(socket)
            .await
            .map_err(|error| refused(socket, &error))?;
        let endpoint = Endpoint::from_static("http://tidemark.local")
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let path = PathBuf::from(socket);
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| {
                Fault::new(
                    Exit::NoDaemon,
                    format!("{} does not speak gRPC: {error}", socket.display()),
                )
            })?;
        Ok(Self { channel })
    }
}

fn refused(socket: &Path, error: &io::Error) -> Fault {
    let message = format!("no connection to {}: {error}", socket.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => Fault::new(Exit::Denied, message)
            .advise("run as root, or as a member of the group that owns the socket"),
        _ => Fault::new(Exit::NoDaemon, message).advise(
            "start the daemon (`tidemarkd serve`), or name its socket with --socket; `tidemark doctor` looks further",
        ),
    }
}
