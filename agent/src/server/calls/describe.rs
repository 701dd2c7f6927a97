//! The volume as it is.

use std::path::Path;

use tidemark_proto::private::{
    self, CheckpointInfo, Counters, Description, SnapshotFate, SnapshotInfo,
};

use crate::{
    server::served::Served,
    volume::{self, Durability, Fate, SnapshotStatus},
};

pub(super) fn describe(served: &Served) -> Description {
    let status = served.volume.status();
    let (durability, durability_reason) = match status.durability {
        Durability::Volatile => (private::Durability::Volatile, String::new()),
        Durability::Durable => (private::Durability::Durable, String::new()),
        Durability::Suspended(why) => (private::Durability::Suspended, why),
    };
    let checkpoint = |found: &volume::Checkpoint| CheckpointInfo {
        epoch: found.epoch.0,
        created_us: found.created_us,
    };
    Description {
        name: served.name.clone(),
        volume_id: served.volume_id.0.to_vec().into(),
        origin_path: text(&served.origin),
        capacity_bytes: status.geometry.capacity(),
        block_bytes: u32::try_from(status.geometry.block_bytes()).unwrap_or(u32::MAX),
        device_path: served.device().as_deref().map(text).unwrap_or_default(),
        live_path: text(&served.paths.live()),
        lineage: status.lineage.0.to_vec().into(),
        lineage_cause: status.lineage_cause,
        lineage_since_us: status.lineage_since_us,
        epoch: status.epoch.0,
        store_capacity_bytes: status.store_capacity,
        store_used_bytes: status.store_used,
        snapshots: status
            .snapshots
            .iter()
            .map(|found| snapshot(served, found))
            .collect(),
        checkpoints: status.checkpoints.iter().map(checkpoint).collect(),
        counters: Some(counters(&status.counters)),
        changed_bytes_in_epoch: status.changed_bytes,
        area_path: text(&served.area),
        pid: pid(),
        ublk: served.views.is_some(),
        inserted_live: served.guard.is_some(),
        interposer_path: served.interposer.as_deref().map(text).unwrap_or_default(),
        bypassed: served
            .guard
            .as_ref()
            .and_then(|guard| guard.bypassed())
            .unwrap_or_default(),
        durability: durability.into(),
        durability_reason,
        recovered_epoch: status.recovered.map_or(0, |epoch| epoch.0),
    }
}

/// This process.
pub(super) fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

fn snapshot(served: &Served, found: &SnapshotStatus) -> SnapshotInfo {
    let fate = match found.fate {
        Fate::Live => SnapshotFate::Live,
        Fate::Released => SnapshotFate::Released,
        Fate::Overflowed => SnapshotFate::Overflowed,
        Fate::Lost => SnapshotFate::Lost,
    };
    let view_path = match found.fate {
        Fate::Live => text(&served.paths.view(&found.id.to_string())),
        Fate::Released | Fate::Overflowed | Fate::Lost => String::new(),
    };
    SnapshotInfo {
        id: found.id.0.to_vec().into(),
        epoch: found.epoch.0,
        fate: fate.into(),
        view_path,
        preserved_bytes: found.preserved_bytes,
        created_us: found.created_us,
    }
}

fn counters(sums: &volume::Counters) -> Counters {
    Counters {
        read_requests: sums.read_requests,
        read_bytes: sums.read_bytes,
        write_requests: sums.write_requests,
        write_bytes: sums.write_bytes,
        flush_requests: sums.flush_requests,
        discard_bytes: sums.discard_bytes,
        zeroed_bytes: sums.zeroed_bytes,
        preserved_bytes: sums.preserved_bytes,
        delayed_us: sums.delayed_us,
    }
}

/// Paths came as text from the control plane and go back so.
fn text(path: &Path) -> String {
    path.display().to_string()
}
