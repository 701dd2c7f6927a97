//! Snapshots, also those whose data is gone.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};

use super::{
    Catalog, CatalogError, Consistency, MAX_GONE_SNAPSHOTS, SnapshotRecord, SnapshotState, row,
};
use crate::units::{Epoch, Id};

impl Catalog {
    /// Remembers the snapshots of one cut, and with them the call that asked for it: all, or none.
    pub fn insert_snapshots(
        &mut self,
        snapshots: &[SnapshotRecord],
        request: Option<(&str, &super::RequestRecord)>,
    ) -> Result<(), CatalogError> {
        self.change("recording snapshots", |transaction| {
            for snapshot in snapshots {
                insert(transaction, snapshot)?;
                prune(transaction, &snapshot.volume)?;
            }
            if let Some((request_id, record)) = request {
                super::requests::insert(transaction, request_id, record)?;
            }
            Ok(())
        })
    }

    /// The snapshot of this identity.
    pub fn snapshot(&self, id: Id) -> Result<Option<SnapshotRecord>, CatalogError> {
        self.read("reading a snapshot", |connection| {
            let found = connection
                .prepare_cached("SELECT * FROM snapshots WHERE id = ?1")?
                .query_row([id], read)
                .optional()?;
            found
                .map(|found| with_labels(connection, found))
                .transpose()
        })
    }

    /// Identities that begin with these lower-case hex digits, two at most: enough to tell a
    /// unique prefix.
    pub fn snapshots_by_prefix(&self, prefix: &str) -> Result<Vec<Id>, CatalogError> {
        self.read("looking a snapshot up", |connection| {
            connection
                .prepare_cached(
                    "SELECT id FROM snapshots
                     WHERE substr(lower(hex(id)), 1, length(?1)) = ?1 LIMIT 2",
                )?
                .query_map([prefix], |row| row.get(0))?
                .collect()
        })
    }

    /// The newest cut of a lineage that is remembered.
    pub fn newest_cut(&self, lineage: Id) -> Result<Option<Epoch>, CatalogError> {
        self.read("looking for the newest cut", |connection| {
            let newest = connection
                .prepare_cached("SELECT max(epoch) FROM snapshots WHERE lineage = ?1")?
                .query_row([lineage], |row| row.get::<_, Option<u64>>(0))?;
            Ok(newest.map(Epoch))
        })
    }

    /// Snapshots, oldest first: of one volume or of all, with or without those whose data is gone.
    pub fn snapshots(
        &self,
        volume: Option<&str>,
        include_gone: bool,
    ) -> Result<Vec<SnapshotRecord>, CatalogError> {
        self.read("listing snapshots", |connection| {
            let found = connection
                .prepare_cached(
                    "SELECT * FROM snapshots
                     WHERE (?1 IS NULL OR volume = ?1) AND (?2 OR state = 'ready')
                     ORDER BY number",
                )?
                .query_map((volume, include_gone), read)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            found
                .into_iter()
                .map(|found| with_labels(connection, found))
                .collect()
        })
    }

    /// A snapshot that was ready is ready no more. `false` when it was not: whoever gets `true`
    /// tells the world.
    pub fn end_snapshot(
        &mut self,
        id: Id,
        state: SnapshotState,
        reason: &str,
        lease_ended: bool,
    ) -> Result<bool, CatalogError> {
        self.change("ending a snapshot", |transaction| {
            let changed = transaction.execute(
                "UPDATE snapshots SET state = ?2, state_reason = ?3, lease_ended = ?4
                 WHERE id = ?1 AND state = 'ready'",
                (id, state_word(state), reason, lease_ended),
            )?;
            Ok(changed > 0)
        })
    }

    /// Gives a snapshot that is ready a new lease. `false` when it is not.
    pub fn set_lease(
        &mut self,
        id: Id,
        lease_us: u64,
        expires_us: Option<u64>,
    ) -> Result<bool, CatalogError> {
        self.change("renewing a lease", |transaction| {
            let changed = transaction.execute(
                "UPDATE snapshots SET lease_us = ?2, lease_expires_us = ?3
                 WHERE id = ?1 AND state = 'ready'",
                (id, lease_us, expires_us),
            )?;
            Ok(changed > 0)
        })
    }

    /// Forgets a snapshot's record.
    pub fn remove_snapshot(&mut self, id: Id) -> Result<bool, CatalogError> {
        self.change("forgetting a snapshot", |transaction| {
            Ok(transaction.execute("DELETE FROM snapshots WHERE id = ?1", [id])? > 0)
        })
    }
}

fn insert(transaction: &Transaction<'_>, snapshot: &SnapshotRecord) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO snapshots (id, set_id, volume, volume_id, lineage, epoch, state,
            state_reason, lease_ended, consistency, created_us, lease_us, lease_expires_us,
            held_us, frozen_us, capacity_bytes, block_bytes)
         VALUES (:id, :set, :volume, :volume_id, :lineage, :epoch, :state, :reason,
            :lease_ended, :consistency, :created, :lease, :expires, :held, :frozen, :capacity,
            :block)",
        named_params! {
            ":id": snapshot.id,
            ":set": snapshot.set_id,
            ":volume": snapshot.volume,
            ":volume_id": snapshot.volume_id,
            ":lineage": snapshot.lineage,
            ":epoch": snapshot.epoch.0,
            ":state": state_word(snapshot.state),
            ":reason": snapshot.state_reason,
            ":lease_ended": snapshot.lease_ended,
            ":consistency": consistency_word(snapshot.consistency),
            ":created": snapshot.created_us,
            ":lease": snapshot.lease_us,
            ":expires": snapshot.lease_expires_us,
            ":held": snapshot.held_us,
            ":frozen": snapshot.frozen_us,
            ":capacity": snapshot.capacity_bytes,
            ":block": snapshot.block_bytes,
        },
    )?;
    let number = transaction.last_insert_rowid();
    for (key, value) in &snapshot.labels {
        transaction.execute(
            "INSERT INTO snapshot_labels (snapshot, key, value) VALUES (?1, ?2, ?3)",
            (number, key, value),
        )?;
    }
    Ok(())
}

/// The oldest records without data make room.
fn prune(transaction: &Transaction<'_>, volume: &str) -> rusqlite::Result<()> {
    transaction.execute(
        "DELETE FROM snapshots WHERE number IN (
            SELECT number FROM snapshots WHERE volume = ?1 AND state <> 'ready'
            ORDER BY number DESC LIMIT -1 OFFSET ?2)",
        (volume, MAX_GONE_SNAPSHOTS),
    )?;
    Ok(())
}

/// A record without its labels, and the number that they are kept under.
fn read(row: &Row<'_>) -> rusqlite::Result<(i64, SnapshotRecord)> {
    let record = SnapshotRecord {
        id: row.get("id")?,
        set_id: row.get("set_id")?,
        volume: row.get("volume")?,
        volume_id: row.get("volume_id")?,
        lineage: row.get("lineage")?,
        epoch: Epoch(row.get("epoch")?),
        state: row::word(row, "state", parse_state)?,
        state_reason: row.get("state_reason")?,
        lease_ended: row.get("lease_ended")?,
        consistency: row::word(row, "consistency", parse_consistency)?,
        created_us: row.get("created_us")?,
        lease_us: row.get("lease_us")?,
        lease_expires_us: row.get("lease_expires_us")?,
        held_us: row.get("held_us")?,
        frozen_us: row.get("frozen_us")?,
        capacity_bytes: row.get("capacity_bytes")?,
        block_bytes: row.get("block_bytes")?,
        labels: std::collections::BTreeMap::new(),
    };
    Ok((row.get("number")?, record))
}

fn with_labels(
    connection: &Connection,
    (number, mut record): (i64, SnapshotRecord),
) -> rusqlite::Result<SnapshotRecord> {
    record.labels = connection
        .prepare_cached("SELECT key, value FROM snapshot_labels WHERE snapshot = ?1")?
        .query_map([number], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(record)
}

fn state_word(state: SnapshotState) -> &'static str {
    match state {
        SnapshotState::Ready => "ready",
        SnapshotState::Released => "released",
        SnapshotState::Overflowed => "overflowed",
        SnapshotState::Lost => "lost",
    }
}

fn parse_state(word: &str) -> Option<SnapshotState> {
    match word {
        "ready" => Some(SnapshotState::Ready),
        "released" => Some(SnapshotState::Released),
        "overflowed" => Some(SnapshotState::Overflowed),
        "lost" => Some(SnapshotState::Lost),
        _ => None,
    }
}

fn consistency_word(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Crash => "crash",
        Consistency::FileSystem => "file-system",
    }
}

fn parse_consistency(word: &str) -> Option<Consistency> {
    match word {
        "crash" => Some(Consistency::Crash),
        "file-system" => Some(Consistency::FileSystem),
        _ => None,
    }
}
