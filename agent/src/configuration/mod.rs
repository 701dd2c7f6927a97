//! The configuration in force, and what makes the agent as it says.
//!
//! ```text
//! start, SIGHUP, ReloadConfiguration
//!    └─> read and check the file ──wrong──> told, and what was in force stays
//!            └─> in force: hooks and the like at once
//!                    └─> reconcile: serve metrics, attach volumes, add repositories that are not there
//!                            └─ what could not be done is tried again, ever more seldom
//! ```
//!
//! Nothing is detached or removed: a file that lost a line must not cost a volume its tracking.

mod reconcile;
mod repository;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidemark_config::{Configuration, LoadError};
use tidemark_proto::v1::{EventKind, Severity};

use crate::{
    backup::Backups,
    manager::{Error, ErrorReason, Happening, Manager},
    metrics::Metrics,
};

/// What could not be done is tried again after this: a device may come late, or a disk be mounted.
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// Pauses double up to this: a try may make an area and take it back.
const LONGEST_RETRY: Duration = Duration::from_secs(900);

/// Where the configuration comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// It was asked for: then it is an error that it is missing.
    pub given: bool,
}

impl Source {
    /// Reads and checks it. May block.
    pub fn read(&self) -> Result<Configuration, LoadError> {
        match tidemark_config::load(&self.path) {
            Err(LoadError::Missing(_)) if !self.given => Ok(Configuration::default()),
            read => read,
        }
    }
}

/// What was done for a configuration: a sentence for each thing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Outcome {
    /// Done.
    pub done: Vec<String>,
    /// Not done, and why. It is tried again.
    pub failed: Vec<String>,
    /// Other than the file says, and left to the operator, with the command.
    pub left: Vec<String>,
}

/// How the agent stands to its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The file.
    pub path: PathBuf,
    /// When what is in force was read.
    pub loaded_us: Option<u64>,
    /// What is wrong with the file as it was read last; what is in force is another, or none.
    pub wrong: Vec<String>,
    /// What the one in force asks for and is not done.
    pub failed: Vec<String>,
}

/// The configuration of one agent.
pub struct Configured {
    manager: Arc<Manager>,
    backups: Backups,
    metrics: Arc<Metrics>,
    source: Source,
    in_force: tokio::sync::Mutex<Configuration>,
    standing: Mutex<Standing>,
}

impl Configured {
    /// Takes what the agent read when it started.
    pub fn new(
        manager: Arc<Manager>,
        backups: Backups,
        metrics: Arc<Metrics>,
        source: Source,
        read: Result<Configuration, LoadError>,
    ) -> Self {
        let wrong = match &read {
            Ok(_) => Vec::new(),
            Err(wrong) => lines(wrong),
        };
        let loaded_us = read.is_ok().then(|| manager.clock().now_us());
        let in_force = read.unwrap_or_default();
        manager.configure(in_force.volumes.clone());
        metrics.configure(in_force.backups.clone());
        Self {
            standing: Mutex::new(Standing {
                path: source.path.clone(),
                loaded_us,
                wrong,
                failed: Vec::new(),
            }),
            in_force: tokio::sync::Mutex::new(in_force),
            manager,
            backups,
            metrics,
            source,
        }
    }

    /// How the agent stands to its file.
    pub fn standing(&self) -> Standing {
        self.lock().clone()
    }

    /// Does what the file says that was read at the start, then tries again what could not be done, for
    /// as long as the agent runs.
    pub async fn follow(self: Arc<Self>) {
        if self.standing().loaded_us.is_none() {
            self.tell_wrong(&self.standing().wrong, "the agent goes on without it")
                .await;
        }
        self.manager.wake_left_behind().await;
        self.again(true).await;
        let again = async {
            let mut pause = FIRST_RETRY;
            loop {
                tokio::time::sleep(pause).await;
                self.again(false).await;
                pause = match self.standing().failed.is_empty() {
                    true => FIRST_RETRY,
                    false => (pause * 2).min(LONGEST_RETRY),
                };
            }
        };
        tokio::select! {
            () = again => {}
            () = self.manager.shutting_down() => {}
        }
    }

    /// Once more what the configuration in force asks for, if some of it is not done.
    async fn again(&self, first: bool) {
        let in_force = self.in_force.lock().await;
        let standing = self.standing();
        if !first && standing.failed.is_empty() {
            return;
        }
        let outcome = self.reconcile(&in_force, &in_force).await;
        // What fails again for the same reason is no news.
        if outcome.failed != standing.failed || !outcome.done.is_empty() {
            self.tell(&outcome).await;
        }
        self.lock().failed = outcome.failed;
    }

    /// Reads the file again and does what it says. A wrong one changes nothing: CONFIGURATION_WRONG.
    pub async fn reload(&self) -> Result<Outcome, Error> {
        let mut in_force = self.in_force.lock().await;
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let read = read.map_err(|ended| Error::internal(format!("reading it ended: {ended}")))?;
        let fresh = match read {
            Ok(fresh) => fresh,
            Err(wrong) => {
                let told = lines(&wrong);
                self.tell_wrong(&told, "what was in force stays so").await;
                let message = told.join("\n");
                self.lock().wrong = told;
                return Err(Error::new(ErrorReason::ConfigurationWrong, message));
            }
        };
        self.manager.configure(fresh.volumes.clone());
        self.metrics.configure(fresh.backups.clone());
        let mut outcome = self.reconcile(&fresh, &in_force).await;
        if let Err(error) = self.manager.tell_systemd().await {
            outcome.failed.push(error.message);
        }
        let (now, before) = (&fresh.daemon, &in_force.daemon);
        if (&now.group, &now.log) != (&before.group, &before.log) {
            let what = "`group` and `log` of [daemon] are taken up when the agent starts: `systemctl restart tidemarkd`";
            outcome.left.push(what.to_owned());
        }
        *in_force = fresh;
        *self.lock() = Standing {
            path: self.source.path.clone(),
            loaded_us: Some(self.manager.clock().now_us()),
            wrong: Vec::new(),
            failed: outcome.failed.clone(),
        };
        self.tell(&outcome).await;
        Ok(outcome)
    }

    async fn tell(&self, outcome: &Outcome) {
        for line in outcome.done.iter().chain(&outcome.left) {
            tracing::info!("{line}");
        }
        for line in &outcome.failed {
            tracing::warn!("{line}");
        }
        if outcome.done.is_empty() && outcome.failed.is_empty() {
            return;
        }
        let severity = match outcome.failed.is_empty() {
            true => Severity::Info,
            false => Severity::Warning,
        };
        let said: Vec<_> = outcome
            .done
            .iter()
            .chain(&outcome.failed)
            .cloned()
            .collect();
        let message = format!("the configuration was taken up: {}", said.join("; "));
        let happening = Happening::new(EventKind::ConfigurationLoaded, severity, message);
        self.manager.events().record(happening).await;
    }

    async fn tell_wrong(&self, told: &[String], and: &str) {
        for line in told {
            tracing::error!("{line}");
        }
        let first = told.first().map_or("", String::as_str);
        let message = match told.len() {
            0 | 1 => format!("{first}; {and}"),
            more => format!("{first} (and {} more); {and}", more - 1),
        };
        let happening = Happening::new(EventKind::ConfigurationWrong, Severity::Error, message);
        self.manager.events().record(happening).await;
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        // Whole at every point.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lines(wrong: &LoadError) -> Vec<String> {
    match wrong {
        LoadError::Wrong(problems) => problems.lines().collect(),
        other => vec![other.to_string()],
    }
}

#[cfg(test)]
mod tests;
