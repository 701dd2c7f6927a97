//! The files that tell how runs of schedules went: who reads and writes them, and who may run.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use tidemark_config::runs;
pub(super) use tidemark_config::runs::{Outcome, Record};

use crate::{
    exit::{Exit, Fault},
    units,
};

/// How the last run went, for a table.
pub(super) fn line(record: &Record) -> String {
    if !record.has_ended() {
        return "runs, or was ended".to_owned();
    }
    let ago = std::time::Duration::from_secs(now().saturating_sub(record.ended_at));
    let mut line = format!("{} {} ago", record.outcome.word(), units::span(ago));
    if let Some(first) = record.failures.first() {
        line.push_str(": ");
        line.push_str(first);
    }
    line
}

/// Seconds since the UNIX epoch.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The state directory that they are in.
pub(super) struct Records(PathBuf);

impl Records {
    pub(super) fn below(state_dir: &Path) -> Self {
        Self(state_dir.to_owned())
    }

    fn path(&self, name: &str, suffix: &str) -> PathBuf {
        runs::file(&self.0, name).with_extension(suffix)
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
                .create(runs::folder(&self.0))?;
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
