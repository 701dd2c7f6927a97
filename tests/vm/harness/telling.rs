//! Stories told in guests, and what came of each.
//!
//! One guest tells as many as it can. A story that fails, hangs, or takes the guest down ends its
//! guest; those that are left are told in a new one. Each is judged by its own exit status and by
//! its own part of the kernel's log.

use std::{
    fmt, fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    Disk, Ended, Family, Kernel, Machine, Outcome, cache,
    story::{self, BEGINS, ENDS, KERNEL_MARK, Story},
    warnings::{self, Allowance},
};
use crate::MIB;

/// Scratch disks of every guest, sparse and at first empty: /dev/vda, /dev/vdb and /dev/vdc.
const DISKS_MIB: [u64; 3] = [4096, 4096, 2048];

/// Two guests at once would each take twice as long, and be taken for hung sooner.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// QEMU's emulation of several processors may run the breakpoint that Linux patches its own code
/// with after it has been taken away. Hardware does not, and a guest that died of it says nothing.
const EMULATIONS_DEATH: &str = "Oops: int3";
/// How often a guest is booted again for that.
const BOOTS: usize = 4;

/// What a kernel may say during the stories whose `PROGRAM NAME` begins so.
pub type AllowedIn = (&'static str, Allowance);

/// A story that is over.
#[derive(Debug)]
struct Told {
    story: Story,
    console: String,
    seconds: u64,
    /// Why it failed, if it did.
    fault: Option<String>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = if self.fault.is_some() { "FAILED" } else { "ok" };
        let fault = self.fault.as_deref().unwrap_or_default();
        write!(
            f,
            "{} ... {result} ({} s)\n{}{fault}",
            self.story, self.seconds, self.console
        )
    }
}

/// The right to boot guests, for as long as it lives.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it was emulation that took a guest down, and neither the kernel nor we.
pub fn died_of_emulation(outcome: &Outcome) -> bool {
    outcome.ended == Ended::Died && outcome.kernel_log.contains(EMULATIONS_DEATH)
}

/// What the kernel may say during a story.
pub fn allowances(story: &Story, allowed: &[AllowedIn]) -> Vec<Allowance> {
    let name = story.to_string();
    let of_it = allowed
        .iter()
        .filter(|(prefix, _)| name.starts_with(prefix));
    of_it.map(|(_, allowance)| *allowance).collect()
}

/// Tells stories on a kernel; panics at the end with the logs of those that failed.
///
/// The logs of all stay in `target/vm/logs/FAMILY`.
pub fn tell(family: Family, stories: &[Story], allowed: &[AllowedIn]) {
    let _alone = alone();
    let kernel = Kernel::find(family);
    println!("{kernel}: {} stories", stories.len());
    let logs = cache::folder(&format!("logs/{family}"));
    let mut left = stories;
    let mut faults = Vec::new();
    let mut again = 0;
    while !left.is_empty() {
        let Some(told) = tell_in_one(&kernel, left, allowed) else {
            again += 1;
            assert!(again < BOOTS, "{kernel}: {again} guests died of emulation");
            println!("a guest died of emulation ({EMULATIONS_DEATH}); its stories are told again");
            continue;
        };
        left = &left[told.len()..];
        for told in told {
            let text = told.to_string();
            println!("{}", text.lines().next().unwrap_or_default());
            keep(&logs, &told.story, &text);
            if told.fault.is_some() {
                faults.push(text);
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {} stories failed on {kernel}; all logs are in {}\n=== {}",
        faults.len(),
        stories.len(),
        logs.display(),
        faults.join("\n=== ")
    );
}

fn keep(logs: &Path, story: &Story, text: &str) {
    let path = logs.join(format!("{}-{}.log", story.program, story.name));
    fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Tells stories in one guest until one fails; gives those that were begun. None when emulation
/// and no fault of the kernel or of ours ended the guest.
fn tell_in_one(kernel: &Kernel, stories: &[Story], allowed: &[AllowedIn]) -> Option<Vec<Told>> {
    let folder = cache::scratch();
    let mut machine = story::with_stories(Machine::new(kernel));
    for (number, mib) in DISKS_MIB.iter().enumerate() {
        let path = folder.path().join(format!("disk{number}.raw"));
        machine = machine.disk(&Disk::create(&path, mib * MIB));
    }
    let mut record = Record::default();
    let guest = machine.boot(&story::script(stories));
    let (outcome, _folder) = guest.follow(|line| record.take(line));
    if died_of_emulation(&outcome) {
        return None;
    }
    let mut parts = parts(&outcome.kernel_log).into_iter();
    let boot = parts.next().unwrap_or_default();
    let trouble = warnings::of(&boot, &[]);
    assert!(
        trouble.is_empty() && !record.tellings.is_empty(),
        "a guest came to no story: {trouble:#?}\n{}",
        outcome.report()
    );
    let begun = stories.iter().zip(record.tellings);
    // One that the guest went with need not have come to the kernel's log.
    let told = begun.map(|(story, telling)| {
        let log = parts.next().unwrap_or_default();
        telling.judge(story, &log, &outcome, allowed)
    });
    Some(told.collect())
}

/// The kernel's log cut at the beginnings of stories; the first part is the boot.
fn parts(kernel_log: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in kernel_log.lines() {
        if line.contains(KERNEL_MARK) {
            parts.push(String::new());
        }
        let part = parts.last_mut().expect("there is a first part");
        *part += line;
        part.push('\n');
    }
    parts
}

/// A story under way.
#[derive(Debug)]
struct Telling {
    begun: Instant,
    console: String,
    seconds: u64,
    /// The program's exit status, when it has ended.
    status: Option<String>,
}

impl Telling {
    fn judge(
        self,
        story: &Story,
        kernel_log: &str,
        outcome: &Outcome,
        allowed: &[AllowedIn],
    ) -> Told {
        let allowed = allowances(story, allowed);
        let mut faults: Vec<_> = warnings::of(kernel_log, &allowed)
            .iter()
            .map(|line| format!("kernel warning: {line}"))
            .collect();
        match self.status.as_deref() {
            Some("0") => {}
            Some(status) => faults.push(format!("exit status {status}")),
            None => faults.push(format!(
                "the guest: {}\n{}",
                outcome.ended, outcome.complaints
            )),
        }
        let fault = (!faults.is_empty())
            .then(|| format!("{}\n--- kernel\n{kernel_log}", faults.join("\n")));
        Told {
            story: story.clone(),
            console: self.console,
            seconds: self.seconds,
            fault,
        }
    }
}

/// The console's lines, by story.
#[derive(Debug, Default)]
struct Record {
    tellings: Vec<Telling>,
}

impl Record {
    /// Takes a line; gives whether the guest made progress.
    fn take(&mut self, line: &str) -> bool {
        if line.starts_with(BEGINS) {
            self.tellings.push(Telling {
                begun: Instant::now(),
                console: String::new(),
                seconds: 0,
                status: None,
            });
            return true;
        }
        let Some(telling) = self.tellings.last_mut() else {
            return false;
        };
        telling.seconds = telling.begun.elapsed().as_secs();
        match line.strip_prefix(ENDS) {
            Some(status) => telling.status = Some(status.to_owned()),
            None if telling.status.is_none() => telling.console += &format!("{line}\n"),
            None => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{BEGINS, ENDS, Outcome, Record, Story, parts};
    use crate::vm::Ended;

    const LOG: &str = "[ 1.0] Linux\n[ 2.0] tidemark story: vm_guest a::one\n[ 2.1] fine\n\
                       [ 3.0] tidemark story: vm_guest a::two\n[ 3.1] WARNING: bad\n";

    fn judged(lines: &[&str]) -> Vec<Option<String>> {
        let mut record = Record::default();
        for line in lines {
            record.take(line);
        }
        let outcome = Outcome {
            ended: Ended::Died,
            console: String::new(),
            kernel_log: LOG.into(),
            journal: String::new(),
            complaints: String::new(),
            results: "/".into(),
        };
        let story = Story {
            program: "vm_guest".into(),
            name: "a::one".into(),
        };
        let allowed = [("vm_guest a::", ("bad", "the story does so"))];
        let judge = |telling: super::Telling, log: &str, allowed: &[_]| {
            telling.judge(&story, log, &outcome, allowed).fault
        };
        let parts = parts(LOG);
        let mut tellings = record.tellings.into_iter();
        let (one, two) = (tellings.next(), tellings.next());
        let (one, two) = (one.expect("a first"), two.expect("a second"));
        assert_eq!(one.console, "hello\n");
        vec![
            judge(one, &parts[1], &[]),
            judge(two, &parts[2], if lines.len() > 5 { &[] } else { &allowed }),
        ]
    }

    #[test]
    fn each_story_is_judged_by_its_own_part() {
        let one = format!("{BEGINS}vm_guest a::one");
        let two = format!("{BEGINS}vm_guest a::two");
        let well = format!("{ENDS}0");
        let faults = judged(&["booting", &one, "hello", &well, &two, &well]);
        assert_eq!(faults[0], None);
        let fault = faults[1].as_ref().expect("a kernel warning is a fault");
        assert!(
            fault.starts_with("kernel warning: [ 3.1] WARNING"),
            "{fault}"
        );
        // What a story allows is none, but a guest that went before its end is.
        let faults = judged(&[&one, "hello", &well, &two, "more"]);
        let fault = faults[1].as_ref().expect("no end is a fault");
        assert!(fault.starts_with("the guest: died"), "{fault}");
    }
}
