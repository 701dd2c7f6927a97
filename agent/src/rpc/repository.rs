//! RepositoryService.

use std::{path::PathBuf, time::Duration};

use tidemark_proto::v1::{
    self, forget_points_response, repository_service_server::RepositoryService,
    restore_point_request::Target, secret_source::Source,
    stream_point_response::Part as StreamPart,
};
use tonic::{Request, Response, Status};

use super::{
    auth::{Role, require, role},
    convert,
    data::{Answers, answer},
    operation::operation_to_wire,
};
use crate::{
    backup::{
        BackupArgs, Backups, CheckArgs, CopyArgs, Filter, ForgetArgs, Key, Known, Location, Policy,
        PruneArgs, RestoreArgs, S3Options, SecretSource, Subject,
    },
    manager::{Error, operations::OperationStatus, restores::Destination, streams::Part},
};

pub(super) struct Repositories(pub(super) Backups);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RepositoryService for Repositories {
    type StreamPointStream = Answers<v1::StreamPointResponse>;

    async fn init_repository(
        &self,
        request: Request<v1::InitRepositoryRequest>,
    ) -> Answer<v1::InitRepositoryResponse> {
        require(&request, Role::Admin)?;
        let wanted = known(request.into_inner().repository)?;
        let repository = Some(to_wire(self.0.init(wanted).await?));
        Ok(Response::new(v1::InitRepositoryResponse { repository }))
    }

    async fn add_repository(
        &self,
        request: Request<v1::AddRepositoryRequest>,
    ) -> Answer<v1::AddRepositoryResponse> {
        require(&request, Role::Admin)?;
        let wanted = known(request.into_inner().repository)?;
        let repository = Some(to_wire(self.0.add(wanted).await?));
        Ok(Response::new(v1::AddRepositoryResponse { repository }))
    }

    async fn remove_repository(
        &self,
        request: Request<v1::RemoveRepositoryRequest>,
    ) -> Answer<v1::RemoveRepositoryResponse> {
        require(&request, Role::Admin)?;
        self.0.remove(&request.into_inner().name).await?;
        Ok(Response::new(v1::RemoveRepositoryResponse {}))
    }

    async fn list_repositories(
        &self,
        request: Request<v1::ListRepositoriesRequest>,
    ) -> Answer<v1::ListRepositoriesResponse> {
        require(&request, Role::View)?;
        let whole = role(&request) == Some(Role::Admin);
        let mut repositories = self.0.list().await?;
        for known in repositories.iter_mut().filter(|_| !whole) {
            known.hide_command();
        }
        let repositories = repositories.into_iter().map(to_wire).collect();
        Ok(Response::new(v1::ListRepositoriesResponse { repositories }))
    }

    async fn list_repository_keys(
        &self,
        request: Request<v1::ListRepositoryKeysRequest>,
    ) -> Answer<v1::ListRepositoryKeysResponse> {
        require(&request, Role::Admin)?;
        let keys = self.0.keys(&request.into_inner().repository).await?;
        let keys = keys.into_iter().map(key_to_wire).collect();
        Ok(Response::new(v1::ListRepositoryKeysResponse { keys }))
    }

    async fn add_repository_key(
        &self,
        request: Request<v1::AddRepositoryKeyRequest>,
    ) -> Answer<v1::AddRepositoryKeyResponse> {
        require(&request, Role::Admin)?;
        let asked = request.into_inner();
        let source = source(asked.key)?.ok_or_else(|| Error::invalid("key", "it must be set"))?;
        let key = Some(key_to_wire(
            self.0.add_key(&asked.repository, source).await?,
        ));
        Ok(Response::new(v1::AddRepositoryKeyResponse { key }))
    }

    async fn remove_repository_key(
        &self,
        request: Request<v1::RemoveRepositoryKeyRequest>,
    ) -> Answer<v1::RemoveRepositoryKeyResponse> {
        require(&request, Role::Admin)?;
        let asked = request.into_inner();
        self.0.remove_key(&asked.repository, &asked.id).await?;
        Ok(Response::new(v1::RemoveRepositoryKeyResponse {}))
    }

    async fn export_repository_key(
        &self,
        request: Request<v1::ExportRepositoryKeyRequest>,
    ) -> Answer<v1::ExportRepositoryKeyResponse> {
        require(&request, Role::Admin)?;
        let master = self.0.export_key(&request.into_inner().repository).await?;
        let master_key = master.to_string();
        Ok(Response::new(v1::ExportRepositoryKeyResponse {
            master_key,
        }))
    }

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Answer<v1::BackupResponse> {
        let image = !request.get_ref().image_path.is_empty();
        require(&request, if image { Role::Admin } else { Role::Backup })?;
        let args = backup_args(request.into_inner())?;
        let operation = running(self.0.back_up(args).await?);
        Ok(Response::new(v1::BackupResponse { operation }))
    }

    async fn list_points(
        &self,
        request: Request<v1::ListPointsRequest>,
    ) -> Answer<v1::ListPointsResponse> {
        require(&request, Role::View)?;
        let asked = request.into_inner();
        let (points, damaged) = self
            .0
            .points(&asked.repository, filter(asked.filter))
            .await?;
        Ok(Response::new(v1::ListPointsResponse { points, damaged }))
    }

    async fn stream_point(
        &self,
        request: Request<v1::StreamPointRequest>,
    ) -> Answer<Self::StreamPointStream> {
        require(&request, Role::Backup)?;
        let asked = request.into_inner();
        let opened = self
            .0
            .stream(
                &asked.repository,
                &asked.point_id,
                &filter(asked.filter),
                asked.start_offset_bytes,
                convert::known("compression", asked.compression)?,
            )
            .await?;
        let part = |part| v1::StreamPointResponse { part: Some(part) };
        let first = part(StreamPart::Header(v1::PointHeader {
            point: Some(opened.point),
            operation_id: opened.operation_id,
        }));
        Ok(answer(first, opened.parts, move |next| {
            part(match next {
                Part::Batch(batch) => StreamPart::Batch(batch),
                Part::Trailer(trailer) => StreamPart::Trailer(trailer),
            })
        }))
    }

    async fn restore_point(
        &self,
        request: Request<v1::RestorePointRequest>,
    ) -> Answer<v1::RestorePointResponse> {
        let needed = match &request.get_ref().target {
            Some(Target::Path(_)) => Role::Admin,
            Some(Target::Volume(_)) | None => Role::Restore,
        };
        require(&request, needed)?;
        let args = restore_args(request.into_inner())?;
        let operation = running(self.0.restore(args).await?);
        Ok(Response::new(v1::RestorePointResponse { operation }))
    }

    async fn forget_points(
        &self,
        request: Request<v1::ForgetPointsRequest>,
    ) -> Answer<v1::ForgetPointsResponse> {
        let dry_run = request.get_ref().dry_run;
        require(&request, if dry_run { Role::View } else { Role::Restore })?;
        let args = forget_args(request.into_inner())?;
        let verdicts = self.0.forget(args).await?.into_iter();
        let verdicts = verdicts.map(|verdict| forget_points_response::Verdict {
            point: Some(verdict.point),
            kept_because: verdict.kept_because,
        });
        Ok(Response::new(v1::ForgetPointsResponse {
            verdicts: verdicts.collect(),
        }))
    }

    async fn prune(&self, request: Request<v1::PruneRequest>) -> Answer<v1::PruneResponse> {
        require(&request, Role::Restore)?;
        let asked = request.into_inner();
        let args = PruneArgs {
            repository: asked.repository,
            grace: span("grace", asked.grace)?,
            max_waste_percent: asked.max_waste_percent,
            dry_run: asked.dry_run,
        };
        let operation = running(self.0.prune(args).await?);
        Ok(Response::new(v1::PruneResponse { operation }))
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Answer<v1::CheckResponse> {
        require(&request, Role::Backup)?;
        let asked = request.into_inner();
        let args = CheckArgs {
            repository: asked.repository,
            read_data_percent: asked.read_data_percent,
        };
        let operation = running(self.0.check(args).await?);
        Ok(Response::new(v1::CheckResponse { operation }))
    }

    async fn repair(&self, request: Request<v1::RepairRequest>) -> Answer<v1::RepairResponse> {
        require(&request, Role::Restore)?;
        let asked = request.into_inner();
        let repairing = self.0.repair(asked.repository, asked.second_repository);
        let operation = running(repairing.await?);
        Ok(Response::new(v1::RepairResponse { operation }))
    }

    async fn copy_points(
        &self,
        request: Request<v1::CopyPointsRequest>,
    ) -> Answer<v1::CopyPointsResponse> {
        require(&request, Role::Backup)?;
        let asked = request.into_inner();
        let args = CopyArgs {
            from: asked.repository,
            to: asked.to_repository,
            points: asked.point_ids,
            filter: filter(asked.filter),
        };
        let operation = running(self.0.copy(args).await?);
        Ok(Response::new(v1::CopyPointsResponse { operation }))
    }

    async fn get_stats(
        &self,
        request: Request<v1::GetStatsRequest>,
    ) -> Answer<v1::GetStatsResponse> {
        require(&request, Role::View)?;
        let counting = self.0.stats(request.into_inner().repository);
        let operation = running(counting.await?);
        Ok(Response::new(v1::GetStatsResponse { operation }))
    }
}

fn running(operation: OperationStatus) -> Option<v1::Operation> {
    Some(operation_to_wire(operation))
}

fn span(field: &str, time: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    time.map(|time| convert::span(field, time)).transpose()
}

fn filter(filter: Option<v1::PointFilter>) -> Filter {
    let filter = filter.unwrap_or_default();
    Filter {
        name: filter.name,
        host: filter.host,
        tags: filter.tags,
    }
}

fn known(repository: Option<v1::Repository>) -> Result<Known, Error> {
    let asked = repository.ok_or_else(|| Error::invalid("repository", "it must be set"))?;
    let s3 = asked.s3.unwrap_or_default();
    let options = S3Options {
        endpoint: s3.endpoint,
        region: s3.region,
        path_style: s3.path_style,
        allow_http: s3.allow_http,
        credentials_file: s3.credentials_file,
        instance_credentials: s3.instance_credentials,
    };
    Ok(Known::new(
        asked.name,
        Location::parse(&asked.location, options)?,
        source(asked.key)?,
        asked.append_only,
    ))
}

fn source(key: Option<v1::SecretSource>) -> Result<Option<SecretSource>, Error> {
    let Some(key) = key else {
        return Ok(None);
    };
    // Set to nothing is not the same as unset: no repository is unencrypted by mistake.
    let source = key
        .source
        .ok_or_else(|| Error::invalid("key", "it says nothing of where the key is"))?;
    Ok(Some(match source {
        Source::PasswordFile(path) => SecretSource::PasswordFile(path.into()),
        Source::PasswordCommand(command) => SecretSource::PasswordCommand(command),
        Source::PasswordCredential(name) => SecretSource::PasswordCredential(name),
        Source::KeyFile(path) => SecretSource::KeyFile(path.into()),
        Source::KeyCredential(name) => SecretSource::KeyCredential(name),
        Source::MasterKeyFile(path) => SecretSource::MasterKeyFile(path.into()),
    }))
}

fn source_to_wire(source: SecretSource) -> v1::SecretSource {
    let text = |path: PathBuf| path.display().to_string();
    let source = match source {
        SecretSource::PasswordFile(path) => Source::PasswordFile(text(path)),
        SecretSource::PasswordCommand(command) => Source::PasswordCommand(command),
        SecretSource::PasswordCredential(name) => Source::PasswordCredential(name),
        SecretSource::KeyFile(path) => Source::KeyFile(text(path)),
        SecretSource::KeyCredential(name) => Source::KeyCredential(name),
        SecretSource::MasterKeyFile(path) => Source::MasterKeyFile(text(path)),
    };
    v1::SecretSource {
        source: Some(source),
    }
}

fn to_wire(known: Known) -> v1::Repository {
    let s3 = match &known.location {
        Location::Directory(_) => None,
        Location::S3 { options, .. } => Some(v1::S3Options {
            endpoint: options.endpoint.clone(),
            region: options.region.clone(),
            path_style: options.path_style,
            allow_http: options.allow_http,
            credentials_file: options.credentials_file.clone(),
            instance_credentials: options.instance_credentials,
        }),
    };
    v1::Repository {
        name: known.name,
        location: known.location.text(),
        s3,
        key: known.key.map(source_to_wire),
        append_only: known.append_only,
        id: known.id.to_string(),
    }
}

fn key_to_wire(key: Key) -> v1::RepositoryKey {
    v1::RepositoryKey {
        id: key.id.to_string(),
        kind: key.lock.to_owned(),
    }
}

fn backup_args(asked: v1::BackupRequest) -> Result<BackupArgs, Error> {
    let image = (!asked.image_path.is_empty()).then(|| Subject::Image {
        path: asked.image_path.into(),
        name: asked.image_name,
    });
    let volumes = (!asked.volumes.is_empty()).then_some(Subject::Volumes(asked.volumes));
    let group = (!asked.group.is_empty()).then_some(Subject::Group(asked.group));
    let snapshots =
        (!asked.snapshot_ids.is_empty()).then_some(Subject::Snapshots(asked.snapshot_ids));
    let mut subjects = [volumes, group, snapshots, image].into_iter().flatten();
    let (Some(subject), None) = (subjects.next(), subjects.next()) else {
        let why = "name either volumes, a group, snapshots or an image";
        return Err(Error::invalid("volumes", why));
    };
    Ok(BackupArgs {
        repository: asked.repository,
        subject,
        tags: asked.tags,
        full: asked.full,
        request_id: asked.request_id,
    })
}

fn restore_args(asked: v1::RestorePointRequest) -> Result<RestoreArgs, Error> {
    let destination = match asked.target {
        Some(Target::Volume(name)) => Destination::Volume(name),
        Some(Target::Path(path)) => Destination::Path(path.into()),
        None => return Err(Error::invalid("target", "name a volume or a path")),
    };
    Ok(RestoreArgs {
        repository: asked.repository,
        point: asked.point_id,
        filter: filter(asked.filter),
        destination,
        create: asked.create,
    })
}

fn forget_args(asked: v1::ForgetPointsRequest) -> Result<ForgetArgs, Error> {
    let policy = match asked.policy {
        None => None,
        Some(policy) => Some(Policy {
            last: policy.last,
            hourly: policy.hourly,
            daily: policy.daily,
            weekly: policy.weekly,
            monthly: policy.monthly,
            yearly: policy.yearly,
            within_seconds: span("policy.within", policy.within)?.map(|within| within.as_secs()),
            tags: policy.tags,
        }),
    };
    Ok(ForgetArgs {
        repository: asked.repository,
        points: asked.point_ids,
        policy,
        filter: filter(asked.filter),
        dry_run: asked.dry_run,
    })
}
