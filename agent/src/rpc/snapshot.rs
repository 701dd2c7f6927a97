//! SnapshotService.

use std::sync::Arc;

use tidemark_proto::v1::{self, snapshot_service_server::SnapshotService};
use tonic::{Request, Response, Status};

use super::{
    auth::{Role, require},
    convert,
};
use crate::manager::{CreateArgs, Error, Manager};

pub(super) struct Snapshots(pub(super) Arc<Manager>);

#[tonic::async_trait]
impl SnapshotService for Snapshots {
    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        require(&request, Role::Backup)?;
        let args = create_args(request.into_inner())?;
        let snapshots = self.0.create_snapshots(args).await?;
        Ok(Response::new(v1::CreateSnapshotResponse {
            snapshots: snapshots.into_iter().map(convert::snapshot).collect(),
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::GetSnapshotResponse>, Status> {
        require(&request, Role::View)?;
        let snapshot = self.0.snapshot(&request.into_inner().id).await?;
        Ok(Response::new(v1::GetSnapshotResponse {
            snapshot: Some(convert::snapshot(snapshot)),
        }))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        require(&request, Role::View)?;
        let asked = request.into_inner();
        let volume = Some(asked.volume.as_str()).filter(|name| !name.is_empty());
        let snapshots = self.0.snapshots(volume, asked.include_gone).await?;
        Ok(Response::new(v1::ListSnapshotsResponse {
            snapshots: snapshots.into_iter().map(convert::snapshot).collect(),
        }))
    }

    async fn release_snapshot(
        &self,
        request: Request<v1::ReleaseSnapshotRequest>,
    ) -> Result<Response<v1::ReleaseSnapshotResponse>, Status> {
        require(&request, Role::Backup)?;
        let snapshot = self.0.release_snapshot(&request.into_inner().id).await?;
        Ok(Response::new(v1::ReleaseSnapshotResponse {
            snapshot: Some(convert::snapshot(snapshot)),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<v1::DeleteSnapshotRequest>,
    ) -> Result<Response<v1::DeleteSnapshotResponse>, Status> {
        require(&request, Role::Backup)?;
        self.0.delete_snapshot(&request.into_inner().id).await?;
        Ok(Response::new(v1::DeleteSnapshotResponse {}))
    }

    async fn renew_lease(
        &self,
        request: Request<v1::RenewLeaseRequest>,
    ) -> Result<Response<v1::RenewLeaseResponse>, Status> {
        require(&request, Role::Backup)?;
        let asked = request.into_inner();
        let lease = asked
            .lease
            .ok_or_else(|| Error::invalid("lease", "say for how long from now"))?;
        let lease = convert::span("lease", lease)?;
        let expires_us = self.0.renew_lease(&asked.id, lease).await?;
        Ok(Response::new(v1::RenewLeaseResponse {
            lease_expires_at: expires_us.map(convert::timestamp),
        }))
    }
}

fn create_args(asked: v1::CreateSnapshotRequest) -> Result<CreateArgs, Error> {
    let span = |field, time: Option<prost_types::Duration>| {
        time.map(|time| convert::span(field, time)).transpose()
    };
    let freeze = match convert::known("freeze", asked.freeze)? {
        v1::FreezeMode::Unspecified => v1::FreezeMode::Auto,
        mode => mode,
    };
    Ok(CreateArgs {
        volumes: asked.volumes,
        group: asked.group,
        freeze,
        lease: span("lease", asked.lease)?.filter(|lease| !lease.is_zero()),
        labels: asked.labels.into_iter().collect(),
        request_id: asked.request_id,
        max_freeze: span("max_freeze", asked.max_freeze)?,
    })
}
