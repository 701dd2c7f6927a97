//! Named sets of volumes.

use rusqlite::OptionalExtension;

use super::{Catalog, CatalogError};

impl Catalog {
    /// Remembers a group; the order of its volumes is kept. Refused when the name is taken.
    pub fn insert_group(&mut self, name: &str, volumes: &[String]) -> Result<(), CatalogError> {
        self.change("recording a group", |transaction| {
            transaction.execute("INSERT INTO groups (name) VALUES (?1)", [name])?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO group_volumes (group_name, position, volume) VALUES (?1, ?2, ?3)",
            )?;
            for (position, volume) in (0_i64..).zip(volumes) {
                insert.execute((name, position, volume))?;
            }
            Ok(())
        })
    }

    /// The volumes of a group.
    pub fn group(&self, name: &str) -> Result<Option<Vec<String>>, CatalogError> {
        self.read("reading a group", |connection| {
            let known = connection
                .prepare_cached("SELECT 1 FROM groups WHERE name = ?1")?
                .query_row([name], |_| Ok(()))
                .optional()?;
            if known.is_none() {
                return Ok(None);
            }
            let volumes = connection
                .prepare_cached(
                    "SELECT volume FROM group_volumes WHERE group_name = ?1 ORDER BY position",
                )?
                .query_map([name], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()?;
            Ok(Some(volumes))
        })
    }

    /// Every group's name, in order.
    pub fn groups(&self) -> Result<Vec<String>, CatalogError> {
        self.read("listing groups", |connection| {
            connection
                .prepare_cached("SELECT name FROM groups ORDER BY name")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }

    /// Forgets a group. `false` when there was none.
    pub fn remove_group(&mut self, name: &str) -> Result<bool, CatalogError> {
        self.change("forgetting a group", |transaction| {
            Ok(transaction.execute("DELETE FROM groups WHERE name = ?1", [name])? > 0)
        })
    }
}
