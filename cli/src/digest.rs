//! The stream digest of DataService and RestoreService, kept while extents go by.

use tidemark_proto::v1::ExtentKind;

/// BLAKE3 over each extent's offset, length, kind and, for data, its own BLAKE3. The formula's
/// home is the comment of DataService in `data.proto`.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamDigest {
    hasher: blake3::Hasher,
}

impl StreamDigest {
    /// Adds the next extent; `data` is the hash of its plain bytes, for data only.
    pub(crate) fn add(
        &mut self,
        offset: u64,
        length: u64,
        kind: ExtentKind,
        data: Option<&blake3::Hash>,
    ) {
        self.hasher.update(&offset.to_le_bytes());
        self.hasher.update(&length.to_le_bytes());
        self.hasher.update(&[kind_byte(kind)]);
        if let Some(hash) = data {
            self.hasher.update(hash.as_bytes());
        }
    }

    /// The digest of what was added so far.
    pub(crate) fn finish(&self) -> blake3::Hash {
        self.hasher.finalize()
    }
}

/// The enumeration's number, as the contract says.
fn kind_byte(kind: ExtentKind) -> u8 {
    match kind {
        ExtentKind::Unspecified => 0,
        ExtentKind::Data => 1,
        ExtentKind::Zero => 2,
        ExtentKind::Discarded => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_counts() {
        let hash = blake3::hash(b"x");
        let mut seen = std::collections::HashSet::new();
        let inputs = [
            (0, 1, ExtentKind::Data, Some(&hash)),
            (1, 1, ExtentKind::Data, Some(&hash)),
            (0, 2, ExtentKind::Data, Some(&hash)),
            (0, 1, ExtentKind::Zero, None),
            (0, 1, ExtentKind::Discarded, None),
        ];
        for (offset, length, kind, data) in inputs {
            let mut digest = StreamDigest::default();
            digest.add(offset, length, kind, data);
            assert!(seen.insert(*digest.finish().as_bytes()));
        }
        assert_eq!(
            kind_byte(ExtentKind::Discarded),
            ExtentKind::Discarded as u8
        );
    }
}
