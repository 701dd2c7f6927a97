//! OperationService: progress of long work, waiting for it and cancelling it.

use std::time::Duration;

use futures_lite::{StreamExt, stream};
use tidemark_proto::v1::{
    CancelOperationRequest, CancelOperationResponse, GetOperationRequest, GetOperationResponse,
    ListOperationsRequest, ListOperationsResponse, Operation, WaitOperationRequest,
    WaitOperationResponse, WatchOperationRequest, WatchOperationResponse,
    operation_service_server::OperationService,
};
use tonic::{Request, Response, Status};

use super::{
    auth::{Role, require},
    convert,
    data::Answers,
};
use crate::manager::{
    Error, ErrorReason,
    operations::{OperationStatus, Operations},
};

/// How long a wait takes when the client does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// The longest wait: a client that is gone without a word is not waited for much longer.
const MAX_WAIT: Duration = Duration::from_secs(3600);

pub(super) struct OperationCalls(pub(super) Operations);

#[tonic::async_trait]
impl OperationService for OperationCalls {
    type WatchOperationStream = Answers<WatchOperationResponse>;

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<GetOperationResponse>, Status> {
        require(&request, Role::View)?;
        let id = request.into_inner().id;
        let operation = Some(found(self.0.get(&id), &id)?);
        Ok(Response::new(GetOperationResponse { operation }))
    }

    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        require(&request, Role::View)?;
        let known = self.0.list(request.into_inner().running_only);
        let operations = known.into_iter().map(operation_to_wire).collect();
        Ok(Response::new(ListOperationsResponse { operations }))
    }

    async fn wait_operation(
        &self,
        request: Request<WaitOperationRequest>,
    ) -> Result<Response<WaitOperationResponse>, Status> {
        require(&request, Role::View)?;
        let WaitOperationRequest { id, timeout } = request.into_inner();
        let timeout = match timeout {
            None => DEFAULT_WAIT,
            Some(timeout) => convert::span("timeout", timeout)?,
        };
        let waited = self.0.wait(&id, timeout.min(MAX_WAIT)).await;
        let operation = Some(found(waited, &id)?);
        Ok(Response::new(WaitOperationResponse { operation }))
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<CancelOperationResponse>, Status> {
        require(&request, Role::Backup)?;
        let id = request.into_inner().id;
        let operation = Some(found(self.0.cancel(&id), &id)?);
        Ok(Response::new(CancelOperationResponse { operation }))
    }

    async fn watch_operation(
        &self,
        request: Request<WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        require(&request, Role::View)?;
        let id = request.into_inner().id;
        let watch = self.0.watch(&id);
        let watch = watch.ok_or_else(|| not_found(&id))?;
        let steps = stream::unfold(watch, |mut watch| async move {
            let operation = Some(operation_to_wire(watch.next().await?));
            Some((Ok(WatchOperationResponse { operation }), watch))
        });
        Ok(Response::new(steps.boxed()))
    }
}

fn found(operation: Option<OperationStatus>, id: &str) -> Result<Operation, Error> {
    let operation = operation.ok_or_else(|| not_found(id))?;
    Ok(operation_to_wire(operation))
}

fn not_found(id: &str) -> Error {
    Error::new(
        ErrorReason::OperationNotFound,
        format!(
            "no operation has the id \"{}\"; the last ones that ended are kept until the agent \
             restarts",
            id.escape_debug()
        ),
    )
    .with("operation", id)
}

/// An operation as the public API shows it.
pub(super) fn operation_to_wire(operation: OperationStatus) -> Operation {
    let (error_reason, error_message) = match operation.error {
        Some(error) => (error.reason.into(), error.message),
        None => (0, String::new()),
    };
    Operation {
        id: operation.id,
        kind: operation.kind.into(),
        state: operation.state.into(),
        subject: operation.subject,
        done_bytes: operation.done_bytes,
        total_bytes: operation.total_bytes,
        started_at: Some(operation.started_at.into()),
        ended_at: operation.ended_at.map(Into::into),
        error_reason,
        error_message,
        result: operation.result,
    }
}
