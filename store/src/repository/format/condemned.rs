//! Packs that a prune wants to delete.

use crate::repository::{
    bytes::{Fields, put_text},
    id::Digest,
};

/// A condemnation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condemned {
    /// Which host, for people.
    pub by: String,
    /// When by that host's clock, in microseconds since the UNIX epoch; for people.
    pub said_us: u64,
    /// Nothing is deleted before so many seconds have passed by the storage's clock.
    pub grace_seconds: u64,
    /// Which packs, ascending.
    pub packs: Vec<Digest>,
}

impl Condemned {
    /// The stored body.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_text(&mut bytes, &self.by);
        bytes.extend(self.said_us.to_le_bytes());
        bytes.extend(self.grace_seconds.to_le_bytes());
        bytes.extend(
            u32::try_from(self.packs.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        for pack in &self.packs {
            bytes.extend(pack.0);
        }
        bytes
    }

    /// Reads the stored body; `None` unless it is well formed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (by, said_us, grace_seconds) = (fields.short_text()?, fields.u64()?, fields.u64()?);
        let count = usize::try_from(fields.u32()?).ok()?;
        if fields.0.len() != count.checked_mul(32)? {
            return None;
        }
        let packs: Vec<_> = (0..count).map(|_| fields.digest()).collect::<Option<_>>()?;
        packs.is_sorted_by(|a, b| a < b).then_some(Self {
            by,
            said_us,
            grace_seconds,
            packs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condemnation_reads_back_in_its_one_order() {
        let condemned = Condemned {
            by: "host".into(),
            said_us: 1,
            grace_seconds: 3600,
            packs: vec![Digest([1; 32]), Digest([2; 32])],
        };
        let bytes = condemned.encode();
        assert_eq!(Condemned::decode(&bytes), Some(condemned.clone()));
        assert_eq!(Condemned::decode(&bytes[..bytes.len() - 1]), None);
        let backwards = Condemned {
            packs: vec![Digest([2; 32]), Digest([1; 32])],
            ..condemned
        };
        assert_eq!(Condemned::decode(&backwards.encode()), None);
    }
}
