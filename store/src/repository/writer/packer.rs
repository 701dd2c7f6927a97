//! A pack while it fills.

use crate::repository::{
    crypto::secret,
    error::Result,
    format::{
        blob,
        envelope::Vault,
        index::PackList,
        pack::{Entry, SALT_BYTES, footer, header},
    },
    id::Digest,
    limits::{MAX_CHUNK_BYTES, MAX_PACK_ENTRIES, PACK_TARGET_BYTES},
};

/// A pack that is not stored yet.
pub(super) struct OpenPack {
    salt: [u8; SALT_BYTES],
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl OpenPack {
    /// An empty one, in a buffer that an earlier one may have left.
    pub(super) fn new(vault: &Vault, mut bytes: Vec<u8>) -> Result<Self> {
        let salt = secret::random()?;
        bytes.clear();
        // Growing would hold it twice. What is not written to takes no memory.
        bytes.reserve(PACK_TARGET_BYTES + 2 * MAX_CHUNK_BYTES);
        bytes.extend(header(vault, salt));
        Ok(Self {
            salt,
            bytes,
            entries: Vec::new(),
        })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= PACK_TARGET_BYTES || self.entries.len() >= MAX_PACK_ENTRIES as usize
    }

    /// Adds a blob: its entry, whose stored length is filled in, and its plain bytes or its frame.
    pub(super) fn add(&mut self, vault: &Vault, mut entry: Entry, frame: &[u8]) {
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let (salt, bytes) = (self.salt, &mut self.bytes);
        blob::seal(vault, salt, number, &mut entry, frame, bytes);
        self.entries.push(entry);
    }

    /// The whole pack, and what an index says of it.
    pub(super) fn finish(mut self, vault: &Vault) -> (Vec<u8>, PackList) {
        let header = header(vault, self.salt);
        self.bytes
            .extend(footer(vault, &header, self.salt, &self.entries));
        let list = PackList {
            pack: Digest(*blake3::hash(&self.bytes).as_bytes()),
            salt: self.salt,
            entries: self.entries,
        };
        (self.bytes, list)
    }
}
