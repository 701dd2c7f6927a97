//! Serving until somebody stops it, and stopping only when nobody is hurt.

use std::{
    process,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use tidemark_proto::private::{Failure, FailureKind};

use futures_lite::future::block_on;

use super::{
    calls::failure::cut_failure,
    leave,
    served::{Ending, StopRequest, failure},
    start::Running,
};
use crate::{host::RESTART, volume::Fate};

/// How often to look whether the transport still serves.
const WATCH: Duration = Duration::from_secs(1);

/// How long changes in flight may take to end before a hand-over.
const DRAIN: Duration = Duration::from_secs(10);

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
        let decided = match request.ending {
            Ending::Detach { force } => stop(running, force),
            Ending::HandOver => hand_over(running),
            Ending::Leave => leave::leave(running),
        };
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
            tracing::info!(how = ?request.ending, "stopped");
            match request.ending {
                Ending::Detach { .. } | Ending::Leave => return Ok(()),
                // With changes still held: those that came wait for the next server.
                Ending::HandOver => process::exit(RESTART),
            }
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

/// Holds changes, so that none is in flight when the process ends, and lets them go never more.
fn hand_over(running: &Running) -> Result<(), Failure> {
    if !running.outlives_its_server() {
        let why = "the portable transport ends with its server: unmount the volume, detach it and \
                   attach it again";
        return Err(failure(FailureKind::Invalid, why));
    }
    let served = running.served();
    served.begin_stop()?;
    let held = block_on(served.volume.hold(DRAIN)).map_err(cut_failure);
    held.map(drop).inspect_err(|_| served.go_on())
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
    take_away(running)?;
    // From here on there is no way back: nothing serves the host.
    running.retire();
    Ok(())
}

pub(super) fn take_away(running: &mut Running) -> Result<(), Failure> {
    running.take_away().map_err(|error| {
        let kind = if error.is_busy() {
            FailureKind::Busy
        } else {
            FailureKind::Io
        };
        failure(kind, error.to_string())
    })
}
