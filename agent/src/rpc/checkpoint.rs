//! CheckpointService.

use std::sync::Arc;

use tidemark_proto::v1::{self, checkpoint_service_server::CheckpointService};
use tonic::{Request, Response, Status};

use super::{
    auth::{Role, require},
    convert,
};
use crate::manager::{CheckpointStatus, Manager};

pub(super) struct Checkpoints(pub(super) Arc<Manager>);

#[tonic::async_trait]
impl CheckpointService for Checkpoints {
    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        require(&request, Role::View)?;
        let found = self.0.checkpoints(&request.into_inner().volume).await?;
        Ok(Response::new(v1::ListCheckpointsResponse {
            checkpoints: found.into_iter().map(message).collect(),
        }))
    }

    async fn delete_checkpoint(
        &self,
        request: Request<v1::DeleteCheckpointRequest>,
    ) -> Result<Response<v1::DeleteCheckpointResponse>, Status> {
        require(&request, Role::Backup)?;
        let asked = request.into_inner();
        let checkpoint = convert::read_checkpoint("checkpoint", asked.checkpoint)?;
        self.0.delete_checkpoint(&asked.volume, checkpoint).await?;
        Ok(Response::new(v1::DeleteCheckpointResponse {}))
    }
}

fn message(status: CheckpointStatus) -> v1::CheckpointInfo {
    v1::CheckpointInfo {
        checkpoint: Some(convert::checkpoint(status.checkpoint)),
        created_at: Some(convert::timestamp(status.created_us)),
        snapshot_id: status.snapshot.map(|id| id.to_string()).unwrap_or_default(),
    }
}
