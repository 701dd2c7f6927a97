//! The names of repositories, in the catalog.

use tidemark_store::catalog::RepositoryRecord;

use super::{Error, ErrorReason, Manager, validate};

impl Manager {
    /// Remembers a repository.
    pub async fn remember_repository(&self, record: RepositoryRecord) -> Result<(), Error> {
        self.check_repository(&record).await?;
        self.ledger
            .run(move |catalog| catalog.insert_repository(&record))
            .await
    }

    /// Whether a repository could be remembered. Fails with REPOSITORY_EXISTS when its name or its
    /// place is known.
    pub async fn check_repository(&self, record: &RepositoryRecord) -> Result<(), Error> {
        validate::name("repository.name", &record.name)?;
        let known = self.repositories().await?;
        let taken = known
            .iter()
            .find(|other| other.name == record.name || other.location == record.location);
        let Some(other) = taken else {
            return Ok(());
        };
        let why = format!(
            "repository \"{}\" is known already, at {}",
            other.name, other.location
        );
        Err(Error::new(ErrorReason::RepositoryExists, why).with("repository", &other.name))
    }

    /// A repository by its name.
    pub async fn repository(&self, name: &str) -> Result<RepositoryRecord, Error> {
        validate::name("repository", name)?;
        let searched = name.to_owned();
        let found = self
            .ledger
            .run(move |catalog| catalog.repository(&searched))
            .await?;
        found.ok_or_else(|| repository_not_found(name))
    }

    /// All repositories, by name.
    pub async fn repositories(&self) -> Result<Vec<RepositoryRecord>, Error> {
        self.ledger.run(|catalog| catalog.repositories()).await
    }

    /// Forgets a repository's name.
    pub async fn forget_repository(&self, name: &str) -> Result<(), Error> {
        validate::name("name", name)?;
        let searched = name.to_owned();
        let forgotten = self
            .ledger
            .run(move |catalog| catalog.remove_repository(&searched))
            .await?;
        forgotten
            .then_some(())
            .ok_or_else(|| repository_not_found(name))
    }
}

fn repository_not_found(name: &str) -> Error {
    Error::new(
        ErrorReason::RepositoryNotFound,
        format!("no repository is known by the name \"{name}\""),
    )
    .with("repository", name)
}
