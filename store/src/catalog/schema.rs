//! The tables, and how an older file becomes a current one.

use std::path::Path;

use rusqlite::Connection;

use super::CatalogError;

/// Marks the file as ours: "TDMK".
const APPLICATION_ID: i64 = 0x5444_4D4B;

/// Step `i` brings `user_version` from `i` to `i + 1`. Steps are never edited once released.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE volumes (
    name               TEXT PRIMARY KEY,
    id                 BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    origin_path        BLOB NOT NULL UNIQUE,
    area_path          BLOB NOT NULL UNIQUE,
    area_size_bytes    INTEGER NOT NULL CHECK (area_size_bytes >= 0),
    block_bytes        INTEGER NOT NULL CHECK (block_bytes > 0),
    max_write_delay_ms INTEGER CHECK (max_write_delay_ms >= 0), -- NULL: the policy is to drop
    attached_us        INTEGER NOT NULL
) STRICT;

CREATE TABLE snapshots (
    number             INTEGER PRIMARY KEY,                     -- the order of creation
    id                 BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    set_id             BLOB NOT NULL CHECK (length(set_id) = 16),
    volume             TEXT NOT NULL,                           -- outlives its volume
    volume_id          BLOB NOT NULL CHECK (length(volume_id) = 16),
    lineage            BLOB NOT NULL CHECK (length(lineage) = 16),
    epoch              INTEGER NOT NULL CHECK (epoch >= 0),
    state              TEXT NOT NULL CHECK (state IN ('ready', 'released', 'overflowed', 'lost')),
    state_reason       TEXT NOT NULL,
    lease_ended        INTEGER NOT NULL CHECK (lease_ended IN (0, 1)),
    consistency        TEXT NOT NULL CHECK (consistency IN ('crash', 'file-system')),
    created_us         INTEGER NOT NULL,
    lease_us           INTEGER NOT NULL CHECK (lease_us >= 0),
    lease_expires_us   INTEGER,
    held_us            INTEGER NOT NULL,
    frozen_us          INTEGER,
    capacity_bytes     INTEGER NOT NULL,
    block_bytes        INTEGER NOT NULL
) STRICT;
CREATE INDEX snapshots_by_volume ON snapshots (volume, state);

CREATE TABLE snapshot_labels (
    snapshot INTEGER NOT NULL REFERENCES snapshots (number) ON DELETE CASCADE,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (snapshot, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE groups (
    name TEXT PRIMARY KEY
) STRICT;

CREATE TABLE group_volumes (
    group_name TEXT NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    volume     TEXT NOT NULL,
    PRIMARY KEY (group_name, position),
    UNIQUE (group_name, volume)
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
    number     INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    call       TEXT NOT NULL,
    arguments  BLOB NOT NULL
) STRICT;

CREATE TABLE request_results (
    request  INTEGER NOT NULL REFERENCES requests (number) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    result   TEXT NOT NULL,
    PRIMARY KEY (request, position)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a number is never used again, even when all events were dropped.
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us    INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    severity TEXT NOT NULL,
    volume   TEXT NOT NULL,
    snapshot BLOB CHECK (length(snapshot) = 16),
    message  TEXT NOT NULL
) STRICT;

-- Where reading a volume server's own events has come to; they start anew with each process.
CREATE TABLE event_cursors (
    volume   TEXT PRIMARY KEY,
    server   TEXT NOT NULL,
    sequence INTEGER NOT NULL
) STRICT;

CREATE TABLE lineages (
    number      INTEGER PRIMARY KEY,
    lineage     BLOB NOT NULL UNIQUE CHECK (length(lineage) = 16),
    volume      TEXT NOT NULL,
    cause       TEXT NOT NULL,
    since_us    INTEGER NOT NULL,
    ended_cause TEXT
) STRICT;
CREATE INDEX lineages_by_volume ON lineages (volume);
",
    "
ALTER TABLE volumes ADD COLUMN transport TEXT NOT NULL DEFAULT 'auto'
    CHECK (transport IN ('auto', 'portable', 'ublk'));
",
    "
ALTER TABLE volumes ADD COLUMN durability TEXT NOT NULL DEFAULT 'auto'
    CHECK (durability IN ('auto', 'volatile', 'durable'));
-- Why what the area tells of earlier tracking must not be believed; NULL when it may.
ALTER TABLE volumes ADD COLUMN distrust TEXT;
",
    "
ALTER TABLE volumes ADD COLUMN durable_snapshots INTEGER NOT NULL DEFAULT 0
    CHECK (durable_snapshots IN (0, 1));
",
    "
-- Which device or file the origin was when it was served last; NULL where that cannot be told.
ALTER TABLE volumes ADD COLUMN origin_identity TEXT;
",
    "
-- Attach made the area, so detach removes it.
ALTER TABLE volumes ADD COLUMN area_made INTEGER NOT NULL DEFAULT 0 CHECK (area_made IN (0, 1));

-- Such areas of volumes that are no more, until they are removed.
CREATE TABLE unwanted_areas (
    volume_id BLOB PRIMARY KEY CHECK (length(volume_id) = 16),
    path      BLOB NOT NULL
) STRICT;
",
    "
CREATE TABLE repositories (
    name        TEXT PRIMARY KEY,
    id          BLOB NOT NULL CHECK (length(id) = 16),
    location    TEXT NOT NULL UNIQUE,
    append_only INTEGER NOT NULL CHECK (append_only IN (0, 1))
) STRICT;

-- How it is reached, and where its key is taken from; never a secret.
CREATE TABLE repository_options (
    repository TEXT NOT NULL REFERENCES repositories (name) ON DELETE CASCADE,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (repository, key)
) STRICT, WITHOUT ROWID;
",
];

/// Sets the connection up, checks the file and migrates it.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), CatalogError> {
    let opening = |source| CatalogError::opening(path, source);
    configure(connection).map_err(opening)?;
    check(connection, path)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found = pragma(connection, "user_version").map_err(opening)?;
    let done = usize::try_from(found)
        .ok()
        .filter(|done| *done <= MIGRATIONS.len())
        .ok_or_else(|| CatalogError::TooNew {
            path: path.to_owned(),
            found,
            known,
        })?;
    for step in MIGRATIONS.iter().skip(done) {
        migrate(connection, step).map_err(opening)?;
    }
    Ok(())
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // Exclusive before WAL: SQLite then keeps the WAL's index on the heap, and a second
    // process is refused.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The lock is taken at the first access: take it now.
    connection.execute_batch("BEGIN IMMEDIATE; COMMIT")
}

/// The file must be ours and sound. It holds a few MB at most, so the full check is quick.
fn check(connection: &Connection, path: &Path) -> Result<(), CatalogError> {
    let opening = |source| CatalogError::opening(path, source);
    let corrupt = |detail: String| CatalogError::Corrupt {
        path: path.to_owned(),
        detail,
    };
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(opening)?;
    if tables > 0 && pragma(connection, "application_id").map_err(opening)? != APPLICATION_ID {
        return Err(corrupt("it is another program's database".to_owned()));
    }
    let verdict: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(opening)?;
    if verdict != "ok" {
        return Err(corrupt(verdict));
    }
    Ok(())
}

fn migrate(connection: &mut Connection, step: &str) -> rusqlite::Result<()> {
    let version = pragma(connection, "user_version")?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(step)?;
    transaction.pragma_update(None, "user_version", version + 1)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}
