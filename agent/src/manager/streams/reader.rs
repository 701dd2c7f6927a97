//! A snapshot for a job of the agent itself: what is in it, and its bytes, by any number of threads.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use super::{
    Scope, Streams, Subject,
    runs::Runs,
    snapshot::{Pages, SnapshotSubject},
};
use crate::{
    manager::{Checkpoint, Error, LeaseGuard, Manager, Snapshot, operations::CancelToken},
    volume::Extent,
};

/// A snapshot whose data stays while this lives.
pub struct SnapshotReader {
    manager: Arc<Manager>,
    snapshot: Snapshot,
    view: File,
    cancel: CancelToken,
    _lease: LeaseGuard,
}

/// What a snapshot holds, or what changed in it, in order. The end comes only when its data was still
/// there then; after an error comes nothing.
pub struct Extents {
    runs: Runs,
    subject: SnapshotSubject,
    ended: bool,
}

impl Streams {
    /// Opens a snapshot. `cancel` ends whatever waits.
    pub async fn reader(
        &self,
        snapshot: &str,
        cancel: CancelToken,
    ) -> Result<SnapshotReader, Error> {
        let held = self.hold(snapshot).await?;
        Ok(SnapshotReader {
            manager: Arc::clone(&self.manager),
            snapshot: held.snapshot,
            view: held.view,
            cancel,
            _lease: held.lease,
        })
    }
}

impl SnapshotReader {
    /// What it is of.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Its extents, or what changed since a point of its lineage. Must be called within a runtime; the
    /// extents are for a thread outside of it.
    pub fn extents(&self, since: Option<Checkpoint>) -> Result<Extents, Error> {
        let pages = since.map_or(Pages::Allocated, Pages::Since);
        let view = self.view.try_clone().map_err(Error::internal)?;
        let manager = Arc::clone(&self.manager);
        let cancel = self.cancel.clone();
        Ok(Extents {
            runs: Runs::new(
                Scope::Changed { start: 0 },
                self.snapshot.record.capacity_bytes,
            ),
            subject: SnapshotSubject::new(manager, &self.snapshot, view, pages, cancel),
            ended: false,
        })
    }

    /// Fills `into` with the bytes from `offset`.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.view.read_exact_at(into, offset)
    }
}

impl Extents {
    fn step(&mut self) -> Result<Option<Extent>, Error> {
        let Some(extent) = self.runs.peek(&mut self.subject)? else {
            self.subject.check()?;
            return Ok(None);
        };
        self.runs.consume(extent.range.len);
        Ok(Some(extent))
    }
}

impl Iterator for Extents {
    type Item = Result<Extent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}
