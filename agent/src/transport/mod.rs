//! Transports present block devices and hand requests to the engine.
//!
//! A transport knows neither volumes nor epochs nor stores: it speaks to a [`Backend`]. The volume
//! server puts the engine behind it; benchmarks put nothing behind it, to measure the transport.

pub mod portable;
pub mod ublk;

use tidemark_store::units::Id;

use crate::{
    disk::Run,
    request::{Errno, Request},
};

/// A snapshot that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// Its identity; its name is the 32 hex digits.
    pub id: Id,
    /// When it was made, in microseconds since the UNIX epoch.
    pub created_us: u64,
}

/// What a transport serves: one live device and any number of read-only views of equal size.
///
/// Every method may be called by many threads at once. The calls that do I/O are futures, which
/// need not be `Send`: a transport with a thread for each request blocks on them, one with a ring
/// for each queue runs many of them on the queue's thread. A call that fails may have done part
/// of its work; its errno goes to the host unchanged.
pub trait Backend: Send + Sync + 'static {
    /// Size of the device and of each view in bytes; it does not change while a transport
    /// serves.
    fn capacity(&self) -> u64;

    /// Whether a discarded range reads as zeros from then on. Where it does not, a transport
    /// whose kernel promises zeros asks for [`Request::WriteZeroes`] instead.
    fn discard_zeroes(&self) -> bool;

    /// Serves one request of the host; its range lies within the capacity.
    fn serve(&self, request: Request<'_>) -> impl Future<Output = Result<(), Errno>>;

    /// The views that can be read now, oldest first.
    fn views(&self) -> Vec<View>;

    /// The view of this identity, if it can be read now.
    fn view(&self, id: Id) -> Option<View> {
        self.views().into_iter().find(|view| view.id == id)
    }

    /// Fills `into` with the bytes of a view from `offset` on. `ESTALE` when the view is gone.
    fn read_view(
        &self,
        id: Id,
        offset: u64,
        into: &mut [u8],
    ) -> impl Future<Output = Result<(), Errno>>;

    /// The run of a view that starts at `offset`, which lies within the capacity. `ESTALE` when
    /// the view is gone.
    fn view_run(&self, id: Id, offset: u64) -> impl Future<Output = Result<Run, Errno>>;
}
