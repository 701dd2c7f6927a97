//! The calls that the fake daemon answers; the others say that they are not implemented.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidemark_proto::v1::{
    AttachVolumeRequest, AttachVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse,
    DataHeader, DeleteCheckpointRequest, DeleteCheckpointResponse, DeleteSnapshotRequest,
    DeleteSnapshotResponse, DetachVolumeRequest, DetachVolumeResponse, ErrorReason,
    EstimateChangesRequest, EstimateChangesResponse, GetSnapshotRequest, GetSnapshotResponse,
    GetVolumeRequest, GetVolumeResponse, HandOverVolumeRequest, HandOverVolumeResponse,
    HashExtentsRequest, HashExtentsResponse, ListAllocatedExtentsRequest,
    ListAllocatedExtentsResponse, ListCandidatesRequest, ListCandidatesResponse,
    ListChangedExtentsRequest, ListChangedExtentsResponse, ListCheckpointsRequest,
    ListCheckpointsResponse, ListSnapshotsRequest, ListSnapshotsResponse, ListVolumesRequest,
    ListVolumesResponse, ReadExtentsRequest, ReadExtentsResponse, ReleaseSnapshotRequest,
    ReleaseSnapshotResponse, RenewLeaseRequest, RenewLeaseResponse, ResetTrackingRequest,
    ResetTrackingResponse, StreamDataRequest, StreamDataResponse,
    change_service_server::ChangeService, checkpoint_service_server::CheckpointService,
    data_service_server::DataService, snapshot_service_server::SnapshotService,
    stream_data_response::Part, volume_service_server::VolumeService,
};
use tokio_stream::{Stream, StreamExt, iter};
use tonic::{Request, Response, Status};

use super::model::{Asked, Injected, Model, refuse};

/// What a streaming call answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All services over one model.
#[derive(Clone)]
pub(super) struct Service {
    model: Arc<Mutex<Model>>,
}

impl Service {
    pub(super) fn new(model: Arc<Mutex<Model>>) -> Self {
        Self { model }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Methods that no test needs.
macro_rules! not_here {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        $(
            fn $name<'life0, 'async_trait>(
                &'life0 self,
                _: Request<$request>,
            ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
            }
        )*
    };
}
pub(super) use not_here;

#[tonic::async_trait]
impl VolumeService for Service {
    async fn list_volumes(
        &self,
        _: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let volumes = vec![self.model().volume()];
        Ok(Response::new(ListVolumesResponse { volumes }))
    }

    async fn get_volume(
        &self,
        request: Request<GetVolumeRequest>,
    ) -> Result<Response<GetVolumeResponse>, Status> {
        if request.into_inner().name != "vol" {
            return Err(refuse(ErrorReason::VolumeNotFound, "no such volume"));
        }
        let volume = Some(self.model().volume());
        Ok(Response::new(GetVolumeResponse { volume }))
    }

    not_here! {
        list_candidates(ListCandidatesRequest) -> ListCandidatesResponse;
        attach_volume(AttachVolumeRequest) -> AttachVolumeResponse;
        detach_volume(DetachVolumeRequest) -> DetachVolumeResponse;
        reset_tracking(ResetTrackingRequest) -> ResetTrackingResponse;
        hand_over_volume(HandOverVolumeRequest) -> HandOverVolumeResponse;
    }
}

#[tonic::async_trait]
impl SnapshotService for Service {
    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let snapshot = self.model().cut(request.into_inner().lease.is_some());
        Ok(Response::new(CreateSnapshotResponse {
            snapshots: vec![snapshot],
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let snapshot = Some(self.model().describe(&request.into_inner().id)?);
        Ok(Response::new(GetSnapshotResponse { snapshot }))
    }

    async fn release_snapshot(
        &self,
        request: Request<ReleaseSnapshotRequest>,
    ) -> Result<Response<ReleaseSnapshotResponse>, Status> {
        let id = request.into_inner().id;
        let mut model = self.model();
        if let Some(snap) = model.snapshots.get_mut(&id) {
            snap.readable = false;
        }
        let snapshot = Some(model.describe(&id)?);
        Ok(Response::new(ReleaseSnapshotResponse { snapshot }))
    }

    async fn renew_lease(
        &self,
        request: Request<RenewLeaseRequest>,
    ) -> Result<Response<RenewLeaseResponse>, Status> {
        self.model().snap(&request.into_inner().id)?;
        Ok(Response::new(RenewLeaseResponse::default()))
    }

    not_here! {
        list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse;
        delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse;
    }
}

#[tonic::async_trait]
impl CheckpointService for Service {
    async fn delete_checkpoint(
        &self,
        request: Request<DeleteCheckpointRequest>,
    ) -> Result<Response<DeleteCheckpointResponse>, Status> {
        let point = request.into_inner().checkpoint.unwrap_or_default();
        self.model().checkpoints.remove(&point.epoch);
        Ok(Response::new(DeleteCheckpointResponse {}))
    }

    not_here! {
        list_checkpoints(ListCheckpointsRequest) -> ListCheckpointsResponse;
    }
}

#[tonic::async_trait]
impl ChangeService for Service {
    type ListAllocatedExtentsStream = Answers<ListAllocatedExtentsResponse>;
    type ListChangedExtentsStream = Answers<ListChangedExtentsResponse>;

    not_here! {
        estimate_changes(EstimateChangesRequest) -> EstimateChangesResponse;
        list_allocated_extents(ListAllocatedExtentsRequest) -> Self::ListAllocatedExtentsStream;
        list_changed_extents(ListChangedExtentsRequest) -> Self::ListChangedExtentsStream;
    }
}

#[tonic::async_trait]
impl DataService for Service {
    type StreamDataStream = Answers<StreamDataResponse>;
    type ReadExtentsStream = Answers<ReadExtentsResponse>;
    type HashExtentsStream = Answers<HashExtentsResponse>;

    async fn stream_data(
        &self,
        request: Request<StreamDataRequest>,
    ) -> Result<Response<Self::StreamDataStream>, Status> {
        let request = request.into_inner();
        let mut model = self.model();
        model.asked.push(Asked {
            snapshot_id: request.snapshot_id.clone(),
            since: request.since.as_ref().map(|since| since.epoch),
            start: request.start_offset_bytes,
        });
        let blocks = model.blocks(&request.snapshot_id, request.since.as_ref())?;
        let fault = model.faults.pop_front().unwrap_or(Injected::Fine);
        let zstd = request.compression == 2;
        let (batches, trailer) = model.stream(
            &request.snapshot_id,
            &blocks,
            request.start_offset_bytes,
            zstd,
        );
        let snapshot = model.describe(&request.snapshot_id)?;
        let header = DataHeader {
            snapshot_id: request.snapshot_id,
            volume: snapshot.volume,
            capacity_bytes: snapshot.capacity_bytes,
            block_bytes: snapshot.block_bytes,
            checkpoint: snapshot.checkpoint,
            since: request.since,
            ..Default::default()
        };
        let mut parts = vec![Part::Header(header)];
        parts.extend(batches.into_iter().map(Part::Batch));
        parts.push(Part::Trailer(trailer));
        Ok(Response::new(spoil(parts, fault)))
    }

    async fn hash_extents(
        &self,
        request: Request<HashExtentsRequest>,
    ) -> Result<Response<Self::HashExtentsStream>, Status> {
        let request = request.into_inner();
        let model = self.model();
        let data = &model.snap(&request.snapshot_id)?.data;
        let piece = usize::try_from(request.piece_bytes).unwrap();
        let start = usize::try_from(request.start_offset_bytes).unwrap();
        let mut hashes: Vec<[u8; 32]> = data[start..]
            .chunks(piece)
            .map(|piece| *blake3::hash(piece).as_bytes())
            .collect();
        if model.wrong_hashes
            && let Some(last) = hashes.last_mut()
        {
            last[0] ^= 1;
        }
        let message = HashExtentsResponse {
            capacity_bytes: data.len() as u64,
            piece_bytes: request.piece_bytes,
            offset_bytes: request.start_offset_bytes,
            blake3: hashes
                .into_iter()
                .map(|hash| hash.to_vec().into())
                .collect(),
        };
        Ok(Response::new(Box::pin(iter([Ok(message)]))))
    }

    not_here! {
        read_extents(ReadExtentsRequest) -> Self::ReadExtentsStream;
    }
}

/// Does to a stream what was ordered.
pub(super) fn spoil(mut parts: Vec<Part>, fault: Injected) -> Answers<StreamDataResponse> {
    let mut end: Option<Result<StreamDataResponse, Status>> = None;
    let mut stalls = false;
    match fault {
        Injected::Fine => {}
        Injected::Cut(batches) => {
            parts.truncate(batches + 1);
            end = Some(Err(Status::unavailable("cut")));
        }
        Injected::Truncate(batches) => parts.truncate(batches + 1),
        Injected::Stall(batches) => {
            parts.truncate(batches + 1);
            stalls = true;
        }
        Injected::Corrupt(batch) => {
            if let Some(Part::Batch(batch)) = parts.get_mut(batch + 1) {
                for extent in batch
                    .extents
                    .iter_mut()
                    .filter(|extent| !extent.data.is_empty())
                    .take(1)
                {
                    let mut bytes = extent.data.to_vec();
                    bytes[0] ^= 1;
                    extent.data = bytes.into();
                }
            }
        }
        Injected::WrongDigest => {
            if let Some(Part::Trailer(trailer)) = parts.last_mut() {
                trailer.digest = vec![0; 32].into();
            }
        }
    }
    let good = parts
        .into_iter()
        .map(|part| Ok(StreamDataResponse { part: Some(part) }));
    let stream = iter(good.chain(end));
    if stalls {
        Box::pin(stream.chain(tokio_stream::pending()))
    } else {
        Box::pin(stream)
    }
}
