//! Leaving at a signal: systemd stops the server, most often because the host stops.
//!
//! The host gets the volume back, so that nothing of it hangs when this process is gone, and what was
//! tracked is kept for the next server. That may be wrong once somebody writes to the volume:
//!
//! | who writes before the next server starts | is noticed by |
//! |---|---|
//! | whoever has the volume open now | nobody leaves |
//! | somebody, while the host goes on | the kernel's count of written sectors, noted here in memory |
//! | somebody, before the host stops | nobody, so the area tells nothing any more, unless the host is stopping already and file systems are unmounted |
//! | somebody, to an image file | its time of modification |

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use futures_lite::future::block_on;
use tidemark_proto::private::{Failure, FailureKind};

use super::{
    left::Left,
    served::failure,
    start::{Running, log_unless_gone},
    stop::take_away,
};
use crate::{
    host::{device::DeviceNumber, shutdown},
    paths::VolumePaths,
};

/// How long the area may take to tell that nothing is being changed any more. It does so within two
/// seconds; after this the next diff over-reports.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to tell nothing.
const CLOSE_WITHIN: Duration = Duration::from_secs(15);
/// How long udev and the like may have a volume open that has just changed: they read, and are soon done.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);

/// Gives the volume back, or changes nothing and says why not.
pub(super) fn leave(running: &mut Running) -> Result<(), Failure> {
    running.served().begin_stop()?;
    let left = leave_now(running);
    if left.is_err() {
        running.served().go_on();
    }
    left
}

fn leave_now(running: &mut Running) -> Result<(), Failure> {
    refuse_while_open(running)?;
    let device = DeviceNumber::of_block_device(&running.served().origin);
    let device = device.ok().flatten();
    let left = device.and_then(Left::now);
    let host_stops = shutdown::is_under_way();
    if device.is_some() && !host_stops {
        close_journal(running)?;
    }
    take_away(running)?;
    if stays_open(running) || device.and_then(Left::now) != left {
        // Mounted or written to just now, by somebody who did not wait for the host's end.
        close_journal(running)?;
    } else if device.is_none() || host_stops {
        settle(running);
    }
    if let Some(left) = left {
        left.note(running.state_dir());
    }
    clean_up(&running.served().paths);
    tracing::info!(
        host_stops,
        "the host has its volume back; tracking waits for the next start"
    );
    Ok(())
}

fn refuse_while_open(running: &Running) -> Result<(), Failure> {
    match stays_open(running) {
        true => Err(failure(
            FailureKind::Busy,
            "the volume is mounted or open: it is served on, for what would be written without us \
             could not be told",
        )),
        false => Ok(()),
    }
}

fn stays_open(running: &Running) -> bool {
    !comes_true(LOOK_WITHIN, || !running.is_open())
}

fn close_journal(running: &Running) -> Result<(), Failure> {
    let why = "the volume is given back to the host, which may change it";
    match block_on(running.volume().close_journal(why, CLOSE_WITHIN)) {
        true => Ok(()),
        false => Err(failure(
            FailureKind::Io,
            "the area does not answer, and would tell of a tracking that is over: detach the volume",
        )),
    }
}

fn settle(running: &Running) {
    comes_true(SETTLE_WITHIN, || running.volume().is_settled());
}

/// Whether something is so within a time.
fn comes_true(within: Duration, is_so: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() >= within {
            return false;
        }
        thread::sleep(STEP);
    }
    true
}

fn clean_up(paths: &VolumePaths) {
    let socket = paths.control_socket();
    log_unless_gone(&socket, fs::remove_file(&socket));
}
