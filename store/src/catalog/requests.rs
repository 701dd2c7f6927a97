//! Request ids: a repeated call answers as the first did.

use rusqlite::{OptionalExtension, Transaction};

use super::{Catalog, CatalogError, MAX_REQUESTS, RequestRecord, row};

impl Catalog {
    /// Remembers what a call with a request id did.
    pub fn insert_request(
        &mut self,
        request_id: &str,
        record: &RequestRecord,
    ) -> Result<(), CatalogError> {
        self.change("recording a request id", |transaction| {
            insert(transaction, request_id, record)
        })
    }

    /// What an earlier call with this request id did.
    pub fn request(&self, request_id: &str) -> Result<Option<RequestRecord>, CatalogError> {
        self.read("reading a request id", |connection| {
            let found = connection
                .prepare_cached(
                    "SELECT number, call, arguments FROM requests WHERE request_id = ?1",
                )?
                .query_row([request_id], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?;
            let Some((number, call, arguments)) = found else {
                return Ok(None);
            };
            let results = connection
                .prepare_cached(
                    "SELECT result FROM request_results WHERE request = ?1 ORDER BY position",
                )?
                .query_map([number], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Some(RequestRecord {
                call,
                arguments,
                results,
            }))
        })
    }
}

pub(super) fn insert(
    transaction: &Transaction<'_>,
    request_id: &str,
    record: &RequestRecord,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO requests (request_id, call, arguments) VALUES (?1, ?2, ?3)",
        (request_id, &record.call, &record.arguments),
    )?;
    let number = transaction.last_insert_rowid();
    for (position, result) in (0_i64..).zip(&record.results) {
        transaction.execute(
            "INSERT INTO request_results (request, position, result) VALUES (?1, ?2, ?3)",
            (number, position, result),
        )?;
    }
    transaction.execute(
        "DELETE FROM requests WHERE number <= ?1 - ?2",
        (number, row::cap(MAX_REQUESTS)),
    )?;
    Ok(())
}
