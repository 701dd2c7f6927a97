//! Whose an area is: its superblock.

use tidemark_store::{
    area::{Layout, SUPERBLOCK_BYTES, Superblock, SuperblockError},
    units::Id,
};

use super::{Clock, OpenError, Options, random_id};
use crate::disk::Disk;

/// Gives up an area of a volume that no server serves any more, if it is that volume's.
pub async fn free_area(area: &impl Disk, volume: Id) -> Result<(), OpenError> {
    match read_superblock(area).await? {
        Some(found) if found.volume == volume => free(area, found).await,
        _ => Ok(()),
    }
}

pub(super) async fn free(area: &impl Disk, superblock: Superblock) -> Result<(), OpenError> {
    let free = Superblock {
        volume: Id::NIL,
        generation: superblock.generation + 1,
        ..superblock
    };
    write_superblock(area, &free).await
}

/// Reads the area's superblock and makes the area this volume's if it is nobody's.
pub(super) async fn claim_area<O: Disk, A: Disk, C: Clock>(
    options: &Options<O, A, C>,
) -> Result<Superblock, OpenError> {
    let have = options.area.capacity();
    let layout = Layout::of(options.geometry);
    let table = options.durable && options.durable_snapshots;
    let need = layout.min_capacity(table);
    if have < need {
        return Err(OpenError::AreaTooSmall { have, need });
    }
    let slots = layout.slots_in(have, table);
    let found = read_superblock(&options.area).await?;
    if let Some(found) = found {
        let ours = found.volume == options.volume_id
            && found.geometry == options.geometry
            && (found.slots, found.table) == (slots, table);
        if ours {
            return Ok(found);
        }
        if found.volume != Id::NIL && found.volume != options.volume_id {
            return Err(OpenError::AreaCorrupt(format!(
                "it belongs to another volume ({}): detach that one, or choose another file",
                found.volume
            )));
        }
    }
    let fresh = Superblock {
        generation: found.map_or(0, |found| found.generation) + 1,
        volume: options.volume_id,
        area: random_id(),
        geometry: options.geometry,
        first_slot_bytes: layout.first_slot_bytes(),
        slots,
        table,
    };
    write_superblock(&options.area, &fresh).await?;
    Ok(fresh)
}

/// The newest superblock; `None` in a file that never was an area.
async fn read_superblock(area: &impl Disk) -> Result<Option<Superblock>, OpenError> {
    let mut found = Vec::new();
    for slot in 0..2 {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        area.read(slot * SUPERBLOCK_BYTES as u64, &mut bytes)
            .await
            .map_err(OpenError::Area)?;
        found.push(Superblock::decode(&bytes));
    }
    if found
        .iter()
        .all(|slot| *slot == Err(SuperblockError::Empty))
    {
        return Ok(None);
    }
    let newest = found
        .iter()
        .flatten()
        .max_by_key(|superblock| superblock.generation);
    let why = || {
        let whys: Vec<String> = found
            .iter()
            .filter_map(|slot| slot.err())
            .map(|why| why.to_string())
            .collect();
        let whys = whys.join("; ");
        OpenError::AreaCorrupt(format!("{whys}: choose another file, or remove this one"))
    };
    newest.copied().map(Some).ok_or_else(why)
}

async fn write_superblock(area: &impl Disk, superblock: &Superblock) -> Result<(), OpenError> {
    let at = superblock.generation % 2 * SUPERBLOCK_BYTES as u64;
    area.write(at, &superblock.encode(), true)
        .await
        .map_err(OpenError::Area)
}
