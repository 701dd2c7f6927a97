//! Times a full backup, an incremental one and two restores of image files: what the pipeline is tuned
//! with. `repository FOLDER BASE [CHANGED]`; FOLDER must not exist, and changed blocks are found by
//! comparing the two images beforehand. `KEY=1` encrypts.

use std::{
    error::Error,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::Instant,
};

use tidemark_store::{
    repository::{
        About, Backup, Change, Image, Made, Onto, Point, Progress, Repository, Source, Target,
        Trust,
        backend::Directory,
        crypto::{Credential, KdfCost, Secret},
    },
    units::{ByteRange, Epoch, Geometry, Id},
};

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

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [folder, base, rest @ ..] = &arguments[..] else {
        return Err("repository FOLDER BASE [CHANGED]".into());
    };
    let folder = Path::new(folder);
    let master = Credential::Master(Secret::random()?);
    let key = std::env::var_os("KEY").map(|_| (&master, KdfCost::default()));
    let repository = Repository::init(Arc::new(Directory::new(folder)), key)?;
    let first = back_up(&repository, base, None, None)?;
    restore(&repository, first, &folder.with_extension("restored"), base)?;
    if let [changed] = rest {
        let changes = differences(base, changed)?;
        let second = back_up(&repository, changed, Some(first), Some(changes))?;
        back_up(&repository, changed, Some(first), None)?;
        let target = folder.with_extension("restored");
        restore(&repository, second, &target, changed)?;
    }
    Ok(())
}

fn back_up(
    repository: &Repository,
    image: &str,
    base: Option<Id>,
    changes: Option<Vec<Change>>,
) -> Result<Id, Box<dyn Error>> {
    let source = ImageFile(File::open(image)?);
    let capacity = source.0.metadata()?.len();
    let full = "everything was read".to_owned();
    let made = changes
        .as_ref()
        .map_or(Made::Full(full), |_| Made::Incremental);
    let changes = changes.unwrap_or_else(|| {
        vec![Change {
            range: ByteRange::new(0, capacity),
            zeros: false,
        }]
    });
    let backup = Backup {
        repository,
        about: About {
            geometry: Geometry::new(capacity, 4096).ok_or("an image of a strange size")?,
            created_us: 0,
            volume: Id::NIL,
            lineage: Id::NIL,
            epoch: Epoch(0),
            snapshot: Id::NIL,
            trust: Trust::Exact,
            host: String::new(),
            name: image.to_owned(),
            tags: Vec::new(),
        },
        base,
        made,
        progress: &Progress::default(),
    };
    let started = Instant::now();
    let (id, point): (Id, Point) = backup.run(&source, &mut changes.into_iter().map(Ok))?;
    println!(
        "{:?} in {:.2?}: {:?}",
        point.made,
        started.elapsed(),
        point.work
    );
    Ok(id)
}

fn restore(
    repository: &Repository,
    id: Id,
    target: &Path,
    image: &str,
) -> Result<(), Box<dyn Error>> {
    let onto = if target.exists() {
        Onto::Difference
    } else {
        Onto::Zeros
    };
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(target)?;
    file.set_len(fs::metadata(image)?.len())?;
    let started = Instant::now();
    let table = repository.table()?;
    let point = Image::open(repository, &table, id)?;
    let done = point.restore(&ImageFile(file), onto, &Progress::default())?;
    println!("restored in {:.2?}: {done:?}", started.elapsed());
    Ok(())
}

fn differences(old: &str, new: &str) -> io::Result<Vec<Change>> {
    let (old, new) = (fs::read(old)?, fs::read(new)?);
    let blocks = old
        .chunks(4096)
        .zip(new.chunks(4096))
        .zip((0..).step_by(4096));
    let differ = blocks.filter(|((old, new), _)| old != new);
    Ok(differ
        .map(|((_, new), offset)| Change {
            range: ByteRange::new(offset, new.len() as u64),
            zeros: false,
        })
        .collect())
}
