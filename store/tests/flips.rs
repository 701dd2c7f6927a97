//! Each byte of the kept repositories damaged, one at a time: no byte is slack. A check finds each, and
//! names the points that cannot be restored for it; nothing wrong is ever restored; and a second copy
//! mends all but what opens a repository, its configuration and keys.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tidemark_store::{
    repository::{
        Error, Image, Onto, Progress, Repository, Target,
        backend::{Backend, Memory},
        care::{Finding, ReadData},
        crypto::{Credential, Secret},
    },
    units::Id,
};
use zeroize::Zeroizing;

type Objects = Vec<(String, Vec<u8>)>;

/// All objects of a kept repository.
fn objects(name: &str) -> Objects {
    fn walk(folder: &Path, prefix: &str, into: &mut Objects) {
        for entry in fs::read_dir(folder).expect("it is kept") {
            let entry = entry.expect("it is kept");
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{name}/"), into);
            } else {
                into.push((name, fs::read(entry.path()).expect("it is kept")));
            }
        }
    }
    let mut found = Vec::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    walk(&golden.join(name), "", &mut found);
    found.sort();
    found
}

fn stored(objects: &Objects) -> Arc<Memory> {
    let storage = Memory::new();
    for (name, bytes) in objects {
        storage.create(name, bytes).expect("a name of its own");
    }
    Arc::new(storage)
}

/// A target that knows what must come.
struct Expected<'a> {
    image: &'a [u8],
    /// Bytes that came, with those that were right.
    came: Mutex<(usize, usize)>,
}

impl Target for Expected<'_> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).expect("it is small");
        let right = self.image.get(from..from + bytes.len()) == Some(bytes);
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        came.0 += bytes.len();
        came.1 += if right { bytes.len() } else { 0 };
        Ok(())
    }

    fn read_at(&self, _: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        Ok(())
    }
}

/// A kept repository and what it has.
struct Kept {
    name: &'static str,
    objects: Objects,
    key: Option<Credential>,
    /// The points with their images, and the bytes of these that are data.
    points: Vec<(Id, Vec<u8>, usize)>,
}

impl Kept {
    fn read(name: &'static str) -> Self {
        let objects = objects(name);
        let encrypted = name.ends_with("encrypted");
        let password = Credential::Password(Zeroizing::new("high water".to_owned()));
        let repository = Repository::open(stored(&objects), encrypted.then_some(&password));
        let repository = repository.expect("it is whole");
        let master = repository.master().map(|master| master.export());
        let master = master.map(|text| Secret::import(&text).expect("it was exported"));
        let mut kept = Self {
            name,
            objects,
            key: master.map(Credential::Master),
            points: Vec::new(),
        };
        let table = repository.table().expect("it is whole");
        for (id, point) in repository.points().expect("it is whole").points {
            let mut image = vec![0; usize::try_from(point.capacity).expect("it is small")];
            let read = Image::open(&repository, &table, id).expect("it is whole");
            read.read_at(0, &mut image).expect("it is whole");
            kept.points.push((id, image, 0));
        }
        for at in 0..kept.points.len() {
            let data = kept.restore(&repository, at).expect("it is whole");
            kept.points[at].2 = data;
        }
        kept
    }

    fn open(&self, storage: Arc<Memory>) -> Result<Repository, Error> {
        Repository::open(storage, self.key.as_ref())
    }

    /// Restores a point, of which nothing wrong may come; gives how much came.
    fn restore(&self, repository: &Repository, point: usize) -> Result<usize, Error> {
        let (id, image, _) = &self.points[point];
        let came = Mutex::new((0, 0));
        let target = Expected { image, came };
        let table = repository.table()?;
        let restored = Image::open(repository, &table, *id)?.restore(
            &target,
            Onto::Zeros,
            &Progress::default(),
        );
        let (came, right) = *target.came.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(
            came, right,
            "{}: wrong bytes of {id} were restored",
            self.name
        );
        restored.map(|_| came)
    }

    /// Damages one byte; says whether a second copy mends it.
    fn damaged(&self, object: usize, at: usize) -> bool {
        let (name, _) = &self.objects[object];
        let told = format!("{}: {name} at {at}", self.name);
        let storage = stored(&self.objects);
        storage.damage(name, |bytes| bytes[at] ^= 1 << (at % 8));
        let repository = match self.open(storage) {
            Err(why) => {
                assert!(name == "config", "{told}: {why}");
                assert!(why.is_integrity() || matches!(why, Error::NotEncrypted));
                return false;
            }
            Ok(repository) => repository,
        };
        let check = || repository.check(ReadData::All, &Progress::default());
        let findings = check().expect("a check ends").findings;
        assert!(!findings.is_empty(), "{told}: not found");
        for (point, (id, _, data)) in self.points.iter().enumerate() {
            match self.restore(&repository, point) {
                Ok(came) => assert_eq!(came, *data, "{told}: {id} lacks something"),
                Err(why) => {
                    let named = findings.iter().any(|finding| names(finding, *id));
                    assert!(named, "{told}: {id}: {why}, and a check says {findings:?}");
                }
            }
        }
        if name.starts_with("keys/") {
            return false;
        }
        let second = self.open(stored(&self.objects)).expect("it is whole");
        let repaired = repository.repair(Some(&second), &Progress::default());
        repaired.unwrap_or_else(|why| panic!("{told}: {why}"));
        let left = check().expect("a check ends").findings;
        assert!(left.is_empty(), "{told}: a repair leaves {left:?}");
        for (point, (.., data)) in self.points.iter().enumerate() {
            let came = self.restore(&repository, point);
            assert_eq!(came.expect("it was repaired"), *data, "{told}");
        }
        true
    }
}

fn names(finding: &Finding, point: Id) -> bool {
    let itself =
        matches!(&finding.error, Error::Damaged { name, .. } if *name == format!("points/{point}"));
    itself || finding.points.contains(&point)
}

fn each_byte_of(name: &'static str) {
    let kept = Kept::read(name);
    assert_eq!(kept.points.len(), 2);
    let places = kept.objects.iter().enumerate();
    let places: Vec<_> = places
        .flat_map(|(object, (_, bytes))| (0..bytes.len()).map(move |at| (object, at)))
        .collect();
    let (next, mended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((object, at)) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let whole = kept.damaged(*object, *at);
                    mended.fetch_add(usize::from(whole), Ordering::Relaxed);
                }
            });
        }
    });
    let opens = |name: &str| name == "config" || name.starts_with("keys/");
    let opening = kept.objects.iter().filter(|(name, _)| opens(name));
    let opening: usize = opening.map(|(_, bytes)| bytes.len()).sum();
    let mended = mended.into_inner();
    println!("{name}: {} bytes, {mended} mended", places.len());
    assert_eq!(mended + opening, places.len());
}

#[test]
fn each_byte_of_a_plain_repository_counts() {
    each_byte_of("repository-v1");
}

#[test]
fn each_byte_of_an_encrypted_repository_counts() {
    each_byte_of("repository-v1-encrypted");
}
