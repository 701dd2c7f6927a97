//! What a session wrote, in order: enough to read it back and to compute its digest again.

use std::collections::BTreeMap;

use tidemark_store::units::ByteRange;

use super::extent::Checked;
use crate::{
    manager::{
        Error, ErrorReason,
        streams::digest::{ExtentHash, StreamDigest},
    },
    volume::{Extent, Kind},
};

/// One written extent, in 24 bytes.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    offset: u64,
    /// Length in bytes above, kind in the two lowest bits: a length is below 2^62.
    len_and_kind: u64,
    /// The first bytes of the extent's hash. They only say which extent went bad: the proof is
    /// the digest.
    hint: [u8; 8],
}

impl Entry {
    fn new(extent: Extent, hash: &ExtentHash) -> Self {
        let kind = match extent.kind {
            Kind::Data => 1,
            Kind::Zero => 2,
            Kind::Discarded => 3,
        };
        let mut hint = [0; 8];
        hint.copy_from_slice(&hash[..8]);
        Self {
            offset: extent.range.offset,
            len_and_kind: extent.range.len << 2 | kind,
            hint,
        }
    }

    pub(super) fn extent(&self) -> Extent {
        Extent {
            range: ByteRange::new(self.offset, self.len_and_kind >> 2),
            kind: match self.len_and_kind & 3 {
                1 => Kind::Data,
                2 => Kind::Zero,
                _ => Kind::Discarded,
            },
        }
    }

    pub(super) fn may_be(&self, hash: &ExtentHash) -> bool {
        self.hint == hash[..8]
    }
}

/// The extents of one session.
#[derive(Default)]
pub(super) struct Record {
    entries: Vec<Entry>,
    /// What is covered: start to end, neighbours merged. A whole image in order is one range.
    covered: BTreeMap<u64, u64>,
    written_bytes: u64,
    digest: StreamDigest,
}

impl Record {
    /// Refuses an extent that overlaps an earlier one: what reads back would depend on the order.
    pub(super) fn admit(&self, range: ByteRange) -> Result<(), Error> {
        let below = self.covered.range(..range.end()).next_back();
        match below {
            Some((start, end)) if *end > range.offset => Err(Error::new(
                ErrorReason::InvalidField,
                format!(
                    "extent {range} overlaps bytes {start} to {end}, which this session wrote: \
                     begin another session to write them again"
                ),
            )
            .with("field", "offset_bytes")),
            _ => Ok(()),
        }
    }

    /// Notes an extent that was admitted and written.
    pub(super) fn add(&mut self, checked: &Checked) {
        let Extent { range, kind } = checked.extent;
        self.entries.push(Entry::new(checked.extent, &checked.hash));
        self.digest.add(range, kind, &checked.hash);
        self.written_bytes += range.len;
        self.cover(range);
    }

    fn cover(&mut self, range: ByteRange) {
        let mut start = range.offset;
        let mut end = range.end();
        if let Some(after) = self.covered.remove(&end) {
            end = after;
        }
        if let Some((before, stop)) = self.covered.range(..start).next_back()
            && *stop == start
        {
            start = *before;
        }
        self.covered.insert(start, end);
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The digest of what was received.
    pub(super) fn digest(&self) -> ExtentHash {
        self.digest.value()
    }
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;

    use super::*;

    fn checked(offset: u64, len: u64, kind: Kind) -> Checked {
        let range = ByteRange::new(offset, len);
        Checked {
            extent: Extent { range, kind },
            data: Bytes::new(),
            hash: [3; 32],
        }
    }

    #[test]
    fn an_entry_gives_back_what_it_took() {
        for kind in [Kind::Data, Kind::Zero, Kind::Discarded] {
            let extent = checked(u64::MAX >> 1, u64::MAX >> 2, kind).extent;
            let entry = Entry::new(extent, &[3; 32]);
            assert_eq!(entry.extent(), extent);
            assert!(entry.may_be(&[3; 32]) && !entry.may_be(&[4; 32]));
        }
        assert_eq!(size_of::<Entry>(), 24);
    }

    #[test]
    fn overlaps_are_refused_and_neighbours_merge() {
        let mut record = Record::default();
        for (offset, len) in [(100, 50), (0, 50), (50, 50), (200, 10)] {
            record.admit(ByteRange::new(offset, len)).unwrap();
            record.add(&checked(offset, len, Kind::Zero));
        }
        assert_eq!(record.covered.len(), 2);
        assert_eq!(record.written_bytes(), 160);
        for (offset, len) in [(0, 1), (149, 1), (140, 100), (199, 2), (205, 1), (0, 1000)] {
            assert!(record.admit(ByteRange::new(offset, len)).is_err());
        }
        for (offset, len) in [(150, 50), (210, 1), (160, 1)] {
            record.admit(ByteRange::new(offset, len)).unwrap();
        }
    }
}
