//! Images: all that is durable about tracking at one moment.
//!
//! The body is a sequence of items, each with its length, so that a writer can stream it and never
//! holds more than one change set. It counts by its header, which is written last.

use std::collections::BTreeMap;

use super::record::{MAX_ORIGIN_BYTES, Placed, Regions, lineage, placed, put_lineage, put_placed};
use crate::{
    bytes::Fields,
    changes::ChangeSet,
    state::{CheckpointEntry, Lineage, SnapshotEntry},
    units::{Epoch, Id},
};

/// Size of a header.
const HEADER_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"TIDEIMAG";
const VERSION: u32 = 1;
/// The checksum covers the header from here on.
const SUMMED: usize = 16;

/// Tells of the image that follows it in its half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Grows with each image of an area.
    pub generation: u64,
    /// The area.
    pub area: Id,
    /// The log's number; see [`super::seal`].
    pub log: u64,
    /// Bytes of the image.
    pub body_bytes: u64,
    /// CRC32C of the image.
    pub body_crc: u32,
    /// When it was written, in microseconds since the UNIX epoch.
    pub written_us: u64,
}

impl Header {
    /// Where the image begins, from the half's start on.
    pub const BODY: u64 = HEADER_BYTES as u64;

    /// Where the log begins, from the half's start on.
    pub const fn log_start(&self) -> u64 {
        Self::BODY + self.body_bytes.next_multiple_of(super::BLOCK_BYTES as u64)
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend(self.area.0);
        bytes.extend(self.log.to_le_bytes());
        bytes.extend(self.body_bytes.to_le_bytes());
        bytes.extend(self.body_crc.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.written_us.to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        let sum = crc32c::crc32c(&bytes[SUMMED..]);
        bytes[12..SUMMED].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the header of a half of `half_bytes`; `None` when there is none, or not all of it.
    pub fn decode(bytes: &[u8], half_bytes: u64) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let mut fields = Fields(bytes);
        let ours = fields.take(8)? == MAGIC
            && fields.u32()? == VERSION
            && fields.u32()? == crc32c::crc32c(&bytes[SUMMED..]);
        if !ours {
            return None;
        }
        let header = Self {
            generation: fields.u64()?,
            area: fields.id()?,
            log: fields.u64()?,
            body_bytes: fields.u64()?,
            body_crc: fields.u32()?,
            written_us: {
                fields.u32()?;
                fields.u64()?
            },
        };
        let fits = header.body_bytes <= half_bytes && header.log_start() <= half_bytes;
        fits.then_some(header)
    }
}

/// The changes of epochs `first` to `last`.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    /// First epoch.
    pub first: Epoch,
    /// Last epoch.
    pub last: Epoch,
    /// What changed.
    pub changes: ChangeSet,
}

/// A part of an image.
#[derive(Debug)]
pub enum Item<'a> {
    /// The lineage.
    Lineage(&'a Lineage),
    /// A checkpoint.
    Checkpoint(CheckpointEntry),
    /// Changes between two checkpoints.
    Ended(&'a Span),
    /// Changes since the last checkpoint; `last` is the running epoch.
    Running(&'a Span),
    /// Regions that may change without a further record.
    Active(Regions),
    /// What was last seen of the origin.
    Origin(&'a [u8]),
    /// A snapshot.
    Snapshot(Placed),
}

impl Item<'_> {
    /// Adds the stored form.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let tag: u32 = match self {
            Item::Lineage(lineage) => {
                put_lineage(&mut payload, lineage);
                1
            }
            Item::Checkpoint(checkpoint) => {
                payload.extend(checkpoint.epoch.0.to_le_bytes());
                payload.extend(checkpoint.created_us.to_le_bytes());
                2
            }
            Item::Ended(span) => {
                put_span(&mut payload, span);
                3
            }
            Item::Running(span) => {
                put_span(&mut payload, span);
                4
            }
            Item::Active(regions) => {
                payload.extend(regions.first.to_le_bytes());
                payload.extend(regions.end.to_le_bytes());
                5
            }
            Item::Origin(facts) => {
                payload.extend(&facts[..facts.len().min(MAX_ORIGIN_BYTES)]);
                6
            }
            Item::Snapshot(placed) => {
                put_placed(&mut payload, placed);
                7
            }
        };
        into.extend(tag.to_le_bytes());
        into.extend((payload.len() as u64).to_le_bytes());
        into.extend(payload);
    }
}

/// An image as it was read.
#[derive(Clone, PartialEq, Debug)]
pub struct Image {
    /// The lineage.
    pub lineage: Lineage,
    /// Checkpoints in any order.
    pub checkpoints: Vec<CheckpointEntry>,
    /// Changes between checkpoints, by last epoch ascending.
    pub ended: Vec<Span>,
    /// Changes since the last one.
    pub running: Span,
    /// Regions that may have changed since.
    pub active: Vec<Regions>,
    /// What was last seen of the origin.
    pub origin: Vec<u8>,
    /// Snapshots by their places.
    pub snapshots: BTreeMap<u16, SnapshotEntry>,
}

/// A whole header tells of an image that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The bytes are not those that were written.
    #[error("checksum mismatch")]
    Checksum,
    /// The checksum matches but the content does not make sense.
    #[error("malformed content")]
    Malformed,
}

impl Image {
    /// Reads the body that `header` tells of.
    pub fn decode(header: &Header, body: &[u8]) -> Result<Self, ImageError> {
        if body.len() as u64 != header.body_bytes || crc32c::crc32c(body) != header.body_crc {
            return Err(ImageError::Checksum);
        }
        decode(body).ok_or(ImageError::Malformed)
    }
}

fn decode(body: &[u8]) -> Option<Image> {
    let mut fields = Fields(body);
    let (mut known, mut running) = (None, None);
    let (mut checkpoints, mut ended, mut active) = (Vec::new(), Vec::new(), Vec::new());
    let (mut origin, mut snapshots) = (Vec::new(), BTreeMap::new());
    while !fields.0.is_empty() {
        let tag = fields.u32()?;
        let len = usize::try_from(fields.u64()?).ok()?;
        let mut item = Fields(fields.take(len)?);
        match tag {
            1 => known = Some(lineage(&mut item)?),
            2 => checkpoints.push(CheckpointEntry {
                epoch: Epoch(item.u64()?),
                created_us: item.u64()?,
            }),
            3 => ended.push(span(&mut item)?),
            4 => running = Some(span(&mut item)?),
            5 => active.push(Regions {
                first: item.u64()?,
                end: item.u64()?,
            }),
            6 => origin = item.take(item.0.len())?.to_vec(),
            7 => {
                let Placed { place, snapshot } = placed(&mut item)?;
                snapshots.insert(place, snapshot);
            }
            _ => return None,
        }
        item.0.is_empty().then_some(())?;
    }
    ended.sort_by_key(|span| span.last);
    let running = running?;
    let ascending = ended.windows(2).all(|pair| pair[0].last < pair[1].first)
        && ended.last().is_none_or(|last| last.last < running.first);
    ascending.then_some(())?;
    Some(Image {
        lineage: known?,
        checkpoints,
        ended,
        running,
        active,
        origin,
        snapshots,
    })
}

fn put_span(into: &mut Vec<u8>, span: &Span) {
    into.extend(span.first.0.to_le_bytes());
    into.extend(span.last.0.to_le_bytes());
    into.extend(span.changes.encode());
}

fn span(item: &mut Fields<'_>) -> Option<Span> {
    let (first, last) = (Epoch(item.u64()?), Epoch(item.u64()?));
    let changes = ChangeSet::decode(item.take(item.0.len())?).ok()?;
    (Epoch::FIRST <= first && first <= last).then_some(Span {
        first,
        last,
        changes,
    })
}
