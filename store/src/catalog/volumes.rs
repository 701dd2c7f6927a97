//! Attached volumes.

use rusqlite::{OptionalExtension, Row, named_params};

use super::{Catalog, CatalogError, Durability, FullPolicy, Transport, VolumeRecord, row};
use crate::units::Id;

impl Catalog {
    /// Remembers a volume, and with it the call that asked for it. Refused when its name,
    /// identity, origin or area is in use.
    pub fn insert_volume(
        &mut self,
        volume: &VolumeRecord,
        request: Option<(&str, &super::RequestRecord)>,
    ) -> Result<(), CatalogError> {
        let delay = match volume.policy {
            FullPolicy::Drop => None,
            FullPolicy::Slow { max_write_delay_ms } => Some(max_write_delay_ms),
        };
        self.change("recording a volume", |transaction| {
            transaction.execute(
                "INSERT INTO volumes (name, id, origin_path, area_path, area_size_bytes,
                    block_bytes, max_write_delay_ms, attached_us, transport,
                    durability, durable_snapshots)
                 VALUES (:name, :id, :origin, :area, :size, :block, :delay, :attached, :transport,
                    :durability, :snapshots)",
                named_params! {
                    ":name": volume.name,
                    ":id": volume.id,
                    ":origin": row::path_bytes(&volume.origin_path),
                    ":area": row::path_bytes(&volume.area_path),
                    ":size": volume.area_size_bytes,
                    ":block": volume.block_bytes,
                    ":delay": delay,
                    ":attached": volume.attached_us,
                    ":transport": volume.transport.name(),
                    ":durability": volume.durability.name(),
                    ":snapshots": volume.durable_snapshots,
                },
            )?;
            if let Some((request_id, record)) = request {
                super::requests::insert(transaction, request_id, record)?;
            }
            Ok(())
        })
    }

    /// Takes back a volume that could not be attached, and the request id of that call.
    pub fn take_back_volume(
        &mut self,
        name: &str,
        request_id: Option<&str>,
    ) -> Result<(), CatalogError> {
        self.change("taking a volume back", |transaction| {
            transaction.execute("DELETE FROM volumes WHERE name = ?1", [name])?;
            transaction.execute("DELETE FROM requests WHERE request_id = ?1", [request_id])?;
            Ok(())
        })
    }

    /// Notes why what a volume's area tells of earlier tracking must not be believed, or that it may
    /// be again.
    pub fn set_distrust(&mut self, name: &str, why: Option<&str>) -> Result<(), CatalogError> {
        self.change("noting what a volume's area is worth", |transaction| {
            let update = "UPDATE volumes SET distrust = ?2 WHERE name = ?1";
            transaction.execute(update, (name, why)).map(drop)
        })
    }

    /// Notes which device or file a volume's origin is.
    pub fn set_origin_identity(
        &mut self,
        name: &str,
        identity: Option<&str>,
    ) -> Result<(), CatalogError> {
        self.change("noting which device an origin is", |transaction| {
            let update = "UPDATE volumes SET origin_identity = ?2 WHERE name = ?1";
            transaction.execute(update, (name, identity)).map(drop)
        })
    }

    /// Every volume, by name.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, CatalogError> {
        self.read("listing volumes", |connection| {
            connection
                .prepare_cached("SELECT * FROM volumes ORDER BY name")?
                .query_map([], read)?
                .collect()
        })
    }

    /// The volume of this name.
    pub fn volume(&self, name: &str) -> Result<Option<VolumeRecord>, CatalogError> {
        self.read("reading a volume", |connection| {
            connection
                .prepare_cached("SELECT * FROM volumes WHERE name = ?1")?
                .query_row([name], read)
                .optional()
        })
    }

    /// Forgets a volume; its current lineage ends and live snapshots become released, both with
    /// the cause. Gives the identities of these snapshots.
    pub fn remove_volume(&mut self, name: &str, cause: &str) -> Result<Vec<Id>, CatalogError> {
        self.change("forgetting a volume", |transaction| {
            let gone = transaction
                .prepare_cached(
                    "UPDATE snapshots SET state = 'released', state_reason = ?2
                     WHERE volume = ?1 AND state = 'ready' RETURNING id",
                )?
                .query_map([name, cause], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<Id>>>()?;
            transaction.execute(
                "UPDATE lineages SET ended_cause = ?2 WHERE volume = ?1 AND ended_cause IS NULL",
                [name, cause],
            )?;
            transaction.execute("DELETE FROM event_cursors WHERE volume = ?1", [name])?;
            transaction.execute("DELETE FROM volumes WHERE name = ?1", [name])?;
            Ok(gone)
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<VolumeRecord> {
    let delay: Option<u64> = row.get("max_write_delay_ms")?;
    Ok(VolumeRecord {
        name: row.get("name")?,
        id: row.get("id")?,
        origin_path: row::path(row, "origin_path")?,
        area_path: row::path(row, "area_path")?,
        area_size_bytes: row.get("area_size_bytes")?,
        block_bytes: row.get("block_bytes")?,
        policy: match delay {
            None => FullPolicy::Drop,
            Some(max_write_delay_ms) => FullPolicy::Slow { max_write_delay_ms },
        },
        transport: Transport::parse(&row.get::<_, String>("transport")?).unwrap_or_default(),
        durability: Durability::parse(&row.get::<_, String>("durability")?).unwrap_or_default(),
        durable_snapshots: row.get("durable_snapshots")?,
        distrust: row.get("distrust")?,
        origin_identity: row.get("origin_identity")?,
        attached_us: row.get("attached_us")?,
    })
}
