//! What packs hold, for whoever does not want to read each footer.

use super::pack::{ENTRY_BYTES, Entry, SALT_BYTES, pack_bytes, parse_entries};
use crate::repository::{
    bytes::Fields,
    id::Digest,
    limits::{MAX_PACK_BYTES, MAX_PACK_ENTRIES},
};

/// A pack and its blobs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackList {
    /// The pack.
    pub pack: Digest,
    /// What is random in it.
    pub salt: [u8; SALT_BYTES],
    /// Its blobs in order.
    pub entries: Vec<Entry>,
}

impl PackList {
    /// Bytes of the pack.
    pub fn bytes(&self) -> u64 {
        pack_bytes(&self.entries)
    }
}

/// The body of an index; the packs must ascend.
pub fn encode(packs: &[PackList]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for list in packs {
        bytes.extend(list.pack.0);
        bytes.extend(list.salt);
        bytes.extend(list.bytes().to_le_bytes());
        let count = u32::try_from(list.entries.len()).unwrap_or(u32::MAX);
        bytes.extend(count.to_le_bytes());
        list.entries
            .iter()
            .for_each(|entry| entry.encode(&mut bytes));
    }
    bytes
}

/// Reads the body of an index; `None` unless it is well formed. `sealed`: of an encrypted repository.
pub fn decode(bytes: &[u8], sealed: bool) -> Option<Vec<PackList>> {
    let mut fields = Fields(bytes);
    let mut packs: Vec<PackList> = Vec::new();
    while !fields.0.is_empty() {
        let (pack, salt, bytes) = (fields.digest()?, fields.array()?, fields.u64()?);
        let count = fields.u32().filter(|count| *count <= MAX_PACK_ENTRIES)?;
        let entries = fields.take(usize::try_from(count).ok()?.checked_mul(ENTRY_BYTES)?)?;
        let list = PackList {
            pack,
            salt,
            entries: parse_entries(entries, sealed)?,
        };
        let ascends = packs.last().is_none_or(|last| last.pack < pack);
        if !ascends || list.bytes() != bytes || bytes > MAX_PACK_BYTES {
            return None;
        }
        packs.push(list);
    }
    Some(packs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::id::Blob;

    #[test]
    fn an_index_reads_back_and_must_add_up() {
        let list = |pack| PackList {
            pack: Digest([pack; 32]),
            salt: [pack; SALT_BYTES],
            entries: vec![Entry {
                id: Digest([9; 32]),
                kind: Blob::Chunk,
                compressed: true,
                stored_bytes: 100,
                plain_bytes: 8192,
            }],
        };
        let bytes = encode(&[list(1), list(2)]);
        assert_eq!(decode(&bytes, false), Some(vec![list(1), list(2)]));
        assert_eq!(decode(&encode(&[list(2), list(1)]), false), None);
        assert_eq!(decode(&encode(&[list(1), list(1)]), false), None);
        assert_eq!(decode(&bytes[..bytes.len() - 1], false), None);
        let mut bent = bytes;
        bent[48] ^= 1;
        assert_eq!(decode(&bent, false), None);
    }
}
