//! Finding, releasing and deleting snapshots.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use tidemark_proto::private::{Description, FailureKind};
use tidemark_store::{
    catalog::{SnapshotRecord, SnapshotState},
    units::Id,
};

use super::{Error, ErrorReason, Manager, Snapshot, refresh::lineage_of, validate};

impl Manager {
    /// The snapshot with this id, or with a prefix that only one has.
    pub async fn snapshot(&self, id: &str) -> Result<Snapshot, Error> {
        let id = self.resolve(id).await?;
        let record = self.record_of(id).await?;
        if record.state != SnapshotState::Ready {
            return Ok(gone(record));
        }
        match self.registry.get(&record.volume) {
            Ok(entry) => {
                let told = self.refresh(&entry).await.ok();
                Ok(merge(self.record_of(id).await?, told.as_ref()))
            }
            Err(_) => Ok(gone(record)),
        }
    }

    /// Like [`Manager::snapshot`], and its data can be read now: `view_path` is set. Otherwise
    /// the error says why not.
    pub async fn readable(&self, id: &str) -> Result<Snapshot, Error> {
        let snapshot = self.snapshot(id).await?;
        self.check_ready(&snapshot.record)?;
        if snapshot.view_path.is_none() {
            let name = &snapshot.record.volume;
            let entry = self.registry.get(name)?;
            self.describe(&entry).await?;
            return Err(Error::unavailable(
                name,
                "the snapshot has no view at the moment",
            ));
        }
        Ok(snapshot)
    }

    /// Snapshots, oldest first: one volume's or all.
    pub async fn snapshots(
        &self,
        volume: Option<&str>,
        include_gone: bool,
    ) -> Result<Vec<Snapshot>, Error> {
        let entries = match volume {
            Some(name) => {
                validate::name("volume", name)?;
                // A detached volume's snapshots are still listed.
                self.registry.get(name).ok().into_iter().collect()
            }
            None => self.registry.all(),
        };
        let mut told = HashMap::new();
        for entry in entries {
            if let Ok(description) = self.refresh(&entry).await {
                told.insert(entry.name().to_owned(), description);
            }
        }
        let volume_name = volume.map(str::to_owned);
        let listed = self
            .ledger
            .run(move |catalog| catalog.snapshots(volume_name.as_deref(), include_gone));
        let records = listed.await?;
        if let Some(name) = volume.filter(|_| records.is_empty()) {
            self.registry.get(name)?;
        }
        let merged = records.into_iter().map(|record| {
            let description = told.get(&record.volume);
            merge(record, description)
        });
        Ok(merged.collect())
    }

    /// Gives a snapshot's data back; its checkpoint stays. Releasing again changes nothing.
    pub async fn release_snapshot(self: &Arc<Self>, id: &str) -> Result<Snapshot, Error> {
        let id = self.resolve(id).await?;
        let manager = Arc::clone(self);
        self.to_its_end(async move {
            let record = manager.record_of(id).await?;
            manager
                .release_data(&record, "released on request", false)
                .await?;
            Ok(gone(manager.record_of(id).await?))
        })
        .await
    }

    /// Releases the data, forgets the checkpoint and the record.
    pub async fn delete_snapshot(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let id = self.resolve(id).await?;
        let manager = Arc::clone(self);
        self.to_its_end(async move {
            let record = manager.record_of(id).await?;
            manager
                .release_data(&record, "deleted on request", false)
                .await?;
            manager.forget_checkpoint_of(&record).await?;
            manager
                .ledger
                .run(move |catalog| catalog.remove_snapshot(id))
                .await?;
            Ok(())
        })
        .await
    }

    /// Gives a snapshot's data back and records why, if it has any.
    pub(super) async fn release_data(
        &self,
        record: &SnapshotRecord,
        why: &str,
        lease_ended: bool,
    ) -> Result<(), Error> {
        if record.state != SnapshotState::Ready {
            return Ok(());
        }
        if let Ok(entry) = self.registry.get(&record.volume)
            && entry.record.id == record.volume_id
        {
            match entry.link.release(record.id).await {
                Ok(()) => {}
                // Its data is gone already.
                Err(error)
                    if matches!(
                        error.refusal(),
                        Some(
                            FailureKind::SnapshotNotFound
                                | FailureKind::SnapshotReleased
                                | FailureKind::SnapshotOverflowed
                                | FailureKind::SnapshotLost
                        )
                    ) => {}
                Err(error) => return Err(error.on_volume(&record.volume)),
            }
        }
        self.end_snapshot(record, SnapshotState::Released, why, lease_ended)
            .await?;
        Ok(())
    }

    /// Only in the lineage that made it: the same epoch of another is another point.
    async fn forget_checkpoint_of(&self, record: &SnapshotRecord) -> Result<(), Error> {
        let Ok((entry, _work)) = self.claim(&record.volume).await else {
            return Ok(());
        };
        let told = self.describe(&entry).await?;
        if lineage_of(entry.name(), &told)? != record.lineage {
            return Ok(());
        }
        match entry.link.forget(record.epoch).await {
            Err(error) if error.refusal() != Some(FailureKind::CheckpointGone) => {
                Err(error.on_volume(entry.name()))
            }
            _ => Ok(()),
        }
    }

    /// A full id from a full one or a prefix.
    pub(super) async fn resolve(&self, text: &str) -> Result<Id, Error> {
        let prefix = validate::id_prefix("id", text)?;
        let searched = prefix.clone();
        let found = self
            .ledger
            .run(move |catalog| catalog.snapshots_by_prefix(&searched))
            .await?;
        match found.as_slice() {
            [] => Err(Error::snapshot_not_found(prefix)),
            [one] => Ok(*one),
            _ => {
                let why = format!("\"{prefix}\" begins several ids: give more digits");
                Err(Error::invalid("id", why))
            }
        }
    }

    pub(super) async fn record_of(&self, id: Id) -> Result<SnapshotRecord, Error> {
        let found = self.ledger.run(move |catalog| catalog.snapshot(id)).await?;
        found.ok_or_else(|| Error::snapshot_not_found(id))
    }

    /// Whether a snapshot has data, and if not, why.
    pub(super) fn check_ready(&self, record: &SnapshotRecord) -> Result<(), Error> {
        let reason = match record.state {
            SnapshotState::Ready => return Ok(()),
            SnapshotState::Released if record.lease_ended => {
                return Err(Error::lease_expired(record.id).on_volume(&record.volume));
            }
            SnapshotState::Released => ErrorReason::SnapshotReleased,
            SnapshotState::Overflowed => ErrorReason::SnapshotOverflowed,
            SnapshotState::Lost => ErrorReason::SnapshotLost,
        };
        let message = format!(
            "the data of snapshot {} is gone: {}",
            record.id, record.state_reason
        );
        let error = Error::new(reason, message).on_snapshot(record.id);
        Err(error.on_volume(&record.volume))
    }
}

fn gone(record: SnapshotRecord) -> Snapshot {
    Snapshot {
        record,
        view_path: None,
        preserved_bytes: 0,
    }
}

fn merge(record: SnapshotRecord, description: Option<&Description>) -> Snapshot {
    let told = description.and_then(|description| {
        let mut snapshots = description.snapshots.iter();
        snapshots.find(|told| told.id.as_ref() == record.id.0)
    });
    let ready = record.state == SnapshotState::Ready;
    Snapshot {
        view_path: told
            .filter(|told| ready && !told.view_path.is_empty())
            .map(|told| PathBuf::from(&told.view_path)),
        preserved_bytes: told.map_or(0, |told| told.preserved_bytes),
        record,
    }
}
