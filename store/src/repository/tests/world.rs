//! Images in memory, a repository in memory, and the shortest way to back one up into the other.

use std::{
    io,
    sync::{Arc, Mutex, RwLock},
};

use crate::{
    repository::{
        About, Backup, Change, Image, Made, Onto, Point, Progress, Repository, Restored, Result,
        Source, Target, Trust,
        backend::Memory,
        crypto::{Credential, KdfCost, Secret},
    },
    units::{ByteRange, Epoch, Geometry, Id},
};

pub(super) const BLOCK: usize = 4096;

/// A small linear generator: tests need the same bytes on each run.
#[derive(Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    /// A block that compresses about two to one.
    pub(super) fn block(&mut self) -> Vec<u8> {
        let words = ["tide", "mark", "epoch", "lineage", "flood", "ebb"];
        let mut block = Vec::with_capacity(BLOCK + 16);
        while block.len() < BLOCK {
            block.extend(words[self.below(words.len())].as_bytes());
            let noise = self.below(1 << 16);
            block.extend(noise.to_le_bytes());
        }
        block.truncate(BLOCK);
        block
    }
}

/// An image as a source and as a target.
pub(super) struct Bytes(pub(super) Mutex<Vec<u8>>);

impl Bytes {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }
}

fn range(offset: u64, len: usize) -> std::ops::Range<usize> {
    let from = usize::try_from(offset).unwrap();
    from..from + len
}

impl Source for Bytes {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.0.lock().unwrap()[range(offset, into.len())]);
        Ok(())
    }
}

impl Target for Bytes {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap()[range(offset, bytes.len())].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        Source::read_at(self, offset, into)
    }
}

pub(super) fn about(bytes: usize) -> About {
    About {
        geometry: Geometry::new(bytes as u64, 4096).unwrap(),
        created_us: 1,
        volume: Id([1; 16]),
        lineage: Id([2; 16]),
        epoch: Epoch(3),
        snapshot: Id::NIL,
        trust: Trust::Exact,
        host: "host".into(),
        name: "volume".into(),
        tags: vec!["b".into(), "a".into()],
    }
}

pub(super) fn all(bytes: usize) -> Vec<Change> {
    vec![Change {
        range: ByteRange::new(0, bytes as u64),
        zeros: false,
    }]
}

pub(super) fn blocks(numbers: &[usize]) -> Vec<Change> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
        .iter()
        .map(|block| Change {
            range: ByteRange::new((block * BLOCK) as u64, BLOCK as u64),
            zeros: false,
        })
        .collect()
}

pub(super) fn back_up(
    repository: &Repository,
    image: &[u8],
    changes: Vec<Change>,
    base: Option<Id>,
    made: Made,
) -> Result<(Id, Point)> {
    let source = Bytes::new(image.to_vec());
    let backup = Backup {
        repository,
        about: about(image.len()),
        base,
        made,
        progress: &Progress::default(),
    };
    backup.run(&source, &mut changes.into_iter().map(Ok))
}

pub(super) fn full() -> Made {
    Made::Full("the first".into())
}

/// The image of a point, restored onto zeros.
pub(super) fn restored(repository: &Repository, id: Id) -> Result<Vec<u8>> {
    let table = repository.table()?;
    let image = Image::open(repository, &table, id)?;
    let target = Bytes::new(vec![0; usize::try_from(image.capacity()).unwrap()]);
    image.restore(&target, Onto::Zeros, &Progress::default())?;
    Ok(target.0.into_inner().unwrap())
}

/// What restoring onto `there` in place wrote; checks that it becomes the image.
pub(super) fn restored_onto(repository: &Repository, id: Id, there: Vec<u8>) -> Restored {
    let table: RwLock<_> = repository.table().unwrap();
    let image = Image::open(repository, &table, id).unwrap();
    let mut straight = vec![0; there.len()];
    image.read_at(0, &mut straight).unwrap();
    let target = Bytes::new(there);
    let done = image
        .restore(&target, Onto::Difference, &Progress::default())
        .unwrap();
    assert!(target.0.into_inner().unwrap() == straight);
    done
}

/// A plain and an encrypted repository in memory.
pub(super) fn repositories() -> Vec<(Arc<Memory>, Repository)> {
    let master = Credential::Master(Secret::new([7; 32]));
    [None, Some((&master, KdfCost::default()))]
        .map(|key| {
            let storage = Arc::new(Memory::new());
            let repository = Repository::init(storage.clone(), key).unwrap();
            (storage, repository)
        })
        .to_vec()
}
