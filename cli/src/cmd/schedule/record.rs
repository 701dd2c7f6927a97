//! How runs of schedules went: one small file for each schedule, `schedules/NAME.json`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{
    exit::{Exit, Fault},
    host::served::is_locked,
    units,
};

/// How the last run went. Times are seconds since the UNIX epoch; 0 is never.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) started_at: u64,
    pub(crate) ended_at: u64,
    pub(crate) outcome: Outcome,
    /// The agent's reason for what failed first.
    pub(crate) reason: String,
    /// What failed, one sentence each.
    pub(crate) failures: Vec<String>,
    /// Recovery points that were made.
    pub(crate) points: Vec<String>,
    pub(crate) read_bytes: u64,
    pub(crate) changed_bytes: u64,
    pub(crate) stored_bytes: u64,
    /// When a run last made its recovery points.
    pub(crate) backed_up_at: u64,
    /// When one last did all it should.
    pub(crate) succeeded_at: u64,
    /// When one last pruned.
    pub(crate) pruned_at: u64,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It did all it should.
    Succeeded,
    /// The backup is there, and something after it failed.
    Partial,
    /// There is no backup of this run. So is one that never ended.
    #[default]
    Failed,
}

impl Outcome {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

impl Record {
    /// For a table.
    pub(crate) fn line(&self) -> String {
        if self.ended_at < self.started_at {
            return "was ended before it was done".to_owned();
        }
        let ago = units::age(units::now().saturating_sub(self.ended_at));
        let mut line = format!("{} {ago} ago", self.outcome.word());
        if let Some(first) = self.failures.first() {
            line.push_str(": ");
            line.push_str(first);
        }
        line
    }
}

/// The folder of them.
pub(crate) struct Records(PathBuf);

impl Records {
    pub(crate) fn below(state_dir: &Path) -> Self {
        Self(state_dir.join("schedules"))
    }

    fn path(&self, name: &str, suffix: &str) -> PathBuf {
        self.0.join(format!("{name}.{suffix}"))
    }

    /// One that cannot be understood is none: what follows from it is a prune too many.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Option<Record>> {
        let path = self.path(name, "json");
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Whole or not at all.
    pub(crate) fn write(&self, name: &str, record: &Record) -> anyhow::Result<()> {
        let (path, fresh) = (self.path(name, "json"), self.path(name, "new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().with_context(|| path.display().to_string())
    }

    /// Whether somebody holds [`Records::lock`].
    pub(crate) fn is_running(&self, name: &str) -> bool {
        is_locked(&self.path(name, "lock"))
    }

    /// Held while a schedule runs.
    pub(crate) fn lock(&self, name: &str) -> anyhow::Result<Flock<File>> {
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
