//! The envelope of every object that is not a pack, and what a repository's objects are sealed with.

use crate::{
    repository::{
        bytes::Fields,
        crypto::{
            Naming,
            cipher::{self, NONCE_BYTES, TAG_BYTES},
            keys::Keys,
            secret,
        },
        error::{Damage, Error, Result},
        id::{Blob, Digest},
    },
    units::Id,
};

/// The one version that is written and read.
pub const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"TIDEREPO";
const HEAD_BYTES: usize = 32 + NONCE_BYTES;

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// What the repository is.
    Config = 1,
    /// The master key under a lock.
    Key = 2,
    /// What packs hold.
    Index = 3,
    /// A recovery point.
    Point = 4,
    /// Packs to be deleted.
    Condemned = 5,
}

/// Which repository, and its keys where it is encrypted.
#[derive(Clone, Debug)]
pub struct Vault {
    /// The repository's id.
    pub repository: Id,
    /// How blobs get their ids, with the keys.
    pub naming: Naming,
}

impl Vault {
    /// The keys of an encrypted repository.
    pub const fn keys(&self) -> Option<&Keys> {
        match &self.naming {
            Naming::Plain => None,
            Naming::Keyed(keys) => Some(keys),
        }
    }

    /// Whether the repository is encrypted.
    pub const fn is_sealed(&self) -> bool {
        self.keys().is_some()
    }

    /// A blob's id.
    pub fn id(&self, kind: Blob, plain: &[u8]) -> Digest {
        self.naming.id(kind, plain)
    }

    /// Puts a body into its envelope, encrypted where the repository is. `id` is the one in the
    /// object's name, if any.
    pub fn wrap(&self, kind: Kind, id: Option<Id>, body: &[u8]) -> Result<Vec<u8>> {
        let Some(keys) = self.keys() else {
            return Ok(wrap_plain(kind, self.repository, id, body));
        };
        let nonce: [u8; NONCE_BYTES] = secret::random()?;
        let mut bytes = head(kind, true, self.repository, nonce);
        let with = additional(&bytes, id);
        let mut sealed = body.to_vec();
        cipher::seal(&keys.encryption, &nonce, &with, &mut sealed);
        bytes.extend(sealed);
        Ok(bytes)
    }

    /// The body of an object, if it is whole, of this kind and of this repository. `name` is for the
    /// error.
    pub fn unwrap(&self, kind: Kind, id: Option<Id>, name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
        let opened = match self.keys() {
            None => unwrap_plain(kind, Some(self.repository), id, bytes),
            Some(keys) => self.open(keys, kind, id, bytes),
        };
        opened.map_err(|damage| Error::damaged(name, damage))
    }

    fn open(
        &self,
        keys: &Keys,
        kind: Kind,
        id: Option<Id>,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Damage> {
        let (head, rest) = parse(kind, Some(self.repository), bytes)?;
        if !head.sealed {
            return Err(Damage::Sealing);
        }
        let mut body = rest.to_vec();
        let with = additional(&bytes[..HEAD_BYTES], id);
        cipher::open(&keys.encryption, &head.nonce, &with, &mut body).ok_or(Damage::Checksum)?;
        Ok(body)
    }
}

/// As [`Vault::wrap`], never encrypted.
pub fn wrap_plain(kind: Kind, repository: Id, id: Option<Id>, body: &[u8]) -> Vec<u8> {
    let mut bytes = head(kind, false, repository, [0; NONCE_BYTES]);
    bytes.extend(body);
    let tag = checksum(&bytes, id);
    bytes.extend(tag);
    bytes
}

/// The body of an object that is never encrypted. `repository` is `None` where it is not known yet.
pub fn unwrap_plain(
    kind: Kind,
    repository: Option<Id>,
    id: Option<Id>,
    bytes: &[u8],
) -> Result<Vec<u8>, Damage> {
    let (head, rest) = parse(kind, repository, bytes)?;
    if head.sealed {
        return Err(Damage::Sealing);
    }
    if head.nonce != [0; NONCE_BYTES] {
        return Err(Damage::Malformed);
    }
    let body_len = rest.len() - TAG_BYTES;
    if checksum(&bytes[..HEAD_BYTES + body_len], id) != rest[body_len..] {
        return Err(Damage::Checksum);
    }
    Ok(rest[..body_len].to_vec())
}

struct Head {
    sealed: bool,
    nonce: [u8; NONCE_BYTES],
}

fn parse(kind: Kind, repository: Option<Id>, bytes: &[u8]) -> Result<(Head, &[u8]), Damage> {
    if bytes.len() < HEAD_BYTES + TAG_BYTES {
        return Err(Damage::Length);
    }
    let mut fields = Fields(bytes);
    if fields.take(8) != Some(MAGIC) {
        return Err(Damage::Magic);
    }
    match fields.u32().ok_or(Damage::Length)? {
        VERSION => {}
        later => return Err(Damage::Version(later)),
    }
    let (of_kind, sealed) = (fields.u8(), fields.u8());
    let filler: Option<[u8; 2]> = fields.array();
    let owner = fields.id().ok_or(Damage::Length)?;
    let nonce = fields.array().ok_or(Damage::Length)?;
    if of_kind != Some(kind as u8) || repository.is_some_and(|repository| repository != owner) {
        return Err(Damage::Foreign);
    }
    if sealed > Some(1) || filler != Some([0; 2]) {
        return Err(Damage::Malformed);
    }
    let head = Head {
        sealed: sealed == Some(1),
        nonce,
    };
    Ok((head, fields.0))
}

fn head(kind: Kind, sealed: bool, repository: Id, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([kind as u8, u8::from(sealed), 0, 0]);
    bytes.extend(repository.0);
    bytes.extend(nonce);
    bytes
}

fn additional(head: &[u8], id: Option<Id>) -> Vec<u8> {
    let mut with = head.to_vec();
    with.extend(id.iter().flat_map(|id| id.0));
    with
}

fn checksum(bytes: &[u8], id: Option<Id>) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    if let Some(id) = id {
        hasher.update(&id.0);
    }
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::crypto::Secret;

    fn vaults() -> [Vault; 2] {
        let keyed = Naming::Keyed(Keys::new(&Secret::new([9; 32])));
        [Naming::Plain, keyed].map(|naming| Vault {
            repository: Id([5; 16]),
            naming,
        })
    }

    #[test]
    fn any_flipped_bit_and_any_other_name_is_seen() {
        for vault in vaults() {
            let id = Some(Id([1; 16]));
            let whole = vault.wrap(Kind::Point, id, b"body").unwrap();
            let opens = |kind, id, bytes: &[u8]| vault.unwrap(kind, id, "points/1", bytes).is_ok();
            assert!(opens(Kind::Point, id, &whole));
            assert!(!opens(Kind::Index, id, &whole));
            assert!(!opens(Kind::Point, Some(Id([2; 16])), &whole));
            assert!(!opens(Kind::Point, None, &whole));
            for at in 0..whole.len() * 8 {
                let mut bent = whole.clone();
                bent[at / 8] ^= 1 << (at % 8);
                assert!(!opens(Kind::Point, id, &bent), "bit {at}");
            }
            for len in 0..whole.len() {
                assert!(!opens(Kind::Point, id, &whole[..len]));
            }
        }
    }

    #[test]
    fn an_encrypted_repository_takes_nothing_that_is_not() {
        let [plain, sealed] = vaults();
        let open = plain.wrap(Kind::Point, None, b"body").unwrap();
        let closed = sealed.wrap(Kind::Point, None, b"body").unwrap();
        assert!(sealed.unwrap(Kind::Point, None, "x", &open).is_err());
        assert!(plain.unwrap(Kind::Point, None, "x", &closed).is_err());
        assert!(!closed.windows(4).any(|window| window == b"body"));
    }
}
