//! What a program takes: each runs below a process of its own, so that the kernel's account of that
//! process's children is the program's alone.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{UsageWho, getrusage},
    unistd::sync,
};

/// The first argument of the process between.
pub(crate) const WORD: &str = "measured";

/// What one program did.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    /// Of the largest of its processes.
    pub(crate) peak_mib: f64,
    pub(crate) size_mb: Option<f64>,
}

/// Runs a program that reads what is in `reads`; panics with its name when it fails. `size` is asked before
/// and after.
pub(crate) fn timed(
    what: &str,
    command: &Command,
    reads: &[&Path],
    size: Option<&dyn Fn() -> u64>,
) -> Row {
    let before = size.map(|size| size());
    let mut between = Command::new(std::env::current_exe().expect("this program"));
    between.arg(WORD).arg(command.get_program());
    between.args(command.get_args());
    for (name, value) in command.get_envs() {
        between.env(name, value.unwrap_or_default());
    }
    if let Some(folder) = command.get_current_dir() {
        between.current_dir(folder);
    }
    // Nobody pays for what others wrote before, or for what a kernel that reclaims early has dropped.
    sync();
    reads.iter().flat_map(|path| files(path)).for_each(keep);
    let output = between
        .output()
        .unwrap_or_else(|why| panic!("{what}: {why}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
    let told = String::from_utf8_lossy(&output.stdout);
    let told = told.lines().last().unwrap_or_default();
    let told: Vec<f64> = told.split(' ').flat_map(str::parse).collect();
    let [seconds, cpu_seconds, peak_mib] = told[..] else {
        panic!("{what}: no account");
    };
    let grown = size
        .zip(before)
        .map(|(size, before)| size().saturating_sub(before));
    Row {
        what: what.to_owned(),
        seconds,
        cpu_seconds,
        peak_mib,
        size_mb: grown.map(mb),
    }
}

/// The process between: runs a program, and prints what it took.
pub(crate) fn act(command: &[String]) {
    let [program, arguments @ ..] = command else {
        panic!("nothing to measure");
    };
    let start = Instant::now();
    let status = Command::new(program).args(arguments).status();
    let seconds = start.elapsed().as_secs_f64();
    let status = status.unwrap_or_else(|why| panic!("{program}: {why}"));
    assert!(status.success(), "{program}: {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts");
    let times = [usage.user_time(), usage.system_time()];
    let micros = times.map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    let cpu = Duration::from_micros(micros.iter().sum::<i64>().unsigned_abs());
    let kib = u32::try_from(usage.max_rss()).unwrap_or(u32::MAX);
    println!(
        "\n{seconds} {} {}",
        cpu.as_secs_f64(),
        f64::from(kib) / 1024.0
    );
}

/// The same rows of several rounds as one: the median of the seconds, the most of the memory.
pub(crate) fn medians(rounds: Vec<Vec<Row>>) -> Vec<Row> {
    let mut rounds = rounds.into_iter();
    let mut rows: Vec<Vec<Row>> = Vec::new();
    if let Some(first) = rounds.next() {
        rows.extend(first.into_iter().map(|row| vec![row]));
    }
    for round in rounds {
        for (row, again) in rows.iter_mut().zip(round) {
            row.push(again);
        }
    }
    let median = |mut row: Vec<Row>| {
        let peaks = row.iter().map(|row| row.peak_mib);
        let peak_mib = peaks.fold(0.0, f64::max);
        row.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let middle = row.swap_remove((row.len() - 1) / 2);
        Row { peak_mib, ..middle }
    };
    rows.into_iter().map(median).collect()
}

/// Has the kernel keep what a file has. What cannot be read the program will tell.
fn keep(path: PathBuf) {
    if let Ok(mut file) = File::open(path) {
        let _ = io::copy(&mut file, &mut io::sink());
    }
}

fn mb(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
}

/// Bytes of all files below a folder.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let sizes = files(folder)
        .into_iter()
        .map(|file| fs::symlink_metadata(file).map_or(0, |about| about.len()));
    sizes.sum()
}

/// A file, or all below a folder.
fn files(path: &Path) -> Vec<PathBuf> {
    match fs::read_dir(path) {
        Ok(entries) => entries
            .flatten()
            .flat_map(|entry| files(&entry.path()))
            .collect(),
        Err(_) => vec![path.to_owned()],
    }
}
