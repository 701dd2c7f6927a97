//! The catalog: what the control plane must still know after a restart, in one SQLite file.
//!
//! Every call is synchronous and each change is one transaction. The volume servers know nothing
//! of it: a lost catalog costs names and leases, never a volume's data or its tracking.
//!
//! The file is held exclusively, so that two control planes never share one. `synchronous=FULL`:
//! an answered call must survive a power cut (a lease or a request id forgotten is a snapshot
//! leaked or cut twice), and there are only a few commits a snapshot.

mod areas;
mod error;
mod events;
mod groups;
mod lineages;
mod record;
mod repositories;
mod requests;
mod row;
mod schema;
mod snapshots;
mod volumes;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Transaction};

pub use error::CatalogError;
pub use record::{
    Consistency, Durability, EventRecord, FullPolicy, LineageRecord, NewEvent, RepositoryRecord,
    RequestRecord, SnapshotRecord, SnapshotState, Transport, UnwantedArea, VolumeRecord,
};

/// Events that are kept; older ones make room. At some 200 bytes each, about 2 MB.
pub const MAX_EVENTS: u32 = 10_000;
/// Request ids that are remembered; older ones make room.
pub const MAX_REQUESTS: u32 = 10_000;
/// Records of snapshots without data that are kept for one volume.
pub const MAX_GONE_SNAPSHOTS: u32 = 4096;
/// Past lineages that are kept for one volume.
pub const MAX_LINEAGES: u32 = 1024;

/// An open catalog.
#[derive(Debug)]
pub struct Catalog {
    connection: Connection,
    path: PathBuf,
}

impl Catalog {
    /// Opens or makes the catalog at `path`, checks it and brings its schema up to date.
    ///
    /// Fails when another process holds it, when it is damaged, or when a later version wrote it.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|source| CatalogError::opening(path, source))?;
        let mut catalog = Self {
            connection,
            path: path.to_owned(),
        };
        schema::prepare(&mut catalog.connection, path)?;
        Ok(catalog)
    }

    /// Where the catalog is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `change` in one transaction: all of it, or nothing.
    fn change<T>(
        &mut self,
        what: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, CatalogError> {
        let path = &self.path;
        let run = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run(&mut self.connection).map_err(|source| CatalogError::during(what, path, source))
    }

    /// Runs `read` without changing anything.
    fn read<T>(
        &self,
        what: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CatalogError> {
        read(&self.connection).map_err(|source| CatalogError::during(what, &self.path, source))
    }
}
