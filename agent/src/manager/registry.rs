//! The attached volumes, each with its link and its health.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex as SyncMutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tidemark_store::catalog::VolumeRecord;
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{Error, endurance::End, link::Link};
use crate::paths::VolumePaths;

/// The end of a process is told a moment after its connections'.
const TOLD_WITHIN: Duration = Duration::from_millis(500);

/// Whether a volume's server answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Health {
    /// Not known yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not, and why.
    Down(String),
    /// The volume was taken from its servers and is not tracked, and why.
    FellBack(String),
}

/// An attached volume.
pub(super) struct Entry {
    pub(super) record: VolumeRecord,
    pub(super) paths: VolumePaths,
    pub(super) link: Link,
    /// Held by whatever must not meet another: a cut, a detach, a clean-up.
    pub(super) work: Arc<Mutex<()>>,
    /// Servers that answered after one that had.
    pub(super) restarts: Count,
    /// Lineages that began after one that had.
    pub(super) resets: Count,
    health: watch::Sender<Health>,
    end: watch::Sender<Option<End>>,
    handing_over: AtomicBool,
    distrust: SyncMutex<Option<String>>,
    origin_identity: SyncMutex<Option<String>>,
    /// The process that answered last.
    server: SyncMutex<Option<String>>,
    keeper: SyncMutex<Option<JoinHandle<()>>>,
}

impl Entry {
    pub(super) fn new(record: VolumeRecord, paths: VolumePaths) -> Self {
        Self {
            link: Link::new(&paths.control_socket()),
            distrust: SyncMutex::new(record.distrust.clone()),
            origin_identity: SyncMutex::new(record.origin_identity.clone()),
            record,
            paths,
            work: Arc::default(),
            restarts: Count::default(),
            resets: Count::default(),
            health: watch::Sender::new(Health::Unknown),
            end: watch::Sender::new(None),
            handing_over: AtomicBool::new(false),
            server: SyncMutex::default(),
            keeper: SyncMutex::default(),
        }
    }

    /// Why what the area tells of earlier tracking must not be believed.
    pub(super) fn distrust(&self) -> Option<String> {
        let distrust = self.distrust.lock();
        distrust.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_distrust(&self, why: Option<String>) {
        *self.distrust.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Which device or file the origin was when it was served last.
    pub(super) fn origin_identity(&self) -> Option<String> {
        let known = self.origin_identity.lock();
        known.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_origin_identity(&self, identity: Option<String>) {
        let mut known = self
            .origin_identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = identity;
    }

    pub(super) fn name(&self) -> &str {
        &self.record.name
    }

    pub(super) fn set_health(&self, health: Health) {
        self.health.send_replace(health);
    }

    /// A process answers, which is the one that did before or took its place.
    pub(super) fn served_by(&self, server: &str) {
        let mut last = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if last
            .replace(server.to_owned())
            .is_some_and(|last| last != server)
        {
            self.restarts.add();
        }
        self.set_health(Health::Up);
    }

    pub(super) fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Where the end of a server is told.
    pub(super) fn end(&self) -> watch::Sender<Option<End>> {
        self.end.clone()
    }

    /// The server is about to end because it was asked to, or is not after all.
    pub(super) fn expect_restart(&self, expected: bool) {
        self.handing_over.store(expected, Ordering::Release);
    }

    /// How the last server ended, as far as that is known soon.
    pub(super) async fn how_it_ended(&self) -> End {
        if self.handing_over.swap(false, Ordering::AcqRel) {
            return End::Restart;
        }
        let mut end = self.end.subscribe();
        let told = timeout(TOLD_WITHIN, end.wait_for(Option::is_some)).await;
        let told = told.ok().and_then(Result::ok).and_then(|end| *end);
        self.end.send_replace(None);
        told.unwrap_or(End::Killed)
    }

    /// Returns once it is known whether the server answers.
    pub(super) async fn settled(&self) {
        let mut health = self.health.subscribe();
        let _ = health.wait_for(|health| *health != Health::Unknown).await;
    }

    /// The task that looks after the volume.
    pub(super) fn set_keeper(&self, keeper: JoinHandle<()>) {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    /// Nobody looks after the volume any more. Call with `work` held: the task then is not in
    /// the middle of a start.
    pub(super) async fn dismiss_keeper(&self) {
        let keeper = {
            let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
            keeper.take()
        };
        if let Some(keeper) = keeper {
            keeper.abort();
            // It ends cancelled, or had ended.
            let _ = keeper.await;
        }
    }
}

/// How often something happened since this process started.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The volumes by name.
#[derive(Default)]
pub(super) struct Registry(RwLock<BTreeMap<String, Arc<Entry>>>);

impl Registry {
    pub(super) fn get(&self, name: &str) -> Result<Arc<Entry>, Error> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = entries.get(name).map(Arc::clone);
        found.ok_or_else(|| Error::volume_not_found(name))
    }

    /// Every volume, by name.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entries.values().map(Arc::clone).collect()
    }

    pub(super) fn insert(&self, entry: Arc<Entry>) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(entry.name().to_owned(), entry);
    }

    pub(super) fn remove(&self, name: &str) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        entries.remove(name);
    }
}
