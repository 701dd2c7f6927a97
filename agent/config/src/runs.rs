//! How runs of schedules went: `schedules/NAME.json` in the agent's state directory, one small file for each.
//! The command that runs a schedule writes it; the agent reads it for its metrics.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How the last run went. Times are seconds since the UNIX epoch; 0 is never.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// When it began.
    pub started_at: u64,
    /// When it ended; before `started_at` while it runs, or where it was ended.
    pub ended_at: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The agent's reason for what failed first.
    pub reason: String,
    /// What failed, one sentence each.
    pub failures: Vec<String>,
    /// Recovery points that were made.
    pub points: Vec<String>,
    /// Bytes that were read of the volumes.
    pub read_bytes: u64,
    /// Of these, bytes that differ from the recovery points before.
    pub changed_bytes: u64,
    /// Bytes that the repository grew by.
    pub stored_bytes: u64,
    /// When a run last made its recovery points.
    pub backed_up_at: u64,
    /// When one last did all it should.
    pub succeeded_at: u64,
    /// When one last pruned.
    pub pruned_at: u64,
    /// Runs since then that did not do all they should.
    pub failed_in_a_row: u64,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did all it should.
    Succeeded,
    /// The backup is there, and something after it failed.
    Partial,
    /// There is no backup of this run. So is one that never ended.
    #[default]
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Succeeded, Self::Partial, Self::Failed];

    /// For people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

impl Record {
    /// That a run begins now, after one that went as `last` says.
    pub fn begin(last: &Self, now: u64) -> Self {
        Self {
            started_at: now,
            backed_up_at: last.backed_up_at,
            succeeded_at: last.succeeded_at,
            pruned_at: last.pruned_at,
            failed_in_a_row: last.failed_in_a_row + u64::from(!last.has_ended()),
            ..Self::default()
        }
    }

    /// Whether the last run has ended, and was not cut short.
    pub fn has_ended(&self) -> bool {
        self.ended_at >= self.started_at
    }
}

/// The folder of the records.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("schedules")
}

/// The record of a schedule.
pub fn file(state_dir: &Path, schedule: &str) -> PathBuf {
    folder(state_dir).join(format!("{schedule}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_cut_short_counts_as_failed_when_the_next_begins() {
        let first = Record::begin(&Record::default(), 100);
        assert!(!first.has_ended());
        assert_eq!(first.failed_in_a_row, 0);
        let second = Record::begin(&first, 200);
        assert_eq!(second.failed_in_a_row, 1);
        let ended = Record {
            ended_at: 200,
            ..second
        };
        assert_eq!(Record::begin(&ended, 300).failed_in_a_row, 1);
    }
}
