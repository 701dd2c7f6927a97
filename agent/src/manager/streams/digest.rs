//! The stream digest, as data.proto's service comment defines it. Streams and restores share it.

use tidemark_proto::v1::ExtentKind;
use tidemark_store::units::ByteRange;

use crate::volume::Kind;

/// BLAKE3 of an extent's plain bytes.
pub type ExtentHash = [u8; blake3::OUT_LEN];

/// The running digest over a stream's extents, in their order.
#[derive(Clone, Default)]
pub struct StreamDigest(blake3::Hasher);

impl StreamDigest {
    /// Adds an extent. `hash` is that of its bytes; only DATA extents have one.
    pub fn add(&mut self, range: ByteRange, kind: Kind, hash: &ExtentHash) {
        self.0.update(&range.offset.to_le_bytes());
        self.0.update(&range.len.to_le_bytes());
        match kind {
            Kind::Data => self.0.update(&[1]).update(hash),
            Kind::Zero => self.0.update(&[2]),
            Kind::Discarded => self.0.update(&[3]),
        };
    }

    /// The digest of what was added so far.
    pub fn value(&self) -> ExtentHash {
        *self.0.finalize().as_bytes()
    }
}

/// A kind as the public API numbers it.
pub fn to_wire(kind: Kind) -> ExtentKind {
    match kind {
        Kind::Data => ExtentKind::Data,
        Kind::Zero => ExtentKind::Zero,
        Kind::Discarded => ExtentKind::Discarded,
    }
}

/// A kind out of a message; `None` when it is none of the three.
pub fn from_wire(kind: i32) -> Option<Kind> {
    match ExtentKind::try_from(kind).ok()? {
        ExtentKind::Unspecified => None,
        ExtentKind::Data => Some(Kind::Data),
        ExtentKind::Zero => Some(Kind::Zero),
        ExtentKind::Discarded => Some(Kind::Discarded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_what_the_contract_says() {
        let hash = *blake3::hash(b"bytes").as_bytes();
        let mut digest = StreamDigest::default();
        let mut by_hand = Vec::new();
        for (kind, number) in [(Kind::Data, 1), (Kind::Zero, 2), (Kind::Discarded, 3)] {
            digest.add(ByteRange::new(4096, 5), kind, &hash);
            by_hand.extend_from_slice(&[0, 16, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
            by_hand.push(number);
            if kind == Kind::Data {
                by_hand.extend_from_slice(&hash);
            }
            assert_eq!(i32::from(number), i32::from(to_wire(kind)));
            assert_eq!(from_wire(number.into()), Some(kind));
        }
        assert_eq!(digest.value(), *blake3::hash(&by_hand).as_bytes());
        assert_eq!(from_wire(0), None);
        assert_eq!(from_wire(4), None);
    }
}
