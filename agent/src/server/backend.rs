//! The engine as a transport's backend.

use std::sync::Arc;

use tidemark_store::units::Id;

use crate::{
    disk::{Disk, Run, cached::CachedDisk, ring::RingDisk},
    request::{Errno, Request},
    transport::{Backend, View},
    volume::{Clock, Fate, SystemClock, ViewError, Volume},
};

/// This server's own.
pub(super) type EngineBackend = VolumeBackend<RingDisk, CachedDisk, SystemClock>;

/// A volume behind a transport.
pub(super) struct VolumeBackend<O, A, C> {
    volume: Arc<Volume<O, A, C>>,
    discard_zeroes: bool,
}

impl<O: Disk, A: Disk, C: Clock> VolumeBackend<O, A, C> {
    /// `discard_zeroes` is what the volume's origin says.
    pub(super) fn new(volume: Arc<Volume<O, A, C>>, discard_zeroes: bool) -> Self {
        Self {
            volume,
            discard_zeroes,
        }
    }
}

impl<O, A, C> Backend for VolumeBackend<O, A, C>
where
    O: Disk + 'static,
    A: Disk + 'static,
    C: Clock + 'static,
{
    fn capacity(&self) -> u64 {
        self.volume.geometry().capacity()
    }

    fn discard_zeroes(&self) -> bool {
        self.discard_zeroes
    }

    fn serve(&self, request: Request<'_>) -> impl Future<Output = Result<(), Errno>> {
        self.volume.serve(request)
    }

    fn views(&self) -> Vec<View> {
        let live = self
            .volume
            .snapshots()
            .into_iter()
            .filter(|found| found.fate == Fate::Live);
        live.map(|found| View {
            id: found.id,
            created_us: found.created_us,
        })
        .collect()
    }

    async fn read_view(&self, id: Id, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.volume.read_view(id, offset, into).await.map_err(errno)
    }

    async fn view_run(&self, id: Id, offset: u64) -> Result<Run, Errno> {
        self.volume.view_run(id, offset).await.map_err(errno)
    }
}

/// A file can say no more than a number: the private protocol tells which of the stale ones.
fn errno(error: ViewError) -> Errno {
    match error {
        ViewError::NotFound(_)
        | ViewError::Released(_)
        | ViewError::Overflowed(_)
        | ViewError::Lost(_) => Errno(libc::ESTALE),
        ViewError::OutOfRange(_) => Errno::EINVAL,
        ViewError::Origin(errno) => errno,
    }
}
