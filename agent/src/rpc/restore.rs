//! RestoreService: sessions that write an image or a volume.

use std::{path::PathBuf, sync::Arc};

use tidemark_proto::v1::{
    AbortRestoreRequest, AbortRestoreResponse, BeginRestoreRequest, BeginRestoreResponse,
    GetRestoreRequest, GetRestoreResponse, Restore, SealRestoreRequest, SealRestoreResponse,
    WriteRestoreRequest, WriteRestoreResponse,
    begin_restore_request::Target,
    restore_service_server::{RestoreService, RestoreServiceServer},
};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

use super::{
    auth::{Role, require},
    operation::operation_to_wire,
};
use crate::manager::{
    Error, Manager,
    restores::{BeginRestore, Destination, MAX_DATA_EXTENT_BYTES, RestoreStatus, Restores},
};

/// The largest WriteRestore message: a data extent of the longest kind and room for as much
/// again in shorter ones.
const MAX_MESSAGE_BYTES: u64 = 2 * MAX_DATA_EXTENT_BYTES;

pub(super) struct RestoreCalls {
    manager: Arc<Manager>,
    restores: Arc<Restores>,
}

impl RestoreCalls {
    /// The service as tonic takes it, with its message limit set.
    pub(super) fn server(
        manager: Arc<Manager>,
        restores: Arc<Restores>,
    ) -> RestoreServiceServer<Self> {
        let limit = usize::try_from(MAX_MESSAGE_BYTES).unwrap_or(usize::MAX);
        RestoreServiceServer::new(Self { manager, restores }).max_decoding_message_size(limit)
    }
}

#[tonic::async_trait]
impl RestoreService for RestoreCalls {
    async fn begin_restore(
        &self,
        request: Request<BeginRestoreRequest>,
    ) -> Result<Response<BeginRestoreResponse>, Status> {
        let needed = match &request.get_ref().target {
            Some(Target::Path(_)) => Role::Admin,
            Some(Target::Volume(_)) | None => Role::Restore,
        };
        require(&request, needed)?;
        let begin = begin_from_wire(request.into_inner())?;
        // Goes on when the client goes away: a repeated request then finds the session.
        let (manager, restores) = (Arc::clone(&self.manager), Arc::clone(&self.restores));
        let begun = tokio::spawn(async move { restores.begin(&manager, begin).await });
        let begun = begun.await.map_err(Error::internal)?;
        let restore = Some(restore_to_wire(begun?));
        Ok(Response::new(BeginRestoreResponse { restore }))
    }

    async fn write_restore(
        &self,
        request: Request<Streaming<WriteRestoreRequest>>,
    ) -> Result<Response<WriteRestoreResponse>, Status> {
        require(&request, Role::Restore)?;
        let mut messages = request.into_inner();
        let mut writer = Writer::new(Arc::clone(&self.restores));
        loop {
            let message = tokio::select! {
                biased;
                () = self.manager.shutting_down() => {
                    return Err(Error::shutting_down().into());
                }
                message = messages.message() => message?,
            };
            match message {
                Some(message) => writer.take(message).await?,
                None => break,
            }
        }
        let restore = Some(restore_to_wire(writer.finish().await?));
        Ok(Response::new(WriteRestoreResponse { restore }))
    }

    async fn seal_restore(
        &self,
        request: Request<SealRestoreRequest>,
    ) -> Result<Response<SealRestoreResponse>, Status> {
        require(&request, Role::Restore)?;
        let asked = request.into_inner();
        let sealing = self.restores.seal(&asked.restore_id, &asked.digest);
        let operation = Some(operation_to_wire(sealing?));
        Ok(Response::new(SealRestoreResponse { operation }))
    }

    async fn abort_restore(
        &self,
        request: Request<AbortRestoreRequest>,
    ) -> Result<Response<AbortRestoreResponse>, Status> {
        require(&request, Role::Restore)?;
        let id = request.into_inner().restore_id;
        self.restores.abort(&id).await?;
        Ok(Response::new(AbortRestoreResponse {}))
    }

    async fn get_restore(
        &self,
        request: Request<GetRestoreRequest>,
    ) -> Result<Response<GetRestoreResponse>, Status> {
        require(&request, Role::View)?;
        let id = request.into_inner().restore_id;
        let restore = Some(restore_to_wire(self.restores.get(&id)?));
        Ok(Response::new(GetRestoreResponse { restore }))
    }
}

/// One WriteRestore call: writes a message while the next one arrives.
struct Writer {
    restores: Arc<Restores>,
    restore_id: Option<String>,
    under_way: Option<JoinHandle<Result<RestoreStatus, Error>>>,
}

impl Writer {
    fn new(restores: Arc<Restores>) -> Self {
        Self {
            restores,
            restore_id: None,
            under_way: None,
        }
    }

    async fn take(&mut self, message: WriteRestoreRequest) -> Result<(), Error> {
        let id = self.name(message.restore_id)?;
        self.settle().await?;
        let restores = Arc::clone(&self.restores);
        let write = async move { restores.write(&id, message.extents).await };
        self.under_way = Some(tokio::spawn(write));
        Ok(())
    }

    /// The session of this call: the first message names it, later ones may again.
    fn name(&mut self, told: String) -> Result<String, Error> {
        match &self.restore_id {
            Some(known) if told.is_empty() || told == *known => Ok(known.clone()),
            Some(_) => Err(Error::invalid("restore_id", "changed within one call")),
            None if told.is_empty() => Err(Error::invalid(
                "restore_id",
                "is missing in the first message",
            )),
            None => {
                self.restore_id = Some(told.clone());
                Ok(told)
            }
        }
    }

    async fn settle(&mut self) -> Result<Option<RestoreStatus>, Error> {
        match self.under_way.take() {
            Some(write) => write.await.map_err(Error::internal)?.map(Some),
            None => Ok(None),
        }
    }

    async fn finish(mut self) -> Result<RestoreStatus, Error> {
        let written = self.settle().await?;
        written.ok_or_else(|| Error::invalid("restore_id", "the call brought no message"))
    }
}

fn begin_from_wire(asked: BeginRestoreRequest) -> Result<BeginRestore, Error> {
    let destination = match asked.target {
        Some(Target::Volume(name)) => Destination::Volume(name),
        Some(Target::Path(path)) => Destination::Path(PathBuf::from(path)),
        None => return Err(Error::invalid("target", "is missing")),
    };
    Ok(BeginRestore {
        destination,
        capacity_bytes: asked.capacity_bytes,
        create: asked.create,
        request_id: asked.request_id,
    })
}

fn restore_to_wire(restore: RestoreStatus) -> Restore {
    Restore {
        id: restore.id,
        state: restore.state.into(),
        capacity_bytes: restore.capacity_bytes,
        written_bytes: restore.written_bytes,
        extents: restore.extents,
        expires_at: restore.expires_at.map(Into::into),
    }
}
