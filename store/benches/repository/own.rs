//! Tidemark's part: each action is a process of its own, so that its memory can be told.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tidemark_store::{
    repository::{
        About, Backup, Blob, Change, Digest, Image, Made, Onto, Progress, Repository, Source,
        Target, Trust,
        backend::{Directory, StorageTime},
        crypto::{Credential, KdfCost, Secret},
        format::{index::PackList, pack::Entry},
        index::Table,
    },
    units::{ByteRange, Epoch, Geometry, Id},
};

use super::{
    change::differences,
    data::Images,
    measure::{Row, bytes_in, timed},
    verdict::{FULL, INCREMENTAL, RESTORE},
};

/// What a process is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Init,
    Full,
    Incremental,
    Compared,
    Restore,
    InPlace,
    Table,
}

const NAMES: [(&str, Action, &str); 7] = [
    ("init", Action::Init, "a new repository"),
    ("full", Action::Full, FULL),
    ("incremental", Action::Incremental, INCREMENTAL),
    ("compared", Action::Compared, "full backup against a base"),
    ("restore", Action::Restore, RESTORE),
    ("in-place", Action::InPlace, "restore of the difference"),
    ("table", Action::Table, "index of 4 TiB in memory"),
];

impl Action {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(known, ..)| *known == name);
        found.map(|(_, action, _)| *action)
    }
}

/// Runs all actions, in a new repository.
pub(crate) fn measure(folder: &Path, images: &Images, rows: &mut Vec<Row>) {
    let repository = folder.join("repository");
    let changes = folder.join("changes");
    let list: Vec<_> = differences(&images.base, &images.changed)
        .map(|(at, _)| at.to_string())
        .collect();
    fs::write(&changes, list.join("\n")).expect("room for a list");
    let restored = folder.join("restored");
    let size = || bytes_in(&repository);
    for (name, action, what) in NAMES {
        let image = match action {
            Action::Init | Action::Full | Action::Restore | Action::Table => &images.base,
            Action::Incremental | Action::Compared | Action::InPlace => &images.changed,
        };
        let mut own = Command::new(std::env::current_exe().expect("this program"));
        own.arg(name)
            .args([&repository, image, &changes, &restored]);
        let restores = matches!(action, Action::Restore | Action::InPlace);
        let stores = !restores && action != Action::Table;
        let size: Option<&dyn Fn() -> u64> = if stores { Some(&size) } else { None };
        let row = timed(what, &own, &[&repository, image, &restored], size);
        if action != Action::Init {
            rows.push(row);
        }
        if restores {
            let same = differences(image, &restored).next().is_none();
            assert!(same, "{what} gave another image");
        }
    }
    fs::remove_file(restored).expect("the restored image is there");
    fs::remove_dir_all(repository).expect("the repository is there");
}

fn key() -> Option<Credential> {
    std::env::var_os("KEY").map(|_| Credential::Master(Secret::new([1; 32])))
}

/// One action, in its process.
pub(crate) fn act(action: Action, arguments: &[String]) {
    let [repository, image, changes, target] = arguments else {
        panic!("an action has four arguments");
    };
    let backend = Arc::new(Directory::new(repository));
    if action == Action::Init {
        let key = key();
        let key = key.as_ref().map(|key| (key, KdfCost::default()));
        return drop(Repository::init(backend, key).expect("a new repository"));
    }
    let repository = Repository::open(backend, key().as_ref()).expect("the repository");
    let points = repository.points().expect("the points").points;
    let base = points.first().map(|(id, _)| *id);
    match action {
        Action::Init => {}
        Action::Table => fill_table(),
        // Points are listed by time: the first is the full one.
        Action::Full => back_up(&repository, image, None, None),
        Action::Incremental => back_up(&repository, image, base, Some(changes)),
        Action::Compared => back_up(&repository, image, base, None),
        Action::Restore => restore(&repository, base, Onto::Zeros, target),
        Action::InPlace => {
            let latest = points
                .iter()
                .find(|(_, point)| point.made == Made::Incremental);
            let latest = latest.map(|(id, _)| *id);
            restore(&repository, latest, Onto::Difference, target);
        }
    }
}

struct ImageFile(File);

impl Source for ImageFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
}

impl Target for ImageFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
}

fn back_up(repository: &Repository, image: &str, base: Option<Id>, changes: Option<&String>) {
    let source = ImageFile(File::open(image).expect("the image"));
    let capacity = source.0.metadata().expect("the image").len();
    let (made, ranges) = match changes {
        None => {
            let why = "everything was read".to_owned();
            (Made::Full(why), vec![ByteRange::new(0, capacity)])
        }
        Some(list) => {
            let list = fs::read_to_string(PathBuf::from(list)).expect("the list of changes");
            let starts = list.lines().filter_map(|line| line.parse().ok());
            let ranges = starts.map(|start| ByteRange::new(start, 4096)).collect();
            (Made::Incremental, ranges)
        }
    };
    let made_at = match (&made, base) {
        (Made::Full(_), None) => 1,
        (Made::Incremental, _) => 2,
        (Made::Full(_), Some(_)) => 3,
    };
    let backup = Backup {
        repository,
        about: About {
            geometry: Geometry::new(capacity, 4096).expect("an ordinary size"),
            created_us: made_at,
            volume: Id::NIL,
            lineage: Id::NIL,
            epoch: Epoch(0),
            snapshot: Id::NIL,
            trust: Trust::Exact,
            host: String::new(),
            name: "image".to_owned(),
            tags: Vec::new(),
        },
        base,
        made,
        progress: &Progress::default(),
    };
    let zeros = false;
    let mut changes = ranges.into_iter().map(|range| Ok(Change { range, zeros }));
    backup.run(&source, &mut changes).expect("a backup");
}

fn restore(repository: &Repository, id: Option<Id>, onto: Onto, target: &str) {
    let table = repository.table().expect("the indexes");
    let image = Image::open(repository, &table, id.expect("a point")).expect("the point");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(target);
    let file = file.expect("a target");
    file.set_len(image.capacity()).expect("room for the image");
    let target = ImageFile(file);
    image
        .restore(&target, onto, &Progress::default())
        .expect("a restore");
}

/// Where all chunks and leaves of 4 TiB would be.
fn fill_table() {
    let mut table = Table::default();
    let mut count = 0_u64;
    let mut id = || {
        let mut bytes = [0; 32];
        count += 1;
        bytes[..8].copy_from_slice(&count.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Digest(bytes)
    };
    for _ in 0..(4 << 20) * 5 / 4 / 32 {
        let pack = id();
        let entries = (0..32).map(|_| Entry {
            id: id(),
            kind: Blob::Chunk,
            compressed: true,
            stored_bytes: 1 << 19,
            plain_bytes: 1 << 20,
        });
        let entries = entries.collect();
        let salt = [0; 16];
        let list = PackList {
            pack,
            salt,
            entries,
        };
        table.add(&list, StorageTime::default(), true);
    }
    assert_eq!(table.places().len(), (4 << 20) * 5 / 4);
}
