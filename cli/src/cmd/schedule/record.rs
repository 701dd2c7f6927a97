//! The files that tell how runs of schedules went: who reads and writes them, and who may run.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use tidemark_config::runs;
pub(crate) use tidemark_config::runs::{Outcome, Record};

use crate::{
    exit::{Exit, Fault},
    host::served::is_locked,
    units,
};

/// How the last run went, for a table.
pub(crate) fn line(record: &Record) -> String {
    if !record.has_ended() {
        return "was ended before it was done".to_owned();
    }
    let ago = units::age(units::now().saturating_sub(record.ended_at));
    let mut line = format!("{} {ago} ago", record.outcome.word());
    if let Some(first) = record.failures.first() {
        line.push_str(": ");
        line.push_str(first);
    }
    line
}

/// The state directory that they are in.
pub(crate) struct Records(PathBuf);

impl Records {
    pub(crate) fn below(state_dir: &Path) -> Self {
        Self(state_dir.to_owned())
    }

    fn path(&self, name: &str, suffix: &str) -> PathBuf {
        runs::file(&self.0, name).with_extension(suffix)
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
