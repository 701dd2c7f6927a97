//! Counts a stream and holds it against what its trailer says.

use tidemark_proto::v1::{DataTrailer, ExtentKind};

use super::unpack::corrupt;
use crate::digest::StreamDigest;

/// Sums over extents.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// Number of extents.
    pub(crate) extents: u64,
    /// Plain bytes of data.
    pub(crate) data_bytes: u64,
    /// Bytes of zeros.
    pub(crate) zero_bytes: u64,
    /// Bytes discarded by the host.
    pub(crate) discarded_bytes: u64,
    /// Payload as sent.
    pub(crate) sent_bytes: u64,
}

impl Counts {
    /// Adds others, up to what fits.
    pub(crate) fn add(&mut self, other: &Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.extents, other.extents);
        add(&mut self.data_bytes, other.data_bytes);
        add(&mut self.zero_bytes, other.zero_bytes);
        add(&mut self.discarded_bytes, other.discarded_bytes);
        add(&mut self.sent_bytes, other.sent_bytes);
    }
}

/// One stream so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Counts,
    digest: StreamDigest,
}

impl Tally {
    /// Counts the next extent, and says what it adds. `data` is the hash of its plain bytes, for
    /// data only; `sent_bytes` its payload.
    pub(crate) fn add(
        &mut self,
        offset: u64,
        length: u64,
        kind: ExtentKind,
        data: Option<&blake3::Hash>,
        sent_bytes: u64,
    ) -> Counts {
        self.digest.add(offset, length, kind, data);
        let mut counts = Counts {
            extents: 1,
            sent_bytes,
            ..Counts::default()
        };
        match kind {
            ExtentKind::Data => counts.data_bytes = length,
            ExtentKind::Zero | ExtentKind::Unspecified => counts.zero_bytes = length,
            ExtentKind::Discarded => counts.discarded_bytes = length,
        }
        self.counts.add(&counts);
        counts
    }

    /// Fails unless the trailer tells of exactly these extents.
    pub(crate) fn check(&self, trailer: &DataTrailer) -> anyhow::Result<()> {
        let said = Counts {
            extents: trailer.extents,
            data_bytes: trailer.data_bytes,
            zero_bytes: trailer.zero_bytes,
            discarded_bytes: trailer.discarded_bytes,
            sent_bytes: trailer.sent_bytes,
        };
        if said != self.counts {
            return Err(corrupt(format!(
                "the trailer counts {said:?}, but {:?} came",
                self.counts
            )));
        }
        if trailer.digest != self.digest.finish().as_bytes()[..] {
            return Err(corrupt("the stream does not match its digest".to_owned()));
        }
        Ok(())
    }
}
