//! Messages as JSON: the field names of the contract, enumerations without their prefix,
//! times as RFC 3339, time spans in microseconds.

mod repository;

use serde_json::{Value, json};
use tidemark_proto::v1::{
    Candidate, Checkpoint, CheckpointInfo, ErrorReason, Event, EventKind, ExtentKind, ExtentRange,
    Feature, FullPolicy, GetServerInfoResponse, Group, Operation, OperationKind, OperationState,
    Restore, Severity, Snapshot, SnapshotState, StoreConfig, TrackingDurability, TransportKind,
    Trust, TrustReport, Volume, VolumeState, VolumeStats,
};
use tidemark_proto::v1::{Consistency, RestoreState};

use crate::{exit::reason_name, units};

pub(crate) use repository::{point, repository, result};

/// A moment, or null.
pub(crate) fn time(at: Option<&prost_types::Timestamp>) -> Value {
    at.map_or(Value::Null, |at| json!(at.to_string()))
}

fn span_us(span: Option<&prost_types::Duration>) -> Value {
    span.map_or(Value::Null, |span| {
        let us = units::from_proto(span).as_micros();
        json!(u64::try_from(us).unwrap_or(u64::MAX))
    })
}

macro_rules! enum_names {
    ($($function:ident: $kind:ident, $prefix:literal;)*) => {
        $(
            /// The value's name without its prefix; `UNKNOWN` for one from a newer contract.
            pub(crate) fn $function(value: i32) -> &'static str {
                $kind::try_from(value).map_or("UNKNOWN", |value| {
                    let name = value.as_str_name();
                    name.strip_prefix($prefix).unwrap_or(name)
                })
            }
        )*
    };
}

enum_names! {
    trust_name: Trust, "TRUST_";
    extent_kind: ExtentKind, "EXTENT_KIND_";
    snapshot_state: SnapshotState, "SNAPSHOT_STATE_";
    consistency: Consistency, "CONSISTENCY_";
    volume_state: VolumeState, "VOLUME_STATE_";
    transport: TransportKind, "TRANSPORT_KIND_";
    durability: TrackingDurability, "TRACKING_DURABILITY_";
    full_policy: FullPolicy, "FULL_POLICY_";
    operation_kind: OperationKind, "OPERATION_KIND_";
    operation_state: OperationState, "OPERATION_STATE_";
    event_kind: EventKind, "EVENT_KIND_";
    severity: Severity, "SEVERITY_";
    restore_state: RestoreState, "RESTORE_STATE_";
}

/// A point of a lineage, or null.
pub(crate) fn checkpoint(point: Option<&Checkpoint>) -> Value {
    point.map_or(
        Value::Null,
        |point| json!({ "lineage": point.lineage, "epoch": point.epoch }),
    )
}

/// A checkpoint with its record.
pub(crate) fn checkpoint_info(info: &CheckpointInfo) -> Value {
    json!({
        "checkpoint": checkpoint(info.checkpoint.as_ref()),
        "created_at": time(info.created_at.as_ref()),
        "snapshot_id": info.snapshot_id,
    })
}

/// How far a diff can be trusted, or null.
pub(crate) fn trust(report: Option<&TrustReport>) -> Value {
    report.map_or(Value::Null, |report| {
        json!({
            "trust": trust_name(report.trust),
            "reason": report.reason,
            "over_report_bound_bytes": report.over_report_bound_bytes,
            "since": time(report.since.as_ref()),
        })
    })
}

/// One extent.
pub(crate) fn extent(extent: &ExtentRange) -> Value {
    json!({
        "offset_bytes": extent.offset_bytes,
        "length_bytes": extent.length_bytes,
        "kind": extent_kind(extent.kind),
    })
}

/// A snapshot.
pub(crate) fn snapshot(snapshot: &Snapshot) -> Value {
    json!({
        "id": snapshot.id,
        "set_id": snapshot.set_id,
        "volume": snapshot.volume,
        "checkpoint": checkpoint(snapshot.checkpoint.as_ref()),
        "state": snapshot_state(snapshot.state),
        "state_reason": snapshot.state_reason,
        "consistency": consistency(snapshot.consistency),
        "capacity_bytes": snapshot.capacity_bytes,
        "block_bytes": snapshot.block_bytes,
        "created_at": time(snapshot.created_at.as_ref()),
        "lease_expires_at": time(snapshot.lease_expires_at.as_ref()),
        "view_path": snapshot.view_path,
        "held_us": span_us(snapshot.held.as_ref()),
        "frozen_us": span_us(snapshot.frozen.as_ref()),
        "labels": snapshot.labels,
        "preserved_bytes": snapshot.preserved_bytes,
    })
}

fn store(config: Option<&StoreConfig>) -> Value {
    config.map_or(Value::Null, |config| {
        json!({
            "area_path": config.area_path,
            "area_size_bytes": config.area_size_bytes,
            "area_logical_volume": config.logical_volume.as_ref().map(|made| &made.name),
            "full_policy": full_policy(config.full_policy),
            "max_write_delay_us": span_us(config.max_write_delay.as_ref()),
        })
    })
}

fn stats(stats: Option<&VolumeStats>) -> Value {
    stats.map_or(Value::Null, |stats| {
        json!({
            "read_requests": stats.read_requests,
            "read_bytes": stats.read_bytes,
            "write_requests": stats.write_requests,
            "write_bytes": stats.write_bytes,
            "flush_requests": stats.flush_requests,
            "discard_bytes": stats.discard_bytes,
            "zeroed_bytes": stats.zeroed_bytes,
            "preserved_bytes": stats.preserved_bytes,
            "delayed_us": span_us(stats.delayed.as_ref()),
        })
    })
}

/// A volume.
pub(crate) fn volume(volume: &Volume) -> Value {
    json!({
        "name": volume.name,
        "id": volume.id,
        "origin_path": volume.origin_path,
        "capacity_bytes": volume.capacity_bytes,
        "block_bytes": volume.block_bytes,
        "transport": transport(volume.transport),
        "state": volume_state(volume.state),
        "device_path": volume.device_path,
        "live_path": volume.live_path,
        "mount_points": volume.mount_points,
        "store": store(volume.store.as_ref()),
        "store_status": volume.store_status.as_ref().map(|status| json!({
            "capacity_bytes": status.capacity_bytes,
            "used_bytes": status.used_bytes,
        })),
        "trust": trust(volume.trust.as_ref()),
        "lineage": volume.lineage,
        "current_epoch": volume.current_epoch,
        "stats": stats(volume.stats.as_ref()),
        "live_snapshots": volume.live_snapshots,
        "checkpoints": volume.checkpoints,
        "attached_at": time(volume.attached_at.as_ref()),
        "server_pid": volume.server_pid,
        "changed_bytes_in_epoch": volume.changed_bytes_in_epoch,
        "durability": durability(volume.durability),
        "durability_reason": volume.durability_reason,
    })
}

/// A device that could be a volume.
pub(crate) fn candidate(candidate: &Candidate) -> Value {
    json!({
        "path": candidate.path,
        "capacity_bytes": candidate.capacity_bytes,
        "attachable": candidate.attachable,
        "reason": candidate.reason,
    })
}

/// A group.
pub(crate) fn group(group: &Group) -> Value {
    json!({ "name": group.name, "volumes": group.volumes })
}

/// An operation.
pub(crate) fn operation(operation: &Operation) -> Value {
    let reason = match operation.error_reason {
        0 => Value::Null,
        number => ErrorReason::try_from(number)
            .map_or(json!("UNKNOWN"), |reason| json!(reason_name(reason))),
    };
    json!({
        "id": operation.id,
        "kind": operation_kind(operation.kind),
        "state": operation_state(operation.state),
        "subject": operation.subject,
        "done_bytes": operation.done_bytes,
        "total_bytes": operation.total_bytes,
        "started_at": time(operation.started_at.as_ref()),
        "ended_at": time(operation.ended_at.as_ref()),
        "error_reason": reason,
        "error_message": operation.error_message,
        "result": operation.result.as_ref().map_or(Value::Null, result),
    })
}

/// An event.
pub(crate) fn event(event: &Event) -> Value {
    json!({
        "sequence": event.sequence,
        "at": time(event.at.as_ref()),
        "kind": event_kind(event.kind),
        "severity": severity(event.severity),
        "volume": event.volume,
        "snapshot_id": event.snapshot_id,
        "message": event.message,
    })
}

/// A restore session.
pub(crate) fn restore(restore: &Restore) -> Value {
    json!({
        "id": restore.id,
        "state": restore_state(restore.state),
        "capacity_bytes": restore.capacity_bytes,
        "written_bytes": restore.written_bytes,
        "extents": restore.extents,
        "expires_at": time(restore.expires_at.as_ref()),
    })
}

/// Something that the host may be able to do.
pub(crate) fn feature(feature: &Feature) -> Value {
    json!({
        "name": feature.name,
        "available": feature.available,
        "reason": feature.reason,
    })
}

/// What the agent says about itself.
pub(crate) fn server_info(info: &GetServerInfoResponse) -> Value {
    json!({
        "version": info.version,
        "api_version": info.api_version,
        "kernel_release": info.kernel_release,
        "started_at": time(info.started_at.as_ref()),
        "features": info.features.iter().map(feature).collect::<Vec<_>>(),
        "limits": info.limits.as_ref().map(|limits| json!({
            "max_batch_bytes": limits.max_batch_bytes,
            "max_concurrent_streams": limits.max_concurrent_streams,
            "max_snapshots_per_volume": limits.max_snapshots_per_volume,
            "max_checkpoints_per_volume": limits.max_checkpoints_per_volume,
            "min_block_bytes": limits.min_block_bytes,
            "max_block_bytes": limits.max_block_bytes,
        })),
        "configuration": info.configuration.as_ref().map(|status| json!({
            "path": status.path,
            "loaded_at": time(status.loaded_at.as_ref()),
            "problems": status.problems,
        })),
    })
}
