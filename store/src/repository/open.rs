//! Making and opening a repository, and its keys.

use std::{io::ErrorKind, sync::Arc, time::SystemTime};

use super::{
    backend::{Backend, Listed, StorageTime},
    crypto::{Credential, KdfCost, Keys, Naming, Secret, lock::KeySlot, secret},
    error::{Damage, Error, Result},
    format::{
        config::Config,
        envelope::{Kind, Vault, unwrap_plain, wrap_plain},
        name,
    },
    limits::MAX_RECORD_BYTES,
};
use crate::units::Id;

/// An open repository.
#[derive(Clone)]
pub struct Repository {
    /// Its storage.
    pub(super) backend: Arc<dyn Backend>,
    /// Its id and keys.
    pub(super) vault: Vault,
    config: Config,
    master: Option<Secret>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.config.repository)
    }
}

/// A way into an encrypted repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyInfo {
    /// The key object.
    pub id: Id,
    /// `password` or `key file`.
    pub lock: &'static str,
}

impl Repository {
    /// Makes a repository; an encrypted one when there is a password or key file.
    pub fn init(backend: Arc<dyn Backend>, key: Option<(&Credential, KdfCost)>) -> Result<Self> {
        match backend.stat(name::CONFIG) {
            Ok(_) => return Err(Error::Exists(backend.location())),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => return Err(storage("look for", name::CONFIG, why)),
        }
        let master = match key {
            Some((Credential::Master(master), _)) => Some(master.clone()),
            Some(_) => Some(Secret::random()?),
            None => None,
        };
        let keys = master.as_ref().map(Keys::new);
        let config = Config {
            repository: Id(secret::random()?),
            created_us: now_us(),
            encrypted: master.is_some(),
        };
        let bytes = config.encode(keys.as_ref());
        let repository = Self::with(backend, config, master);
        // The key comes first: a repository whose configuration is there can be opened.
        if let Some((credential, cost)) =
            key.filter(|(key, _)| !matches!(key, Credential::Master(_)))
        {
            repository.add_key(credential, cost)?;
        }
        match repository.create(name::CONFIG, &bytes) {
            Err(why) if why.is_taken() => Err(Error::Exists(repository.location())),
            other => other.map(|()| repository),
        }
    }

    /// Opens a repository.
    pub fn open(backend: Arc<dyn Backend>, credential: Option<&Credential>) -> Result<Self> {
        let bytes = match backend.read(name::CONFIG, MAX_RECORD_BYTES) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoRepository(backend.location()));
            }
            other => other.map_err(|why| storage("read", name::CONFIG, why))?,
        };
        let config = Config::decode(&bytes)?;
        match (config.encrypted, credential) {
            (false, None) => Ok(Self::with(backend, config, None)),
            (false, Some(_)) => Err(Error::NotEncrypted),
            (true, None) => Err(Error::KeyNeeded),
            (true, Some(credential)) => {
                let locked = Self::with(backend, config, None);
                let master = locked.unlock(credential)?;
                config.verify(&Keys::new(&master), &bytes)?;
                Ok(Self::with(locked.backend, config, Some(master)))
            }
        }
    }

    /// Whether its storage is still there, and still this repository's: a disk may have been unmounted
    /// since it was opened, or another mounted in its place.
    pub fn is_still_there(&self) -> bool {
        let read = self.backend.read(name::CONFIG, MAX_RECORD_BYTES);
        read.is_ok_and(|bytes| {
            Config::decode(&bytes).is_ok_and(|found| found.repository == self.config.repository)
        })
    }

    fn with(backend: Arc<dyn Backend>, config: Config, master: Option<Secret>) -> Self {
        let naming = match &master {
            None => Naming::Plain,
            Some(master) => Naming::Keyed(Keys::new(master)),
        };
        Self {
            backend,
            vault: Vault {
                repository: config.repository,
                naming,
            },
            config,
            master,
        }
    }

    /// The same repository by another way to its storage.
    #[cfg(test)]
    pub(super) fn at(&self, backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            ..self.clone()
        }
    }

    fn unlock(&self, credential: &Credential) -> Result<Secret> {
        if let Credential::Master(master) = credential {
            return Ok(master.clone());
        }
        let (mut tried, mut damaged) = (0, None);
        for (id, name) in self.key_names()? {
            // One damaged key object must not lock out the others.
            match self.read_key(id, &name) {
                Ok(None) => {}
                Ok(Some(slot)) => {
                    tried += 1;
                    if let Some(master) = slot.unlock(credential)? {
                        return Ok(master);
                    }
                }
                Err(why) => damaged = Some(why),
            }
        }
        Err(damaged.unwrap_or(Error::WrongKey(tried)))
    }

    /// What the repository is.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Where it is, for people.
    pub fn location(&self) -> String {
        self.backend.location()
    }

    /// The keys that open it.
    pub fn keys(&self) -> Result<Vec<KeyInfo>> {
        let names = self.key_names()?.into_iter();
        names
            .filter_map(|(id, name)| {
                let slot = self.read_key(id, &name).transpose()?;
                Some(slot.map(|slot| KeyInfo {
                    id,
                    lock: slot.lock_kind(),
                }))
            })
            .collect()
    }

    /// Lets another password or key file open it.
    pub fn add_key(&self, credential: &Credential, cost: KdfCost) -> Result<Id> {
        let master = self.master.as_ref().ok_or(Error::NotEncrypted)?;
        let id = Id(secret::random()?);
        let body = KeySlot::lock(master, credential, cost)?.encode();
        let bytes = wrap_plain(Kind::Key, self.config.repository, Some(id), &body);
        self.create(&name::with_id(name::KEYS, id), &bytes)?;
        Ok(id)
    }

    /// Takes a key away, but never the last.
    pub fn remove_key(&self, id: Id) -> Result<()> {
        if !self.keys()?.iter().any(|other| other.id != id) {
            return Err(Error::BadKey("it is the last that opens the repository"));
        }
        self.delete(&name::with_id(name::KEYS, id))
    }

    /// The master key, for escrow; `None` where nothing is encrypted.
    pub const fn master(&self) -> Option<&Secret> {
        self.master.as_ref()
    }

    fn key_names(&self) -> Result<Vec<(Id, String)>> {
        let listed = self.list(name::KEYS)?.into_iter();
        let named =
            listed.filter_map(|key| Some((name::parse_id(name::KEYS, &key.name)?, key.name)));
        Ok(named.collect())
    }

    /// `None`: a whole key of another repository, which an `init` left that died before it was done.
    fn read_key(&self, id: Id, name: &str) -> Result<Option<KeySlot>> {
        let bytes = self.read(name, MAX_RECORD_BYTES)?;
        let damaged = |damage| Error::damaged(name, damage);
        unwrap_plain(Kind::Key, None, Some(id), &bytes).map_err(damaged)?;
        let ours = unwrap_plain(Kind::Key, Some(self.config.repository), Some(id), &bytes);
        match ours {
            Err(Damage::Foreign) => Ok(None),
            other => {
                let slot = KeySlot::decode(&other.map_err(damaged)?);
                slot.map(Some).ok_or(damaged(Damage::Malformed))
            }
        }
    }

    pub(super) fn create(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.backend
            .create(name, bytes)
            .map_err(|why| storage("create", name, why))
    }

    pub(super) fn read(&self, name: &str, max: u64) -> Result<Vec<u8>> {
        self.backend
            .read(name, max)
            .map_err(|why| match why.kind() {
                // Too long for what it is. One such object must not end the work on all others.
                ErrorKind::InvalidData => Error::damaged(name, Damage::Length),
                _ => storage("read", name, why),
            })
    }

    pub(super) fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<()> {
        self.backend
            .read_range(name, offset, into)
            .map_err(|why| storage("read", name, why))
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.backend
            .list(prefix)
            .map_err(|why| storage("list", prefix, why))
    }

    pub(super) fn stat(&self, name: &str) -> Result<Listed> {
        self.backend
            .stat(name)
            .map_err(|why| storage("look at", name, why))
    }

    pub(super) fn delete(&self, name: &str) -> Result<()> {
        self.backend
            .delete(name)
            .map_err(|why| storage("delete", name, why))
    }

    pub(super) fn hold(&self, names: &[String]) -> Result<()> {
        self.backend
            .hold(names)
            .map_err(|why| storage("make sure of", "what the storage has", why))
    }

    pub(super) fn now(&self) -> Result<StorageTime> {
        self.backend
            .now()
            .map_err(|why| storage("ask the time of", "the storage", why))
    }
}

fn storage(what: &'static str, name: &str, why: std::io::Error) -> Error {
    Error::Storage {
        what,
        name: name.to_owned(),
        why,
    }
}

/// The host's clock, in microseconds since the UNIX epoch. For people only: nothing is decided by it.
pub(super) fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{
        backend::Memory,
        crypto::cheap::{COST as CHEAP, password},
    };

    #[test]
    fn passwords_come_and_go_and_the_last_stays() {
        let storage: Arc<Memory> = Arc::new(Memory::new());
        let open = |credential: Option<&Credential>| Repository::open(storage.clone(), credential);
        assert!(matches!(open(None), Err(Error::NoRepository(_))));
        let made = Repository::init(storage.clone(), Some((&password("one"), CHEAP))).unwrap();
        let first = made.keys().unwrap()[0].id;
        assert!(matches!(made.remove_key(first), Err(Error::BadKey(_))));
        assert!(matches!(open(None), Err(Error::KeyNeeded)));
        assert!(matches!(
            open(Some(&password("two"))),
            Err(Error::WrongKey(1))
        ));
        let opened = open(Some(&password("one"))).unwrap();
        opened.add_key(&password("two"), CHEAP).unwrap();
        opened.remove_key(first).unwrap();
        assert!(open(Some(&password("one"))).is_err());
        assert!(open(Some(&password("two"))).is_ok());
        let escrow = Secret::import(&made.master().unwrap().export()).unwrap();
        assert!(open(Some(&Credential::Master(escrow))).is_ok());
        let stranger = Credential::Master(Secret::new([1; 32]));
        assert!(open(Some(&stranger)).is_err());
        let again = Repository::init(storage.clone(), None);
        assert!(matches!(again, Err(Error::Exists(_))));
    }

    #[test]
    fn an_init_that_died_is_in_nobodys_way() {
        let storage: Arc<Memory> = Arc::new(Memory::new());
        storage.die_after(1, crate::repository::backend::Death::Before);
        let key = password("one");
        Repository::init(storage.clone(), Some((&key, CHEAP))).unwrap_err();
        assert!(storage.revive());
        let made = Repository::init(storage.clone(), Some((&key, CHEAP))).unwrap();
        assert_eq!(storage.names().len(), 3);
        assert_eq!(made.keys().unwrap().len(), 1);
        let wrong = Repository::open(storage.clone(), Some(&password("two")));
        assert!(matches!(wrong, Err(Error::WrongKey(1))));
        assert!(Repository::open(storage, Some(&key)).is_ok());
    }

    #[test]
    fn encryption_cannot_be_taken_away() {
        let storage: Arc<Memory> = Arc::new(Memory::new());
        let made = Repository::init(storage.clone(), Some((&password("one"), CHEAP))).unwrap();
        let mut config = *made.config();
        config.encrypted = false;
        storage.damage(name::CONFIG, |bytes| *bytes = config.encode(None));
        let opened = Repository::open(storage, Some(&password("one")));
        assert!(matches!(opened, Err(Error::NotEncrypted)));
    }
}
