//! A command in a guest with one of Debian's kernels, for developers:
//!
//! ```text
//! cargo build --workspace --bins --tests
//! target/debug/vm --kernel 6.12 [--memory MIB] [--disk MIB]... [--keep-disk FILE:MIB]...
//!                 [--with FILE]... [--results FOLDER] [--budget SECONDS] [--parameter WORDS]
//!                 [--kernel-log] -- COMMAND [ARGUMENT]...
//! ```
//!
//! `--kernel` 6.12 or 7.2 (fetched at the first use, kept in target/vm). `--disk` makes a new
//! disk, the first is /dev/vda; `--keep-disk` uses a file, made when it is not there, so that a
//! second run finds what the first one wrote. `--with` puts a file on the guest's PATH, programs
//! with their libraries. `tidemarkd`, `tidemark` and the stories' programs (`vm_guest`,
//! `insertion`) are on it anyway.
//! What the command leaves in /results is copied to the folder of `--results`.
//!
//! The console streams to standard output; the kernel's log follows when the command failed, when
//! the kernel has complained, or with `--kernel-log`. Exits with the command's status; 124 when
//! the guest was out of time, 125 when it died, 126 when the command did well and the kernel has
//! complained.
//!
//! ```text
//! target/debug/vm --kernel 7.2 --disk 512 -- sh -c 'vgcreate vg /dev/vda && lvs -a'
//! target/debug/vm --kernel 6.12 -- vm_guest --ignored --nocapture --exact kernel::offers_what_we_need
//! ```

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use tidemark_tests::{
    MIB, programs,
    vm::{Disk, Ended, Family, Kernel, Machine, cache, story},
};

/// The command line.
#[derive(Default)]
struct Wishes {
    kernel: Option<Family>,
    memory_mib: Option<u64>,
    new_disks_mib: Vec<u64>,
    kept_disks: Vec<(PathBuf, u64)>,
    with: Vec<PathBuf>,
    results: Option<PathBuf>,
    budget: Option<Duration>,
    parameters: Vec<String>,
    kernel_log: bool,
    command: Vec<String>,
}

impl Wishes {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wishes = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--kernel" => wishes.kernel = Some(value()?.parse()?),
                "--memory" => wishes.memory_mib = Some(number(&value()?)?),
                "--disk" => wishes.new_disks_mib.push(number(&value()?)?),
                "--keep-disk" => wishes.kept_disks.push(kept(&value()?)?),
                "--with" => wishes.with.push(value()?.into()),
                "--results" => wishes.results = Some(value()?.into()),
                "--budget" => wishes.budget = Some(Duration::from_secs(number(&value()?)?)),
                "--parameter" => wishes.parameters.push(value()?),
                "--kernel-log" => wishes.kernel_log = true,
                "--" => wishes.command = words.by_ref().collect(),
                _ => return Err(format!("{word} is not known")),
            }
        }
        if wishes.command.is_empty() {
            return Err("no command; it comes after --".into());
        }
        Ok(wishes)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|e| format!("{text:?}: {e}"))
}

fn kept(text: &str) -> Result<(PathBuf, u64), String> {
    let (path, mib) = text.rsplit_once(':').ok_or("--keep-disk wants FILE:MIB")?;
    Ok((path.into(), number(mib)?))
}

fn main() -> ExitCode {
    match Wishes::parse(std::env::args().skip(1)) {
        Ok(wishes) => run(&wishes),
        Err(why) => {
            eprintln!("vm: {why}; the top of tests/vm/command.rs tells how it is used");
            ExitCode::from(2)
        }
    }
}

fn run(wishes: &Wishes) -> ExitCode {
    let kernel = Kernel::find(wishes.kernel.unwrap_or(Family::V6_12));
    eprintln!("{kernel}");
    let folder = cache::scratch();
    let mut machine = story::with_stories(Machine::new(&kernel)).echo();
    if let Some(mib) = wishes.memory_mib {
        machine = machine.memory_mib(mib);
    }
    if let Some(bound) = wishes.budget {
        machine = machine.budget(bound);
    }
    for (number, mib) in wishes.new_disks_mib.iter().enumerate() {
        let path = folder.path().join(format!("disk{number}.raw"));
        machine = machine.disk(&Disk::create(&path, mib * MIB));
    }
    for (path, mib) in &wishes.kept_disks {
        machine = machine.disk(&open_or_create(path, mib * MIB));
    }
    for file in &wishes.with {
        machine = machine.with(file);
    }
    for words in &wishes.parameters {
        machine = machine.parameter(words);
    }
    let (outcome, _results) = machine.run(&script(&wishes.command));
    if let Some(to) = &wishes.results {
        programs::succeed(Command::new("cp").arg("-aT").arg(&outcome.results).arg(to));
    }
    let warnings = outcome.warnings(&[]);
    if wishes.kernel_log || outcome.ended != Ended::Exited(0) || !warnings.is_empty() {
        eprintln!(
            "--- kernel log\n{}\n{}",
            outcome.kernel_log, outcome.complaints
        );
    }
    for warning in &warnings {
        eprintln!("kernel warning: {warning}");
    }
    eprintln!("the guest: {}", outcome.ended);
    match outcome.ended {
        Ended::Exited(0) if warnings.is_empty() => ExitCode::SUCCESS,
        Ended::Exited(0) => ExitCode::from(126),
        Ended::Exited(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Ended::OutOfTime(_) => ExitCode::from(124),
        Ended::Died | Ended::Killed => ExitCode::from(125),
    }
}

fn open_or_create(path: &Path, bytes: u64) -> Disk {
    if path.exists() {
        Disk::open(path)
    } else {
        Disk::create(path, bytes)
    }
}

/// One line of shell that runs the words as they are.
fn script(words: &[String]) -> String {
    let quoted = words
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ") + "\n"
}
