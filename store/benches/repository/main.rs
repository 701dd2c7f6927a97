//! Backups against their physical limits and against other programs, in one run, on one image.
//!
//! The image is an ext4 file system with files of this host, pages like a database's, a log and random
//! bytes; then rows, blocks and a log change. `zstd -3 -T2` of the image and `cp` are the limits; restic,
//! borg and desync join where they are installed. `MIB` sets the size (2048), `KEY=1` encrypts.

mod data;
mod own;
mod peers;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

/// What one program did.
struct Row {
    what: String,
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: Option<f64>,
    size_mb: Option<f64>,
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [action, rest @ ..] = &arguments[..]
        && let Some(action) = own::Action::parse(action)
    {
        return own::act(action, rest);
    }
    let mib = std::env::var("MIB").ok().and_then(|mib| mib.parse().ok());
    let folder = tempfile::tempdir().expect("a folder for the benchmark");
    let images = data::make(folder.path(), mib.unwrap_or(2048));
    let mut rows = Vec::new();
    // First of all, so that the peak of all children is theirs.
    own::measure(folder.path(), &images, &mut rows);
    limits(folder.path(), &images, &mut rows);
    peers::measure(folder.path(), &images, &mut rows);
    print(&rows);
}

/// Runs a program; panics with its name when it fails.
fn timed(what: &str, command: &mut Command, size: Option<&dyn Fn() -> u64>) -> Row {
    let before = cpu();
    let before_bytes = size.map(|size| size());
    let start = Instant::now();
    let output = command
        .output()
        .unwrap_or_else(|why| panic!("{what}: {why}"));
    let seconds = start.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
    let grown = size
        .zip(before_bytes)
        .map(|(size, before)| size().saturating_sub(before));
    Row {
        what: what.to_owned(),
        seconds,
        cpu_seconds: (cpu() - before).as_secs_f64(),
        peak_mib: None,
        size_mb: grown.map(mb),
    }
}

/// What all children took so far.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts");
    let times = [usage.user_time(), usage.system_time()];
    let micros = times.map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Duration::from_micros(micros.iter().sum::<i64>().unsigned_abs())
}

/// The most memory that any child had so far, in MiB.
fn peak_mib() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts");
    let kib = u32::try_from(usage.max_rss()).unwrap_or(u32::MAX);
    f64::from(kib) / 1024.0
}

fn mb(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
}

/// Bytes of all files below a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => bytes_in(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn limits(folder: &Path, images: &data::Images, rows: &mut Vec<Row>) {
    let packed = folder.join("packed.zst");
    let size = || fs::metadata(&packed).map_or(0, |about| about.len());
    for (what, image) in [
        ("zstd -3 -T2 of the image", &images.base),
        ("zstd -3 -T2 of the changed blocks", &images.delta),
    ] {
        let mut zstd = Command::new("zstd");
        zstd.args(["-3", "-T2", "-q", "-f"])
            .arg(image)
            .arg("-o")
            .arg(&packed);
        fs::write(&packed, []).expect("room for the limit");
        rows.push(timed(what, &mut zstd, Some(&size)));
    }
    let copied = folder.join("copied");
    let mut cp = Command::new("cp");
    cp.arg("--reflink=never").arg(&images.base).arg(&copied);
    rows.push(timed("cp of the image", &mut cp, None));
    fs::remove_file(copied).expect("the copy is there");
}

fn print(rows: &[Row]) {
    println!("\n| what | seconds | CPU seconds | peak MiB | MB stored |\n|---|---|---|---|---|");
    let shown = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.1}"));
    for row in rows {
        println!(
            "| {} | {:.2} | {:.2} | {} | {} |",
            row.what,
            row.seconds,
            row.cpu_seconds,
            shown(row.peak_mib),
            shown(row.size_mb)
        );
    }
}
