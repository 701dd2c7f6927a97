//! The fake daemon's RepositoryService.

use tidemark_proto::v1::{
    AddRepositoryKeyRequest, AddRepositoryKeyResponse, AddRepositoryRequest, AddRepositoryResponse,
    BackupRequest, BackupResponse, BackupResult, CheckRequest, CheckResponse, CheckResult,
    CopyPointsRequest, CopyPointsResponse, CopyResult, ErrorReason, ExportRepositoryKeyRequest,
    ExportRepositoryKeyResponse, ForgetPointsRequest, ForgetPointsResponse, GetStatsRequest,
    GetStatsResponse, InitRepositoryRequest, InitRepositoryResponse, ListPointsRequest,
    ListPointsResponse, ListRepositoriesRequest, ListRepositoriesResponse,
    ListRepositoryKeysRequest, ListRepositoryKeysResponse, OperationKind, PointHeader, PointStats,
    PointWork, PruneRequest, PruneResponse, PruneResult, RecoveryPoint, RemoveRepositoryKeyRequest,
    RemoveRepositoryKeyResponse, RemoveRepositoryRequest, RemoveRepositoryResponse, RepairRequest,
    RepairResponse, RepairResult, Repository, RepositoryKey, RestorePointRequest,
    RestorePointResponse, RestorePointResult, StatsResult, StreamPointRequest, StreamPointResponse,
    copy_result::Copied, forget_points_response::Verdict, operation::Result as JobResult,
    repository_service_server::RepositoryService, stream_data_response::Part,
    stream_point_response::Part as PointPart,
};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::{
    model::{Injected, Model, refuse},
    service::{Answers, Service, spoil},
};

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// Runs `call`, unless this daemon is too old for it.
    fn known<T>(&self, call: impl FnOnce(&mut Model) -> Result<T, Status>) -> Answer<T> {
        let mut model = self.model();
        if model.vault.unknown {
            // As tonic answers for services that it does not know.
            return Err(Status::unimplemented(""));
        }
        call(&mut model).map(Response::new)
    }
}

fn added(model: &mut Model, repository: Option<Repository>) -> Result<Repository, Status> {
    let mut repository = repository.unwrap_or_default();
    if model.vault.repositories.contains_key(&repository.name) {
        return Err(refuse(ErrorReason::RepositoryExists, "the name is taken"));
    }
    repository.id = "5".repeat(32);
    let all = &mut model.vault.repositories;
    all.insert(repository.name.clone(), repository.clone());
    Ok(repository)
}

/// Makes a point of the volume, against its last one.
fn back_up(model: &mut Model, request: &BackupRequest) -> RecoveryPoint {
    let base = model.vault.points.last().cloned();
    let snapshot = model.cut(false);
    let blocks = model.blocks(&snapshot.id, None).unwrap().len() as u64;
    let point = RecoveryPoint {
        id: snapshot.id.clone(),
        name: "vol".to_owned(),
        host: "host".to_owned(),
        capacity_bytes: snapshot.capacity_bytes,
        block_bytes: snapshot.block_bytes,
        checkpoint: snapshot.checkpoint,
        snapshot_id: snapshot.id,
        full_reason: match (&base, request.full) {
            (_, true) => "asked for".to_owned(),
            (None, false) => "the first".to_owned(),
            (Some(_), false) => String::new(),
        },
        base_id: base.map(|base| base.id).unwrap_or_default(),
        work: Some(PointWork {
            read_bytes: blocks * 4096,
            ..Default::default()
        }),
        tags: request.tags.clone(),
        ..Default::default()
    };
    model.vault.points.push(point.clone());
    point
}

#[tonic::async_trait]
impl RepositoryService for Service {
    type StreamPointStream = Answers<StreamPointResponse>;

    async fn init_repository(
        &self,
        request: Request<InitRepositoryRequest>,
    ) -> Answer<InitRepositoryResponse> {
        self.known(|model| {
            let repository = added(model, request.into_inner().repository)?;
            Ok(InitRepositoryResponse {
                repository: Some(repository),
            })
        })
    }

    async fn add_repository(
        &self,
        request: Request<AddRepositoryRequest>,
    ) -> Answer<AddRepositoryResponse> {
        self.known(|model| {
            let repository = added(model, request.into_inner().repository)?;
            Ok(AddRepositoryResponse {
                repository: Some(repository),
            })
        })
    }

    async fn remove_repository(
        &self,
        request: Request<RemoveRepositoryRequest>,
    ) -> Answer<RemoveRepositoryResponse> {
        self.known(|model| {
            let name = request.into_inner().name;
            model.vault.repository(&name)?;
            model.vault.repositories.remove(&name);
            Ok(RemoveRepositoryResponse {})
        })
    }

    async fn list_repositories(
        &self,
        _: Request<ListRepositoriesRequest>,
    ) -> Answer<ListRepositoriesResponse> {
        self.known(|model| {
            let repositories = model.vault.repositories.values().cloned().collect();
            Ok(ListRepositoriesResponse { repositories })
        })
    }

    async fn list_repository_keys(
        &self,
        request: Request<ListRepositoryKeysRequest>,
    ) -> Answer<ListRepositoryKeysResponse> {
        self.known(|model| {
            model.vault.repository(&request.into_inner().repository)?;
            let keys = model.vault.keys.clone();
            Ok(ListRepositoryKeysResponse { keys })
        })
    }

    async fn add_repository_key(
        &self,
        request: Request<AddRepositoryKeyRequest>,
    ) -> Answer<AddRepositoryKeyResponse> {
        self.known(|model| {
            let request = request.into_inner();
            model.vault.repository(&request.repository)?;
            let key = RepositoryKey {
                id: format!("key{}", model.vault.keys.len() + 1),
                kind: format!("{:?}", request.key.unwrap().source.unwrap()),
            };
            model.vault.keys.push(key.clone());
            Ok(AddRepositoryKeyResponse { key: Some(key) })
        })
    }

    async fn remove_repository_key(
        &self,
        request: Request<RemoveRepositoryKeyRequest>,
    ) -> Answer<RemoveRepositoryKeyResponse> {
        self.known(|model| {
            let keys = &mut model.vault.keys;
            if keys.len() < 2 {
                return Err(refuse(ErrorReason::RepositoryKey, "it is the last one"));
            }
            let id = request.into_inner().id;
            keys.retain(|key| key.id != id);
            Ok(RemoveRepositoryKeyResponse {})
        })
    }

    async fn export_repository_key(
        &self,
        request: Request<ExportRepositoryKeyRequest>,
    ) -> Answer<ExportRepositoryKeyResponse> {
        self.known(|model| {
            model.vault.repository(&request.into_inner().repository)?;
            Ok(ExportRepositoryKeyResponse {
                master_key: "7".repeat(72),
            })
        })
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Answer<BackupResponse> {
        self.known(|model| {
            let request = request.into_inner();
            model.vault.repository(&request.repository)?;
            model.vault.asked.push(format!("{request:?}"));
            let points = vec![back_up(model, &request)];
            let result = JobResult::Backup(BackupResult { points });
            let operation = model.vault.begin(OperationKind::Backup, "vol", result);
            Ok(BackupResponse { operation })
        })
    }

    async fn list_points(&self, request: Request<ListPointsRequest>) -> Answer<ListPointsResponse> {
        self.known(|model| {
            let request = request.into_inner();
            model.vault.repository(&request.repository)?;
            Ok(ListPointsResponse {
                points: model.vault.filtered(request.filter.as_ref()),
                damaged: model.vault.damaged.clone(),
            })
        })
    }

    async fn stream_point(
        &self,
        request: Request<StreamPointRequest>,
    ) -> Answer<Self::StreamPointStream> {
        self.known(|model| {
            let request = request.into_inner();
            model.vault.repository(&request.repository)?;
            let start = request.start_offset_bytes;
            model.vault.starts.push((request.point_id.clone(), start));
            let filter = request.filter.as_ref();
            let point = model.vault.point(&request.point_id, filter)?;
            let blocks = model.blocks(&point.id, None)?;
            let fault = model.faults.pop_front().unwrap_or(Injected::Fine);
            let (batches, trailer) = model.stream(&point.id, &blocks, start, false);
            let mut parts = vec![Part::Header(Default::default())];
            parts.extend(batches.into_iter().map(Part::Batch));
            parts.push(Part::Trailer(trailer));
            let header = PointHeader {
                point: Some(point),
                operation_id: "stream".to_owned(),
            };
            let stream = spoil(parts, fault).map(move |answer| {
                let part = match answer?.part {
                    Some(Part::Header(_)) => Some(PointPart::Header(header.clone())),
                    Some(Part::Batch(batch)) => Some(PointPart::Batch(batch)),
                    Some(Part::Trailer(trailer)) => Some(PointPart::Trailer(trailer)),
                    None => None,
                };
                Ok(StreamPointResponse { part })
            });
            Ok(Box::pin(stream) as Self::StreamPointStream)
        })
    }

    async fn restore_point(
        &self,
        request: Request<RestorePointRequest>,
    ) -> Answer<RestorePointResponse> {
        self.known(|model| {
            let request = request.into_inner();
            model.vault.repository(&request.repository)?;
            model
                .vault
                .point(&request.point_id, request.filter.as_ref())?;
            model.vault.asked.push(format!("{request:?}"));
            let result = JobResult::RestorePoint(RestorePointResult::default());
            let operation = model
                .vault
                .begin(OperationKind::RestorePoint, "vol", result);
            Ok(RestorePointResponse { operation })
        })
    }

    async fn forget_points(
        &self,
        request: Request<ForgetPointsRequest>,
    ) -> Answer<ForgetPointsResponse> {
        self.known(|model| {
            let request = request.into_inner();
            model.vault.asked.push(format!("{request:?}"));
            let last = request.policy.as_ref().map_or(0, |policy| policy.last);
            let points = model.vault.filtered(request.filter.as_ref());
            let count = points.len();
            let verdicts = points.into_iter().enumerate().map(|(index, point)| {
                let named = request.point_ids.contains(&point.id);
                let is_last = count - index <= usize::try_from(last).unwrap();
                let kept = if request.policy.is_some() {
                    is_last
                } else {
                    !named
                };
                Verdict {
                    point: Some(point),
                    kept_because: kept.then(|| "last".to_owned()).into_iter().collect(),
                }
            });
            let verdicts: Vec<Verdict> = verdicts.collect();
            if !request.dry_run {
                let kept = verdicts.iter().filter(|said| !said.kept_because.is_empty());
                model.vault.points = kept.filter_map(|said| said.point.clone()).collect();
            }
            Ok(ForgetPointsResponse { verdicts })
        })
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Answer<PruneResponse> {
        self.known(|model| {
            let request = request.into_inner();
            let name = model.vault.repository(&request.repository)?.name.clone();
            model.vault.asked.push(format!("{request:?}"));
            let result = JobResult::Prune(PruneResult {
                dry_run: request.dry_run,
                ..PruneResult::default()
            });
            let operation = model.vault.begin(OperationKind::Prune, &name, result);
            Ok(PruneResponse { operation })
        })
    }

    async fn check(&self, request: Request<CheckRequest>) -> Answer<CheckResponse> {
        self.known(|model| {
            let request = request.into_inner();
            let name = model.vault.repository(&request.repository)?.name.clone();
            model.vault.asked.push(format!("{request:?}"));
            let result = JobResult::Check(CheckResult::default());
            let operation = model.vault.begin(OperationKind::Check, &name, result);
            Ok(CheckResponse { operation })
        })
    }

    async fn repair(&self, request: Request<RepairRequest>) -> Answer<RepairResponse> {
        self.known(|model| {
            let request = request.into_inner();
            let name = model.vault.repository(&request.repository)?.name.clone();
            model.vault.asked.push(format!("{request:?}"));
            let result = JobResult::Repair(RepairResult::default());
            let operation = model.vault.begin(OperationKind::Repair, &name, result);
            Ok(RepairResponse { operation })
        })
    }

    async fn copy_points(&self, request: Request<CopyPointsRequest>) -> Answer<CopyPointsResponse> {
        self.known(|model| {
            let request = request.into_inner();
            model.vault.repository(&request.repository)?;
            let name = model.vault.repository(&request.to_repository)?.name.clone();
            model.vault.asked.push(format!("{request:?}"));
            let points = model.vault.filtered(request.filter.as_ref());
            let copied = points.into_iter().map(|point| Copied {
                copy_id: point.id.clone(),
                point_id: point.id,
            });
            let result = JobResult::Copy(CopyResult {
                copied: copied.collect(),
            });
            let operation = model.vault.begin(OperationKind::CopyPoints, &name, result);
            Ok(CopyPointsResponse { operation })
        })
    }

    async fn get_stats(&self, request: Request<GetStatsRequest>) -> Answer<GetStatsResponse> {
        self.known(|model| {
            let name = request.into_inner().repository;
            model.vault.repository(&name)?;
            let points = model.vault.points.iter().map(|point| PointStats {
                point: Some(point.clone()),
                changed_permille: vec![1, 500],
            });
            let result = JobResult::Stats(StatsResult {
                points: points.collect(),
                ..Default::default()
            });
            let operation = model.vault.begin(OperationKind::Stats, &name, result);
            Ok(GetStatsResponse { operation })
        })
    }
}
