//! AgentService.

use std::sync::Arc;

use tidemark_proto::v1::{self, agent_service_server::AgentService};
use tidemark_store::units::{MAX_BLOCK_BYTES, MIN_BLOCK_BYTES};
use tonic::{Request, Response, Status};

use super::{
    MAX_CONCURRENT_STREAMS,
    auth::{Role, require},
    convert,
};
use crate::manager::Manager;

/// Sum of an outgoing batch's payload: what the protocol promises its readers.
const MAX_BATCH_BYTES: u64 = 1 << 20;

pub(super) struct Agent(pub(super) Arc<Manager>);

#[tonic::async_trait]
impl AgentService for Agent {
    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        require(&request, Role::View)?;
        let info = self.0.host_info().await?;
        let features = info.features.into_iter().map(|feature| v1::Feature {
            name: feature.name.to_owned(),
            available: feature.available,
            reason: feature.reason,
        });
        Ok(Response::new(v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: "v1".to_owned(),
            kernel_release: info.kernel_release,
            started_at: Some(convert::timestamp(self.0.started_us())),
            features: features.collect(),
            limits: Some(v1::Limits {
                max_batch_bytes: MAX_BATCH_BYTES,
                max_concurrent_streams: MAX_CONCURRENT_STREAMS,
                max_snapshots_per_volume: info.max_snapshots_per_volume,
                max_checkpoints_per_volume: info.max_checkpoints_per_volume,
                min_block_bytes: MIN_BLOCK_BYTES,
                max_block_bytes: MAX_BLOCK_BYTES,
            }),
        }))
    }
}
