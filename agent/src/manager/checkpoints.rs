//! Checkpoints: listed from the volume's server, forgotten there.

use std::{collections::HashMap, sync::Arc};

use tidemark_proto::private::SnapshotFate;
use tidemark_store::units::{Epoch, Id};

use super::{
    Checkpoint, CheckpointStatus, Error, ErrorReason, Manager, refresh::lineage_of, validate,
};

impl Manager {
    /// Checkpoints of a volume's current lineage, oldest first.
    pub async fn checkpoints(&self, volume: &str) -> Result<Vec<CheckpointStatus>, Error> {
        validate::name("volume", volume)?;
        let entry = self.registry.get(volume)?;
        let told = self.refresh(&entry).await?;
        let lineage = lineage_of(volume, &told)?;
        let name = volume.to_owned();
        let listed = self
            .ledger
            .run(move |catalog| catalog.snapshots(Some(&name), true));
        let snapshots: HashMap<Checkpoint, Id> = listed
            .await?
            .into_iter()
            .map(|record| {
                let made = Checkpoint {
                    lineage: record.lineage,
                    epoch: record.epoch,
                };
                (made, record.id)
            })
            .collect();
        let status = told.checkpoints.iter().map(|told| {
            let checkpoint = Checkpoint {
                lineage,
                epoch: Epoch(told.epoch),
            };
            CheckpointStatus {
                checkpoint,
                created_us: told.created_us,
                snapshot: snapshots.get(&checkpoint).copied(),
            }
        });
        Ok(status.collect())
    }

    /// Forgets a checkpoint. Refused while its snapshot is live.
    pub async fn delete_checkpoint(
        self: &Arc<Self>,
        volume: &str,
        checkpoint: Checkpoint,
    ) -> Result<(), Error> {
        validate::name("volume", volume)?;
        let (manager, name) = (Arc::clone(self), volume.to_owned());
        self.to_its_end(async move {
            let (entry, _work) = manager.claim(&name).await?;
            let told = manager.refresh(&entry).await?;
            if lineage_of(&name, &told)? != checkpoint.lineage {
                return Err(manager.past_lineage(&name, checkpoint).await?);
            }
            let live = told.snapshots.iter().any(|snapshot| {
                snapshot.epoch == checkpoint.epoch.0 && snapshot.fate() == SnapshotFate::Live
            });
            if live {
                let why = format!(
                    "checkpoint {} of volume \"{name}\" has a live snapshot: release or delete it",
                    checkpoint.epoch
                );
                return Err(Error::new(ErrorReason::VolumeBusy, why).on_volume(&name));
            }
            let forgotten = entry.link.forget(checkpoint.epoch).await;
            forgotten.map_err(|error| error.on_volume(&name))
        })
        .await
    }
}
