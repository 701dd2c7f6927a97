//! Restores of the fake daemon: one session, into memory.

use std::pin::Pin;

use tidemark_proto::v1::{
    AbortRestoreRequest, AbortRestoreResponse, BeginRestoreRequest, BeginRestoreResponse,
    ExtentKind, GetRestoreRequest, GetRestoreResponse, Operation, Restore, SealRestoreRequest,
    SealRestoreResponse, WriteRestoreRequest, WriteRestoreResponse,
    restore_service_server::RestoreService,
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    model::Pushed,
    service::{Service, not_here},
};

#[tonic::async_trait]
impl RestoreService for Service {
    async fn begin_restore(
        &self,
        request: Request<BeginRestoreRequest>,
    ) -> Result<Response<BeginRestoreResponse>, Status> {
        let capacity = request.into_inner().capacity_bytes;
        // Not zeros, so that zeros have to be sent.
        let data = vec![0xAA; usize::try_from(capacity).unwrap()];
        self.model().pushed = Pushed {
            data,
            ..Default::default()
        };
        let restore = Some(restore(capacity));
        Ok(Response::new(BeginRestoreResponse { restore }))
    }

    async fn write_restore(
        &self,
        request: Request<Streaming<WriteRestoreRequest>>,
    ) -> Result<Response<WriteRestoreResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(message) = stream.message().await? {
            let mut model = self.model();
            for extent in message.extents {
                let start = usize::try_from(extent.offset_bytes).unwrap();
                let length = usize::try_from(extent.length_bytes).unwrap();
                let plain = match (extent.kind(), extent.compression) {
                    (ExtentKind::Data, 2) => zstd::bulk::decompress(&extent.data, length).unwrap(),
                    (ExtentKind::Data, _) => extent.data.to_vec(),
                    _ => vec![0; length],
                };
                let hash: Option<[u8; 32]> = extent.blake3.as_ref().try_into().ok();
                let hash = hash.map(blake3::Hash::from);
                let pushed = &mut model.pushed;
                pushed.digest.add(
                    extent.offset_bytes,
                    extent.length_bytes,
                    extent.kind(),
                    hash.as_ref(),
                );
                pushed.data[start..start + length].copy_from_slice(&plain);
            }
        }
        let restore = Some(restore(self.model().pushed.data.len() as u64));
        Ok(Response::new(WriteRestoreResponse { restore }))
    }

    async fn seal_restore(
        &self,
        request: Request<SealRestoreRequest>,
    ) -> Result<Response<SealRestoreResponse>, Status> {
        let mut model = self.model();
        let right = model.pushed.digest.finish().as_bytes()[..] == request.into_inner().digest;
        model.pushed.sealed = Some(right && !model.wrong_hashes);
        let operation = Some(Operation {
            id: "op".to_owned(),
            ..Default::default()
        });
        Ok(Response::new(SealRestoreResponse { operation }))
    }

    async fn abort_restore(
        &self,
        _: Request<AbortRestoreRequest>,
    ) -> Result<Response<AbortRestoreResponse>, Status> {
        self.model().pushed.aborted = true;
        Ok(Response::new(AbortRestoreResponse {}))
    }

    not_here! {
        get_restore(GetRestoreRequest) -> GetRestoreResponse;
    }
}

fn restore(capacity_bytes: u64) -> Restore {
    Restore {
        id: "restore".to_owned(),
        capacity_bytes,
        ..Default::default()
    }
}
