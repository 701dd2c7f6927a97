//! Giving a volume back to its host, when its servers die again and again.

use tidemark_proto::v1::{EventKind, Severity};
use tidemark_store::catalog::SnapshotState;

use super::{Error, Happening, Manager, registry::Entry, registry::Health, spawn};

impl Manager {
    /// The volume gets its own table back; it is not tracked until it is attached anew.
    pub(super) async fn fall_back(&self, entry: &Entry, cause: &str) -> Result<(), Error> {
        let _work = entry.work.lock().await;
        // Before the host writes around us: after its next start nothing else would tell.
        self.distrust(entry, Some(cause)).await?;
        match &self.config.units {
            Some(units) => units.rescue(entry).await?,
            None => {
                let (program, paths) = (&self.config.program, &self.config.paths);
                spawn::fall_back(program, paths, entry, cause).await?;
            }
        }
        self.fell_back(entry, cause).await
    }

    /// The volume was taken from its servers, by us or by systemd.
    pub(super) async fn fell_back(&self, entry: &Entry, cause: &str) -> Result<(), Error> {
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

    /// Notes why what the volume's area tells of earlier tracking must not be believed after the
    /// host's next start, or that it may be again.
    pub(super) async fn distrust(&self, entry: &Entry, why: Option<&str>) -> Result<(), Error> {
        let why = why.map(str::to_owned);
        entry.set_distrust(why.clone());
        self.keep_arguments(entry)?;
        let name = entry.name().to_owned();
        self.ledger
            .run(move |catalog| catalog.set_distrust(&name, why.as_deref()))
            .await
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
