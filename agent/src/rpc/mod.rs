//! The gRPC API: converts, calls the manager, converts back.

mod agent;
pub mod auth;
mod change;
mod checkpoint;
mod convert;
mod data;
mod event;
mod group;
mod inherited;
mod listen;
mod operation;
mod repository;
mod restore;
mod service;
mod snapshot;
pub mod status;
mod volume;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use nix::unistd::Gid;
use tidemark_config::{Configuration, DEFAULT_PATH, Daemon, LoadError};
use tidemark_proto::v1::{
    FILE_DESCRIPTOR_SET, agent_service_server::AgentServiceServer,
    change_service_server::ChangeServiceServer, checkpoint_service_server::CheckpointServiceServer,
    data_service_server::DataServiceServer, event_service_server::EventServiceServer,
    group_service_server::GroupServiceServer, operation_service_server::OperationServiceServer,
    repository_service_server::RepositoryServiceServer,
    restore_service_server::RestoreServiceServer, snapshot_service_server::SnapshotServiceServer,
    volume_service_server::VolumeServiceServer,
};
use tokio::{
    net::UnixListener,
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tonic::{server::NamedService, service::Routes, transport::Server};
use tonic_health::ServingStatus;

use crate::{
    backup::Backups,
    configuration::{Configured, Source},
    log,
    manager::{
        Clock, Config, HostKernel, Manager, Units, operations::Operations, restores::Restores,
        streams::Streams,
    },
    metrics::Metrics,
    paths::Paths,
};

/// Calls of one connection at a time; tonic itself sets no limit.
const MAX_CONCURRENT_STREAMS: u32 = 128;
/// HTTP/2 windows: a bulk stream on the same host should not wait for its reader's updates.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A client that does not answer for this long is dead.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Open calls get this long to end when the agent stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// The control plane only waits; the work is on its blocking threads and in other processes.
const WORKERS: usize = 2;

/// Arguments of `tidemarkd serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Where sockets, views and logs live
    #[arg(long, env = "TIDEMARK_RUNTIME_DIR", default_value = "/run/tidemark")]
    pub runtime_dir: PathBuf,
    /// Where the catalog is kept
    #[arg(long, env = "TIDEMARK_STATE_DIR", default_value = "/var/lib/tidemark")]
    pub state_dir: PathBuf,
    /// Start volume servers as units, tidemark-volume@NAME.service, for which systemd cares
    #[arg(long)]
    pub units: bool,
    /// Where the arguments of these units are kept, in its folder volumes
    #[arg(long, default_value = "/etc/tidemark", requires = "units")]
    pub config_dir: PathBuf,
    /// The configuration; without the option, /etc/tidemark/tidemark.toml if there is one
    #[arg(long, env = "TIDEMARK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Members of this group may make snapshots, read them and restore; goes before the configuration
    #[arg(long)]
    pub group: Option<String>,
    /// What to log: off, error, warn, info, debug, trace, or tracing's directives; goes before the
    /// configuration
    #[arg(long, env = "TIDEMARK_LOG")]
    pub log: Option<String>,
}

impl ServeArgs {
    fn source(&self) -> anyhow::Result<Source> {
        let given = self.config.as_deref();
        let path = given.unwrap_or(DEFAULT_PATH.as_ref());
        Ok(Source {
            path: std::path::absolute(path).context("--config")?,
            given: given.is_some(),
        })
    }
}

/// The file, and what it said when it was read first.
struct First {
    source: Source,
    read: Result<Configuration, LoadError>,
}

/// Runs the control plane until it is told to stop. Volume servers are left running.
pub fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let source = args.source()?;
    let read = source.read();
    // The file may be wrong, and the agent serves all the same.
    let usual = read
        .as_ref()
        .map(|read| read.daemon.clone())
        .unwrap_or_default();
    match &args.log {
        Some(filter) => log::start(filter).context("--log")?,
        None => log::start(&usual.log).or_else(|_| log::start(&Daemon::default().log))?,
    }
    let group = args.group.clone().unwrap_or(usual.group);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let outcome = runtime.block_on(run(args, &group, First { source, read }));
    // Blocking threads may wait on a device that never answers.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn run(args: ServeArgs, group: &str, first: First) -> anyhow::Result<()> {
    let paths = Paths {
        runtime_dir: std::path::absolute(&args.runtime_dir).context("--runtime-dir")?,
        state_dir: std::path::absolute(&args.state_dir).context("--state-dir")?,
    };
    let _claim = listen::claim(&paths.runtime_dir)?;
    let members = auth::group(group).with_context(|| format!("group {group}"))?;
    if members.is_none() {
        tracing::warn!(group, "no such group: only root may call");
    }
    let program = std::env::current_exe().context("finding this program")?;
    let socket = paths.public_socket();
    let manager = Manager::start(Config {
        paths,
        host: Arc::new(HostKernel::new(program.clone()).with_hooks_in_units(args.units)),
        program,
        clock: Clock::system(),
        units: args
            .units
            .then(|| Units::new(args.config_dir.join("volumes"))),
    });
    let manager = manager.await?;
    let listener = match inherited::socket()? {
        Some(listener) => listener,
        None => listen::bind(&socket, members)?,
    };
    tracing::info!(socket = %socket.display(), "serving");
    service::ready();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve_until(manager, listener, members, first, stop).await
}

/// Serves until `stop`, then ends every open call and waits for that, but not for ever.
async fn serve_until(
    manager: Arc<Manager>,
    listener: UnixListener,
    group: Option<Gid>,
    first: First,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let operations = Operations::default();
    let backups = Backups::new(Arc::clone(&manager), operations.clone());
    let First { source, read } = first;
    let metrics = Metrics::new(
        Arc::clone(&manager),
        backups.clone(),
        operations.clone(),
        group,
    );
    let configured = Configured::new(Arc::clone(&manager), backups.clone(), metrics, source, read);
    let configured = Arc::new(configured);
    let routes = routes(&manager, &operations, backups, &configured).await?;
    let hangups = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    tokio::spawn(reload_at(hangups, Arc::clone(&configured)));
    tokio::spawn(configured.follow());
    let ending = Arc::clone(&manager);
    let server = Server::builder()
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming_shutdown(listen::incoming(listener, group), async move {
            ending.shutting_down().await;
        });
    let mut server = tokio::spawn(server);
    tokio::select! {
        ended = &mut server => return ended?.context("serving"),
        () = stop => {}
    }
    tracing::info!("stopping; volume servers go on");
    service::stopping();
    manager.shut_down();
    operations.shut_down();
    // Workers use the runtime: they end before it does.
    let ended = async { tokio::join!(&mut server, operations.drained()).0 };
    match tokio::time::timeout(STOP_WITHIN, ended).await {
        Ok(ended) => ended?.context("serving"),
        Err(_) => {
            tracing::warn!("some calls did not end in time");
            server.abort();
            Ok(())
        }
    }
}

/// Reads the configuration again at each signal. What is wrong with it is logged and told as an event.
async fn reload_at(mut signals: Signal, configured: Arc<Configured>) {
    while signals.recv().await.is_some() {
        if configured.reload().await.is_err() {
            tracing::warn!("the configuration was not reloaded");
        }
    }
}

/// Every service, with its health and reflection.
async fn routes(
    manager: &Arc<Manager>,
    operations: &Operations,
    backups: Backups,
    configured: &Arc<Configured>,
) -> anyhow::Result<Routes> {
    let streams = Streams::new(Arc::clone(manager), operations.clone());
    let restores = Arc::new(Restores::of(manager, operations.clone()));
    let manager = || Arc::clone(manager);
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("building reflection")?;
    let mut routes = Routes::builder();
    routes
        .add_service(AgentServiceServer::new(agent::Agent {
            manager: manager(),
            configured: Arc::clone(configured),
        }))
        .add_service(VolumeServiceServer::new(volume::Volumes(manager())))
        .add_service(SnapshotServiceServer::new(snapshot::Snapshots(manager())))
        .add_service(GroupServiceServer::new(group::Groups(manager())))
        .add_service(CheckpointServiceServer::new(checkpoint::Checkpoints(
            manager(),
        )))
        .add_service(EventServiceServer::new(event::Events(manager())))
        .add_service(ChangeServiceServer::new(change::Changes(manager())))
        .add_service(DataServiceServer::new(data::Data(streams)))
        .add_service(OperationServiceServer::new(operation::OperationCalls(
            operations.clone(),
        )))
        .add_service(RepositoryServiceServer::new(repository::Repositories(
            backups,
        )))
        .add_service(restore::RestoreCalls::server(manager(), restores))
        .add_service(health)
        .add_service(reflection);
    for service in [
        AgentServiceServer::<agent::Agent>::NAME,
        VolumeServiceServer::<volume::Volumes>::NAME,
        SnapshotServiceServer::<snapshot::Snapshots>::NAME,
        GroupServiceServer::<group::Groups>::NAME,
        CheckpointServiceServer::<checkpoint::Checkpoints>::NAME,
        EventServiceServer::<event::Events>::NAME,
        ChangeServiceServer::<change::Changes>::NAME,
        DataServiceServer::<data::Data>::NAME,
        OperationServiceServer::<operation::OperationCalls>::NAME,
        RestoreServiceServer::<restore::RestoreCalls>::NAME,
        RepositoryServiceServer::<repository::Repositories>::NAME,
    ] {
        reporter
            .set_service_status(service, ServingStatus::Serving)
            .await;
    }
    Ok(routes.routes())
}
