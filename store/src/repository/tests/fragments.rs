//! What many incrementals of scattered writes leave: the bounds that FORMAT.md names.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::world::{BLOCK, Bytes, Dice, about, all, blocks, full, restored};
use crate::repository::{
    Backup, Change, Made, Progress, Repository,
    backend::{Backend, Listed, Memory, StorageTime},
};

/// A storage that counts what is read of packs.
struct Counted {
    memory: Memory,
    read_bytes: AtomicU64,
}

impl Backend for Counted {
    fn location(&self) -> String {
        self.memory.location()
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.memory.create(name, bytes)
    }

    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>> {
        self.memory.read(name, max)
    }

    fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_bytes
            .fetch_add(into.len() as u64, Ordering::Relaxed);
        self.memory.read_range(name, offset, into)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        self.memory.list(prefix)
    }

    fn stat(&self, name: &str) -> io::Result<Listed> {
        self.memory.stat(name)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.memory.delete(name)
    }

    fn now(&self) -> io::Result<StorageTime> {
        self.memory.now()
    }
}

/// 32 MiB and 200 incrementals, each of a block in most leaves: tidying is as busy as it gets.
#[test]
fn scattered_writes_cost_twice_and_restores_stay_bounded() {
    let storage = Arc::new(Counted {
        memory: Memory::new(),
        read_bytes: AtomicU64::new(0),
    });
    let repository = Repository::init(storage.clone(), None).unwrap();
    let mut dice = Dice(21);
    let count = 8 * 1024;
    let image = Bytes::new((0..count).flat_map(|_| dice.block()).collect());
    let len = count * BLOCK;
    let back_up = |changes: Vec<Change>, base, made| {
        let backup = Backup {
            repository: &repository,
            about: about(len),
            base,
            made,
            progress: &Progress::default(),
        };
        backup
            .run(&image, &mut changes.into_iter().map(Ok))
            .unwrap()
    };
    let (mut last, first) = back_up(all(len), None, full());
    let (mut changed, mut stored) = (0, 0);
    for _ in 0..200 {
        let numbers: Vec<usize> = (0..8).map(|_| dice.below(count)).collect();
        for number in &numbers {
            let block = number * BLOCK..(number + 1) * BLOCK;
            image.0.lock().unwrap()[block].copy_from_slice(&dice.block());
        }
        let changes = blocks(&numbers);
        changed += (changes.len() * BLOCK) as u64;
        let (next, point) = back_up(changes, Some(last), Made::Incremental);
        stored += point.work.changed_bytes;
        last = next;
    }
    assert!(stored <= 2 * changed, "{stored} for {changed}");
    assert!(stored > changed, "nothing was tidied");
    storage.read_bytes.store(0, Ordering::Relaxed);
    assert!(restored(&repository, last).unwrap() == *image.0.lock().unwrap());
    let read = storage.read_bytes.load(Ordering::Relaxed);
    let once = first.work.stored_bytes;
    assert!(read <= 2 * once, "{read} where a full backup has {once}");
}
