//! Log records.

use crate::{
    bytes::{Fields, put_short_bytes},
    state::{CheckpointEntry, Fate, Lineage, MAX_CAUSE_BYTES, MAX_SNAPSHOTS, SnapshotEntry},
    units::{Epoch, Id},
};

/// Most bytes of what is known of the origin.
pub(super) const MAX_ORIGIN_BYTES: usize = 512;
/// Bytes of a region's bits, at most: 256 blocks.
const MAX_BITS: usize = 32;

/// Consecutive regions, `first` to `end` without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Regions {
    /// First region.
    pub first: u64,
    /// First region after them.
    pub end: u64,
}

/// Something that happened to tracking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Blocks of these regions may change from now on.
    Activate(Regions),
    /// This region's changes so far are in the log, and none comes before it is active again.
    Cold(u64),
    /// Blocks of a region that changed in an epoch, a bit a block, the first block's lowest. The
    /// bytes are as many as a region's blocks need.
    Fine {
        /// When.
        epoch: Epoch,
        /// Where.
        region: u64,
        /// Which.
        bits: [u8; MAX_BITS],
    },
    /// Every block of these regions changed in an epoch.
    Whole {
        /// When.
        epoch: Epoch,
        /// Where.
        regions: Regions,
    },
    /// An epoch ended and left a checkpoint; the next one began.
    Cut(CheckpointEntry),
    /// Every change of an epoch that ended is in the log.
    Exact(Epoch),
    /// A checkpoint was forgotten.
    Forget(Epoch),
    /// A new lineage began with an epoch, and nothing of the past counts.
    Reset {
        /// The new lineage.
        lineage: Lineage,
        /// Its first epoch.
        epoch: Epoch,
    },
    /// What was seen of the origin, in its observer's own form of at most 512 bytes.
    Origin(Vec<u8>),
    /// The cut that comes next leaves a snapshot too. It counts once it is settled.
    Snapshot(Placed),
    /// All that the host had written before the cuts of this epoch and earlier ones is on the
    /// origin's medium.
    Settled(Epoch),
    /// A snapshot ended, and nothing is preserved for it any more.
    End {
        /// Which.
        id: Id,
        /// Why.
        fate: Fate,
    },
}

/// A snapshot and its place in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Where; whoever had the place before is forgotten.
    pub place: u16,
    /// What is known of it.
    pub snapshot: SnapshotEntry,
}

/// Stored bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a journal record is malformed")]
pub struct RecordError;

impl Record {
    /// Adds the stored form. `region_bits` is the number of blocks of a region.
    pub fn encode(&self, region_bits: u64, into: &mut Vec<u8>) {
        match self {
            Self::Activate(regions) => {
                into.push(1);
                put_regions(into, *regions);
            }
            Self::Cold(region) => {
                into.push(2);
                into.extend(region.to_le_bytes());
            }
            Self::Fine {
                epoch,
                region,
                bits,
            } => {
                into.push(3);
                into.extend(epoch.0.to_le_bytes());
                into.extend(region.to_le_bytes());
                into.extend(&bits[..bits_bytes(region_bits)]);
            }
            Self::Whole { epoch, regions } => {
                into.push(4);
                into.extend(epoch.0.to_le_bytes());
                put_regions(into, *regions);
            }
            Self::Cut(checkpoint) => {
                into.push(5);
                into.extend(checkpoint.epoch.0.to_le_bytes());
                into.extend(checkpoint.created_us.to_le_bytes());
            }
            Self::Exact(epoch) => {
                into.push(6);
                into.extend(epoch.0.to_le_bytes());
            }
            Self::Forget(epoch) => {
                into.push(7);
                into.extend(epoch.0.to_le_bytes());
            }
            Self::Reset { lineage, epoch } => {
                into.push(8);
                into.extend(epoch.0.to_le_bytes());
                put_lineage(into, lineage);
            }
            Self::Origin(facts) => {
                into.push(9);
                put_short_bytes(into, &facts[..facts.len().min(MAX_ORIGIN_BYTES)]);
            }
            Self::Snapshot(placed) => {
                into.push(10);
                put_placed(into, placed);
            }
            Self::Settled(epoch) => {
                into.push(11);
                into.extend(epoch.0.to_le_bytes());
            }
            Self::End { id, fate } => {
                into.push(12);
                into.extend(id.0);
                into.extend(fate.to_word().to_le_bytes());
            }
        }
    }

    /// Reads every record of a log block's body.
    pub fn decode_all(body: &[u8], region_bits: u64) -> Result<Vec<Self>, RecordError> {
        let mut fields = Fields(body);
        let mut records = Vec::new();
        while !fields.0.is_empty() {
            records.push(decode(&mut fields, region_bits).ok_or(RecordError)?);
        }
        Ok(records)
    }
}

fn decode(fields: &mut Fields<'_>, region_bits: u64) -> Option<Record> {
    Some(match fields.u8()? {
        1 => Record::Activate(regions(fields)?),
        2 => Record::Cold(fields.u64()?),
        3 => {
            let (epoch, region) = (Epoch(fields.u64()?), fields.u64()?);
            let stored = fields.take(bits_bytes(region_bits))?;
            let mut bits = [0; MAX_BITS];
            bits[..stored.len()].copy_from_slice(stored);
            Record::Fine {
                epoch,
                region,
                bits,
            }
        }
        4 => Record::Whole {
            epoch: Epoch(fields.u64()?),
            regions: regions(fields)?,
        },
        5 => Record::Cut(CheckpointEntry {
            epoch: Epoch(fields.u64()?),
            created_us: fields.u64()?,
        }),
        6 => Record::Exact(Epoch(fields.u64()?)),
        7 => Record::Forget(Epoch(fields.u64()?)),
        8 => Record::Reset {
            epoch: Epoch(fields.u64()?),
            lineage: lineage(fields)?,
        },
        9 => Record::Origin(fields.short_bytes()?.to_vec()),
        10 => Record::Snapshot(placed(fields)?),
        11 => Record::Settled(Epoch(fields.u64()?)),
        12 => Record::End {
            id: fields.id()?,
            fate: Fate::of_word(fields.u64()?)?,
        },
        _ => return None,
    })
}

/// Bytes of a region's bits.
pub(super) fn bits_bytes(region_bits: u64) -> usize {
    usize::try_from(region_bits.div_ceil(8)).map_or(MAX_BITS, |bytes| bytes.min(MAX_BITS))
}

fn put_regions(into: &mut Vec<u8>, regions: Regions) {
    into.extend(regions.first.to_le_bytes());
    into.extend(regions.end.to_le_bytes());
}

fn regions(fields: &mut Fields<'_>) -> Option<Regions> {
    let (first, end) = (fields.u64()?, fields.u64()?);
    (first < end).then_some(Regions { first, end })
}

pub(super) fn put_lineage(into: &mut Vec<u8>, lineage: &Lineage) {
    into.extend(lineage.id.0);
    into.extend(lineage.since_us.to_le_bytes());
    let cause = &lineage.cause[..lineage.cause.floor_char_boundary(MAX_CAUSE_BYTES)];
    put_short_bytes(into, cause.as_bytes());
}

pub(super) fn lineage(fields: &mut Fields<'_>) -> Option<Lineage> {
    let id = fields.id().filter(|id| *id != Id::NIL)?;
    Some(Lineage {
        id,
        since_us: fields.u64()?,
        cause: fields.text()?,
    })
}

pub(super) fn put_placed(into: &mut Vec<u8>, placed: &Placed) {
    let Placed { place, snapshot } = placed;
    into.extend(place.to_le_bytes());
    into.extend(snapshot.id.0);
    into.extend(snapshot.epoch.0.to_le_bytes());
    into.extend(snapshot.created_us.to_le_bytes());
    into.extend(snapshot.fate.to_word().to_le_bytes());
    into.push(snapshot.settled.into());
}

pub(super) fn placed(fields: &mut Fields<'_>) -> Option<Placed> {
    let place = fields.u16().filter(|at| usize::from(*at) < MAX_SNAPSHOTS)?;
    Some(Placed {
        place,
        snapshot: SnapshotEntry {
            id: fields.id()?,
            epoch: Epoch(fields.u64()?),
            created_us: fields.u64()?,
            fate: Fate::of_word(fields.u64()?)?,
            settled: [false, true].get(usize::from(fields.u8()?)).copied()?,
        },
    })
}
