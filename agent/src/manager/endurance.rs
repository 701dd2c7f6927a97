//! How often the server of a volume may end in a row before the volume is taken away from it.
//!
//! The host waits through every restart. A server that fails by itself will fail again, on the
//! same request: few attempts are enough. One that was killed says nothing of itself; somebody
//! who kills it for a while, or memory that is short for a while, must not cost the tracking.

use std::{process::ExitStatus, time::Duration};

use crate::host::RESTART;

/// Ends of its own accord, one soon after the other.
const FAILURES: u32 = 5;
/// Ends by SIGKILL, one soon after the other.
const KILLS: u32 = 30;
/// A server that served for so long starts the count anew.
const SETTLED: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;

/// How a server ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It was killed, or nobody knows: an earlier control plane had started it.
    Killed,
    /// By itself.
    Failed,
    /// To be started again, as it wished.
    Restart,
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.signal(), status.code()) {
            (Some(SIGKILL), _) => Self::Killed,
            (_, Some(RESTART)) => Self::Restart,
            _ => Self::Failed,
        }
    }
}

/// The ends of a volume's servers.
#[derive(Default, Debug)]
pub(super) struct Endurance {
    failures: u32,
    kills: u32,
}

impl Endurance {
    /// Notes an end; `true` when that was one too many.
    pub(super) fn note(&mut self, end: End, served: Duration) -> bool {
        if served >= SETTLED {
            *self = Self::default();
        }
        match end {
            End::Killed => self.kills += 1,
            End::Failed => self.failures += 1,
            End::Restart => {}
        }
        self.failures >= FAILURES || self.kills >= KILLS
    }

    /// For people: how many there were.
    pub(super) fn ends(&self) -> u32 {
        self.failures + self.kills
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn a_server_that_fails_is_given_few_attempts() {
        let mut endurance = Endurance::default();
        let noted: Vec<bool> = (0..5).map(|_| endurance.note(End::Failed, SOON)).collect();
        assert_eq!(noted, [false, false, false, false, true]);
        assert_eq!(endurance.ends(), 5);
    }

    #[test]
    fn kills_are_borne_for_longer() {
        let mut endurance = Endurance::default();
        assert!((1..KILLS).all(|_| !endurance.note(End::Killed, SOON)));
        assert!(endurance.note(End::Killed, SOON));
    }

    #[test]
    fn a_server_that_served_starts_the_count_anew() {
        let mut endurance = Endurance::default();
        for served in [SOON, SOON, SOON, SOON, SETTLED, SOON, SOON, SOON] {
            assert!(!endurance.note(End::Failed, served));
        }
        assert!(endurance.note(End::Failed, SOON));
        let mut endurance = Endurance::default();
        assert!((0..100).all(|_| !endurance.note(End::Restart, SOON)));
    }

    #[test]
    fn ends_are_told_apart() {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(End::from(ExitStatus::from_raw(9)), End::Killed);
        assert_eq!(End::from(ExitStatus::from_raw(6)), End::Failed);
        assert_eq!(End::from(ExitStatus::from_raw(1 << 8)), End::Failed);
        assert_eq!(End::from(ExitStatus::from_raw(75 << 8)), End::Restart);
    }
}
