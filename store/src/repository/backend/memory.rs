//! Memory, with a clock and deaths that a test commands.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Backend, Listed, StorageTime};

/// How a client dies at a change of the storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The change did not reach the storage.
    Before,
    /// It did, and the client never learns.
    After,
}

/// A storage in memory. Faults that it injects: death of the client at any change, before or after it,
/// from which on all calls fail until [`Memory::revive`]; flipped bits and lost objects at rest.
#[derive(Default, Debug)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    objects: BTreeMap<String, (Vec<u8>, StorageTime)>,
    now: u64,
    changes: u64,
    dies_at: Option<(u64, Death)>,
    dead: bool,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on.
    pub fn pass(&self, seconds: u64) {
        self.state().now += seconds * 1_000_000;
    }

    /// Lets the clock run back.
    pub fn run_back(&self, seconds: u64) {
        let mut state = self.state();
        state.now = state.now.saturating_sub(seconds * 1_000_000);
    }

    /// Changes so far: objects created or deleted.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Lets the client die at the change after `more` more.
    pub fn die_after(&self, more: u64, death: Death) {
        let mut state = self.state();
        state.dies_at = Some((state.changes + more, death));
    }

    /// Another client comes, with no death ahead. Says whether the one before died.
    pub fn revive(&self) -> bool {
        let mut state = self.state();
        state.dies_at = None;
        std::mem::take(&mut state.dead)
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// Changes an object behind everybody's back; does nothing where there is none.
    pub fn damage(&self, name: &str, how: impl FnOnce(&mut Vec<u8>)) {
        if let Some((bytes, _)) = self.state().objects.get_mut(name) {
            how(bytes);
        }
    }

    /// Loses an object behind everybody's back.
    pub fn lose(&self, name: &str) {
        self.state().objects.remove(name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.dead {
            return Err(io::Error::other("the client is dead"));
        }
        Ok(state)
    }

    fn change(&self, how: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.alive()?;
        // Time passes, so that what comes later is stamped later.
        state.now += 1;
        let death = state.dies_at.filter(|(at, _)| *at == state.changes);
        state.changes += 1;
        state.dead = death.is_some();
        if !matches!(death, Some((_, Death::Before))) {
            how(&mut state);
        }
        match death {
            None => Ok(()),
            Some(_) => Err(io::Error::other("the client died here")),
        }
    }
}

fn none() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Backend for Memory {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.alive()?.objects.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.change(|state| {
            let stamp = StorageTime(state.now);
            let fresh = (bytes.to_vec(), stamp);
            state.objects.entry(name.to_owned()).or_insert(fresh);
        })
    }

    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>> {
        let state = self.alive()?;
        let (bytes, _) = state.objects.get(name).ok_or_else(none)?;
        if bytes.len() as u64 > max {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(bytes.clone())
    }

    fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let state = self.alive()?;
        let (bytes, _) = state.objects.get(name).ok_or_else(none)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = from..from.saturating_add(into.len());
        let range = bytes.get(range).ok_or(ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(range);
        Ok(())
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        let state = self.alive()?;
        let named = state
            .objects
            .iter()
            .filter(|(name, _)| name.starts_with(prefix));
        Ok(named.map(|(name, object)| listed(name, object)).collect())
    }

    fn stat(&self, name: &str) -> io::Result<Listed> {
        let state = self.alive()?;
        let object = state.objects.get(name).ok_or_else(none)?;
        Ok(listed(name, object))
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            state.objects.remove(name);
        })
    }

    fn now(&self) -> io::Result<StorageTime> {
        Ok(StorageTime(self.alive()?.now))
    }
}

fn listed(name: &str, (bytes, created): &(Vec<u8>, StorageTime)) -> Listed {
    Listed {
        name: name.to_owned(),
        bytes: bytes.len() as u64,
        created: *created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::backend::{Directory, contract};

    #[test]
    fn memory_and_a_directory_keep_the_contract() {
        contract::holds(&Memory::new());
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep/repository");
        std::fs::create_dir_all(&root).unwrap();
        let directory = Directory::new(&root);
        contract::holds(&directory);
        let left = std::fs::read_dir(root.join("tmp")).unwrap();
        assert_eq!(left.count(), 0);
        for name in ["../x", "a//b", ".x", ""] {
            assert!(directory.create(name, b"").is_err());
        }
    }

    #[test]
    fn a_client_dies_before_or_after_a_change() {
        for (death, there) in [(Death::Before, false), (Death::After, true)] {
            let storage = Memory::new();
            storage.die_after(1, death);
            storage.create("keys/a", b"").unwrap();
            storage.create("keys/b", b"").unwrap_err();
            storage.read("keys/a", 1).unwrap_err();
            assert!(storage.revive());
            assert_eq!(storage.stat("keys/b").is_ok(), there);
        }
    }
}
