//! A recovery point: which tree is an image, of what and when.

use crate::{
    repository::{
        bytes::{Fields, put_text},
        id::Digest,
        limits::MAX_TAGS,
    },
    units::{Epoch, Geometry, Id},
};

/// How a point was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Made {
    /// From its base and what changed since.
    Incremental,
    /// By reading everything, because of this.
    Full(String),
}

/// What the list of changes that a point was made from was worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Exactly what changed, or everything.
    Exact,
    /// What changed, and more.
    Superset,
    /// Nobody vouched for it.
    Unknown,
}

/// What making a point took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Bytes of the image that were read.
    pub read_bytes: u64,
    /// Of these, bytes with data that were not in the base.
    pub changed_bytes: u64,
    /// Of these, bytes that no blob had.
    pub new_bytes: u64,
    /// Bytes that the storage has more.
    pub stored_bytes: u64,
    /// How long it took.
    pub milliseconds: u64,
}

/// A recovery point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// The tree's root; [`Digest::ZEROS`]: an image of zeros.
    pub root: Digest,
    /// The volume's size in bytes.
    pub capacity: u64,
    /// The volume's unit of tracking in bytes.
    pub block_bytes: u32,
    /// When the snapshot was taken, in microseconds since the UNIX epoch, by the host's clock.
    pub created_us: u64,
    /// Which volume; [`Id::NIL`] for an image file.
    pub volume: Id,
    /// The lineage of tracking; [`Id::NIL`]: none.
    pub lineage: Id,
    /// The checkpoint within the lineage.
    pub epoch: Epoch,
    /// Which snapshot; [`Id::NIL`]: none.
    pub snapshot: Id,
    /// The point it was made from; [`Id::NIL`]: none.
    pub base: Id,
    /// How it was made.
    pub made: Made,
    /// What its changes were worth.
    pub trust: Trust,
    /// What making it took.
    pub work: Work,
    /// Which host.
    pub host: String,
    /// The volume's name.
    pub name: String,
    /// Words of the operator, ascending.
    pub tags: Vec<String>,
}

impl Point {
    /// The stored body.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.root.0.to_vec();
        bytes.extend(self.capacity.to_le_bytes());
        bytes.extend(self.block_bytes.to_le_bytes());
        bytes.extend(self.created_us.to_le_bytes());
        bytes.extend(self.volume.0);
        bytes.extend(self.lineage.0);
        bytes.extend(self.epoch.0.to_le_bytes());
        bytes.extend(self.snapshot.0);
        bytes.extend(self.base.0);
        bytes.push(u8::from(matches!(self.made, Made::Full(_))));
        bytes.push(match self.trust {
            Trust::Exact => 0,
            Trust::Superset => 1,
            Trust::Unknown => 2,
        });
        let work = self.work;
        for number in [
            work.read_bytes,
            work.changed_bytes,
            work.new_bytes,
            work.stored_bytes,
            work.milliseconds,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        put_text(&mut bytes, &self.host);
        put_text(&mut bytes, &self.name);
        put_text(
            &mut bytes,
            match &self.made {
                Made::Incremental => "",
                Made::Full(why) => why,
            },
        );
        let tags = &self.tags[..self.tags.len().min(MAX_TAGS)];
        bytes.extend(u16::try_from(tags.len()).unwrap_or(0).to_le_bytes());
        for tag in tags {
            put_text(&mut bytes, tag);
        }
        bytes
    }

    /// Reads the stored body; `None` unless it is well formed and an image can be so.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let fields = &mut fields;
        let (root, capacity, block_bytes) = (fields.digest()?, fields.u64()?, fields.u32()?);
        Geometry::new(capacity, block_bytes)?;
        let created_us = fields.u64()?;
        let (volume, lineage, epoch) = (fields.id()?, fields.id()?, Epoch(fields.u64()?));
        let (snapshot, base) = (fields.id()?, fields.id()?);
        let full = fields.u8()?;
        let trust = match fields.u8()? {
            0 => Trust::Exact,
            1 => Trust::Superset,
            2 => Trust::Unknown,
            _ => return None,
        };
        let work = Work {
            read_bytes: fields.u64()?,
            changed_bytes: fields.u64()?,
            new_bytes: fields.u64()?,
            stored_bytes: fields.u64()?,
            milliseconds: fields.u64()?,
        };
        let (host, name, why) = (
            fields.short_text()?,
            fields.short_text()?,
            fields.short_text()?,
        );
        let made = match (full, why.is_empty()) {
            (0, true) => Made::Incremental,
            (1, _) => Made::Full(why),
            _ => return None,
        };
        let count = usize::from(fields.u16()?);
        if count > MAX_TAGS {
            return None;
        }
        let tags: Vec<_> = (0..count)
            .map(|_| fields.short_text())
            .collect::<Option<_>>()?;
        fields.end()?;
        tags.is_sorted_by(|a, b| a < b).then_some(Self {
            root,
            capacity,
            block_bytes,
            created_us,
            volume,
            lineage,
            epoch,
            snapshot,
            base,
            made,
            trust,
            work,
            host,
            name,
            tags,
        })
    }
}
