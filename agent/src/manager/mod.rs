//! The control plane: volumes, snapshots, leases, operations. It knows no wire format of the
//! public API, and it is never in an I/O path: volume servers go on without it.
//!
//! ```text
//! rpc --> Manager --> link ------> volume servers (one task each in supervisor follows it)
//!            |------> ledger ----> catalog
//!            |------> host_ops --> freezing, mounts
//! ```
//!
//! A volume's `work` lock is held by whatever must not meet another: a cut, a detach, a clean-up.

mod areas;
mod checkpoints;
mod clock;
mod configured;
mod cut;
mod detach;
mod diff;
mod endurance;
mod error;
mod events;
mod falling;
mod groups;
mod handing;
mod hooks;
mod host_ops;
mod info;
mod leases;
mod ledger;
mod link;
mod measured;
mod model;
pub mod operations;
mod places;
mod refresh;
mod registry;
mod repositories;
mod requests;
pub mod restores;
mod snapshots;
mod spawn;
pub mod streams;
mod supervisor;
mod units;
mod validate;
mod volumes;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tidemark_proto::v1::{EventKind, Severity};
use tidemark_store::{catalog::Catalog, units::Id};
use tokio::{sync::watch, task::JoinError};

pub use clock::Clock;
pub use configured::differences;
pub use error::{Error, ErrorReason, reason_name};
pub use events::{EventReader, Events, Happening};
pub use groups::Group;
pub use host_ops::{
    FreezeFailed, Frozen, HostKernel, HostOps, LogicalVolumes, Mounts, Pending, Thawed,
};
pub use info::{Candidate, Feature, HostInfo};
pub use leases::LeaseGuard;
#[doc(hidden)]
pub use link::checked_page;
pub use measured::{Histogram, Measured, MeasuredServer, Took, TookRequests};
pub use model::{
    AreaChoice, AttachArgs, Checkpoint, CheckpointStatus, Counters, CreateArgs, Extent, ExtentPage,
    Kind, LiveVolume, NotServed, Snapshot, Trust, Volume,
};
pub use requests::{Arguments, Begun, Ticket};
pub use units::Units;
pub use validate::{checkpoint, lineage};

use crate::paths::Paths;
use configured::Configured;
use leases::Leases;
use ledger::Ledger;
use registry::Registry;
use requests::Requests;

/// For how long a start waits until it is known of each volume whether its server answers.
const SETTLE: Duration = Duration::from_secs(5);

/// How the control plane is set up.
pub struct Config {
    /// Its directories.
    pub paths: Paths,
    /// The program that has the volume role: `tidemarkd` itself.
    pub program: PathBuf,
    /// Where time comes from.
    pub clock: Clock,
    /// What the host's kernel is asked for.
    pub host: Arc<dyn HostOps>,
    /// The units that volume servers are; without them they are children of this process.
    pub units: Option<Units>,
}

/// The control plane.
pub struct Manager {
    config: Config,
    ledger: Ledger,
    events: Events,
    registry: Registry,
    requests: Requests,
    leases: Leases,
    configured: Configured,
    /// Taken by attaches: two must not take one origin.
    attaching: tokio::sync::Mutex<()>,
    /// Taken by whatever freezes and holds, and by LVM's commands: one that met a held device
    /// would wait for it, and keep LVM's lock meanwhile.
    calm: Arc<tokio::sync::Mutex<()>>,
    shutdown: watch::Sender<bool>,
    started_us: u64,
}

impl Manager {
    /// Opens the catalog, finds the volume servers that run and starts those that should.
    pub async fn start(config: Config) -> Result<Arc<Self>, Error> {
        prepare_dir(&config.paths.state_dir, 0o700)?;
        prepare_dir(&config.paths.runtime_dir, 0o755)?;
        prepare_dir(&config.paths.runtime_dir.join("volumes"), 0o700)?;
        let path = config.paths.catalog();
        let catalog = tokio::task::spawn_blocking(move || Catalog::open(&path))
            .await
            .map_err(ended)?
            .map_err(Error::internal)?;
        let ledger = Ledger::new(catalog);
        let manager = Arc::new(Self {
            events: Events::new(ledger.clone(), config.clock.clone()),
            registry: Registry::default(),
            requests: Requests::default(),
            leases: Leases::default(),
            configured: Configured::default(),
            attaching: tokio::sync::Mutex::default(),
            calm: Arc::default(),
            shutdown: watch::Sender::new(false),
            started_us: config.clock.now_us(),
            ledger,
            config,
        });
        manager.take_up_work().await?;
        Ok(manager)
    }

    async fn take_up_work(self: &Arc<Self>) -> Result<(), Error> {
        let records = self.ledger.run(|catalog| catalog.volumes()).await?;
        let count = records.len();
        self.events
            .record(Happening::new(
                EventKind::AgentStarted,
                Severity::Info,
                format!("the agent started and looks after {count} volumes"),
            ))
            .await;
        let entries: Vec<_> = records
            .into_iter()
            .map(|record| self.supervise(record))
            .collect();
        let settled = async {
            for entry in &entries {
                entry.settled().await;
            }
        };
        if tokio::time::timeout(SETTLE, settled).await.is_err() {
            tracing::warn!("some volume servers do not answer yet; they are looked after");
        }
        tokio::spawn(leases::expire(Arc::clone(self)));
        let manager = Arc::clone(self);
        // Beside the start: LVM may be busy, and nobody waits for this.
        tokio::spawn(async move { manager.remove_unwanted_areas().await });
        Ok(())
    }

    /// The agent's directories.
    pub fn paths(&self) -> &Paths {
        &self.config.paths
    }

    /// Wall time.
    pub fn clock(&self) -> &Clock {
        &self.config.clock
    }

    /// The log of events.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// When this control plane started.
    pub fn started_us(&self) -> u64 {
        self.started_us
    }

    /// Tells every stream and task to end. Volume servers are left alone.
    pub fn shut_down(&self) {
        self.shutdown.send_replace(true);
    }

    /// Whether the control plane is stopping.
    pub fn is_shutting_down(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// Returns once the control plane is stopping.
    pub async fn shutting_down(&self) {
        let mut stop = self.shutdown.subscribe();
        // The sender lives as long as `self`.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Runs `work` to its end, also when the caller goes away: a client's disconnect must not
    /// leave a file system frozen or a volume half attached.
    async fn to_its_end<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        if self.is_shutting_down() {
            return Err(Error::shutting_down());
        }
        tokio::spawn(work).await.map_err(ended)?
    }
}

/// A random identity.
fn new_id() -> Id {
    Id(uuid::Uuid::new_v4().into_bytes())
}

fn ended(failure: JoinError) -> Error {
    Error::internal(format!("a task of the agent ended: {failure}"))
}

/// Makes a directory that only root changes, and its parents.
fn prepare_dir(path: &Path, mode: u32) -> Result<(), Error> {
    let make = || -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    make().map_err(|error| Error::internal(format!("directory {}: {error}", path.display())))
}
