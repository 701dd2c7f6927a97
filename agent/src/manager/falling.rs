//! Giving a volume back to its host, when its servers die again and again.

use tidemark_proto::v1::{EventKind, Severity};
use tidemark_store::catalog::SnapshotState;

use super::{Error, Happening, Manager, registry::Entry, registry::Health, spawn};

impl Manager {
    /// The volume gets its own table back; it is not tracked until it is attached anew.
    pub(super) async fn fall_back(&self, entry: &Entry, cause: &str) -> Result<(), Error> {
        let _work = entry.work.lock().await;
        let (program, paths) = (&self.config.program, &self.config.paths);
        spawn::fall_back(program, paths, entry, cause).await?;
        entry.set_health(Health::FellBack(cause.to_owned()));
        let name = entry.name();
        tracing::error!(volume = name, cause, "the volume is not tracked any more");
        let message = format!(
            "volume \"{name}\" has its own table back and is not tracked: {cause}. Detach it and \
             attach it again; the next backup is a full one"
        );
        let happening = Happening::new(EventKind::VolumeFellBack, Severity::Error, message);
        self.events.record(happening.on_volume(name)).await;
        self.lose_snapshots_of(entry, cause).await
    }

    async fn lose_snapshots_of(&self, entry: &Entry, cause: &str) -> Result<(), Error> {
        let name = entry.name().to_owned();
        let listed = self
            .ledger
            .run(move |catalog| catalog.snapshots(Some(&name), false));
        for snapshot in listed.await? {
            if snapshot.volume_id == entry.record.id {
                self.end_snapshot(&snapshot, SnapshotState::Lost, cause, false)
                    .await?;
            }
        }
        Ok(())
    }
}
