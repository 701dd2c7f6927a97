//! Repositories, recovery points and what jobs on them gave, as JSON.

use serde_json::{Value, json};
use tidemark_proto::v1::{
    BackupResult, CheckResult, CopyResult, PointStats, PointWork, PruneResult, RecoveryPoint,
    RepairResult, Repository, RestorePointResult, S3Options, SecretSource, StatsResult,
    operation::Result as JobResult, secret_source::Source,
};

use super::{checkpoint, span_us, time, trust_name};

/// A repository. Of its key, only where it comes from.
pub(crate) fn repository(repository: &Repository) -> Value {
    json!({
        "name": repository.name,
        "location": repository.location,
        "s3": repository.s3.as_ref().map(s3),
        "encrypted": repository.key.is_some(),
        "key": repository.key.as_ref().map_or(Value::Null, secret),
        "append_only": repository.append_only,
        "id": repository.id,
    })
}

fn s3(options: &S3Options) -> Value {
    json!({
        "endpoint": options.endpoint,
        "region": options.region,
        "path_style": options.path_style,
        "allow_http": options.allow_http,
        "credentials_file": options.credentials_file,
        "instance_credentials": options.instance_credentials,
    })
}

fn secret(key: &SecretSource) -> Value {
    match &key.source {
        Some(Source::PasswordFile(path)) => json!({ "password_file": path }),
        Some(Source::PasswordCommand(command)) => json!({ "password_command": command }),
        Some(Source::PasswordCredential(name)) => json!({ "password_credential": name }),
        Some(Source::KeyFile(path)) => json!({ "key_file": path }),
        Some(Source::KeyCredential(name)) => json!({ "key_credential": name }),
        Some(Source::MasterKeyFile(path)) => json!({ "master_key_file": path }),
        None => json!({}),
    }
}

/// A recovery point.
pub(crate) fn point(point: &RecoveryPoint) -> Value {
    json!({
        "id": point.id,
        "name": point.name,
        "volume_id": point.volume_id,
        "host": point.host,
        "created_at": time(point.created_at.as_ref()),
        "capacity_bytes": point.capacity_bytes,
        "block_bytes": point.block_bytes,
        "checkpoint": checkpoint(point.checkpoint.as_ref()),
        "snapshot_id": point.snapshot_id,
        "base_id": point.base_id,
        "full_reason": point.full_reason,
        "trust": trust_name(point.trust),
        "work": point.work.as_ref().map(work),
        "tags": point.tags,
    })
}

fn work(work: &PointWork) -> Value {
    json!({
        "read_bytes": work.read_bytes,
        "changed_bytes": work.changed_bytes,
        "new_bytes": work.new_bytes,
        "stored_bytes": work.stored_bytes,
        "took_us": span_us(work.took.as_ref()),
    })
}

/// What a job gave; which fields there are depends on the operation's kind.
pub(crate) fn result(result: &JobResult) -> Value {
    match result {
        JobResult::Backup(BackupResult { points }) => {
            json!({ "points": points.iter().map(point).collect::<Vec<_>>() })
        }
        JobResult::RestorePoint(RestorePointResult {
            written_bytes,
            data_bytes,
        }) => json!({ "written_bytes": written_bytes, "data_bytes": data_bytes }),
        JobResult::Prune(result) => prune(result),
        JobResult::Check(result) => check(result),
        JobResult::Repair(result) => repair(result),
        JobResult::Copy(CopyResult { copied }) => {
            let each = copied
                .iter()
                .map(|copied| json!({ "point_id": copied.point_id, "copy_id": copied.copy_id }));
            json!({ "copied": each.collect::<Vec<_>>() })
        }
        JobResult::Stats(result) => stats(result),
    }
}

fn prune(result: &PruneResult) -> Value {
    json!({
        "deleted_packs": result.deleted_packs,
        "deleted_bytes": result.deleted_bytes,
        "pardoned_packs": result.pardoned_packs,
        "condemned_packs": result.condemned_packs,
        "condemned_bytes": result.condemned_bytes,
        "moved_bytes": result.moved_bytes,
    })
}

fn check(result: &CheckResult) -> Value {
    let findings = result
        .findings
        .iter()
        .map(|finding| json!({ "message": finding.message, "point_ids": finding.point_ids }));
    json!({
        "findings": findings.collect::<Vec<_>>(),
        "total_findings": result.total_findings,
        "points": result.points,
        "packs": result.packs,
        "read_bytes": result.read_bytes,
    })
}

fn repair(result: &RepairResult) -> Value {
    json!({
        "fetched_blobs": result.fetched_blobs,
        "lost_blobs": result.lost_blobs,
        "replaced_packs": result.replaced_packs,
        "replaced_indexes": result.replaced_indexes,
        "fetched_point_ids": result.fetched_point_ids,
        "lost_point_ids": result.lost_point_ids,
    })
}

fn stats(result: &StatsResult) -> Value {
    let points = result.points.iter().map(|stats: &PointStats| {
        json!({
            "point": stats.point.as_ref().map(point),
            "changed_permille": stats.changed_permille,
        })
    });
    json!({
        "points": points.collect::<Vec<_>>(),
        "image_bytes": result.image_bytes,
        "packs": result.packs,
        "stored_bytes": result.stored_bytes,
        "needed_bytes": result.needed_bytes,
        "plain_bytes": result.plain_bytes,
        "condemned_packs": result.condemned_packs,
    })
}
