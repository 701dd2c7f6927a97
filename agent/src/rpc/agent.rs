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
use crate::{
    configuration::Configured,
    manager::{Error, Manager},
};

/// Sum of an outgoing batch's payload: what the protocol promises its readers.
const MAX_BATCH_BYTES: u64 = 1 << 20;

pub(super) struct Agent {
    pub(super) manager: Arc<Manager>,
    pub(super) configured: Arc<Configured>,
}

#[tonic::async_trait]
impl AgentService for Agent {
    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        require(&request, Role::View)?;
        let info = self.manager.host_info().await?;
        let standing = self.configured.standing();
        let features = info.features.into_iter().map(|feature| v1::Feature {
            name: feature.name.to_owned(),
            available: feature.available,
            reason: feature.reason,
        });
        Ok(Response::new(v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: "v1".to_owned(),
            kernel_release: info.kernel_release,
            started_at: Some(convert::timestamp(self.manager.started_us())),
            features: features.collect(),
            limits: Some(v1::Limits {
                max_batch_bytes: MAX_BATCH_BYTES,
                max_concurrent_streams: MAX_CONCURRENT_STREAMS,
                max_snapshots_per_volume: info.max_snapshots_per_volume,
                max_checkpoints_per_volume: info.max_checkpoints_per_volume,
                min_block_bytes: MIN_BLOCK_BYTES,
                max_block_bytes: MAX_BLOCK_BYTES,
            }),
            configuration: Some(v1::ConfigurationStatus {
                path: standing.path.display().to_string(),
                loaded_at: standing.loaded_us.map(convert::timestamp),
                problems: [standing.wrong, standing.failed].concat(),
            }),
        }))
    }

    async fn reload_configuration(
        &self,
        request: Request<v1::ReloadConfigurationRequest>,
    ) -> Result<Response<v1::ReloadConfigurationResponse>, Status> {
        require(&request, Role::Admin)?;
        // To its end, also when the caller goes away: a volume may be half attached.
        let configured = Arc::clone(&self.configured);
        let reload = tokio::spawn(async move { configured.reload().await }).await;
        let outcome =
            reload.map_err(|ended| Error::internal(format!("the reload ended: {ended}")))??;
        Ok(Response::new(v1::ReloadConfigurationResponse {
            path: self.configured.standing().path.display().to_string(),
            done: outcome.done,
            failed: outcome.failed,
            left: outcome.left,
        }))
    }
}
