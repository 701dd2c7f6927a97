//! The configuration: the first object of a repository.

use super::envelope::{Kind, unwrap_plain, wrap_plain};
use crate::{
    repository::{
        bytes::Fields,
        crypto::Keys,
        error::{Damage, Error, Result},
        format::name,
    },
    units::Id,
};

/// What a repository is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its id, random.
    pub repository: Id,
    /// When it was made, in microseconds since the UNIX epoch.
    pub created_us: u64,
    /// Whether blobs and objects are encrypted.
    pub encrypted: bool,
}

impl Config {
    /// The stored form, signed with the keys of an encrypted repository.
    pub fn encode(&self, keys: Option<&Keys>) -> Vec<u8> {
        let mut body = self.fields();
        body.extend(self.signature(keys));
        wrap_plain(Kind::Config, Id::NIL, None, &body)
    }

    /// Reads the stored form. The signature is left to [`Config::verify`], which needs the keys.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |damage| Error::damaged(name::CONFIG, damage);
        let body = unwrap_plain(Kind::Config, Some(Id::NIL), None, bytes).map_err(damaged)?;
        Self::parse(&body).ok_or(damaged(Damage::Malformed))
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let config = Self {
            repository: fields.id().filter(|id| *id != Id::NIL)?,
            created_us: fields.u64()?,
            encrypted: match fields.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        };
        let signature: [u8; 32] = fields.array()?;
        fields.end()?;
        (config.encrypted || signature == [0; 32]).then_some(config)
    }

    /// Whether the holder of `keys` wrote these bytes.
    pub fn verify(&self, keys: &Keys, bytes: &[u8]) -> Result<()> {
        if self.encode(Some(keys)) == bytes {
            return Ok(());
        }
        Err(Error::damaged(name::CONFIG, Damage::Checksum))
    }

    fn fields(&self) -> Vec<u8> {
        let mut body = self.repository.0.to_vec();
        body.extend(self.created_us.to_le_bytes());
        body.push(self.encrypted.into());
        body
    }

    fn signature(&self, keys: Option<&Keys>) -> [u8; 32] {
        keys.map_or([0; 32], |keys| {
            *blake3::keyed_hash(keys.configuration.expose(), &self.fields()).as_bytes()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::crypto::Secret;

    #[test]
    fn a_configuration_reads_back_and_a_stranger_cannot_sign_one() {
        let keys = Keys::new(&Secret::new([1; 32]));
        let mut config = Config {
            repository: Id([2; 16]),
            created_us: 77,
            encrypted: true,
        };
        let bytes = config.encode(Some(&keys));
        assert_eq!(Config::decode(&bytes).unwrap(), config);
        assert!(config.verify(&keys, &bytes).is_ok());
        let stranger = config.encode(Some(&Keys::new(&Secret::new([3; 32]))));
        assert!(config.verify(&keys, &stranger).is_err());
        config.encrypted = false;
        let plain = config.encode(None);
        assert_eq!(Config::decode(&plain).unwrap(), config);
        assert!(Config::decode(&config.encode(Some(&keys))).is_err());
    }
}
