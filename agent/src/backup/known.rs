//! Repositories by name: making them, making them known, opening them, and their keys.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use tidemark_store::{
    catalog::RepositoryRecord,
    repository::{
        KeyInfo, Repository,
        crypto::{Credential, KdfCost},
    },
    units::Id,
};
use zeroize::Zeroizing;

use super::{Backups, Location, SecretSource, error::of_repository, job::blocking};
use crate::manager::Error;

/// Where a key is taken from, as the catalog keeps it.
const KEY: &str = "key.";

/// A repository with a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its name on this agent.
    pub name: String,
    /// Where it is.
    pub location: Location,
    /// Where its key is taken from; `None`: it is not encrypted.
    pub key: Option<SecretSource>,
    /// Nothing of it is deleted by this agent.
    pub append_only: bool,
    /// Its own identity; [`Id::NIL`] while it is not known.
    pub id: Id,
}

impl Known {
    /// One whose identity is not known yet.
    pub fn new(
        name: String,
        location: Location,
        key: Option<SecretSource>,
        append_only: bool,
    ) -> Self {
        Self {
            name,
            location,
            key,
            append_only,
            id: Id::NIL,
        }
    }

    /// Takes out what may tell where a secret lies.
    pub fn hide_command(&mut self) {
        if let Some(SecretSource::PasswordCommand(command)) = &mut self.key {
            command.clear();
        }
    }

    fn to_record(&self) -> RepositoryRecord {
        let mut options = self.location.to_options();
        let key = self.key.as_ref().map(SecretSource::to_words);
        options.extend(key.map(|(kind, place)| (format!("{KEY}{kind}"), place)));
        RepositoryRecord {
            name: self.name.clone(),
            id: self.id,
            location: self.location.text(),
            append_only: self.append_only,
            options,
        }
    }

    fn of_record(record: RepositoryRecord) -> Result<Self, Error> {
        let key = key_of(&record.options)?;
        Ok(Self {
            location: Location::of_options(&record.location, &record.options)?,
            name: record.name,
            key,
            append_only: record.append_only,
            id: record.id,
        })
    }

    fn credential(&self) -> Result<Option<Credential>, Error> {
        self.key.as_ref().map(SecretSource::read).transpose()
    }

    /// Opens it. May block.
    fn open(&self) -> Result<Repository, Error> {
        let backend = self.location.backend(self.append_only)?;
        let opened = Repository::open(backend, self.credential()?.as_ref())
            .map_err(|error| of_repository(&self.name, error))?;
        let found = opened.config().repository;
        if self.id != Id::NIL && found != self.id {
            return Err(Error::internal(format!(
                "repository \"{}\": {} holds another repository, {found}, than the one that was made \
                 known, {}: remove the name and add it again if that is meant",
                self.name,
                self.location.text(),
                self.id
            ))
            .with("repository", &self.name));
        }
        Ok(opened)
    }

    /// Makes it. May block.
    fn init(&self) -> Result<Repository, Error> {
        let backend = self.location.backend(self.append_only)?;
        let credential = self.credential()?;
        let key = credential.as_ref().map(|key| (key, KdfCost::default()));
        Repository::init(backend, key).map_err(|error| of_repository(&self.name, error))
    }
}

fn key_of(options: &BTreeMap<String, String>) -> Result<Option<SecretSource>, Error> {
    let words = options
        .iter()
        .find_map(|(key, place)| Some((key.strip_prefix(KEY)?, place)));
    let Some((kind, place)) = words else {
        return Ok(None);
    };
    // Not taken for unencrypted.
    let source = SecretSource::of_words(kind, place).ok_or_else(|| {
        Error::internal(format!(
            "the catalog knows a key of the kind \"{kind}\", which this agent does not: run a newer one"
        ))
    })?;
    Ok(Some(source))
}

impl Backups {
    /// Makes a repository and gives it a name.
    pub async fn init(&self, wanted: Known) -> Result<Known, Error> {
        self.take_in(wanted, Known::init).await
    }

    /// Gives a name to a repository that is there.
    pub async fn add(&self, wanted: Known) -> Result<Known, Error> {
        self.take_in(wanted, Known::open).await
    }

    async fn take_in(
        &self,
        mut wanted: Known,
        open: fn(&Known) -> Result<Repository, Error>,
    ) -> Result<Known, Error> {
        wanted.key.as_ref().map_or(Ok(()), SecretSource::check)?;
        wanted.id = Id::NIL;
        // Before anything is made.
        self.manager.check_repository(&wanted.to_record()).await?;
        let opening = wanted.clone();
        let opened = blocking(move || open(&opening)).await?;
        wanted.id = opened.config().repository;
        self.manager.remember_repository(wanted.to_record()).await?;
        self.opened().insert(wanted.name.clone(), opened);
        Ok(wanted)
    }

    /// Forgets a name; the repository stays.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        self.manager.forget_repository(name).await?;
        self.opened().remove(name);
        Ok(())
    }

    /// Every repository, by name.
    pub async fn list(&self) -> Result<Vec<Known>, Error> {
        let records = self.manager.repositories().await?;
        records.into_iter().map(Known::of_record).collect()
    }

    /// What is known of a repository.
    pub(super) async fn known(&self, name: &str) -> Result<Known, Error> {
        Known::of_record(self.manager.repository(name).await?)
    }

    /// An open repository. It stays open, so that a password is stretched once.
    pub(super) async fn repository(&self, name: &str) -> Result<Repository, Error> {
        let known = self.known(name).await?;
        let kept = self.opened().get(name).cloned();
        let kept = kept.filter(|kept| kept.config().repository == known.id);
        let opened = blocking(move || match kept.filter(Repository::is_still_there) {
            Some(kept) => Ok(kept),
            None => known.open(),
        })
        .await?;
        self.opened().insert(name.to_owned(), opened.clone());
        Ok(opened)
    }

    /// The keys that open a repository.
    pub async fn keys(&self, name: &str) -> Result<Vec<KeyInfo>, Error> {
        self.ask(name, Repository::keys).await
    }

    /// Lets another password or key file open a repository.
    pub async fn add_key(&self, name: &str, source: SecretSource) -> Result<KeyInfo, Error> {
        source.check()?;
        let key = blocking(move || source.read()).await?;
        if matches!(key, Credential::Master(_)) {
            return Err(Error::invalid(
                "key",
                "the master key itself is no further key",
            ));
        }
        self.ask(name, move |repository| {
            let id = repository.add_key(&key, KdfCost::default())?;
            let keys = repository.keys()?.into_iter();
            Ok(keys.filter(|key| key.id == id).collect::<Vec<_>>())
        })
        .await?
        .pop()
        .ok_or_else(|| Error::internal("the new key was removed meanwhile"))
    }

    /// Takes a key away, but never the last.
    pub async fn remove_key(&self, name: &str, id: &str) -> Result<(), Error> {
        let keys = self.keys(name).await?.into_iter();
        let fitting: Vec<Id> = keys
            .map(|key| key.id)
            .filter(|key| !id.is_empty() && key.to_string().starts_with(id))
            .collect();
        let [key] = fitting[..] else {
            let why = format!("{} keys have the id or prefix \"{id}\"", fitting.len());
            return Err(Error::invalid("id", why));
        };
        self.may_delete(name).await?;
        self.ask(name, move |repository| repository.remove_key(key))
            .await
    }

    /// The master key, for escrow.
    pub async fn export_key(&self, name: &str) -> Result<Zeroizing<String>, Error> {
        let repository = self.repository(name).await?;
        let master = repository.master().map(|master| master.export());
        master.ok_or_else(|| of_repository(name, tidemark_store::repository::Error::NotEncrypted))
    }

    /// Refuses where this agent may not delete.
    pub(super) async fn may_delete(&self, name: &str) -> Result<(), Error> {
        match self.known(name).await?.append_only {
            true => Err(super::error::append_only(name)),
            false => Ok(()),
        }
    }

    /// Asks an open repository something short.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        name: &str,
        question: impl FnOnce(&Repository) -> tidemark_store::repository::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let repository = self.repository(name).await?;
        let name = name.to_owned();
        blocking(move || question(&repository).map_err(|error| of_repository(&name, error))).await
    }

    fn opened(&self) -> MutexGuard<'_, std::collections::HashMap<String, Repository>> {
        // A map that is only inserted to and removed from: whole at every point.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
