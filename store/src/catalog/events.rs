//! What happened: a bounded ring whose numbers never repeat.

use rusqlite::{OptionalExtension, Row, Transaction};

use super::{Catalog, CatalogError, EventRecord, MAX_EVENTS, NewEvent, row};

impl Catalog {
    /// Keeps an event and gives its number; the oldest make room. With a cursor (volume, server,
    /// number) it also remembers which event of a volume server this was.
    pub fn insert_event(
        &mut self,
        event: &NewEvent,
        cursor: Option<(&str, &str, u64)>,
    ) -> Result<u64, CatalogError> {
        self.change("recording an event", |transaction| {
            if let Some(cursor) = cursor {
                set_cursor(transaction, cursor)?;
            }
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

    /// Remembers the last event that was taken from a volume's server (volume, server, number).
    pub fn set_event_cursor(&mut self, cursor: (&str, &str, u64)) -> Result<(), CatalogError> {
        self.change("recording an event's place", |transaction| {
            set_cursor(transaction, cursor)
        })
    }

    /// The number of the last event taken from this server of the volume; 0 when none was.
    pub fn event_cursor(&self, volume: &str, server: &str) -> Result<u64, CatalogError> {
        self.read("reading an event's place", |connection| {
            let found = connection
                .prepare_cached(
                    "SELECT sequence FROM event_cursors WHERE volume = ?1 AND server = ?2",
                )?
                .query_row([volume, server], |row| row.get(0))
                .optional()?;
            Ok(found.unwrap_or(0))
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

fn set_cursor(
    transaction: &Transaction<'_>,
    (volume, server, sequence): (&str, &str, u64),
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO event_cursors (volume, server, sequence) VALUES (?1, ?2, ?3)
             ON CONFLICT (volume) DO UPDATE SET server = ?2, sequence = ?3",
        )?
        .execute((volume, server, sequence))?;
    Ok(())
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
