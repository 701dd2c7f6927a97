//! Waiting for a daemon that went away in mid-stream.

use std::time::{Duration, Instant};

use tidemark_proto::v1::ErrorReason;
use tonic::{Code, Status};

use crate::{
    context::Interrupt,
    exit::{Fault, reason_of},
};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// How long to go on without progress, and how long to wait before the next attempt.
#[derive(Debug)]
pub(crate) struct Patience {
    bound: Duration,
    since: Option<Instant>,
    delay: Duration,
    /// How often a connection was lost.
    pub(crate) attempts: u32,
}

impl Patience {
    /// Gives up after `bound` without progress.
    pub(crate) fn new(bound: Duration) -> Self {
        Self {
            bound,
            since: None,
            delay: FIRST_DELAY,
            attempts: 0,
        }
    }

    /// Something came through: the bound counts anew.
    pub(crate) fn progress(&mut self) {
        self.since = None;
        self.delay = FIRST_DELAY;
    }

    /// Waits before the next attempt after `status`; fails with it when it will not get better
    /// or the bound has passed.
    pub(crate) async fn pause(
        &mut self,
        status: Status,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !is_transient(&status) || since.elapsed() >= self.bound {
            return Err(status.into());
        }
        self.attempts += 1;
        tokio::select! {
            () = tokio::time::sleep(self.delay) => {}
            () = interrupt.wait() => return Err(Fault::interrupted().into()),
        }
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        Ok(())
    }
}

/// Whether the same call may succeed later. What the agent gives a reason for, it means; without
/// one it is the transport that speaks, in any of these codes.
pub(crate) fn is_transient(status: &Status) -> bool {
    match reason_of(status) {
        Some(reason) => matches!(
            reason,
            ErrorReason::ShuttingDown | ErrorReason::VolumeServerUnavailable
        ),
        None => matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted
        ),
    }
}

/// A stream that ended without its trailer.
pub(crate) fn truncated() -> Status {
    Status::unavailable("the stream ended before its trailer")
}
