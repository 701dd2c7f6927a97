//! A real snapshot as a stream's subject: pages from its volume server, bytes from its view.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use tidemark_store::units::Id;
use tokio::runtime::Handle;

use super::Subject;
use crate::{
    manager::{Checkpoint, Error, Manager, Snapshot, operations::CancelToken},
    volume::ExtentPage,
};

/// Ranges asked for at once. A page of them is 100 KiB on the private socket and 200 KiB here.
const PAGE_RANGES: u32 = 8192;

/// Where a subject's pages come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pages {
    /// What the snapshot holds.
    Allocated,
    /// What changed since a point.
    Since(Checkpoint),
}

pub(super) struct SnapshotSubject {
    manager: Arc<Manager>,
    runtime: Handle,
    cancel: CancelToken,
    id: Id,
    volume: String,
    checkpoint: Checkpoint,
    pages: Pages,
    view: File,
}

impl SnapshotSubject {
    /// Takes a snapshot with its view open. Must be called within a runtime; used by a thread
    /// outside of it.
    pub(super) fn new(
        manager: Arc<Manager>,
        snapshot: &Snapshot,
        view: File,
        pages: Pages,
        cancel: CancelToken,
    ) -> Self {
        Self {
            manager,
            runtime: Handle::current(),
            cancel,
            id: snapshot.record.id,
            volume: snapshot.record.volume.clone(),
            checkpoint: snapshot.checkpoint(),
            pages,
            view,
        }
    }

    /// Waits for the manager, or for a reason to stop.
    fn wait<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                cause = self.cancel.cancelled() => Err(cause.into()),
                answer = call => answer,
            }
        })
    }
}

impl Subject for SnapshotSubject {
    fn page(&mut self, start: u64) -> Result<ExtentPage, Error> {
        match &self.pages {
            Pages::Allocated => self.wait(self.manager.allocated_page(self.id, start, PAGE_RANGES)),
            Pages::Since(since) => self.wait(self.manager.changes_page(
                &self.volume,
                since,
                Some(&self.checkpoint),
                start,
                PAGE_RANGES,
            )),
        }
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.view.read_exact_at(into, offset)
    }

    fn check(&mut self) -> Result<(), Error> {
        // Asks the volume server: the catalog may not have heard of the end yet.
        let id = self.id.to_string();
        self.wait(self.manager.readable(&id)).map(drop)
    }
}
