//! A blob's way into a pack and out again: compressed, sealed; unsealed, decoded, its id checked.

use std::io;

use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::CParameter,
};

use super::{
    envelope::Vault,
    pack::{Entry, SALT_BYTES, nonce},
};
use crate::repository::{
    crypto::cipher::{self, TAG_BYTES},
    error::Damage,
    id::Blob,
};

/// How hard zstd tries; level 3 is the reference of the benchmarks.
const LEVEL: i32 = 3;
/// What differs from the level's own, which are 5, 17 and 16: the shortest repeat in bytes that it looks
/// for, and tables that stay in a core's cache. An eighth less time for about 2 % more bytes, which
/// what is stored once makes up for.
const FINER: [CParameter; 3] = [
    CParameter::MinMatch(6),
    CParameter::HashLog(16),
    CParameter::ChainLog(15),
];
/// A blob shorter than this is not worth a frame.
const MIN_COMPRESSED: usize = 256;

/// Compresses blobs; one a thread.
pub struct Encoder {
    zstd: Compressor<'static>,
}

impl Encoder {
    /// A new one.
    pub fn new() -> io::Result<Self> {
        let mut zstd = Compressor::new(LEVEL)?;
        zstd.include_contentsize(false)?;
        zstd.include_checksum(false)?;
        for parameter in FINER {
            zstd.set_parameter(parameter)?;
        }
        Ok(Self { zstd })
    }

    /// The frame of a blob in `buffer`, if it is smaller than the blob.
    pub fn compress<'a>(&mut self, plain: &[u8], buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        if plain.len() < MIN_COMPRESSED {
            return None;
        }
        buffer.resize(plain.len(), 0);
        // A frame that does not fit is an error, and not worth keeping.
        let len = self
            .zstd
            .compress_to_buffer(plain, buffer.as_mut_slice())
            .ok()?;
        (len < plain.len()).then(|| &buffer[..len])
    }
}

/// Decodes blobs; one a thread.
pub struct Decoder {
    zstd: Decompressor<'static>,
}

impl Decoder {
    /// A new one.
    pub fn new() -> io::Result<Self> {
        Decompressor::new().map(|zstd| Self { zstd })
    }

    /// Decodes a frame of exactly `plain_bytes` into `plain`.
    pub fn decompress(
        &mut self,
        frame: &[u8],
        plain_bytes: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), Damage> {
        plain.resize(plain_bytes, 0);
        let len = self
            .zstd
            .decompress_to_buffer(frame, plain.as_mut_slice())
            .map_err(|_| Damage::Malformed)?;
        (len == plain_bytes).then_some(()).ok_or(Damage::Length)
    }

    /// The plain bytes of blob number `n` of a pack, with its id checked, in `plain`.
    pub fn open(
        &mut self,
        vault: &Vault,
        salt: [u8; SALT_BYTES],
        n: u32,
        entry: &Entry,
        stored: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), Damage> {
        let mut unsealed = Vec::new();
        let frame = match vault.keys() {
            None => stored,
            Some(keys) => {
                unsealed.extend_from_slice(stored);
                let nonce = nonce(salt, n.into());
                cipher::open(&keys.encryption, &nonce, &entry.additional(), &mut unsealed)
                    .ok_or(Damage::Checksum)?;
                &unsealed
            }
        };
        let len = usize::try_from(entry.plain_bytes).map_err(|_| Damage::Length)?;
        if entry.compressed {
            self.decompress(frame, len, plain)?;
        } else {
            if frame.len() != len {
                return Err(Damage::Length);
            }
            plain.clear();
            plain.extend_from_slice(frame);
        }
        if vault.id(entry.kind, plain) != entry.id {
            return Err(Damage::Checksum);
        }
        Ok(())
    }
}

/// The stored form of blob number `n` of a pack; completes the entry's length.
pub fn seal(
    vault: &Vault,
    salt: [u8; SALT_BYTES],
    n: u32,
    entry: &mut Entry,
    frame: &[u8],
    into: &mut Vec<u8>,
) {
    let before = into.len();
    match vault.keys() {
        None => into.extend_from_slice(frame),
        Some(keys) => {
            let mut sealed = Vec::with_capacity(frame.len() + TAG_BYTES);
            sealed.extend_from_slice(frame);
            let nonce = nonce(salt, n.into());
            cipher::seal(&keys.encryption, &nonce, &entry.additional(), &mut sealed);
            into.append(&mut sealed);
        }
    }
    entry.stored_bytes = u32::try_from(into.len() - before).unwrap_or(u32::MAX);
}

/// For messages: what a blob is.
pub const fn word(kind: Blob) -> &'static str {
    match kind {
        Blob::Chunk => "chunk",
        Blob::Node => "node",
    }
}
