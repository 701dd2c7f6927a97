//! Serving until somebody stops it, and stopping only when nobody is hurt.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use tidemark_proto::private::{Failure, FailureKind};

use super::{
    served::{StopRequest, failure},
    start::Running,
};
use crate::volume::Fate;

/// How often to look whether the transport still serves.
const WATCH: Duration = Duration::from_secs(1);

/// How long a client may take to be told before the process ends.
const TELLING: Duration = Duration::from_secs(2);

/// Serves until a stop succeeds, or the transport is taken away from under it.
pub(super) fn serve_until_stopped(
    running: &mut Running,
    stops: &Receiver<StopRequest>,
) -> anyhow::Result<()> {
    loop {
        let request = match stops.recv_timeout(WATCH) {
            Ok(request) => request,
            Err(RecvTimeoutError::Timeout) if running.is_serving() => continue,
            Err(RecvTimeoutError::Timeout) => {
                anyhow::bail!(
                    "the FUSE connection or the ublk device was ended from outside: attach the volume again"
                )
            }
            Err(RecvTimeoutError::Disconnected) => {
                anyhow::bail!("nobody is left who could stop this server")
            }
        };
        let decided = stop(running, request.force);
        if let Err(refused) = &decided {
            tracing::warn!(reason = refused.message, "not stopped");
        }
        let stopped = decided.is_ok();
        if let Some(outcome) = request.outcome {
            // A client that is gone need not know.
            drop(outcome.send(decided));
        }
        if stopped {
            if let Some(told) = request.told {
                let _ = told.recv_timeout(TELLING);
            }
            tracing::info!("stopped");
            return Ok(());
        }
    }
}

/// Takes the volume away, or changes nothing and says why not.
fn stop(running: &mut Running, force: bool) -> Result<(), Failure> {
    running.served().begin_stop()?;
    let done = refuse_live_snapshots(running, force).and_then(|()| detach(running));
    if done.is_err() {
        running.served().go_on();
    }
    done
}

fn refuse_live_snapshots(running: &Running, force: bool) -> Result<(), Failure> {
    let snapshots = running.served().volume.snapshots();
    let live = snapshots
        .iter()
        .filter(|snapshot| snapshot.fate == Fate::Live)
        .count();
    if live > 0 && !force {
        let message = format!("{live} snapshots are live: release them, or stop with force");
        return Err(failure(FailureKind::Busy, message));
    }
    Ok(())
}

fn detach(running: &mut Running) -> Result<(), Failure> {
    running.take_away().map_err(|error| {
        let kind = if error.is_busy() {
            FailureKind::Busy
        } else {
            FailureKind::Io
        };
        failure(kind, error.to_string())
    })?;
    // From here on there is no way back: nothing serves the host.
    running.retire();
    Ok(())
}
