//! Metrics for monitoring: gathered when somebody scrapes, told as OpenMetrics text over HTTP.
//!
//! ```text
//! UNIX socket, loopback --http--> scrape --> manager::measured --> each volume's server, all at once
//!                                    ├─────> catalog, records of schedules
//!                                    ├─────> operations, backups (counted in this process)
//!                                    └─────> text
//! ```
//!
//! Whoever scrapes gives up after some seconds, so each source has a bound and is left out when it does not
//! answer within it. Nothing here is waited for by anybody else.

mod growth;
mod http;
mod jobs;
mod listening;
mod text;
mod volumes;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use nix::unistd::Gid;
use tidemark_config::{
    Backup,
    runs::{self, Record},
};
use tokio::{task::spawn_blocking, time::timeout};

pub use listening::Listened;

use crate::{
    backup::Backups,
    manager::{Manager, Measured, operations::Operations},
};
use growth::Growth;
use jobs::Schedules;
use listening::Listening;
use text::Families;

/// The catalog and the records may lie on a disk that does not answer.
const STATE_WITHIN: Duration = Duration::from_secs(2);

/// The metrics of one agent.
pub struct Metrics {
    manager: Arc<Manager>,
    backups: Backups,
    operations: Operations,
    /// Members may read the socket.
    group: Option<Gid>,
    schedules: RwLock<BTreeMap<String, Backup>>,
    growth: Mutex<BTreeMap<String, Growth>>,
    /// Held by the one thread that reads records: on a disk that hangs, no other joins it.
    reading: Arc<tokio::sync::Mutex<()>>,
    listening: tokio::sync::Mutex<Listening>,
}

impl Metrics {
    /// Nothing is served yet: see [`Metrics::listen`].
    pub fn new(
        manager: Arc<Manager>,
        backups: Backups,
        operations: Operations,
        group: Option<Gid>,
    ) -> Arc<Self> {
        Arc::new(Self {
            manager,
            backups,
            operations,
            group,
            schedules: RwLock::default(),
            growth: Mutex::default(),
            reading: Arc::default(),
            listening: tokio::sync::Mutex::default(),
        })
    }

    /// Takes a configuration's schedules for those that are told of.
    pub fn configure(&self, schedules: BTreeMap<String, Backup>) {
        *self
            .schedules
            .write()
            .unwrap_or_else(PoisonError::into_inner) = schedules;
    }

    /// All metrics as OpenMetrics text. Takes some seconds at most.
    pub async fn scrape(&self) -> Result<String, fmt::Error> {
        let (volumes, repositories, schedules) = tokio::join!(
            self.manager.measure(),
            self.repositories(),
            self.read_schedules()
        );
        let mut out = Families::default();
        let state_up = repositories.is_some() && schedules.records.is_some();
        jobs::agent(&mut out, self.manager.started_us(), state_up);
        volumes::tell(&mut out, &volumes, &self.times_to_full(&volumes));
        jobs::operations(&mut out, &self.operations.tally());
        let repositories = repositories.unwrap_or_default();
        jobs::backups(&mut out, &repositories, &schedules, &self.backups.made());
        jobs::schedules(&mut out, &schedules);
        out.text()
    }

    /// Names of repositories; `None` when the catalog does not answer.
    async fn repositories(&self) -> Option<Vec<String>> {
        let records = timeout(STATE_WITHIN, self.manager.repositories())
            .await
            .ok()?
            .ok()?;
        Some(records.into_iter().map(|record| record.name).collect())
    }

    async fn read_schedules(&self) -> Schedules {
        let named = self.schedules.read();
        let named = named.unwrap_or_else(PoisonError::into_inner).clone();
        let names: Vec<_> = named.keys().cloned().collect();
        let state_dir = self.manager.paths().state_dir.clone();
        let records = match Arc::clone(&self.reading).try_lock_owned() {
            Err(_) => None,
            Ok(turn) => {
                let read = spawn_blocking(move || {
                    let _turn = turn;
                    records_of(&state_dir, names)
                });
                timeout(STATE_WITHIN, read).await.ok().and_then(Result::ok)
            }
        };
        Schedules { named, records }
    }

    /// When stores are full, of those that grow.
    fn times_to_full(&self, volumes: &[Measured]) -> BTreeMap<String, Duration> {
        let now = Instant::now();
        let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
        growth.retain(|name, _| volumes.iter().any(|one| one.name == *name));
        let served = volumes
            .iter()
            .filter_map(|one| Some((&one.name, one.server.as_ref()?)));
        served
            .filter_map(|(name, server)| {
                let store = growth.entry(name.clone()).or_default();
                store.note(now, server.store_used_bytes);
                let time = store.time_to_full(server.store_capacity_bytes)?;
                Some((name.clone(), time))
            })
            .collect()
    }
}

/// Records of schedules that ran before. One that cannot be understood is none.
fn records_of(state_dir: &Path, names: Vec<String>) -> BTreeMap<String, Record> {
    let record = |name: &str| {
        let bytes = fs::read(runs::file(state_dir, name)).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    names
        .into_iter()
        .filter_map(|name| Some((record(&name)?, name)))
        .map(|(record, name)| (name, record))
        .collect()
}
