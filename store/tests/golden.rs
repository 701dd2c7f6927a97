//! Repositories of released formats, kept in tests/golden: today's code still reads them.
//!
//! `cargo test -p tidemark-store --test golden -- --ignored` makes those of the current version where
//! they are missing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemark_store::{
    repository::{
        About, Backup, Change, Image, Made, Progress, Repository, Source, Trust,
        backend::Directory,
        care::ReadData,
        crypto::{Credential, KdfCost},
    },
    units::{ByteRange, Epoch, Geometry, Id},
};
use zeroize::Zeroizing;

const NAMES: [&str; 2] = ["repository-v1", "repository-v1-encrypted"];
const CAPACITY: u64 = (5 << 20) + 512;
const BLOCK: usize = 4096;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn password() -> Credential {
    Credential::Password(Zeroizing::new("high water".to_owned()))
}

/// The image of the first or the second point: some blocks of text among zeros.
struct Golden(u8);

impl Source for Golden {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        for (at, byte) in (offset..).zip(into) {
            let block = at / BLOCK as u64;
            let written = block % 100 < 3 || block == CAPACITY / BLOCK as u64;
            let turn = if block == 201 { u64::from(self.0) } else { 0 };
            let letter = (at * 7 + at / 50 + block + turn) % 26;
            *byte = match letter.to_le_bytes()[0] {
                letter if written => b'a' + letter,
                _ => 0,
            };
        }
        Ok(())
    }
}

fn back_up(repository: &Repository, turn: u8, base: Option<Id>) -> Id {
    let range = match base {
        None => ByteRange::new(0, CAPACITY),
        Some(_) => ByteRange::new(201 * BLOCK as u64, BLOCK as u64),
    };
    let made = match base {
        None => Made::Full("the first".to_owned()),
        Some(_) => Made::Incremental,
    };
    let backup = Backup {
        repository,
        about: About {
            geometry: Geometry::new(CAPACITY, 4096).expect("a volume has this size"),
            created_us: 1_000_000 * u64::from(turn + 1),
            volume: Id([1; 16]),
            lineage: Id([2; 16]),
            epoch: Epoch(turn.into()),
            snapshot: Id([3; 16]),
            trust: Trust::Superset,
            host: "golden".to_owned(),
            name: "volume".to_owned(),
            tags: vec!["kept".to_owned()],
        },
        base,
        made,
        progress: &Progress::default(),
    };
    let change = Change {
        range,
        zeros: false,
    };
    let done = backup.run(&Golden(turn), &mut [Ok(change)].into_iter());
    done.expect("a golden image can be backed up").0
}

#[test]
fn kept_repositories_are_read() {
    for name in NAMES {
        let encrypted = name.ends_with("encrypted");
        let backend = Arc::new(Directory::new(folder(name)));
        let password = encrypted.then(password);
        let repository = Repository::open(backend, password.as_ref()).expect(name);
        let points = repository.points().expect(name).points;
        assert_eq!(points.len(), 2);
        let table = repository.table().expect(name);
        for (turn, (id, point)) in (0_u8..).zip(&points) {
            assert_eq!(point.capacity, CAPACITY);
            assert_eq!(
                (point.epoch.0, point.host.as_str()),
                (turn.into(), "golden")
            );
            assert_eq!(point.made == Made::Incremental, turn == 1);
            let image = Image::open(&repository, &table, *id).expect(name);
            let len = usize::try_from(CAPACITY).expect("a small image");
            let (mut read, mut model) = (vec![1; len], vec![2; len]);
            image.read_at(0, &mut read).expect(name);
            Golden(turn).read_at(0, &mut model).expect(name);
            assert!(read == model, "{name}: point {turn}");
        }
        assert_eq!(points[1].1.base, points[0].0);
        let checked = repository.check(ReadData::All, &Progress::default());
        assert!(checked.expect(name).findings.is_empty());
    }
}

#[test]
#[ignore = "makes files that are kept"]
fn missing_ones_are_made() {
    for name in NAMES {
        if folder(name).exists() {
            continue;
        }
        let cost = KdfCost {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        };
        let password = password();
        let key = name.ends_with("encrypted").then_some((&password, cost));
        let backend = Arc::new(Directory::new(folder(name)));
        let repository = Repository::init(backend, key).expect(name);
        let first = back_up(&repository, 0, None);
        back_up(&repository, 1, Some(first));
        fs::remove_dir_all(folder(name).join("tmp")).expect("it is empty");
    }
}
