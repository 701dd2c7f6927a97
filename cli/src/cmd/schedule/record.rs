//! How runs of schedules went: one small file for each schedule, `schedules/NAME.json`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{
    exit::{Exit, Fault},
    units,
};

/// How the last run went. Times are seconds since the UNIX epoch; 0 is never.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) started_at: u64,
    pub(super) ended_at: u64,
    pub(super) outcome: Outcome,
    /// The agent's reason for what failed first.
    pub(super) reason: String,
    /// What failed, one sentence each.
    pub(super) failures: Vec<String>,
    /// Recovery points that were made.
    pub(super) points: Vec<String>,
    pub(super) read_bytes: u64,
    pub(super) changed_bytes: u64,
    pub(super) stored_bytes: u64,
    /// When a run last made its recovery points.
    pub(super) backed_up_at: u64,
    /// When one last did all it should.
    pub(super) succeeded_at: u64,
    /// When one last pruned.
    pub(super) pruned_at: u64,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It did all it should.
    Succeeded,
    /// The backup is there, and something after it failed.
    Partial,
    /// There is no backup of this run. So is one that never ended.
    #[default]
    Failed,
}

impl Outcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

impl Record {
    /// For a table.
    pub(super) fn line(&self) -> String {
        if self.ended_at < self.started_at {
            return "runs, or was ended".to_owned();
        }
        let ago = std::time::Duration::from_secs(now().saturating_sub(self.ended_at));
        let mut line = format!("{} {} ago", self.outcome.word(), units::span(ago));
        if let Some(first) = self.failures.first() {
            line.push_str(": ");
            line.push_str(first);
        }
        line
    }
}

/// Seconds since the UNIX epoch.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The folder of them.
pub(super) struct Records(PathBuf);

impl Records {
    pub(super) fn below(state_dir: &Path) -> Self {
        Self(state_dir.join("schedules"))
    }

    fn path(&self, name: &str, suffix: &str) -> PathBuf {
        self.0.join(format!("{name}.{suffix}"))
    }

    /// One that cannot be understood is none: what follows from it is a prune too many.
    pub(super) fn read(&self, name: &str) -> anyhow::Result<Option<Record>> {
        let path = self.path(name, "json");
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Whole or not at all.
    pub(super) fn write(&self, name: &str, record: &Record) -> anyhow::Result<()> {
        let (path, fresh) = (self.path(name, "json"), self.path(name, "new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().with_context(|| path.display().to_string())
    }

    /// Held while a schedule runs.
    pub(super) fn lock(&self, name: &str) -> anyhow::Result<Flock<File>> {
        let path = self.path(name, "lock");
        let open = || -> io::Result<File> {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.0)?;
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
        };
        let file = open().with_context(|| path.display().to_string())?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            nix::errno::Errno::EWOULDBLOCK => {
                Fault::new(Exit::Busy, format!("schedule \"{name}\" runs already"))
                    .advise("wait for it: `tidemark job list` shows what it does")
                    .into()
            }
            error => anyhow::Error::from(error).context(path.display().to_string()),
        })
    }
}
