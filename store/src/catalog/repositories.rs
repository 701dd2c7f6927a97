//! Repositories that are known by name: where each is, and where its key is taken from. Never a secret,
//! and nothing of what a repository holds: that is read from it.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Catalog, CatalogError, RepositoryRecord};

const COLUMNS: &str = "name, id, location, append_only";

impl Catalog {
    /// Remembers a repository. Refused when the name or the place is taken.
    pub fn insert_repository(&mut self, record: &RepositoryRecord) -> Result<(), CatalogError> {
        self.change("recording a repository", |transaction| {
            transaction.execute(
                "INSERT INTO repositories (name, id, location, append_only) VALUES (?1, ?2, ?3, ?4)",
                (
                    &record.name,
                    record.id,
                    &record.location,
                    record.append_only,
                ),
            )?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO repository_options (repository, key, value) VALUES (?1, ?2, ?3)",
            )?;
            for (key, value) in &record.options {
                insert.execute((&record.name, key, value))?;
            }
            Ok(())
        })
    }

    /// One repository.
    pub fn repository(&self, name: &str) -> Result<Option<RepositoryRecord>, CatalogError> {
        self.read("reading a repository", |connection| {
            let found = connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM repositories WHERE name = ?1"
                ))?
                .query_row([name], of_row)
                .optional()?;
            found
                .map(|record| with_options(connection, record))
                .transpose()
        })
    }

    /// Every repository, by name.
    pub fn repositories(&self) -> Result<Vec<RepositoryRecord>, CatalogError> {
        self.read("listing repositories", |connection| {
            let records = connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM repositories ORDER BY name"))?
                .query_map([], of_row)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let records = records.into_iter();
            records
                .map(|record| with_options(connection, record))
                .collect()
        })
    }

    /// Forgets a repository. `false` when there was none.
    pub fn remove_repository(&mut self, name: &str) -> Result<bool, CatalogError> {
        self.change("forgetting a repository", |transaction| {
            Ok(transaction.execute("DELETE FROM repositories WHERE name = ?1", [name])? > 0)
        })
    }
}

fn of_row(found: &Row<'_>) -> rusqlite::Result<RepositoryRecord> {
    Ok(RepositoryRecord {
        name: found.get(0)?,
        id: found.get(1)?,
        location: found.get(2)?,
        append_only: found.get(3)?,
        options: BTreeMap::new(),
    })
}

fn with_options(
    connection: &Connection,
    mut record: RepositoryRecord,
) -> rusqlite::Result<RepositoryRecord> {
    record.options = connection
        .prepare_cached("SELECT key, value FROM repository_options WHERE repository = ?1")?
        .query_map([&record.name], |found| Ok((found.get(0)?, found.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(record)
}
