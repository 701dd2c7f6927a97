//! A prune at any moment of a backup, on the base that the backup stands on.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    between::Between,
    world::{BLOCK, Dice, all, back_up, blocks, full, restored},
};
use crate::repository::{
    Error, Made, Progress, Repository,
    backend::{Backend, Listed, Memory, StorageTime},
    care::{PruneOptions, ReadData},
    format::name::{CONDEMNED, POINTS},
};

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
    let between = Arc::new(Between::new(storage.clone(), at, hook));
    let writer = Repository::open(storage.clone(), None).unwrap();
    let writer = writer.at(between.clone());
    let done = if incremental {
        back_up(&writer, &image, blocks(&[5]), Some(base), Made::Incremental)
    } else {
        back_up(&writer, &image, all(image.len()), None, full())
    };
    let raced = between.came();
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

/// Puts that take long before they are seen, stamped with the time when they began.
struct Slow {
    inner: Arc<Memory>,
    looks: AtomicU64,
}

impl Backend for Slow {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.inner.create(name, bytes)?;
        if name.starts_with(POINTS) && self.looks.load(Ordering::Relaxed) < 3 {
            self.inner.pass(40 * 60);
        }
        Ok(())
    }
    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>> {
        self.inner.read(name, max)
    }
    fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.inner.read_range(name, offset, into)
    }
    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        let looked = u64::from(prefix == CONDEMNED);
        self.looks.fetch_add(looked, Ordering::Relaxed);
        self.inner.list(prefix)
    }
    fn stat(&self, name: &str) -> io::Result<Listed> {
        self.inner.stat(name)
    }
    fn delete(&self, name: &str) -> io::Result<()> {
        self.inner.delete(name)
    }
    fn now(&self) -> io::Result<StorageTime> {
        self.inner.now()
    }
}

#[test]
fn a_point_that_is_seen_late_counts_as_late_whatever_its_stamp_says() {
    let inner = Arc::new(Memory::new());
    Repository::init(inner.clone(), None).unwrap();
    let looks = AtomicU64::new(0);
    let slow = Arc::new(Slow { inner, looks });
    let repository = Repository::open(slow.clone(), None).unwrap();
    let image = Dice(5).block();
    let (id, _) = back_up(&repository, &image, all(image.len()), None, full()).unwrap();
    // One when it loads, one before the point, and one because that was too long ago.
    assert_eq!(slow.looks.load(Ordering::Relaxed), 3);
    assert!(restored(&repository, id).unwrap() == image);
}

/// A storage whose packs are condemned just before a backup's last look, and deleted between that and its
/// point; then its clock runs back.
struct RunsBack {
    inner: Arc<Memory>,
    pruner: Repository,
    looked: AtomicU64,
}

impl Backend for RunsBack {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if name.starts_with(POINTS) && self.looked.load(Ordering::Relaxed) == 1 {
            self.inner.pass(31 * 60);
            prune(&self.pruner, "before the point");
            self.inner.run_back(14 * 60);
        }
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
    fn delete(&self, name: &str) -> io::Result<()> {
        self.inner.delete(name)
    }
    fn now(&self) -> io::Result<StorageTime> {
        if self.looked.fetch_add(1, Ordering::Relaxed) == 0 {
            prune(&self.pruner, "before the look");
            self.inner.pass(29 * 60 + 50);
        }
        self.inner.now()
    }
}

#[test]
fn a_clock_that_runs_back_hides_no_pruned_pack() {
    let inner = Arc::new(Memory::new());
    let pruner = Repository::init(inner.clone(), None).unwrap();
    let image = Dice(6).block();
    let (first, _) = back_up(&pruner, &image, all(image.len()), None, full()).unwrap();
    pruner.forget(first).unwrap();
    let storage = Arc::new(RunsBack {
        inner,
        pruner: pruner.clone(),
        looked: AtomicU64::new(0),
    });
    let writer = pruner.at(storage.clone());
    let done = back_up(&writer, &image, all(image.len()), None, full());
    assert!(storage.looked.load(Ordering::Relaxed) > 1);
    match done {
        Ok((id, _)) => assert!(restored(&pruner, id).unwrap() == image),
        Err(why) => {
            assert!(
                matches!(why, Error::Pruned(_)) || why.is_not_found(),
                "{why}"
            );
            assert!(pruner.points().unwrap().points.is_empty());
        }
    }
    let checked = pruner.check(ReadData::All, &Progress::default()).unwrap();
    assert!(checked.findings.is_empty(), "{:?}", checked.findings);
}
