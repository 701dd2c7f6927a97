//! The volume that this process serves, as its connections see it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, SyncSender},
    },
    time::{Duration, Instant},
};

use tidemark_proto::private::{Failure, FailureKind};
use tidemark_store::units::Id;

use super::{
    guard::{Guard, VolumeViews},
    presented::Presented,
};
use crate::{
    disk::{cached::CachedDisk, ring::RingDisk},
    paths::VolumePaths,
    volume::{SystemClock, Volume},
};

/// The engine over real files.
pub(super) type Engine = Volume<RingDisk, CachedDisk, SystemClock>;

/// What a call answers when it cannot.
pub(super) fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind: kind.into(),
        message: message.into(),
    }
}

/// How a server is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// The volume is taken away from it.
    Detach {
        /// Whether live snapshots may go.
        force: bool,
    },
    /// Another server goes on in its place.
    HandOver,
    /// The host gets the volume back, and what was tracked stays for the next server.
    Leave,
}

/// Somebody wants the server to stop.
pub(super) struct StopRequest {
    pub(super) ending: Ending,
    /// Where the outcome goes; a signal has no such place.
    pub(super) outcome: Option<SyncSender<Result<(), Failure>>>,
    /// Ends when the outcome has been passed on.
    pub(super) told: Option<Receiver<()>>,
}

/// The volume and what is known about it.
pub(super) struct Served {
    pub(super) name: String,
    pub(super) volume_id: Id,
    pub(super) origin: PathBuf,
    pub(super) area: PathBuf,
    pub(super) paths: VolumePaths,
    pub(super) volume: Arc<Engine>,
    pub(super) stop: Sender<StopRequest>,
    /// Wakes housekeeping.
    pub(super) wake: SyncSender<()>,
    /// Watches that the volume lies over us.
    pub(super) guard: Option<Arc<Guard>>,
    /// Presents snapshots as devices.
    pub(super) views: Option<Arc<VolumeViews>>,
    /// The interposer's own device.
    pub(super) interposer: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    device: Option<PathBuf>,
    stopping: bool,
    permits: u64,
    holds: HashMap<u64, Instant>,
}

/// Stands for a hold that its connection may still cut: a server does not stop while one lives,
/// unless its time has run out.
pub(super) struct HoldPermit {
    served: Arc<Served>,
    number: u64,
}

impl Drop for HoldPermit {
    fn drop(&mut self) {
        self.served.state().holds.remove(&self.number);
    }
}

impl Served {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact about the volume"
    )]
    pub(super) fn new(
        name: String,
        volume_id: Id,
        origin: PathBuf,
        area: PathBuf,
        paths: VolumePaths,
        volume: Arc<Engine>,
        stop: Sender<StopRequest>,
        wake: SyncSender<()>,
        presented: &Presented,
    ) -> Self {
        Self {
            name,
            volume_id,
            origin,
            area,
            paths,
            volume,
            stop,
            wake,
            guard: presented.guard(),
            views: presented.views(),
            interposer: presented.interposer_path(),
            state: Mutex::default(),
        }
    }

    /// The block device to mount, if the host gave one.
    pub(super) fn device(&self) -> Option<PathBuf> {
        self.state().device.clone()
    }

    pub(super) fn set_device(&self, device: Option<&Path>) {
        self.state().device = device.map(Path::to_owned);
    }

    /// Whether what the engine knows of the volume is all that the host did: asked before
    /// anything is answered that would be wrong otherwise.
    pub(super) fn check_guard(&self) -> Result<(), Failure> {
        let checked = self.guard.as_ref().map_or(Ok(()), |guard| guard.check());
        checked.map_err(|why| failure(FailureKind::Busy, why))
    }

    /// Deletes the devices of snapshots that have ended, and makes up for those that failed.
    pub(super) fn settle_views(&self) {
        if self.state().stopping {
            return;
        }
        if let Some(Err(error)) = self.views.as_ref().map(|views| views.settle()) {
            tracing::warn!(%error, "views are not as they should be; tried again");
        }
    }

    /// Leave to hold changes for at most `max`.
    pub(super) fn permit_hold(self: &Arc<Self>, max: Duration) -> Result<HoldPermit, Failure> {
        let mut state = self.state();
        if state.stopping {
            return Err(failure(FailureKind::Busy, "the volume is being detached"));
        }
        state.permits += 1;
        let number = state.permits;
        state.holds.insert(number, Instant::now() + max);
        Ok(HoldPermit {
            served: Arc::clone(self),
            number,
        })
    }

    /// Refuses holds from now on, unless one is in force: no snapshot is made while stopping.
    pub(super) fn begin_stop(&self) -> Result<(), Failure> {
        let mut state = self.state();
        let now = Instant::now();
        state.holds.retain(|_, until| *until > now);
        if !state.holds.is_empty() {
            return Err(failure(FailureKind::Busy, "a cut is under way: try again"));
        }
        state.stopping = true;
        Ok(())
    }

    /// Permits holds again after a stop that was refused.
    pub(super) fn go_on(&self) {
        self.state().stopping = false;
    }

    /// Asks housekeeping to look at once; it may be about to.
    pub(super) fn wake_housekeeping(&self) {
        let _ = self.wake.try_send(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, whole also when a thread died.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
