//! The manager's words to and from messages.

use std::time::Duration;

use prost_types::Timestamp;
use tidemark_proto::v1;
use tidemark_store::catalog::{self, Durability, FullPolicy, VolumeRecord};

use crate::manager::{Checkpoint, Error, LiveVolume, Snapshot, Trust, Volume};

/// Microseconds since the UNIX epoch as a timestamp.
pub(super) fn timestamp(us: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(us % 1_000_000 * 1000).unwrap_or(0),
    }
}

/// Microseconds as a duration.
pub(super) fn duration(us: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(us % 1_000_000 * 1000).unwrap_or(0),
    }
}

/// A span of time from a message; negative ones are refused.
pub(super) fn span(field: &str, time: prost_types::Duration) -> Result<Duration, Error> {
    Duration::try_from(time).map_err(|_| Error::invalid(field, "it is negative or no span of time"))
}

/// An enum's number that no version of it has is refused.
pub(super) fn known<T: TryFrom<i32>>(field: &str, number: i32) -> Result<T, Error> {
    T::try_from(number).map_err(|_| Error::invalid(field, format!("{number} has no meaning")))
}

pub(super) fn checkpoint(checkpoint: Checkpoint) -> v1::Checkpoint {
    v1::Checkpoint {
        lineage: checkpoint.lineage.to_string(),
        epoch: checkpoint.epoch.0,
    }
}

/// A checkpoint from a message; it must be set.
pub(super) fn read_checkpoint(
    field: &str,
    message: Option<v1::Checkpoint>,
) -> Result<Checkpoint, Error> {
    let message = message.ok_or_else(|| Error::invalid(field, "it must be set"))?;
    crate::manager::checkpoint(field, &message.lineage, message.epoch)
}

pub(super) fn trust(trust: Trust) -> v1::TrustReport {
    v1::TrustReport {
        trust: trust.level.into(),
        reason: trust.reason,
        over_report_bound_bytes: trust.over_report_bound_bytes,
        since: Some(timestamp(trust.since_us)),
    }
}

pub(super) fn snapshot(snapshot: Snapshot) -> v1::Snapshot {
    let point = checkpoint(snapshot.checkpoint());
    let record = snapshot.record;
    let state = match record.state {
        catalog::SnapshotState::Ready => v1::SnapshotState::Ready,
        catalog::SnapshotState::Released => v1::SnapshotState::Released,
        catalog::SnapshotState::Overflowed => v1::SnapshotState::Overflowed,
        catalog::SnapshotState::Lost => v1::SnapshotState::Lost,
    };
    let consistency = match record.consistency {
        catalog::Consistency::Crash => v1::Consistency::Crash,
        catalog::Consistency::FileSystem => v1::Consistency::FileSystem,
    };
    v1::Snapshot {
        id: record.id.to_string(),
        set_id: record.set_id.to_string(),
        volume: record.volume,
        checkpoint: Some(point),
        state: state.into(),
        state_reason: record.state_reason,
        consistency: consistency.into(),
        capacity_bytes: record.capacity_bytes,
        block_bytes: record.block_bytes,
        created_at: Some(timestamp(record.created_us)),
        lease_expires_at: record.lease_expires_us.map(timestamp),
        view_path: snapshot
            .view_path
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        held: Some(duration(record.held_us)),
        frozen: record.frozen_us.map(duration),
        labels: record.labels.into_iter().collect(),
        preserved_bytes: snapshot.preserved_bytes,
    }
}

/// A volume whose server does not answer shows what the catalog knows, and why it does not.
pub(super) fn volume(volume: Volume) -> v1::Volume {
    let record = volume.record;
    let store = store(&record);
    let known = v1::Volume {
        name: record.name,
        id: record.id.to_string(),
        origin_path: record.origin_path.display().to_string(),
        block_bytes: record.block_bytes,
        transport: match record.transport {
            catalog::Transport::Auto => v1::TransportKind::Unspecified.into(),
            catalog::Transport::Portable => v1::TransportKind::Portable.into(),
            catalog::Transport::Ublk => v1::TransportKind::Ublk.into(),
        },
        state: v1::VolumeState::Unavailable.into(),
        store: Some(store),
        attached_at: Some(timestamp(record.attached_us)),
        ..v1::Volume::default()
    };
    match volume.live {
        Ok(live) => with_live(known, live),
        Err(not) => v1::Volume {
            state: match not.fell_back {
                true => v1::VolumeState::FellBack.into(),
                false => known.state,
            },
            trust: Some(v1::TrustReport {
                // Of a server that died, the next one knows what it tracked.
                trust: match not.untracked {
                    true => v1::Trust::Broken.into(),
                    false => v1::Trust::Unspecified.into(),
                },
                reason: not.why,
                ..v1::TrustReport::default()
            }),
            ..known
        },
    }
}

fn with_live(known: v1::Volume, live: LiveVolume) -> v1::Volume {
    let path = |path: std::path::PathBuf| path.display().to_string();
    v1::Volume {
        capacity_bytes: live.capacity_bytes,
        block_bytes: live.block_bytes,
        transport: if live.ublk {
            v1::TransportKind::Ublk.into()
        } else {
            v1::TransportKind::Portable.into()
        },
        state: if live.bypassed.is_empty() {
            v1::VolumeState::Attached.into()
        } else {
            v1::VolumeState::Bypassed.into()
        },
        interposer_path: path(live.interposer_path),
        device_path: path(live.device_path),
        live_path: path(live.live_path),
        mount_points: live.mount_points.into_iter().map(path).collect(),
        store_status: Some(v1::StoreStatus {
            capacity_bytes: live.store_capacity_bytes,
            used_bytes: live.store_used_bytes,
        }),
        trust: Some(trust(Trust {
            level: if live.bypassed.is_empty() {
                v1::Trust::Continuous
            } else {
                v1::Trust::Broken
            },
            reason: live.bypassed,
            ..Trust::continuous(live.lineage_since_us)
        })),
        lineage: live.lineage.to_string(),
        current_epoch: live.epoch.0,
        stats: Some(v1::VolumeStats {
            read_requests: live.counters.read_requests,
            read_bytes: live.counters.read_bytes,
            write_requests: live.counters.write_requests,
            write_bytes: live.counters.write_bytes,
            flush_requests: live.counters.flush_requests,
            discard_bytes: live.counters.discard_bytes,
            zeroed_bytes: live.counters.zeroed_bytes,
            preserved_bytes: live.counters.preserved_bytes,
            delayed: Some(duration(live.counters.delayed_us)),
        }),
        live_snapshots: live.live_snapshots,
        checkpoints: live.checkpoints,
        server_pid: live.server_pid,
        changed_bytes_in_epoch: live.changed_bytes_in_epoch,
        durability: live.durability.into(),
        durability_reason: live.durability_reason,
        ..known
    }
}

fn store(record: &VolumeRecord) -> v1::StoreConfig {
    let (full_policy, delay) = match record.policy {
        FullPolicy::Drop => (v1::FullPolicy::Drop, None),
        FullPolicy::Slow { max_write_delay_ms } => (
            v1::FullPolicy::Slow,
            Some(duration(max_write_delay_ms.saturating_mul(1000))),
        ),
    };
    let made = || {
        let name = record.area_path.file_name().unwrap_or_default();
        v1::AreaLogicalVolume {
            name: name.display().to_string(),
        }
    };
    v1::StoreConfig {
        logical_volume: record.area_made.then(made),
        area_path: record.area_path.display().to_string(),
        area_size_bytes: record.area_size_bytes,
        full_policy: full_policy.into(),
        max_write_delay: delay,
        durability: match record.durability {
            Durability::Auto => v1::TrackingDurability::Unspecified.into(),
            Durability::Volatile => v1::TrackingDurability::Volatile.into(),
            Durability::Durable => v1::TrackingDurability::Durable.into(),
        },
        durable_snapshots: record.durable_snapshots,
    }
}
