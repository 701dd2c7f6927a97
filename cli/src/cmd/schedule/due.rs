//! When a schedule should have begun at the latest, so that one that does not is noticed.

use std::{
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};
use tidemark_config::{Backup, calendar, runs::Record};

use crate::units;

/// What a timer, and a start that waits for the network, may take.
const GRACE: Duration = Duration::from_secs(15 * 60);

/// What has a say in it beside the configuration; seconds since the UNIX epoch.
pub(super) struct Known {
    /// Before this the schedule may have been another one.
    configured_at: u64,
    /// Before this nobody was there to begin; what was missed begins now.
    booted_at: u64,
}

impl Known {
    /// For a configuration's file on this host.
    pub(super) fn of(config: &Path) -> Self {
        let modified = fs::metadata(config).and_then(|about| about.modified());
        let since = modified.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default());
        let up = clock_gettime(ClockId::CLOCK_BOOTTIME);
        let up = up.map_or(0, |up| u64::try_from(up.tv_sec()).unwrap_or(0));
        Self {
            configured_at: since.map_or(0, |since| since.as_secs()),
            booted_at: units::now().saturating_sub(up),
        }
    }

    /// The moment by which the next run after the last one should have begun, its random delay and some
    /// grace included. Nothing for what is run by hand, or without a systemd to tell.
    pub(super) fn due_by(&self, backup: &Backup, last: Option<&Record>) -> Option<u64> {
        let last = last.map_or(0, |last| last.started_at);
        let base = last.max(self.configured_at);
        let due = calendar::first_after(backup.schedule.as_deref()?, base)?;
        let due: prost_types::Timestamp = due.parse().ok()?;
        let due = units::seconds(&due).max(self.booted_at);
        Some(due + backup.random_delay.as_secs() + GRACE.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use tidemark_config::Configuration;

    use super::*;

    const DAY: u64 = 24 * 3600;
    /// Midnight.
    const MIDNIGHT: u64 = 1_000_080_000;

    fn due_by(configured_at: u64, booted_at: u64, last: Option<u64>) -> Option<u64> {
        let text = "[volume.v]\ndevice = \"/dev/v\"\narea = \"lv\"\n[repository.r]\nlocation = \"/r\"\n\
            [backup.b]\nvolumes = [\"v\"]\nrepository = \"r\"\nrandom-delay = \"30min\"\n\
            schedule = \"*-*-* 00:00:00 UTC\"\n";
        let configuration = Configuration::parse(text).unwrap();
        let record = last.map(|started_at| Record {
            started_at,
            ..Record::default()
        });
        let known = Known {
            configured_at,
            booted_at,
        };
        let by = known.due_by(&configuration.backups["b"], record.as_ref())?;
        Some(by - GRACE.as_secs() - 1800)
    }

    #[test]
    fn a_run_is_due_after_the_last_the_change_and_the_boot() {
        let last = Some(MIDNIGHT + 60);
        assert_eq!(due_by(0, 0, last), Some(MIDNIGHT + DAY));
        let changed = MIDNIGHT + 3 * DAY + 60;
        assert_eq!(due_by(changed, 0, last), Some(MIDNIGHT + 4 * DAY));
        assert_eq!(due_by(changed, 0, None), Some(MIDNIGHT + 4 * DAY));
        let booted = MIDNIGHT + 9 * DAY + 7;
        assert_eq!(due_by(0, booted, last), Some(booted));
    }
}
