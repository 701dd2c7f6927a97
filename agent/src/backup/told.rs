//! What repositories and jobs tell, as messages of the public contract.

use prost_types::{Duration, Timestamp};
use tidemark_proto::v1;
use tidemark_store::{
    repository::{
        Made, Point, Restored, Trust, Work,
        care::{Checked, Pruned, Repaired},
    },
    units::Id,
};

/// Findings that an answer has room for.
const MAX_FINDINGS: usize = 1000;

fn text(id: Id) -> String {
    match id {
        Id::NIL => String::new(),
        id => id.to_string(),
    }
}

fn texts(ids: &[Id]) -> Vec<String> {
    ids.iter().map(Id::to_string).collect()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// A recovery point.
pub(super) fn point(id: Id, point: &Point) -> v1::RecoveryPoint {
    let tracked = point.lineage != Id::NIL;
    let trust = match point.trust {
        Trust::Exact => v1::Trust::Continuous,
        Trust::Superset => v1::Trust::Superset,
        Trust::Unknown => v1::Trust::Unspecified,
    };
    v1::RecoveryPoint {
        id: id.to_string(),
        name: point.name.clone(),
        volume_id: text(point.volume),
        host: point.host.clone(),
        created_at: Some(Timestamp {
            seconds: i64::try_from(point.created_us / 1_000_000).unwrap_or(i64::MAX),
            nanos: i32::try_from(point.created_us % 1_000_000 * 1000).unwrap_or(0),
        }),
        capacity_bytes: point.capacity,
        block_bytes: point.block_bytes,
        checkpoint: tracked.then(|| v1::Checkpoint {
            lineage: point.lineage.to_string(),
            epoch: point.epoch.0,
        }),
        snapshot_id: text(point.snapshot),
        base_id: text(point.base),
        full_reason: match &point.made {
            Made::Incremental => String::new(),
            Made::Full(why) => why.clone(),
        },
        trust: trust.into(),
        work: Some(work(point.work)),
        tags: point.tags.clone(),
    }
}

fn work(work: Work) -> v1::PointWork {
    v1::PointWork {
        read_bytes: work.read_bytes,
        changed_bytes: work.changed_bytes,
        new_bytes: work.new_bytes,
        stored_bytes: work.stored_bytes,
        took: Some(Duration {
            seconds: i64::try_from(work.milliseconds / 1000).unwrap_or(i64::MAX),
            nanos: i32::try_from(work.milliseconds % 1000 * 1_000_000).unwrap_or(0),
        }),
    }
}

pub(super) fn restored(restored: Restored) -> v1::RestorePointResult {
    v1::RestorePointResult {
        written_bytes: restored.written_bytes,
        data_bytes: restored.data_bytes,
    }
}

pub(super) fn pruned(pruned: &Pruned, dry_run: bool) -> v1::PruneResult {
    v1::PruneResult {
        deleted_packs: count(pruned.deleted_packs),
        deleted_bytes: pruned.deleted_bytes,
        pardoned_packs: count(pruned.pardoned_packs),
        condemned_packs: count(pruned.condemned_packs),
        condemned_bytes: pruned.condemned_bytes,
        moved_bytes: pruned.moved_bytes,
        dry_run,
    }
}

pub(super) fn checked(checked: &Checked) -> v1::CheckResult {
    let findings = checked.findings.iter().take(MAX_FINDINGS);
    v1::CheckResult {
        findings: findings
            .map(|finding| v1::CheckFinding {
                message: finding.error.to_string(),
                point_ids: texts(&finding.points),
            })
            .collect(),
        total_findings: count(checked.findings.len()),
        points: count(checked.points),
        packs: count(checked.packs),
        read_bytes: checked.read_bytes,
    }
}

pub(super) fn repaired(repaired: &Repaired) -> v1::RepairResult {
    v1::RepairResult {
        fetched_blobs: count(repaired.fetched_blobs),
        lost_blobs: count(repaired.lost_blobs),
        replaced_packs: count(repaired.replaced_packs),
        replaced_indexes: count(repaired.replaced_indexes),
        fetched_point_ids: texts(&repaired.fetched_points),
        lost_point_ids: texts(&repaired.lost_points),
    }
}
