//! One machine with Debian on it: what is on its disks goes from boot to boot.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::MutexGuard,
    time::Duration,
};

use tempfile::TempDir;

use super::{journal, root};
use crate::{
    MIB,
    vm::{
        Disk, Ended, Family, Kernel, Machine, Outcome, cache, telling,
        warnings::{self, Allowance},
    },
};

/// The data disk, /dev/vdb in a guest; sparse.
const DATA_BYTES: u64 = 2048 * MIB;
/// A safety net for a guest that hangs, not a measure of anything.
const BUDGET: Duration = Duration::from_secs(12 * 60);
/// Emulation may take a guest down that has done nothing wrong; see `telling`.
const TRIES: usize = 4;
/// The kernel's last word before a clean end.
const WENT_DOWN: &str = "reboot: ";

/// The machine.
#[derive(Debug)]
pub struct System {
    name: &'static str,
    kernel: Kernel,
    folder: TempDir,
    /// As the last boot left them: each boot writes to new files over those of the one before, so
    /// that one which emulation took down can be told again.
    disks: Vec<Disk>,
    with: Vec<PathBuf>,
    boots: usize,
    _alone: MutexGuard<'static, ()>,
}

/// A boot that is over.
#[derive(Debug)]
pub struct Boot {
    /// What its script printed.
    pub console: String,
    /// What its journal told.
    pub journal: String,
    /// What was wrong, in lines that say so.
    pub faults: Vec<String>,
    report: String,
}

/// How a boot ends.
#[derive(Clone, Copy)]
enum End<'a> {
    /// By a reboot, when the script has ended.
    Clean,
    /// By a power cut, when the script has printed a line that begins so.
    Cut(&'a str),
}

impl System {
    /// A fresh one with an empty data disk; `name` is that of its story.
    pub fn new(name: &'static str) -> Self {
        let alone = telling::alone();
        let kernel = Kernel::find(Family::V6_12);
        let root = root::image(&kernel);
        let folder = cache::scratch();
        let data = Disk::create(&folder.path().join("data.raw"), DATA_BYTES);
        Self {
            name,
            kernel,
            disks: vec![Disk::open(&root), data],
            folder,
            with: Vec::new(),
            boots: 0,
            _alone: alone,
        }
    }

    /// A folder of the host for as long as the machine lives.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Has a file of the host in /run/story/with, which is on scripts' PATH, at every later boot.
    pub fn with(&mut self, host: &Path) {
        self.with.push(host.to_owned());
    }

    /// Boots it, runs a script when it has come up, and reboots it; nothing may be wrong.
    pub fn boot(&mut self, what: &str, script: &str) -> Boot {
        self.boot_allowing(what, script, &[])
    }

    /// Likewise, where the journal or the kernel will tell of what the story provokes.
    pub fn boot_allowing(&mut self, what: &str, script: &str, allowed: &[Allowance]) -> Boot {
        self.any_boot(what, script, End::Clean, allowed)
            .assert_good(self.name, what)
    }

    /// Boots it and runs a script that writes; pulls the plug when it prints a line that begins so.
    pub fn cut(&mut self, what: &str, script: &str, line: &str) -> Boot {
        self.any_boot(what, script, End::Cut(line), &[])
            .assert_good(self.name, what)
    }

    /// Boots it as `boot` does, whatever comes of it.
    pub fn try_to_boot(&mut self, what: &str, script: &str) -> Boot {
        self.any_boot(what, script, End::Clean, &[])
    }

    fn any_boot(&mut self, what: &str, script: &str, end: End, allowed: &[Allowance]) -> Boot {
        self.boots += 1;
        for attempt in 1..=TRIES {
            let disks = self.disks_of_boot(attempt);
            let outcome = self.run(&disks, script, end);
            if telling::died_of_emulation(&outcome) {
                println!("{}, {what}: attempt {attempt} died of emulation", self.name);
                continue;
            }
            self.disks = disks;
            let boot = Boot::judge(&outcome, end, allowed);
            self.write_log(what, &boot, &outcome);
            return boot;
        }
        panic!("{}, {what}: {TRIES} guests died of emulation", self.name);
    }

    fn run(&self, disks: &[Disk], script: &str, end: End) -> Outcome {
        let mut machine = Machine::new(&self.kernel).budget(BUDGET);
        for disk in disks {
            machine = machine.disk(disk);
        }
        for file in &self.with {
            machine = machine.with(file);
        }
        let mut guest = machine.debian().boot(script);
        let (outcome, _folder) = match end {
            End::Clean => guest.finish(),
            End::Cut(line) => match guest.line_beginning(line) {
                Some(_) => guest.kill(),
                None => guest.finish(),
            },
        };
        outcome
    }

    fn disks_of_boot(&self, attempt: usize) -> Vec<Disk> {
        let over = |(number, disk): (usize, &Disk)| {
            let name = format!("boot{}-{attempt}-disk{number}", self.boots);
            disk.over(&self.folder().join(name))
        };
        self.disks.iter().enumerate().map(over).collect()
    }

    fn write_log(&self, what: &str, boot: &Boot, outcome: &Outcome) {
        let logs = cache::folder("logs/debian");
        let name = format!("{}-{}-{}", self.name, self.boots, what.replace(' ', "-"));
        let text = format!(
            "{:#?}\n--- console\n{}\n--- journal\n{}\n--- kernel\n{}",
            boot.faults, outcome.console, outcome.journal, outcome.kernel_log
        );
        let path = logs.join(format!("{name}.log"));
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let timing = outcome.console.lines().find(|line| line.contains(" = "));
        println!("{}, {what}: {}", self.name, timing.unwrap_or("over"));
    }
}

impl Boot {
    fn judge(outcome: &Outcome, end: End, allowed: &[Allowance]) -> Self {
        let mut faults = match (outcome.ended, end) {
            (Ended::Exited(0), End::Clean) if outcome.kernel_log.contains(WENT_DOWN) => Vec::new(),
            (Ended::Exited(0), End::Clean) => {
                vec!["it never came to the end of its shutdown".into()]
            }
            (Ended::Killed, End::Cut(_)) => Vec::new(),
            (ended, _) => vec![format!("the guest: {ended}")],
        };
        let kernel = warnings::of(&outcome.kernel_log, allowed);
        faults.extend(kernel.iter().map(|line| format!("kernel warning: {line}")));
        // Before there is a journal, and after it, systemd speaks to the kernel's log.
        let of_systemd = outcome
            .kernel_log
            .lines()
            .filter(|line| line.contains("systemd"));
        let told = of_systemd
            .chain(outcome.journal.lines())
            .collect::<Vec<_>>();
        let told = journal::trouble(&told.join("\n"), allowed);
        faults.extend(told.iter().map(|line| format!("journal: {line}")));
        Self {
            console: outcome.console.clone(),
            journal: outcome.journal.clone(),
            faults,
            report: outcome.report(),
        }
    }

    fn assert_good(self, story: &str, what: &str) -> Self {
        assert!(
            self.faults.is_empty(),
            "{story}, {what}: {:#?}\n{}",
            self.faults,
            self.report
        );
        self
    }
}
