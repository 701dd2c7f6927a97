//! Restore sessions: begin, write, seal by digest, or abort.
//!
//! Sessions live in memory: a restart of the control plane ends those that were open, and their
//! targets stay half written. A client sees RESTORE_NOT_FOUND then and begins again.

mod events;
mod extent;
mod open;
mod record;
mod seal;
mod session;
mod target;
#[cfg(test)]
mod tests;
mod whole;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tidemark_proto::v1::{DataExtent, OperationKind, RestoreState};
use tokio::sync::Mutex as AsyncMutex;

pub use extent::MAX_DATA_EXTENT_BYTES;
#[doc(hidden)]
pub use extent::recheck;
pub use whole::WholeTarget;

use self::{
    session::{Budget, Session, Work},
    target::Target,
};
use super::{
    Error, ErrorReason, Manager,
    operations::{OperationStatus, Operations},
    streams::digest::ExtentHash,
    validate,
};

/// A session that neither writes nor seals for so long fails.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(900);

/// Sessions that may be open at once.
pub const MAX_OPEN: usize = 16;

/// Ended sessions that stay known. At about 300 bytes each: 20 KiB.
pub const KEPT_ENDED: usize = 64;

/// Extents that all open sessions may record. At 24 bytes each, and as much again while the list
/// grows, they come to 192 MiB; as 1 MiB extents they are 4 TiB.
pub const MAX_EXTENTS: usize = 4 << 20;

/// Told once of each session's end, on whatever thread ends it: must not block.
type OnEnd = Arc<dyn Fn(&RestoreStatus) + Send + Sync>;

/// What a session restores to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An attached volume, by name.
    Volume(String),
    /// A file or device of the host.
    Path(PathBuf),
}

/// Arguments of [`Restores::begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginRestore {
    /// Where to.
    pub destination: Destination,
    /// The target's size.
    pub capacity_bytes: u64,
    /// Make the file when there is none.
    pub create: bool,
    /// Idempotency key; empty is none.
    pub request_id: String,
}

/// A session at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreStatus {
    /// 32 hex digits.
    pub id: String,
    /// The volume's name or the path.
    pub subject: String,
    /// Whether `subject` is a volume.
    pub is_volume: bool,
    /// Whether it is open, and how it ended.
    pub state: RestoreState,
    /// Size of the target.
    pub capacity_bytes: u64,
    /// Bytes of all extents written, zeros included.
    pub written_bytes: u64,
    /// Extents written.
    pub extents: u64,
    /// When it fails unless something comes; `None` when it ended.
    pub expires_at: Option<SystemTime>,
    /// Why it ended, for people; empty while open and when sealed.
    pub cause: String,
}

/// Every open session, and the last that ended.
pub struct Restores {
    operations: Operations,
    on_end: OnEnd,
    budget: Budget,
    known: Mutex<VecDeque<Known>>,
    /// One begin at a time: a repeated request finds the session of the first.
    beginning: AsyncMutex<()>,
}

struct Known {
    begin: BeginRestore,
    session: Arc<Session>,
}

impl Restores {
    /// No sessions yet. `on_end` is called once for each session that ends.
    fn new(operations: Operations, on_end: OnEnd) -> Self {
        Self {
            operations,
            on_end,
            budget: Budget::default(),
            known: Mutex::default(),
            beginning: AsyncMutex::default(),
        }
    }

    /// The sessions of one agent: each end becomes an event. Must be called within a runtime.
    pub fn of(manager: &Arc<Manager>, operations: Operations) -> Self {
        Self::new(operations, events::of_ends(manager))
    }

    /// Begins a session on a volume that is not mounted, or on a file or device that nobody
    /// has. A repeated request finds the first one's session.
    pub async fn begin(
        &self,
        manager: &Manager,
        begin: BeginRestore,
    ) -> Result<RestoreStatus, Error> {
        if begin.capacity_bytes == 0 || i64::try_from(begin.capacity_bytes).is_err() {
            let why = format!("{} is no size of a volume", begin.capacity_bytes);
            return Err(Error::invalid("capacity_bytes", why));
        }
        let (capacity, make) = (begin.capacity_bytes, begin.create);
        match begin.destination.clone() {
            Destination::Volume(name) => {
                let live = manager.volume(&name).await?.live;
                let live = live.map_err(|not| Error::unavailable(&name, not.why))?;
                self.begin_on(begin, move || open::volume(&name, &live, capacity))
                    .await
            }
            Destination::Path(path) => {
                validate::path("path", &path)?;
                self.begin_on(begin, move || open::path(&path, capacity, make))
                    .await
            }
        }
    }

    /// Begins a session. `open` opens and claims the target, or says why not; it may block, and
    /// is not called for a repeated request. Must be called within a runtime.
    async fn begin_on<F>(&self, begin: BeginRestore, open: F) -> Result<RestoreStatus, Error>
    where
        F: FnOnce() -> Result<Target, Error> + Send + 'static,
    {
        let _one_at_a_time = self.beginning.lock().await;
        if let Some(status) = self.repeated(&begin)? {
            return Ok(status);
        }
        self.admit(&begin.destination)?;
        let target = blocking(open).await??;
        let work = Work::new(target, self.budget.clone());
        let session = Session::new(&begin, work, self.on_end.clone());
        let session = Arc::new(session);
        tokio::spawn(session.clone().expire_when_idle());
        let status = session.status();
        self.remember(Known { begin, session });
        Ok(status)
    }

    /// Writes extents in order and answers when they are written, though not yet durable. At an
    /// error, what precedes the bad extent stays written and counts.
    pub async fn write(&self, id: &str, extents: Vec<DataExtent>) -> Result<RestoreStatus, Error> {
        let session = self.find(id)?;
        let mut work = session.lock_work().await?;
        // The task goes on when the caller is dropped, and gives the work back at its end.
        let writer = session.clone();
        blocking(move || writer.write(&mut work, extents)).await??;
        Ok(session.status())
    }

    /// Starts the sealing, which is an operation: its end says whether the digest matched.
    pub fn seal(&self, id: &str, digest: &[u8]) -> Result<OperationStatus, Error> {
        let digest = ExtentHash::try_from(digest)
            .map_err(|_| Error::invalid("digest", "a BLAKE3 of 32 bytes is needed"))?;
        let session = self.find(id)?;
        let work = session.try_lock_work()?;
        let total = session.status().written_bytes;
        let operation =
            self.operations
                .start(OperationKind::SealRestore, session.subject.as_str(), total)?;
        let operation_id = operation.id().to_owned();
        tokio::task::spawn_blocking(move || seal::run(&session, work, &digest, operation));
        self.operations
            .get(&operation_id)
            .ok_or_else(|| Error::internal("the seal's operation is not known"))
    }

    /// Ends a session as ABORTED; a write or seal under way stops first.
    pub async fn abort(&self, id: &str) -> Result<(), Error> {
        self.find(id)?.abort().await
    }

    /// A session as it is now.
    pub fn get(&self, id: &str) -> Result<RestoreStatus, Error> {
        Ok(self.find(id)?.status())
    }

    fn repeated(&self, begin: &BeginRestore) -> Result<Option<RestoreStatus>, Error> {
        if begin.request_id.is_empty() {
            return Ok(None);
        }
        let known = self.known();
        let mut same_id = known.iter().rev();
        match same_id.find(|known| known.begin.request_id == begin.request_id) {
            Some(known) if known.begin == *begin => Ok(Some(known.session.status())),
            Some(_) => Err(Error::new(
                ErrorReason::RequestIdReused,
                format!(
                    "request id \"{}\" was used for another restore: choose a new one",
                    begin.request_id
                ),
            )),
            None => Ok(None),
        }
    }

    fn admit(&self, destination: &Destination) -> Result<(), Error> {
        let known = self.known();
        let open: Vec<_> = known.iter().filter(|k| k.session.is_open()).collect();
        if let Some(other) = open.iter().find(|k| k.begin.destination == *destination) {
            return Err(Error::new(
                ErrorReason::VolumeBusy,
                format!(
                    "restore {} writes to {}: seal or abort it first",
                    other.session.id, other.session.subject
                ),
            )
            .with("restore", &other.session.id));
        }
        if open.len() >= MAX_OPEN {
            return Err(Error::new(
                ErrorReason::LimitReached,
                format!("{MAX_OPEN} restores are open, which is the limit: seal or abort one"),
            ));
        }
        Ok(())
    }

    fn remember(&self, new: Known) {
        let mut known = self.known();
        known.push_back(new);
        let mut to_forget = known
            .iter()
            .filter(|known| !known.session.is_open())
            .count()
            .saturating_sub(KEPT_ENDED);
        known.retain(|known| {
            let forget = to_forget > 0 && !known.session.is_open();
            to_forget -= usize::from(forget);
            !forget
        });
    }

    fn find(&self, id: &str) -> Result<Arc<Session>, Error> {
        let known = self.known();
        let found = known.iter().find(|known| known.session.id == id);
        found.map(|known| known.session.clone()).ok_or_else(|| {
            Error::new(
                ErrorReason::RestoreNotFound,
                format!(
                    "no restore has the id \"{id}\"; a restart of the agent ends all restores: \
                     begin another one"
                ),
            )
            .with("restore", id)
        })
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Known>> {
        // A list that is only pushed to and retained: whole at every point.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(body)
        .await
        .map_err(|error| Error::internal(format!("a restore's worker ended: {error}")))
}
