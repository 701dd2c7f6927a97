//! The image, and what changes in it.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;

/// The images of one run.
pub(crate) struct Images {
    /// Before.
    pub(crate) base: PathBuf,
    /// After.
    pub(crate) changed: PathBuf,
    /// The blocks that differ, one after the other.
    pub(crate) delta: PathBuf,
}

/// The same numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 16) % n
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(4))
            .flat_map(|_| self.below(1 << 32).to_le_bytes()[..4].to_vec())
            .take(len)
            .collect()
    }
}

/// Makes an ext4 image of so many MiB, three quarters full, and its successor.
pub(crate) fn make(folder: &Path, mib: u64) -> Images {
    let tree = folder.join("tree");
    fs::create_dir(&tree).expect("a folder for the files");
    let mut dice = Dice(1);
    let mut left = mib * MIB / 2;
    for source in ["/usr/share", "/usr/bin", "/usr/lib"] {
        copy(Path::new(source), &tree, &mut left);
    }
    rows(&tree.join("database"), mib / 16, &mut dice);
    log(&tree.join("log"), mib / 32, &mut dice);
    fs::write(tree.join("random"), dice.bytes(mb_len(mib / 32))).expect("room for the files");
    let images = Images {
        base: folder.join("base.img"),
        changed: folder.join("changed.img"),
        delta: folder.join("delta"),
    };
    let file = File::create(&images.base).expect("room for the image");
    file.set_len(mib * MIB).expect("room for the image");
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-d"])
        .args([&tree, &images.base])
        .status();
    assert!(made.is_ok_and(|made| made.success()), "mkfs.ext4 failed");
    fs::remove_dir_all(&tree).expect("the files are there");
    change(&images, mib, &mut dice);
    images
}

fn mb_len(mib: u64) -> usize {
    usize::try_from(mib * MIB).expect("a small file")
}

/// Copies files, as many as there is room for; every one in a folder of its own number.
fn copy(from: &Path, to: &Path, left: &mut u64) {
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(about) = entry.metadata() else {
            continue;
        };
        let target = to.join(entry.file_name());
        if about.is_dir() {
            if fs::create_dir_all(&target).is_ok() {
                copy(&entry.path(), &target, left);
            }
        } else if about.is_file() && about.len() < *left && about.len() < 64 * MIB {
            // What cannot be read is not worth a word.
            if let Ok(bytes) = fs::copy(entry.path(), target) {
                *left -= bytes;
            }
        }
    }
}

/// Pages of rows, as a database has them.
fn rows(path: &Path, mib: u64, dice: &mut Dice) {
    let mut file = File::create(path).expect("room for the files");
    for page in 0..mib * MIB / BLOCK as u64 {
        let mut bytes = Vec::with_capacity(BLOCK);
        while bytes.len() < BLOCK - 200 {
            let row = format!("{page:012}|user{}|the quick fox|", dice.below(1 << 20));
            bytes.extend(row.as_bytes());
            bytes.extend(dice.bytes(24));
        }
        bytes.resize(BLOCK, 0);
        file.write_all(&bytes).expect("room for the files");
    }
}

fn log(path: &Path, mib: u64, dice: &mut Dice) {
    fs::write(path, lines(mib * MIB, dice)).expect("room for the files");
}

fn lines(bytes: u64, dice: &mut Dice) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0_u64.. {
        if text.len() as u64 >= bytes {
            break;
        }
        let (host, took) = (dice.below(250), dice.below(900));
        let line = format!(
            "2026-11-{:02} 12:{:02}:{:02} host daemon[{}]: request {number} from 10.0.0.{host} took {took} ms\n",
            number / 90_000 % 28 + 1,
            number / 60 % 60,
            number % 60,
            1000 + number % 77,
        );
        text.extend(line.as_bytes());
    }
    text.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
    text
}

/// Small updates in blocks with data, new blocks here and there, a longer log.
fn change(images: &Images, mib: u64, dice: &mut Dice) {
    fs::copy(&images.base, &images.changed).expect("room for the second image");
    let file = File::options().read(true).write(true).open(&images.changed);
    let file = file.expect("the second image");
    let blocks = mib * MIB / BLOCK as u64;
    let mut block = [0; BLOCK];
    let mut updated = 0;
    while updated < mib {
        let at = dice.below(blocks) * BLOCK as u64;
        file.read_exact_at(&mut block, at)
            .expect("the image is there");
        if block != [0; BLOCK] {
            let row = format!("row update {updated} {}", dice.below(1 << 40));
            file.write_all_at(row.as_bytes(), at + dice.below(3000))
                .expect("the image is there");
            updated += 1;
        }
    }
    for _ in 0..mib / 8 {
        let at = dice.below(blocks) * BLOCK as u64;
        file.write_all_at(&dice.bytes(BLOCK), at)
            .expect("the image is there");
    }
    let longer = lines(mib * MIB / 200, dice);
    file.write_all_at(&longer, mib * MIB / 5 * 4 / BLOCK as u64 * BLOCK as u64)
        .expect("the image is there");
    let mut delta = File::create(&images.delta).expect("room for the difference");
    for (_, bytes) in differences(&images.base, &images.changed) {
        delta.write_all(&bytes).expect("room for the difference");
    }
}

/// Where two images of one size differ, and what is there in the second.
pub(crate) fn differences(old: &Path, new: &Path) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let [old, new] = [old, new].map(|path| File::open(path).expect("an image"));
    let len = new.metadata().expect("an image").len();
    let blocks = (0..len).step_by(BLOCK);
    blocks.filter_map(move |at| {
        let [before, after] = [&old, &new].map(|image| {
            let mut block = vec![0; BLOCK];
            image
                .read_exact_at(&mut block, at)
                .expect("an image of whole blocks");
            block
        });
        (before != after).then_some((at, after))
    })
}
