//! Backups against their physical limits and against other programs, in one run, on one image.
//!
//! The image is an ext4 file system with files of this host, an SQLite database, a log and random bytes;
//! then rows, files, and 4 KiB here and there change. `zstd -3 -T2` and `cp` are the limits; restic, borg
//! and casync join where they are installed. casync stands for desync, which Debian 12 does not have: both
//! cut an image into a store of zstd chunks, and an index. Each program is asked for what suits it best.
//!
//! `MIB` sets the size (2048), `KEY=1` encrypts, `ROUNDS` says how often what is held against `zstd` is
//! timed, in turns with it (3). What is read is in the page cache for all, and nobody flushes what is restored.

mod change;
mod data;
mod measure;
mod own;
mod peers;
mod verdict;

use std::{fs, path::Path, process::Command};

use measure::{Row, timed};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [word, command @ ..] if word == measure::WORD => return measure::act(command),
        [action, rest @ ..] => {
            if let Some(action) = own::Action::parse(action) {
                return own::act(action, rest);
            }
        }
        [] => {}
    }
    let folder = tempfile::tempdir().expect("a folder for the benchmark");
    let images = data::make(folder.path(), number("MIB", 2048));
    let mut rounds: Vec<Vec<Row>> = Vec::new();
    for _ in 0..number("ROUNDS", 3).max(1) {
        let mut rows = Vec::new();
        own::measure(folder.path(), &images, &mut rows);
        limits(folder.path(), &images, &mut rows);
        rounds.push(rows);
    }
    let mut rows = measure::medians(rounds);
    rows.extend(peers::measure(folder.path(), &images));
    verdict::print(&rows, &peers::names());
}

fn number(name: &str, otherwise: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn limits(folder: &Path, images: &data::Images, rows: &mut Vec<Row>) {
    let packed = folder.join("packed.zst");
    for (what, image) in [
        (verdict::ZSTD, &images.base),
        (verdict::ZSTD_CHANGED, &images.delta),
    ] {
        let mut zstd = Command::new("zstd");
        zstd.args(["-3", "-T2", "-q", "-f"]);
        zstd.arg(image).arg("-o").arg(&packed);
        let size = || fs::metadata(&packed).map_or(0, |about| about.len());
        rows.push(timed(what, &zstd, &[image], Some(&size)));
        if what == verdict::ZSTD {
            let unpacked = folder.join("unpacked");
            let mut zstd = Command::new("zstd");
            zstd.args(["-d", "-q", "-f"]).arg(&packed);
            zstd.arg("-o").arg(&unpacked);
            rows.push(timed("zstd -d of the image", &zstd, &[&packed], None));
            fs::remove_file(unpacked).expect("the image is there again");
        }
        fs::remove_file(&packed).expect("the frame is there");
    }
    let copied = folder.join("copied");
    let mut cp = Command::new("cp");
    cp.arg("--reflink=never").arg(&images.base).arg(&copied);
    rows.push(timed("cp of the image", &cp, &[&images.base], None));
    fs::remove_file(copied).expect("the copy is there");
}
