//! A storage through which nothing is deleted.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
};

use super::{Backend, Listed, StorageTime};

/// Another storage, without deletion: for an agent that must not be able to destroy backups. Backup,
/// restore, check and copy work through it; forget, prune, repair and taking keys away do not. It keeps an
/// honest agent to this. What keeps a broken-into host to it is the storage's own permissions.
pub struct AppendOnly {
    inner: Arc<dyn Backend>,
}

impl std::fmt::Debug for AppendOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AppendOnly({})", self.inner.location())
    }
}

impl AppendOnly {
    /// The same storage, without deletion.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner }
    }

    fn refuse<T>(&self) -> io::Result<T> {
        Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "{} is used append-only: forget and prune from where deleting is allowed",
                self.inner.location()
            ),
        ))
    }
}

impl Backend for AppendOnly {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.inner.create(name, bytes)
    }

    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>> {
        self.inner.read(name, max)
    }

    fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.inner.read_range(name, offset, into)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        self.inner.list(prefix)
    }

    fn stat(&self, name: &str) -> io::Result<Listed> {
        self.inner.stat(name)
    }

    fn delete(&self, _: &str) -> io::Result<()> {
        self.refuse()
    }

    fn hold(&self, names: &[String]) -> io::Result<()> {
        self.inner.hold(names)
    }

    fn now(&self) -> io::Result<StorageTime> {
        self.inner.now()
    }

    fn sweep(&self) -> io::Result<()> {
        self.refuse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::backend::Memory;

    #[test]
    fn nothing_is_deleted_and_the_rest_goes_through() {
        let memory = Arc::new(Memory::new());
        let storage = AppendOnly::new(memory.clone());
        storage.create("points/a", b"one").unwrap();
        assert_eq!(storage.read("points/a", 3).unwrap(), b"one");
        assert_eq!(storage.list("points/").unwrap().len(), 1);
        assert!(storage.now().is_ok());
        let why = storage.delete("points/a").unwrap_err();
        assert_eq!(why.kind(), ErrorKind::PermissionDenied);
        assert!(why.to_string().contains("append-only"), "{why}");
        assert_eq!(storage.sweep().unwrap_err().kind(), why.kind());
        assert_eq!(memory.names(), ["points/a"]);
    }
}
