//! VolumeService.

use std::{sync::Arc, time::Duration};

use tidemark_proto::v1::{self, volume_service_server::VolumeService};
use tidemark_store::catalog::{Durability, FullPolicy, Transport};
use tonic::{Request, Response, Status};

use super::{
    auth::{Role, require},
    convert,
};
use crate::manager::{AttachArgs, Error, Manager};

pub(super) struct Volumes(pub(super) Arc<Manager>);

#[tonic::async_trait]
impl VolumeService for Volumes {
    async fn list_candidates(
        &self,
        request: Request<v1::ListCandidatesRequest>,
    ) -> Result<Response<v1::ListCandidatesResponse>, Status> {
        require(&request, Role::View)?;
        let found = self.0.candidates().await?;
        let candidates = found.into_iter().map(|one| v1::Candidate {
            path: one.path.display().to_string(),
            capacity_bytes: one.capacity,
            attachable: one.refusal.is_none(),
            reason: one.refusal.unwrap_or_default(),
        });
        Ok(Response::new(v1::ListCandidatesResponse {
            candidates: candidates.collect(),
        }))
    }

    async fn attach_volume(
        &self,
        request: Request<v1::AttachVolumeRequest>,
    ) -> Result<Response<v1::AttachVolumeResponse>, Status> {
        require(&request, Role::Admin)?;
        let args = attach_args(request.into_inner())?;
        let volume = self.0.attach(args).await?;
        Ok(Response::new(v1::AttachVolumeResponse {
            volume: Some(convert::volume(volume)),
        }))
    }

    async fn detach_volume(
        &self,
        request: Request<v1::DetachVolumeRequest>,
    ) -> Result<Response<v1::DetachVolumeResponse>, Status> {
        require(&request, Role::Admin)?;
        let asked = request.into_inner();
        self.0.detach(&asked.name, asked.force).await?;
        Ok(Response::new(v1::DetachVolumeResponse {}))
    }

    async fn list_volumes(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        require(&request, Role::View)?;
        let volumes = self.0.volumes().await?;
        Ok(Response::new(v1::ListVolumesResponse {
            volumes: volumes.into_iter().map(convert::volume).collect(),
        }))
    }

    async fn get_volume(
        &self,
        request: Request<v1::GetVolumeRequest>,
    ) -> Result<Response<v1::GetVolumeResponse>, Status> {
        require(&request, Role::View)?;
        let volume = self.0.volume(&request.into_inner().name).await?;
        Ok(Response::new(v1::GetVolumeResponse {
            volume: Some(convert::volume(volume)),
        }))
    }

    async fn hand_over_volume(
        &self,
        request: Request<v1::HandOverVolumeRequest>,
    ) -> Result<Response<v1::HandOverVolumeResponse>, Status> {
        require(&request, Role::Admin)?;
        let (volume, paused) = self.0.hand_over(&request.into_inner().name).await?;
        let paused_us = u64::try_from(paused.as_micros()).unwrap_or(u64::MAX);
        Ok(Response::new(v1::HandOverVolumeResponse {
            volume: Some(convert::volume(volume)),
            paused: Some(convert::duration(paused_us)),
        }))
    }

    async fn reset_tracking(
        &self,
        request: Request<v1::ResetTrackingRequest>,
    ) -> Result<Response<v1::ResetTrackingResponse>, Status> {
        require(&request, Role::Admin)?;
        let asked = request.into_inner();
        let volume = self.0.reset_tracking(&asked.name, &asked.reason).await?;
        Ok(Response::new(v1::ResetTrackingResponse {
            volume: Some(convert::volume(volume)),
        }))
    }
}

fn attach_args(asked: v1::AttachVolumeRequest) -> Result<AttachArgs, Error> {
    let store = asked
        .store
        .ok_or_else(|| Error::invalid("store", "name the area file, on another file system"))?;
    let policy = match convert::known("store.full_policy", store.full_policy)? {
        v1::FullPolicy::Unspecified | v1::FullPolicy::Drop => FullPolicy::Drop,
        v1::FullPolicy::Slow => {
            let delay = store.max_write_delay.unwrap_or_default();
            let delay: Duration = convert::span("store.max_write_delay", delay)?;
            FullPolicy::Slow {
                max_write_delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            }
        }
    };
    let transport = match convert::known("transport", asked.transport)? {
        v1::TransportKind::Unspecified => Transport::Auto,
        v1::TransportKind::Portable => Transport::Portable,
        v1::TransportKind::Ublk => Transport::Ublk,
    };
    let durability = match convert::known("store.durability", store.durability)? {
        v1::TrackingDurability::Unspecified => Durability::Auto,
        v1::TrackingDurability::Volatile => Durability::Volatile,
        v1::TrackingDurability::Durable => Durability::Durable,
        v1::TrackingDurability::Suspended => {
            let why = "nobody can ask for SUSPENDED: VOLATILE or DURABLE";
            return Err(Error::invalid("store.durability", why));
        }
    };
    if store.durable_snapshots && durability == Durability::Volatile {
        let why = "snapshots outlive the host only where tracking does: ask for DURABLE too";
        return Err(Error::invalid("store.durable_snapshots", why));
    }
    Ok(AttachArgs {
        transport,
        durability,
        durable_snapshots: store.durable_snapshots,
        name: asked.name,
        origin_path: asked.origin_path.into(),
        block_bytes: asked.block_bytes,
        area_path: store.area_path.into(),
        area_size_bytes: store.area_size_bytes,
        policy,
        request_id: asked.request_id,
    })
}
