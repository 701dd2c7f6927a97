//! Packs: a header, blobs back to back, a footer that lists them, a trailer that finds the footer.

use super::envelope::{VERSION, Vault};
use crate::{
    repository::{
        bytes::Fields,
        crypto::cipher::{self, NONCE_BYTES, TAG_BYTES},
        error::Damage,
        id::{Blob, Digest},
        limits::{BLOCK_BYTES, MAX_CHUNK_BYTES, MAX_NODE_BYTES, MAX_PACK_BYTES, MAX_PACK_ENTRIES},
    },
    units::Id,
};

const MAGIC: &[u8; 8] = b"TIDEPACK";
const END_MAGIC: &[u8; 8] = b"TIDEPEND";
/// Bytes before the first blob.
pub const HEADER_BYTES: usize = 48;
/// Bytes behind the footer.
pub const TRAILER_BYTES: usize = 16;
/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 41;
/// Bytes of what is random in a pack.
pub const SALT_BYTES: usize = 16;

/// A blob in a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The blob's id.
    pub id: Digest,
    /// What it is.
    pub kind: Blob,
    /// Whether it is kept as a zstd frame.
    pub compressed: bool,
    /// Its bytes in the pack.
    pub stored_bytes: u32,
    /// Its bytes.
    pub plain_bytes: u32,
}

impl Entry {
    /// Adds the stored form.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend(self.id.0);
        into.push(u8::from(self.kind == Blob::Node) | (u8::from(self.compressed) << 1));
        into.extend(self.stored_bytes.to_le_bytes());
        into.extend(self.plain_bytes.to_le_bytes());
    }

    /// Reads the stored form; `None` unless a blob can be so. `sealed`: of an encrypted pack.
    pub(in crate::repository) fn decode(fields: &mut Fields<'_>, sealed: bool) -> Option<Self> {
        let id = fields.digest().filter(|id| *id != Digest::ZEROS)?;
        let form = fields.u8().filter(|form| *form < 4)?;
        let entry = Self {
            id,
            kind: if form & 1 == 0 {
                Blob::Chunk
            } else {
                Blob::Node
            },
            compressed: form & 2 != 0,
            stored_bytes: fields.u32()?,
            plain_bytes: fields.u32()?,
        };
        let plain = usize::try_from(entry.plain_bytes).ok()?;
        let stored = usize::try_from(entry.stored_bytes).ok()?;
        let stored = stored.checked_sub(if sealed { TAG_BYTES } else { 0 })?;
        let fits = match entry.kind {
            Blob::Chunk => plain % BLOCK_BYTES == 0 && plain <= MAX_CHUNK_BYTES,
            Blob::Node => plain <= MAX_NODE_BYTES,
        };
        let smaller = if entry.compressed {
            stored < plain
        } else {
            stored == plain
        };
        (fits && plain > 0 && stored > 0 && smaller).then_some(entry)
    }

    /// What the cipher authenticates beside the blob.
    pub(in crate::repository) fn additional(&self) -> [u8; 37] {
        let mut bytes = Vec::with_capacity(ENTRY_BYTES);
        self.encode(&mut bytes);
        let mut with = [0; 37];
        with[..33].copy_from_slice(&bytes[..33]);
        with[33..].copy_from_slice(&bytes[37..]);
        with
    }
}

/// The nonce of blob number `n` of the pack with this salt; the footer's is of `u64::MAX`.
pub(in crate::repository) fn nonce(salt: [u8; SALT_BYTES], n: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..SALT_BYTES].copy_from_slice(&salt);
    nonce[SALT_BYTES..].copy_from_slice(&n.to_le_bytes());
    nonce
}

/// The bytes before the first blob.
pub fn header(vault: &Vault, salt: [u8; SALT_BYTES]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([u8::from(vault.is_sealed()), 0, 0, 0]);
    bytes.extend(vault.repository.0);
    bytes.extend(salt);
    bytes
}

/// The salt of a pack that begins so.
pub fn parse_header(vault: &Vault, bytes: &[u8]) -> Result<[u8; SALT_BYTES], Damage> {
    let mut fields = Fields(bytes.get(..HEADER_BYTES).ok_or(Damage::Length)?);
    if fields.take(8) != Some(MAGIC) {
        return Err(Damage::Magic);
    }
    match fields.u32() {
        Some(VERSION) => {}
        other => return Err(Damage::Version(other.unwrap_or_default())),
    }
    match fields.array() {
        Some([sealed, 0, 0, 0]) if sealed == u8::from(vault.is_sealed()) => {}
        Some([0 | 1, 0, 0, 0]) => return Err(Damage::Sealing),
        _ => return Err(Damage::Malformed),
    }
    let owner: Option<Id> = fields.id();
    if owner != Some(vault.repository) {
        return Err(Damage::Foreign);
    }
    fields.array().ok_or(Damage::Length)
}

/// Footer and trailer of a pack with this header and these blobs.
pub fn footer(vault: &Vault, header: &[u8], salt: [u8; SALT_BYTES], entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES + TAG_BYTES + TRAILER_BYTES);
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    match vault.keys() {
        Some(keys) => cipher::seal(&keys.encryption, &nonce(salt, u64::MAX), header, &mut bytes),
        None => {
            let tag = footer_checksum(header, &bytes);
            bytes.extend(tag);
        }
    }
    for number in [bytes.len(), entries.len()] {
        bytes.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }
    bytes.extend(END_MAGIC);
    bytes
}

/// How many bytes the footer of a pack of `pack_bytes` has that ends so, without the trailer.
pub fn parse_trailer(pack_bytes: u64, trailer: &[u8]) -> Result<u32, Damage> {
    let mut fields = Fields(trailer);
    let (len, entries) = fields.u32().zip(fields.u32()).ok_or(Damage::Length)?;
    if fields.0 != END_MAGIC {
        return Err(Damage::Magic);
    }
    let room = pack_bytes.saturating_sub((HEADER_BYTES + TRAILER_BYTES) as u64);
    let needs = u64::from(entries) * ENTRY_BYTES as u64 + TAG_BYTES as u64;
    let fits = u64::from(len) <= room && u64::from(len) == needs;
    if !fits || entries > MAX_PACK_ENTRIES || pack_bytes > MAX_PACK_BYTES {
        return Err(Damage::Malformed);
    }
    Ok(len)
}

/// The entries of a pack of `pack_bytes`, from its header and its footer without the trailer.
pub fn parse_footer(
    vault: &Vault,
    pack_bytes: u64,
    header: &[u8],
    footer: &[u8],
) -> Result<Vec<Entry>, Damage> {
    let salt = parse_header(vault, header)?;
    let mut bytes = footer.to_vec();
    match vault.keys() {
        Some(keys) => {
            cipher::open(&keys.encryption, &nonce(salt, u64::MAX), header, &mut bytes)
                .ok_or(Damage::Checksum)?;
        }
        None => {
            let body = bytes.len().checked_sub(TAG_BYTES).ok_or(Damage::Length)?;
            if footer_checksum(header, &bytes[..body]) != bytes[body..] {
                return Err(Damage::Checksum);
            }
            bytes.truncate(body);
        }
    }
    let entries = parse_entries(&bytes, vault.is_sealed()).ok_or(Damage::Malformed)?;
    let around = (HEADER_BYTES + footer.len() + TRAILER_BYTES) as u64;
    if blobs_bytes(&entries) + around != pack_bytes {
        return Err(Damage::Malformed);
    }
    Ok(entries)
}

/// Nothing but entries, at least one.
pub(in crate::repository) fn parse_entries(bytes: &[u8], sealed: bool) -> Option<Vec<Entry>> {
    let count = bytes.len() / ENTRY_BYTES;
    if count == 0 || !bytes.len().is_multiple_of(ENTRY_BYTES) {
        return None;
    }
    let mut fields = Fields(bytes);
    (0..count)
        .map(|_| Entry::decode(&mut fields, sealed))
        .collect()
}

/// Stored bytes of all blobs together.
pub fn blobs_bytes(entries: &[Entry]) -> u64 {
    entries
        .iter()
        .map(|entry| u64::from(entry.stored_bytes))
        .sum()
}

/// Bytes of a pack with these blobs.
pub fn pack_bytes(entries: &[Entry]) -> u64 {
    let around = HEADER_BYTES + entries.len() * ENTRY_BYTES + TAG_BYTES + TRAILER_BYTES;
    blobs_bytes(entries) + around as u64
}

fn footer_checksum(header: &[u8], entries: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(entries);
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
    tag
}
