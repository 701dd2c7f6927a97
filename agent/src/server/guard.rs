//! The guard: the volume still lies over us, or tracking says that it did not.
//!
//! LVM and others give a volume another table without asking; from then on what the host writes
//! goes around us. It is looked for when device-mapper says that something changed, from time to
//! time, and before anything is answered that would be wrong then.

use std::{
    path::PathBuf,
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_lite::future::block_on;

use super::{backend::EngineBackend, served::Engine};
use crate::{
    host::{RESTART, device::DeviceNumber, dm::Watch},
    insertion::{Bypass, Insertion, InsertionError, Sight, Swap},
    transport::ublk::Views,
};

/// How often to look without a hint.
const INTERVAL: Duration = Duration::from_secs(1);

/// The views of a volume of this server.
pub(super) type VolumeViews = Views<EngineBackend>;

/// Watches one volume that lies over us.
pub(super) struct Guard {
    volume: Arc<Engine>,
    views: Arc<VolumeViews>,
    over: DeviceNumber,
    state: Mutex<State>,
}

struct State {
    insertion: Insertion,
    /// Why requests go around us now.
    bypassed: Option<String>,
    removed: bool,
}

impl Guard {
    pub(super) fn new(
        volume: Arc<Engine>,
        views: Arc<VolumeViews>,
        over: DeviceNumber,
        insertion: Insertion,
    ) -> Self {
        Self {
            volume,
            views,
            over,
            state: Mutex::new(State {
                insertion,
                bypassed: None,
                removed: false,
            }),
        }
    }

    /// The volume's node.
    pub(super) fn node(&self) -> PathBuf {
        self.lock().insertion.volume().node()
    }

    /// The volume's number.
    pub(super) fn number(&self) -> DeviceNumber {
        self.lock().insertion.volume().number
    }

    /// Why requests go around us, as last seen.
    pub(super) fn bypassed(&self) -> Option<String> {
        self.lock().bypassed.clone()
    }

    /// Looks, and deals with what is found. An error says why nothing can be answered now.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut state = self.lock();
        if state.removed {
            return Ok(());
        }
        let found = self.deal(&mut state.insertion);
        let bypassed = found.err();
        if let Some(why) = &bypassed
            && state.bypassed.as_ref() != Some(why)
        {
            tracing::error!(%why, "the volume is not tracked");
        }
        state.bypassed.clone_from(&bypassed);
        bypassed.map_or(Ok(()), Err)
    }

    /// Gives the volume its own table back. Nothing is guarded from then on.
    pub(super) fn remove(&self) -> Result<Swap, InsertionError> {
        let mut state = self.lock();
        let swap = match state.insertion.remove() {
            // The volume has its own table, which is what was wanted.
            Err(InsertionError::Unfinished { source, .. }) => {
                tracing::warn!(error = %source, "the private origin is left over");
                Swap {
                    held: Duration::ZERO,
                }
            }
            Err(InsertionError::NotInserted { .. } | InsertionError::Gone { .. }) => {
                state.insertion.abandon()?;
                Swap {
                    held: Duration::ZERO,
                }
            }
            answer => answer?,
        };
        state.removed = true;
        Ok(swap)
    }

    /// Looks until the process ends.
    pub(super) fn watch(&self) {
        let watch = Watch::new()
            .inspect_err(
                |error| tracing::warn!(%error, "device-mapper is looked at every second only"),
            )
            .ok();
        loop {
            if let Some(watch) = &watch {
                let _ = watch.wait(INTERVAL);
                let _ = watch.arm();
            } else {
                std::thread::sleep(INTERVAL);
            }
            let _ = self.check();
        }
    }

    fn deal(&self, insertion: &mut Insertion) -> Result<(), String> {
        match insertion.look() {
            Ok(Sight::Interposed(_) | Sight::Suspended) => Ok(()),
            Ok(Sight::Bypassed(Bypass::Around(sectors))) => {
                let cause = format!("{} sectors were written around us", sectors.total());
                block_on(self.volume.lose_snapshots(&cause));
                insertion.rebase().map_err(|error| error.to_string())?;
                self.reset(&cause)
            }
            Ok(Sight::Bypassed(Bypass::Table(table))) => {
                self.insert_again(insertion, &format!("another program gave the volume another table ({table})"))
            }
            Ok(Sight::Returned(_)) => {
                self.insert_again(insertion, "the volume was taken away and came back without us")
            }
            // An earlier attempt got as far as the private origin.
            Err(InsertionError::NotInserted { .. }) => {
                self.insert_again(insertion, "another program gave the volume another table")
            }
            Ok(Sight::Resized { sectors, .. }) => self.start_over(&format!("the volume was resized to {sectors} sectors")),
            Ok(Sight::Gone) => Err("the volume's device is gone: activate it (lvchange -ay), and it is put over us again".to_owned()),
            Err(error) => Err(format!("whether the volume lies over us cannot be told: {error}")),
        }
    }

    /// Puts the volume over us once more. What was written meanwhile is not known, so tracking
    /// starts anew, but only then: nothing may be missed after it did.
    fn insert_again(&self, insertion: &mut Insertion, cause: &str) -> Result<(), String> {
        block_on(self.volume.lose_snapshots(cause));
        let failed =
            |error: InsertionError| format!("{cause}; putting it over us again failed: {error}");
        let adopted = insertion.adopt().map_err(failed)?;
        if adopted.resized {
            self.start_over(cause);
        }
        let swap = insertion.insert(self.over).map_err(failed)?;
        tracing::warn!(cause, held_us = swap.held.as_micros(), "put over us again");
        self.reset(cause)
    }

    fn reset(&self, cause: &str) -> Result<(), String> {
        let reset = block_on(self.volume.reset_tracking(cause));
        reset
            .map(drop)
            .map_err(|error| format!("{cause}; tracking could not be started anew: {error}"))
    }

    /// A device cannot change its size under every kernel, and nobody uses ours now: a new
    /// process makes a new one.
    fn start_over(&self, cause: &str) -> ! {
        block_on(self.volume.lose_snapshots(cause));
        if let Err(error) = self.views.delete() {
            tracing::warn!(%error, "a view is left over");
        }
        tracing::warn!(cause, "starting over");
        process::exit(RESTART);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
