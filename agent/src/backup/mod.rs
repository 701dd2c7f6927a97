//! Backups: the repositories that this agent knows by name, and the jobs on them.
//!
//! ```text
//! rpc --> Backups --> known ----> catalog (names, places, where keys are taken from)
//!            |          └-------> location, secret --> store::repository (opened once, kept)
//!            └------> job ------> one operation each: progress, cancel, result
//! ```
//!
//! A job's work is `store::repository`'s, on a blocking thread. It may end with this process at any
//! point: what it stored is found by the next one.

mod base;
mod care;
mod error;
mod image;
mod job;
mod known;
mod location;
mod points;
mod restore;
pub mod s3;
mod secret;
mod stats;
mod stream;
mod told;
mod volumes;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidemark_store::repository::Repository;
use tokio::sync::Semaphore;

pub use care::{CheckArgs, CopyArgs, PruneArgs};
pub use known::Known;
pub use location::{Location, S3Options};
pub use points::{Filter, ForgetArgs, Verdict};
pub use restore::RestoreArgs;
pub use secret::SecretSource;
pub use stream::PointStream;
pub use tidemark_store::repository::{KeyInfo as Key, care::retention::Policy};
pub use volumes::{BackupArgs, Subject};

use crate::manager::{Manager, operations::Operations, streams::Streams};

/// Jobs that work at a time; others wait. At some 120 MiB each: 240 MiB.
const MAX_WORKING: usize = 2;
/// Request ids that are remembered.
const MAX_REQUESTS: usize = 256;

/// The repositories of one agent. Cheap to clone.
#[derive(Clone)]
pub struct Backups {
    manager: Arc<Manager>,
    streams: Streams,
    operations: Operations,
    opened: Arc<Mutex<HashMap<String, Repository>>>,
    turns: Arc<Semaphore>,
    requests: Arc<Mutex<VecDeque<Request>>>,
    made: Arc<Mutex<Made>>,
}

/// When backups were last made by this process, in microseconds since the UNIX epoch.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Made {
    /// Of each volume, to whatever repository.
    pub of_volumes: BTreeMap<String, u64>,
    /// To each repository, by its name.
    pub to_repositories: BTreeMap<String, u64>,
}

/// A call that began an operation, for when it is repeated.
struct Request {
    id: String,
    arguments: BackupArgs,
    operation: String,
}

impl Backups {
    /// No repository is open yet.
    pub fn new(manager: Arc<Manager>, operations: Operations) -> Self {
        Self {
            streams: Streams::new(Arc::clone(&manager), operations.clone()),
            manager,
            operations,
            opened: Arc::default(),
            turns: Arc::new(Semaphore::new(MAX_WORKING)),
            requests: Arc::default(),
            made: Arc::default(),
        }
    }

    /// When backups were last made.
    pub fn made(&self) -> Made {
        self.lock_made().clone()
    }

    fn lock_made(&self) -> MutexGuard<'_, Made> {
        // Maps that are only inserted to: whole at every point.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
