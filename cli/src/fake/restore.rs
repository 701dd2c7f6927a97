//! Restores of the fake daemon: one session, into memory.

use tidemark_proto::v1::{
    AbortRestoreRequest, AbortRestoreResponse, BeginRestoreRequest, BeginRestoreResponse,
    CancelOperationRequest, CancelOperationResponse, ErrorReason, ExtentKind, GetOperationRequest,
    GetOperationResponse, GetRestoreRequest, GetRestoreResponse, ListOperationsRequest,
    ListOperationsResponse, Operation, OperationState, Restore, SealRestoreRequest,
    SealRestoreResponse, WaitOperationRequest, WaitOperationResponse, WatchOperationRequest,
    WatchOperationResponse, WriteRestoreRequest, WriteRestoreResponse,
    operation_service_server::OperationService, restore_service_server::RestoreService,
};
use tokio_stream::iter;
use tonic::{Request, Response, Status, Streaming};

use std::pin::Pin;

use super::{
    model::Pushed,
    service::{Answers, Service, not_here},
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

#[tonic::async_trait]
impl OperationService for Service {
    type WatchOperationStream = Answers<WatchOperationResponse>;

    async fn watch_operation(
        &self,
        request: Request<WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = request.into_inner().id;
        let good = self.model().pushed.sealed == Some(true);
        let mut ended = Operation {
            id: id.clone(),
            ..Default::default()
        };
        if good {
            ended.state = OperationState::Succeeded.into();
        } else {
            ended.state = OperationState::Failed.into();
            ended.error_reason = ErrorReason::DigestMismatch.into();
        }
        let running = Operation {
            id,
            state: OperationState::Running.into(),
            ..Default::default()
        };
        let answers = [running, ended].map(|operation| {
            Ok(WatchOperationResponse {
                operation: Some(operation),
            })
        });
        Ok(Response::new(Box::pin(iter(answers))))
    }

    not_here! {
        get_operation(GetOperationRequest) -> GetOperationResponse;
        list_operations(ListOperationsRequest) -> ListOperationsResponse;
        wait_operation(WaitOperationRequest) -> WaitOperationResponse;
        cancel_operation(CancelOperationRequest) -> CancelOperationResponse;
    }
}
