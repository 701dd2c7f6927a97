//! A daemon in this process, for tests: one volume in memory, with faults on order.

mod model;
mod operation;
mod repository;
mod restore;
mod service;
mod vault;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clap::Parser;
use tidemark_proto::v1::{
    change_service_server::ChangeServiceServer, checkpoint_service_server::CheckpointServiceServer,
    data_service_server::DataServiceServer, operation_service_server::OperationServiceServer,
    repository_service_server::RepositoryServiceServer,
    restore_service_server::RestoreServiceServer, snapshot_service_server::SnapshotServiceServer,
    volume_service_server::VolumeServiceServer,
};
use tokio::{net::UnixListener, runtime::Runtime, sync::watch};
use tokio_stream::wrappers::UnixListenerStream;

pub(crate) use model::{BLOCK, Injected, Model};
pub(crate) use vault::Fate;

use crate::{
    args::Args,
    cmd,
    context::{Context, Interrupt},
    exit::Report,
    output::Output,
};

/// The daemon. Its volume lives longer than it does: stop it and start it again.
pub(crate) struct Fake {
    dir: tempfile::TempDir,
    model: Arc<Mutex<Model>>,
    /// Of its own, so that a stop takes every connection with it, as a kill does.
    runtime: Option<Runtime>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Fake {
    /// A running daemon with a volume `vol` of `capacity` bytes.
    pub(crate) fn start(capacity: usize) -> Self {
        let mut fake = Self {
            dir: tempfile::tempdir().unwrap(),
            model: Arc::new(Mutex::new(Model::new(capacity))),
            runtime: None,
        };
        fake.restart();
        fake
    }

    /// Starts it again after a stop.
    pub(crate) fn restart(&mut self) {
        // Its leftover socket, when there is one.
        let _ = std::fs::remove_file(self.socket());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let service = service::Service::new(Arc::clone(&self.model));
        let socket = self.socket();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        runtime.spawn(async move {
            let server = tonic::transport::Server::builder()
                .add_service(VolumeServiceServer::new(service.clone()))
                .add_service(SnapshotServiceServer::new(service.clone()))
                .add_service(CheckpointServiceServer::new(service.clone()))
                .add_service(ChangeServiceServer::new(service.clone()))
                .add_service(DataServiceServer::new(service.clone()))
                .add_service(RestoreServiceServer::new(service.clone()))
                .add_service(RepositoryServiceServer::new(service.clone()))
                .add_service(OperationServiceServer::new(service))
                .serve_with_incoming(UnixListenerStream::new(listener));
            server.await.unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// Ends it as kill -9 does.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// The volume.
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory for images.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// Runs a whole command line, as main does; what it said comes with how it ended.
    pub(crate) async fn command(&self, line: &str) -> (Vec<String>, Result<(), Report>) {
        let (_tell, interrupt) = Interrupt::manual();
        self.interruptible(line, interrupt).await
    }

    /// The same with a signal that may come.
    pub(crate) async fn interruptible(
        &self,
        line: &str,
        interrupt: Interrupt,
    ) -> (Vec<String>, Result<(), Report>) {
        let words = std::iter::once("tidemark").chain(line.split_whitespace());
        let args = Args::try_parse_from(words).expect(line);
        let (out, heard) = Output::listened_to(args.global.json);
        let context = Context {
            socket: self.socket(),
            out,
            interrupt,
        };
        let ended = cmd::run(args.command, &context).await;
        let heard = std::mem::take(&mut *heard.lock().unwrap());
        (heard, ended.map_err(|error| Report::of(&error)))
    }

    /// Surroundings for a command, and the means to interrupt it.
    pub(crate) fn context(&self) -> (watch::Sender<u32>, Context) {
        let (tell, interrupt) = Interrupt::manual();
        let context = Context {
            socket: self.socket(),
            out: Output::silent(),
            interrupt,
        };
        (tell, context)
    }
}

/// Reads a whole file.
pub(crate) fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
