//! What happened: a bounded ring whose numbers never repeat.

use rusqlite::Row;

use super::{Catalog, CatalogError, EventRecord, MAX_EVENTS, NewEvent, row};

impl Catalog {
    /// Keeps an event and gives its number; the oldest make room.
    pub fn insert_event(&mut self, event: &NewEvent) -> Result<u64, CatalogError> {
        self.change("recording an event", |transaction| {
            let sequence: i64 = transaction
                .prepare_cached(
                    "INSERT INTO events (at_us, kind, severity, volume, snapshot, message)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING sequence",
                )?
                .query_row(
                    (
                        event.at_us,
                        &event.kind,
                        &event.severity,
                        &event.volume,
                        event.snapshot,
                        &event.message,
                    ),
                    |row| row.get(0),
                )?;
            transaction
                .prepare_cached("DELETE FROM events WHERE sequence <= ?1")?
                .execute([sequence - row::cap(MAX_EVENTS)])?;
            u64::try_from(sequence)
                .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, sequence))
        })
    }

    /// Kept events after a number, in order, `max` at most.
    pub fn events(&self, after: u64, max: u32) -> Result<Vec<EventRecord>, CatalogError> {
        // A number that SQLite cannot hold is after every event.
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        self.read("listing events", |connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM events WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
                )?
                .query_map((after, max), read)?
                .collect()
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<EventRecord> {
    Ok(EventRecord {
        sequence: row.get("sequence")?,
        event: NewEvent {
            at_us: row.get("at_us")?,
            kind: row.get("kind")?,
            severity: row.get("severity")?,
            volume: row.get("volume")?,
            snapshot: row.get("snapshot")?,
            message: row.get("message")?,
        },
    })
}
