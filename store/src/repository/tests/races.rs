//! A prune at any moment of a backup, on the base that the backup stands on.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::world::{BLOCK, Dice, all, back_up, blocks, full, restored};
use crate::repository::{
    Error, Made, Progress, Repository,
    backend::{Backend, Listed, Memory, StorageTime},
    care::{PruneOptions, ReadData},
};

type Hook = Box<dyn FnOnce() + Send>;

/// Runs something in the middle of another client's calls.
struct Between {
    inner: Arc<Memory>,
    calls: AtomicU64,
    at: u64,
    hook: Mutex<Option<Hook>>,
}

impl Between {
    fn call(&self) -> &Memory {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
            let hook = self.hook.lock().unwrap().take();
            if let Some(hook) = hook {
                hook();
            }
        }
        &self.inner
    }
}

impl Backend for Between {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.call().create(name, bytes)
    }
    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>> {
        self.call().read(name, max)
    }
    fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.call().read_range(name, offset, into)
    }
    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        self.call().list(prefix)
    }
    fn stat(&self, name: &str) -> io::Result<Listed> {
        self.call().stat(name)
    }
    fn delete(&self, name: &str) -> io::Result<()> {
        self.call().delete(name)
    }
    fn now(&self) -> io::Result<StorageTime> {
        self.call().now()
    }
}

fn prune(repository: &Repository, when: &str) {
    let options = PruneOptions {
        grace_seconds: 3600,
        min_age_seconds: 0,
        max_waste_percent: 30,
        dry_run: false,
        by: String::new(),
    };
    let pruned = repository.prune(&options, &Progress::default());
    pruned.unwrap_or_else(|why| panic!("{when}: {why}"));
}

/// Backs up, incrementally or in full, while after `at` calls the base goes and `waits` prunes with so
/// many minutes before each run. Says whether the backup made that many calls.
fn race(at: u64, incremental: bool, waits: &'static [u64]) -> bool {
    let storage = Arc::new(Memory::new());
    let pruner = Repository::init(storage.clone(), None).unwrap();
    let mut dice = Dice(31);
    let mut image: Vec<u8> = (0..200).flat_map(|_| dice.block()).collect();
    let (base, _) = back_up(&pruner, &image, all(image.len()), None, full()).unwrap();
    image[5 * BLOCK..6 * BLOCK].copy_from_slice(&dice.block());

    let (inner, other) = (storage.clone(), pruner.clone());
    let hook = move || {
        other.forget(base).unwrap();
        for minutes in waits {
            inner.pass(minutes * 60);
            prune(&other, "between");
        }
    };
    let between = Arc::new(Between {
        inner: storage.clone(),
        calls: AtomicU64::new(0),
        at,
        hook: Mutex::new(Some(Box::new(hook))),
    });
    let writer = Repository::open(storage.clone(), None).unwrap();
    let writer = writer.at(between.clone());
    let done = if incremental {
        back_up(&writer, &image, blocks(&[5]), Some(base), Made::Incremental)
    } else {
        back_up(&writer, &image, all(image.len()), None, full())
    };
    let raced = between.hook.lock().unwrap().is_none();
    for minutes in [40, 70, 0] {
        storage.pass(minutes * 60);
        prune(
            &pruner,
            &format!("after {at}, {incremental}, {waits:?}: {done:?}"),
        );
        match &done {
            Ok((id, _)) => assert!(restored(&pruner, *id).unwrap() == image, "at call {at}"),
            Err(why) => {
                let expected = matches!(
                    why,
                    Error::Pruned(_) | Error::NoPoint(_) | Error::Missing(_)
                );
                assert!(expected || why.is_not_found(), "at call {at}: {why}");
                assert!(pruner.points().unwrap().points.is_empty());
            }
        }
    }
    let checked = pruner.check(ReadData::All, &Progress::default()).unwrap();
    assert!(
        checked.findings.is_empty(),
        "at call {at}: {:?}",
        checked.findings
    );
    raced
}

#[test]
fn a_prune_takes_nothing_that_a_running_backup_relies_on() {
    // Condemned just now; condemned some time ago; condemned and deleted.
    let prunes: [&[u64]; 4] = [&[0], &[0, 35], &[0, 61], &[0, 31, 31, 0]];
    for waits in prunes {
        for incremental in [true, false] {
            let mut at = 0;
            while race(at, incremental, waits) {
                at += 1;
            }
            assert!(at > 10, "only {at} calls");
        }
    }
}
