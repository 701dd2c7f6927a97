//! Areas that attach made and that nobody needs any more.
//!
//! A volume and the note that its area is to be removed change in one transaction, before the area
//! is removed: whatever happens in between, it is not forgotten.

use rusqlite::Transaction;

use super::{Catalog, CatalogError, UnwantedArea, row};
use crate::units::Id;

impl Catalog {
    /// Areas that are to be removed.
    pub fn unwanted_areas(&self) -> Result<Vec<UnwantedArea>, CatalogError> {
        self.read("listing areas to be removed", |connection| {
            connection
                .prepare_cached("SELECT volume_id, path FROM unwanted_areas ORDER BY path")?
                .query_map([], |row| {
                    Ok(UnwantedArea {
                        volume: row.get("volume_id")?,
                        path: row::path(row, "path")?,
                    })
                })?
                .collect()
        })
    }

    /// An area that was to be removed is gone.
    pub fn forget_unwanted_area(&mut self, volume: Id) -> Result<(), CatalogError> {
        self.change("forgetting an area", |transaction| {
            let delete = "DELETE FROM unwanted_areas WHERE volume_id = ?1";
            transaction.execute(delete, [volume]).map(drop)
        })
    }
}

/// Notes that a volume's area is to be removed, if attach made it.
pub(super) fn unwant(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO unwanted_areas (volume_id, path)
                  SELECT id, area_path FROM volumes WHERE name = ?1 AND area_made = 1";
    transaction.execute(insert, [name]).map(drop)
}
