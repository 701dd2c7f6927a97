//! Pulling an image against copying it, both to the medium, on the same disk in one run.

use std::{path::Path, process::Command, time::Instant};

use tidemark_tests::{
    Cli, Daemon, MIB, Random, image,
    programs::succeed,
    table::{Table, median, ratio},
    world::text,
};

const BYTES: u64 = 1024 * MIB;
const ROUNDS: usize = 3;
/// What changes before an incremental pull.
const CHANGED: u64 = 10 * MIB;

fn main() {
    let daemon = Daemon::start();
    let origin = daemon.path("vol.img");
    image::filled(&origin, BYTES, &mut Random::new(1));
    let volume = daemon.attach("vol", &origin, 256 * MIB).expect("an attach");
    let cli = daemon.cli();
    let target = daemon.path("target.img");
    let [mut copies, mut fulls, mut increments] = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        copies.push(copy(&origin, &target));
        remove(&target);
        fulls.push(pull(&cli, &target));
        let start = u64::try_from(round).expect("few rounds") * 100 * MIB;
        let mut random = Random::new(start + 2);
        image::scribble(volume.device_path.as_ref(), start, CHANGED, &mut random);
        increments.push(pull(&cli, &target));
        image::assert_same(&origin, &target);
        remove(&target);
    }
    print(median(copies), median(fulls), median(increments));
}

fn copy(origin: &Path, target: &Path) -> f64 {
    let start = Instant::now();
    succeed(
        Command::new("cp")
            .args(["--sparse=never", "--reflink=never"])
            .args([origin, target]),
    );
    succeed(Command::new("sync").arg(target));
    start.elapsed().as_secs_f64()
}

/// With everything that a pull does: snapshot, hashes, verification, fsync, release.
fn pull(cli: &Cli, target: &Path) -> f64 {
    let start = Instant::now();
    cli.ok(&["pull", "vol", &text(target)]);
    succeed(Command::new("sync").arg(target));
    start.elapsed().as_secs_f64()
}

fn remove(target: &Path) {
    let folder = target.parent().expect("a file lies in a folder");
    let name = target
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a plain name");
    for entry in std::fs::read_dir(folder)
        .expect("a folder can be listed")
        .flatten()
    {
        // The image, and the state that a pull keeps beside it.
        if entry.file_name().to_string_lossy().contains(name) {
            std::fs::remove_file(entry.path()).expect("a file can be removed");
        }
    }
}

fn print(copy: f64, full: f64, increment: f64) {
    let mut table = Table::new(
        "An image of 1 GiB, to the medium (median of 3):",
        &["what", "seconds", "MB/s of the image", "ratio to cp"],
    );
    for (what, seconds) in [
        ("cp, fsync", copy),
        ("pull, full, verified, fsync", full),
        ("pull, 10 MiB changed, verified, fsync", increment),
    ] {
        table.row(&[
            what.into(),
            format!("{seconds:.2}"),
            format!("{:.0}", 1_073.741_824 / seconds),
            ratio(copy, seconds),
        ]);
    }
    println!("{table}");
}
