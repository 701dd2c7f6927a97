//! The image before anything changes.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::change;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const BLOCK: usize = 4096;
/// A row, as [`CREATE`] makes it, takes about so many bytes, its part of the index included.
const ROW_BYTES: u64 = 150;
/// Rows whose numbers look random: those of a sequence, times a large odd number.
const CREATE: &str = "PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, state TEXT, amount REAL, note TEXT, token TEXT);
WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < ROWS)
INSERT INTO orders SELECT id, printf('customer %06d', id * 2654435761 % 100003),
    CASE id * 40503 % 7 WHEN 0 THEN 'pending' WHEN 1 THEN 'refused' ELSE 'shipped' END,
    id * 69069 % 99991 / 100.0 + 0.001,
    printf('%d of article %d to street %d', id % 9 + 1, id * 7919 % 5003, id * 104729 % 30011),
    printf('%08x%08x', id * 2654435761 & 4294967295, id * 2246822519 & 4294967295) FROM n;
CREATE INDEX by_customer ON orders (customer);";

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
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 16) % n
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(4))
            .flat_map(|_| self.below(1 << 32).to_le_bytes()[..4].to_vec())
            .take(len)
            .collect()
    }
}

/// Makes an ext4 image of so many MiB, about three quarters full, and its successor.
pub(crate) fn make(folder: &Path, mib: u64) -> Images {
    let tree = folder.join("tree");
    fs::create_dir(&tree).expect("a folder for the files");
    let mut dice = Dice(1);
    let mut left = mib * MIB / 2;
    for source in ["/usr/share", "/usr/bin", "/usr/lib"] {
        copy(Path::new(source), &tree, &mut left);
    }
    let rows = mib * MIB / 16 / ROW_BYTES;
    sql(
        &tree.join("database"),
        &CREATE.replace("ROWS", &rows.to_string()),
    );
    fs::write(tree.join("log"), lines(mib * MIB / 32, &mut dice)).expect("room for the files");
    fs::write(tree.join("random"), dice.bytes(mb_len(mib / 32))).expect("room for the files");
    let images = Images {
        base: folder.join("base.img"),
        changed: folder.join("changed.img"),
        delta: folder.join("delta"),
    };
    let file = File::create(&images.base).expect("room for the image");
    file.set_len(mib * MIB).expect("room for the image");
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "4096", "-i", "4096", "-d"])
        .args([&tree, &images.base])
        .status();
    assert!(made.is_ok_and(|made| made.success()), "mkfs.ext4 failed");
    change::make(&images, &tree, mib, &mut dice);
    fs::remove_dir_all(&tree).expect("the files are there");
    images
}

/// Has a database do something.
pub(crate) fn sql(database: &Path, statements: &str) {
    let shell = Command::new("sqlite3")
        .arg("-bail")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let mut shell = shell.expect("sqlite3 is installed");
    let mut input = shell.stdin.take().expect("a pipe");
    input
        .write_all(statements.as_bytes())
        .expect("sqlite3 listens");
    drop(input);
    assert!(
        shell.wait().is_ok_and(|end| end.success()),
        "sqlite3 failed"
    );
}

fn mb_len(mib: u64) -> usize {
    usize::try_from(mib * MIB).expect("a small file")
}

/// Copies files, as many as there is room for.
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

/// So many bytes of a log.
pub(crate) fn lines(bytes: u64, dice: &mut Dice) -> Vec<u8> {
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
