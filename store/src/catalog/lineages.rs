//! The lineages that each volume had: a checkpoint of a past one is told from one never made.

use rusqlite::{OptionalExtension, Row};

use super::{Catalog, CatalogError, LineageRecord, MAX_LINEAGES};
use crate::units::Id;

impl Catalog {
    /// The volume is on this lineage now. `true` when that is news and ended the one before; a
    /// volume's first lineage ends none.
    pub fn begin_lineage(
        &mut self,
        volume: &str,
        lineage: Id,
        cause: &str,
        since_us: u64,
    ) -> Result<bool, CatalogError> {
        self.change("recording a lineage", |transaction| {
            let new = transaction.execute(
                "INSERT INTO lineages (lineage, volume, cause, since_us) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (lineage) DO NOTHING",
                (lineage, volume, cause, since_us),
            )? > 0;
            if !new {
                return Ok(false);
            }
            let ended = transaction.execute(
                "UPDATE lineages SET ended_cause = ?3
                 WHERE volume = ?1 AND lineage <> ?2 AND ended_cause IS NULL",
                (volume, lineage, cause),
            )?;
            transaction.execute(
                "DELETE FROM lineages WHERE number IN (
                    SELECT number FROM lineages WHERE volume = ?1
                    ORDER BY number DESC LIMIT -1 OFFSET ?2)",
                (volume, MAX_LINEAGES),
            )?;
            Ok(ended > 0)
        })
    }

    /// What is known of a lineage.
    pub fn lineage(&self, lineage: Id) -> Result<Option<LineageRecord>, CatalogError> {
        self.read("reading a lineage", |connection| {
            connection
                .prepare_cached("SELECT * FROM lineages WHERE lineage = ?1")?
                .query_row([lineage], read)
                .optional()
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<LineageRecord> {
    Ok(LineageRecord {
        lineage: row.get("lineage")?,
        volume: row.get("volume")?,
        cause: row.get("cause")?,
        since_us: row.get("since_us")?,
        ended_cause: row.get("ended_cause")?,
    })
}
