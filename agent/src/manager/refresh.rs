//! What a volume's server says, taken into the catalog: lineages, the fates of snapshots, events.
//!
//! Each news is told once: whoever makes the transition in the catalog records the event. The
//! snapshots to compare are listed before the server is asked, so that one cut meanwhile is never
//! taken for one that the server does not know.

use std::{collections::HashSet, time::Duration};

use tidemark_proto::{
    private::{self, Description, SnapshotFate, VolumeEvent, VolumeEventKind},
    v1::{EventKind, Severity},
};
use tidemark_store::{
    catalog::{SnapshotRecord, SnapshotState},
    units::Id,
};

use super::{
    Error, ErrorReason, Happening, Manager,
    events::Cursor,
    registry::{Entry, Health},
};

/// A wait for events ends after this, so that a dead server is noticed.
const EVENT_WAIT: Duration = Duration::from_secs(20);
/// Pause after trouble of our own while hearing events.
const OWN_TROUBLE_PAUSE: Duration = Duration::from_secs(2);

impl Manager {
    /// Asks a volume's server for its description, and takes the news out of it.
    pub(super) async fn refresh(&self, entry: &Entry) -> Result<Description, Error> {
        let name = entry.name().to_owned();
        let known = {
            let name = name.clone();
            let listed = self
                .ledger
                .run(move |catalog| catalog.snapshots(Some(&name), false));
            listed.await?
        };
        let mut description = self.describe(entry).await?;
        if let Some(why) = self.is_older(&description).await? {
            let reset = entry.link.reset_tracking(&why).await;
            reset.map_err(|error| error.on_volume(entry.name()))?;
            description = self.describe(entry).await?;
        }
        // A server that says so has taken back whatever was wrong in the area.
        let sound = !matches!(description.durability(), private::Durability::Suspended);
        if sound && entry.distrust().is_some() {
            self.distrust(entry, None).await?;
        }
        self.take_lineage(entry, &description).await?;
        for snapshot in known
            .iter()
            .filter(|known| known.volume_id == entry.record.id)
        {
            if let Some((state, why)) = fate_of(snapshot, &description) {
                self.end_snapshot(snapshot, state, &why, false).await?;
            }
        }
        Ok(description)
    }

    /// Why an area that tracking was taken up from tells of an older time than the catalog does.
    async fn is_older(&self, description: &Description) -> Result<Option<String>, Error> {
        let stopped = description.recovered_epoch;
        let lineage = Id::from_slice(&description.lineage);
        let Some(lineage) = lineage.filter(|_| stopped > 0) else {
            return Ok(None);
        };
        let newest = self.ledger.run(move |catalog| catalog.newest_cut(lineage));
        let unknown = newest.await?.map(|newest| newest.0);
        // Epochs jump when tracking is taken up: those between are the area's future.
        let unknown = unknown.filter(|newest| (stopped..description.epoch).contains(newest));
        Ok(unknown.map(|newest| {
            format!(
                "the area is from an older time: it does not know of the cut that ended epoch \
                 {newest}"
            )
        }))
    }

    /// Asks a volume's server for its description.
    pub(super) async fn describe(&self, entry: &Entry) -> Result<Description, Error> {
        let described = entry.link.describe().await;
        described.map_err(|error| match (error.refusal(), entry.health()) {
            (None, Health::Down(why) | Health::FellBack(why)) => {
                Error::unavailable(entry.name(), why)
            }
            _ => error.on_volume(entry.name()),
        })
    }

    async fn take_lineage(&self, entry: &Entry, description: &Description) -> Result<(), Error> {
        let name = entry.name();
        let lineage = lineage_of(name, description)?;
        let (volume, cause) = (name.to_owned(), description.lineage_cause.clone());
        let since_us = description.lineage_since_us;
        let begun = self
            .ledger
            .run(move |catalog| catalog.begin_lineage(&volume, lineage, &cause, since_us));
        if begun.await? {
            entry.resets.add();
            let message = format!(
                "tracking of volume \"{name}\" started anew ({}): the next backup is a full one",
                description.lineage_cause
            );
            let happening = Happening::new(EventKind::TrackingReset, Severity::Warning, message);
            self.events.record(happening.on_volume(name)).await;
        }
        Ok(())
    }

    /// Marks a snapshot as gone and tells so, unless that was done before.
    pub(super) async fn end_snapshot(
        &self,
        snapshot: &SnapshotRecord,
        state: SnapshotState,
        why: &str,
        lease_ended: bool,
    ) -> Result<bool, Error> {
        let (id, reason) = (snapshot.id, why.to_owned());
        let ended = self
            .ledger
            .run(move |catalog| catalog.end_snapshot(id, state, &reason, lease_ended));
        if !ended.await? {
            return Ok(false);
        }
        self.leases.wake();
        let (kind, severity) = match state {
            _ if lease_ended => (EventKind::LeaseExpired, Severity::Info),
            SnapshotState::Ready | SnapshotState::Released => {
                (EventKind::SnapshotReleased, Severity::Info)
            }
            SnapshotState::Overflowed => (EventKind::SnapshotOverflowed, Severity::Error),
            SnapshotState::Lost => (EventKind::SnapshotLost, Severity::Error),
        };
        let message = format!("snapshot {id} of volume \"{}\": {why}", snapshot.volume);
        let happening = Happening::new(kind, severity, message)
            .on_volume(&snapshot.volume)
            .on_snapshot(id);
        self.events.record(happening).await;
        Ok(true)
    }

    /// Hears the events of a server until it does not answer; gives the failure. Trouble of our
    /// own, such as a full disk under the catalog, is no reason to call the server lost.
    pub(super) async fn follow(&self, entry: &Entry, server: &str) -> Error {
        loop {
            let Err(error) = self.hear(entry, server).await else {
                continue;
            };
            if error.reason == ErrorReason::VolumeServerUnavailable {
                return error;
            }
            tracing::warn!(volume = entry.name(), %error, "events could not be taken");
            tokio::time::sleep(OWN_TROUBLE_PAUSE).await;
        }
    }

    async fn hear(&self, entry: &Entry, server: &str) -> Result<(), Error> {
        self.refresh(entry).await?;
        self.release_strays(entry).await?;
        let mut after = {
            let (volume, server) = (entry.name().to_owned(), server.to_owned());
            let cursor = self
                .ledger
                .run(move |catalog| catalog.event_cursor(&volume, &server));
            cursor.await?
        };
        loop {
            let page = entry.link.wait_events(after, EVENT_WAIT).await;
            let page = page.map_err(|error| error.on_volume(entry.name()))?;
            if page.gap {
                tracing::warn!(volume = entry.name(), "a volume server dropped events");
            }
            for event in page.events {
                if event.sequence > after {
                    after = event.sequence;
                    let cursor = Cursor {
                        volume: entry.name().to_owned(),
                        server: server.to_owned(),
                        sequence: event.sequence,
                    };
                    self.take_event(entry, event, cursor).await?;
                }
            }
        }
    }

    /// What the description tells too is taken from there; the rest is recorded as it is.
    async fn take_event(
        &self,
        entry: &Entry,
        event: VolumeEvent,
        cursor: Cursor,
    ) -> Result<(), Error> {
        let (kind, severity) = match event.kind() {
            VolumeEventKind::StoreFilling => (EventKind::StoreFilling, Severity::Warning),
            VolumeEventKind::StoreFull => (EventKind::StoreFull, Severity::Error),
            VolumeEventKind::CheckpointForgotten => {
                (EventKind::CheckpointForgotten, Severity::Info)
            }
            VolumeEventKind::DurabilitySuspended => {
                self.distrust(entry, Some(&event.message)).await?;
                (EventKind::DurabilitySuspended, Severity::Error)
            }
            VolumeEventKind::TrackingRecovered => (EventKind::TrackingRecovered, Severity::Info),
            VolumeEventKind::SnapshotOverflowed
            | VolumeEventKind::SnapshotLost
            | VolumeEventKind::TrackingReset => {
                self.refresh(entry).await?;
                return self.skip(cursor).await;
            }
            VolumeEventKind::Unspecified => return self.skip(cursor).await,
        };
        let mut happening = Happening::new(kind, severity, event.message)
            .on_volume(entry.name())
            .at(event.at_us);
        if let Some(id) = Id::from_slice(&event.snapshot_id).filter(|id| *id != Id::NIL) {
            happening = happening.on_snapshot(id);
        }
        self.events.record_from(happening, cursor).await;
        Ok(())
    }

    async fn skip(&self, cursor: Cursor) -> Result<(), Error> {
        self.ledger
            .run(move |catalog| catalog.set_event_cursor(cursor.parts()))
            .await
    }

    /// Releases live snapshots that the catalog does not know: cut by a control plane that died
    /// before it could record them. Nobody else could ever release them.
    async fn release_strays(&self, entry: &Entry) -> Result<(), Error> {
        let _work = entry.work.lock().await;
        let description = self.describe(entry).await?;
        let name = entry.name().to_owned();
        let listed = self
            .ledger
            .run(move |catalog| catalog.snapshots(Some(&name), true));
        let known: HashSet<Id> = listed.await?.iter().map(|one| one.id).collect();
        for snapshot in &description.snapshots {
            let live = snapshot.fate() == SnapshotFate::Live;
            let Some(id) = Id::from_slice(&snapshot.id).filter(|id| live && !known.contains(id))
            else {
                continue;
            };
            let released = entry.link.release(id).await;
            released.map_err(|error| error.on_volume(entry.name()))?;
            let message = format!(
                "snapshot {id} of volume \"{}\" was released: the agent stopped before it could \
                 record it",
                entry.name()
            );
            let happening = Happening::new(EventKind::SnapshotReleased, Severity::Warning, message)
                .on_volume(entry.name())
                .on_snapshot(id);
            self.events.record(happening).await;
        }
        Ok(())
    }
}

/// The lineage in a description.
pub(super) fn lineage_of(volume: &str, description: &Description) -> Result<Id, Error> {
    Id::from_slice(&description.lineage)
        .ok_or_else(|| Error::unavailable(volume, "it describes a lineage that is not 16 bytes"))
}

/// What became of a snapshot that the catalog holds for ready; `None` when it is.
fn fate_of(
    snapshot: &SnapshotRecord,
    description: &Description,
) -> Option<(SnapshotState, String)> {
    let told = description
        .snapshots
        .iter()
        .find(|told| told.id.as_ref() == snapshot.id.0);
    let ended = |state, why: &str| Some((state, why.to_owned()));
    match told.map(|told| told.fate()) {
        Some(SnapshotFate::Live | SnapshotFate::Unspecified) => None,
        Some(SnapshotFate::Released) => ended(SnapshotState::Released, "its data was released"),
        Some(SnapshotFate::Overflowed) => ended(
            SnapshotState::Overflowed,
            "its store filled, and it was dropped to let writers go on; make the area larger or \
             release snapshots sooner",
        ),
        Some(SnapshotFate::Lost) => ended(
            SnapshotState::Lost,
            "its old data could not be kept or read back; the volume server's log says why",
        ),
        None if description.lineage.as_ref() != snapshot.lineage.0 => ended(
            SnapshotState::Lost,
            &format!("tracking started anew ({})", description.lineage_cause),
        ),
        None => ended(SnapshotState::Lost, "its volume server no longer knows it"),
    }
}
