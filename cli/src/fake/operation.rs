//! Operations of the fake daemon: of restore sessions, and jobs on repositories.

use std::{pin::Pin, time::Duration};

use tidemark_proto::v1::{
    CancelOperationRequest, CancelOperationResponse, ErrorReason, GetOperationRequest,
    GetOperationResponse, ListOperationsRequest, ListOperationsResponse, Operation, OperationState,
    WaitOperationRequest, WaitOperationResponse, WatchOperationRequest, WatchOperationResponse,
    operation_service_server::OperationService,
};
use tokio::sync::mpsc;
use tokio_stream::{iter, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{
    service::{Answers, Service, not_here},
    vault::{Fate, Vault},
};

#[tonic::async_trait]
impl OperationService for Service {
    type WatchOperationStream = Answers<WatchOperationResponse>;

    async fn watch_operation(
        &self,
        request: Request<WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = request.into_inner().id;
        let steps = if id == "op" {
            self.restored(id)
        } else {
            let mut model = self.model();
            let vault = &mut model.vault;
            let job = vault.job(&id)?;
            job.watched += 1;
            let half = Vault::running(&job.ended, 50);
            let (fate, first, ended) = (job.fate.clone(), job.watched == 1, job.ended.clone());
            match fate {
                Some(Fate::Hangs | Fate::Stuck) => {
                    drop(model);
                    return Ok(Response::new(self.until_cancelled(half, ended)));
                }
                Some(fate @ (Fate::Cut | Fate::Gone)) if first => {
                    if matches!(fate, Fate::Gone) {
                        vault.jobs.remove(&id);
                    }
                    vec![Ok(half), Err(Status::unavailable("cut"))]
                }
                _ => vec![Ok(Vault::running(&ended, 0)), Ok(half), Ok(ended)],
            }
        };
        let answers = steps.into_iter().map(|step| step.map(answer));
        Ok(Response::new(Box::pin(iter(answers))))
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<GetOperationResponse>, Status> {
        let id = request.into_inner().id;
        let operation = Some(self.model().vault.job(&id)?.ended.clone());
        Ok(Response::new(GetOperationResponse { operation }))
    }

    async fn list_operations(
        &self,
        _: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let model = self.model();
        let operations = model.vault.jobs.values().map(|job| job.ended.clone());
        Ok(Response::new(ListOperationsResponse {
            operations: operations.collect(),
        }))
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<CancelOperationResponse>, Status> {
        let id = request.into_inner().id;
        let mut model = self.model();
        let job = model.vault.job(&id)?;
        job.cancelled = true;
        let operation = Some(job.ended.clone());
        Ok(Response::new(CancelOperationResponse { operation }))
    }

    not_here! {
        wait_operation(WaitOperationRequest) -> WaitOperationResponse;
    }
}

impl Service {
    /// The check at the end of a restore session.
    fn restored(&self, id: String) -> Vec<Result<Operation, Status>> {
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
        vec![Ok(running), Ok(ended)]
    }

    fn until_cancelled(
        &self,
        running: Operation,
        ended: Operation,
    ) -> Answers<WatchOperationResponse> {
        let (send, receive) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            let id = ended.id.clone();
            // Errors tell that nobody watches any more.
            let _ = send.send(Ok(answer(running))).await;
            while !service.may_end(&id) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let _ = send.send(Ok(answer(ended))).await;
        });
        Box::pin(ReceiverStream::new(receive))
    }

    fn may_end(&self, id: &str) -> bool {
        let mut model = self.model();
        let job = model.vault.job(id);
        job.is_ok_and(|job| job.cancelled && !matches!(job.fate, Some(Fate::Stuck)))
    }
}

fn answer(operation: Operation) -> WatchOperationResponse {
    WatchOperationResponse {
        operation: Some(operation),
    }
}
