//! The master key under a password or a key file.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::{
    cipher::{self, NONCE_BYTES, TAG_BYTES},
    secret::{self, Secret},
};
use crate::repository::{
    bytes::Fields,
    error::{Error, Result},
    limits::{
        MAX_KDF_LANES, MAX_KDF_MEMORY_KIB, MAX_KDF_PASSES, MAX_KEY_FILE_BYTES, MIN_KEY_FILE_BYTES,
    },
};

const KEY_FILE: &str = "tidemark repository v1 key file";

/// What opens a repository.
pub enum Credential {
    /// Stretched with Argon2id.
    Password(Zeroizing<String>),
    /// The content of a key file: 32 bytes to 64 KiB that nobody guesses.
    KeyFile(Zeroizing<Vec<u8>>),
    /// The master key itself, out of escrow.
    Master(Secret),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password",
            Self::KeyFile(_) => "KeyFile",
            Self::Master(_) => "Master",
        })
    }
}

/// What stretching a password costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Times over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// 64 MiB, three passes: the second choice of RFC 9106.
    fn default() -> Self {
        Self {
            memory_kib: 64 << 10,
            passes: 3,
            lanes: 4,
        }
    }
}

/// A key object's body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySlot {
    /// `None`: locked with a key file.
    cost: Option<KdfCost>,
    salt: [u8; 16],
    nonce: [u8; NONCE_BYTES],
    sealed: Vec<u8>,
}

impl KeySlot {
    /// Locks `master` with a password or key file.
    pub fn lock(master: &Secret, with: &Credential, cost: KdfCost) -> Result<Self> {
        let mut slot = Self {
            cost: matches!(with, Credential::Password(_)).then_some(cost),
            salt: secret::random()?,
            nonce: secret::random()?,
            sealed: master.expose().to_vec(),
        };
        let key = slot
            .stretch(with)?
            .ok_or(Error::BadKey("a master key does not lock itself"))?;
        let head = slot.head();
        cipher::seal(&key, &slot.nonce, &head, &mut slot.sealed);
        Ok(slot)
    }

    /// The master key, if this is the password or key file that locks it.
    pub fn unlock(&self, with: &Credential) -> Result<Option<Secret>> {
        let Some(key) = self.stretch(with)? else {
            return Ok(None);
        };
        let mut bytes = Zeroizing::new(self.sealed.clone());
        let opened = cipher::open(&key, &self.nonce, &self.head(), &mut bytes);
        let master = opened.and_then(|()| bytes.as_slice().try_into().ok());
        Ok(master.map(Secret::new))
    }

    /// What locks it, for people.
    pub const fn lock_kind(&self) -> &'static str {
        if self.cost.is_some() {
            "password"
        } else {
            "key file"
        }
    }

    fn stretch(&self, with: &Credential) -> Result<Option<Secret>> {
        match (with, self.cost) {
            (Credential::Password(password), Some(cost)) => {
                stretch_password(password, &self.salt, cost).map(Some)
            }
            (Credential::KeyFile(bytes), None) => {
                if !(MIN_KEY_FILE_BYTES..=MAX_KEY_FILE_BYTES).contains(&bytes.len()) {
                    return Err(Error::BadKey("a key file has 32 bytes to 64 KiB"));
                }
                let mut hasher = blake3::Hasher::new_derive_key(KEY_FILE);
                hasher.update(&self.salt).update(bytes);
                Ok(Some(Secret::new(*hasher.finalize().as_bytes())))
            }
            _ => Ok(None),
        }
    }

    fn head(&self) -> Vec<u8> {
        let cost = self.cost.unwrap_or(KdfCost {
            memory_kib: 0,
            passes: 0,
            lanes: 0,
        });
        let mut head = vec![if self.cost.is_some() { 1 } else { 2 }];
        for number in [cost.memory_kib, cost.passes, cost.lanes] {
            head.extend(number.to_le_bytes());
        }
        head.extend(self.salt);
        head.extend(self.nonce);
        head
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend(&self.sealed);
        bytes
    }

    /// Reads the stored form; `None` unless it is whole and within bounds.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let kind = fields.u8()?;
        let cost = KdfCost {
            memory_kib: fields.u32()?,
            passes: fields.u32()?,
            lanes: fields.u32()?,
        };
        let cost = match kind {
            1 if in_bounds(cost) => Some(cost),
            2 if (cost.memory_kib, cost.passes, cost.lanes) == (0, 0, 0) => None,
            _ => return None,
        };
        let slot = Self {
            cost,
            salt: fields.array()?,
            nonce: fields.array()?,
            sealed: fields.take(32 + TAG_BYTES)?.to_vec(),
        };
        fields.end().map(|()| slot)
    }
}

const fn in_bounds(cost: KdfCost) -> bool {
    cost.lanes >= 1
        && cost.lanes <= MAX_KDF_LANES
        && cost.passes >= 1
        && cost.passes <= MAX_KDF_PASSES
        && cost.memory_kib >= 8 * cost.lanes
        && cost.memory_kib <= MAX_KDF_MEMORY_KIB
}

fn stretch_password(password: &str, salt: &[u8], cost: KdfCost) -> Result<Secret> {
    let refused = |_| Error::BadKey("its Argon2id parameters are out of bounds");
    let params =
        Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(refused)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, key.as_mut_slice())
        .map_err(refused)?;
    Ok(Secret::new(*key))
}

/// Keys for tests: as good as any, and quick.
#[cfg(test)]
pub(crate) mod cheap {
    use super::{Credential, KdfCost, Zeroizing};

    pub(crate) const COST: KdfCost = KdfCost {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    pub(crate) fn password(text: &str) -> Credential {
        Credential::Password(Zeroizing::new(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        cheap::{COST as CHEAP, password},
        *,
    };

    #[test]
    fn only_its_own_password_or_file_opens_a_slot() {
        let master = Secret::random().unwrap();
        let file = |byte| Credential::KeyFile(Zeroizing::new(vec![byte; 32]));
        let by_password = KeySlot::lock(&master, &password("tide"), CHEAP).unwrap();
        let by_file = KeySlot::lock(&master, &file(1), CHEAP).unwrap();
        for slot in [&by_password, &by_file] {
            assert_eq!(KeySlot::decode(&slot.encode()).as_ref(), Some(slot));
        }
        let opens = |slot: &KeySlot, with: &Credential| {
            let opened = slot.unlock(with).unwrap();
            opened.is_some_and(|opened| opened.expose() == master.expose())
        };
        assert!(opens(&by_password, &password("tide")));
        assert!(!opens(&by_password, &password("tode")));
        assert!(!opens(&by_password, &file(1)));
        assert!(opens(&by_file, &file(1)));
        assert!(!opens(&by_file, &file(2)));
        assert!(
            by_file
                .unlock(&Credential::KeyFile(Zeroizing::new(vec![1; 31])))
                .is_err()
        );
    }

    #[test]
    fn a_slot_that_asks_for_too_much_is_refused() {
        let master = Secret::new([3; 32]);
        let slot = KeySlot::lock(&master, &password("tide"), CHEAP).unwrap();
        let mut greedy = slot.encode();
        greedy[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(KeySlot::decode(&greedy), None);
        assert_eq!(KeySlot::decode(&slot.encode()[1..]), None);
    }
}
