//! The catalog for async callers: one call at a time, on a blocking thread, and none while file
//! systems are frozen.
//!
//! The catalog may lie on a file system that is being frozen: a commit would then wait for the
//! thaw. Whoever freezes takes [`Ledger::quiet`] first, so that no commit is under way, and other
//! tasks wait on a lock here rather than inside SQLite.

use std::sync::{Arc, Mutex, PoisonError};

use tidemark_store::catalog::{Catalog, CatalogError};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    task,
};

use super::Error;

/// A shared catalog.
#[derive(Clone)]
pub(super) struct Ledger {
    catalog: Arc<Mutex<Catalog>>,
    turn: Arc<AsyncMutex<()>>,
}

/// While it lives, nobody reads or writes the catalog.
pub(super) struct Quiet {
    _turn: OwnedMutexGuard<()>,
}

impl Ledger {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self {
            catalog: Arc::new(Mutex::new(catalog)),
            turn: Arc::new(AsyncMutex::new(())),
        }
    }

    /// Runs `work` on the catalog. Dropping the future does not stop work that has begun.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Catalog) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let catalog = Arc::clone(&self.catalog);
        let done = task::spawn_blocking(move || {
            let _turn = turn;
            work(&mut catalog.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match done.await {
            Ok(result) => result.map_err(Error::internal),
            Err(failure) => Err(Error::internal(format!("a catalog call ended: {failure}"))),
        }
    }

    /// Waits for the call under way, and keeps others out.
    pub(super) async fn quiet(&self) -> Quiet {
        Quiet {
            _turn: Arc::clone(&self.turn).lock_owned().await,
        }
    }
}
