//! A power cut in the middle: the guest is killed while its volume is written to, and booted again
//! on the same disks. `guest/power.rs` is what happens inside.

use std::fs;

use tidemark_tests::{
    MIB,
    vm::{
        Disk, Ended, Family, Kernel, Machine, cache,
        story::{self, Story},
        telling,
        warnings::Allowance,
    },
};

use super::ALLOWED;

/// The volume's disk, and the one with the catalog and the area.
const DISKS_MIB: [u64; 2] = [512, 512];
/// How many acknowledged numbers there are before the plug is pulled, at least.
const NUMBERS: u64 = 25;
const ACKNOWLEDGED: &str = "power: acknowledged ";
/// How often the plug is pulled, in CI and by `make test-vm`, for each kernel.
const CUTS: u64 = 2;
const MANY_CUTS: u64 = 26;
/// Emulation may take a guest down that has done nothing wrong; see `telling`.
const TRIES: usize = 4;

#[test]
fn power_is_cut_on_6_12() {
    tell(Family::V6_12, "file");
}

#[test]
fn power_is_cut_on_7_2() {
    tell(Family::V7_2, "lv");
}

/// `area`: a file on the second disk, or a logical volume of the volume's own group.
fn tell(family: Family, area: &str) {
    let _alone = telling::alone();
    let kernel = Kernel::find(family);
    for attempt in 1..=TRIES {
        if try_to_tell(&kernel, area) {
            return;
        }
        println!("{kernel}: attempt {attempt} died of emulation");
    }
    panic!("{kernel}: {TRIES} guests died of emulation");
}

/// Gives whether it could be told to its end.
fn try_to_tell(kernel: &Kernel, area: &str) -> bool {
    let folder = cache::scratch();
    let disks: Vec<Disk> = DISKS_MIB
        .iter()
        .zip(["volume.raw", "keep.raw"])
        .map(|(mib, name)| Disk::create(&folder.path().join(name), mib * MIB))
        .collect();
    let machine = || {
        let disks = disks.iter().map(|disk| Disk::open(disk.path()));
        disks.fold(
            story::with_stories(Machine::new(kernel)),
            |machine, disk| machine.disk(&disk),
        )
    };
    let mut seen = 0;
    let at_length = std::env::var("TIDEMARK_VM").is_ok_and(|wish| wish == "all");
    let cuts = if at_length { MANY_CUTS } else { CUTS };
    for boot in 0..cuts {
        let name = match boot {
            0 => "the_first_boot",
            _ => "a_boot_with_the_agent_first",
        };
        // Not always at the same point of what the guest does.
        let numbers = NUMBERS + boot * 7 % 40;
        match cut(machine(), name, &script(name, seen, area), seen, numbers) {
            Some(number) => seen = number,
            None => return false,
        }
    }
    for name in ["a_boot_with_a_clone", "a_boot_with_the_volume_first"] {
        let (outcome, _folder) = machine().run(&script(name, seen, area));
        keep(kernel, name, &outcome.console);
        if telling::died_of_emulation(&outcome) {
            return false;
        }
        outcome.assert_good(&allowed(name));
    }
    true
}

/// Boots, waits until enough was written after `seen`, and pulls the plug; gives the latest number
/// that was acknowledged. None when emulation took the guest down.
fn cut(machine: Machine, name: &str, script: &str, seen: u64, numbers: u64) -> Option<u64> {
    let mut guest = machine.boot(script);
    let mut latest = seen;
    while latest < seen + numbers {
        let Some(line) = guest.line_beginning(ACKNOWLEDGED) else {
            let (outcome, _folder) = guest.finish();
            if telling::died_of_emulation(&outcome) {
                return None;
            }
            panic!(
                "{name}: it ended uncut: {}\n{}",
                outcome.ended,
                outcome.report()
            );
        };
        latest = number_in(&line);
    }
    let (outcome, _folder) = guest.kill();
    assert_eq!(outcome.ended, Ended::Killed);
    let warnings = outcome.warnings(&allowed(name));
    assert!(warnings.is_empty(), "{warnings:#?}\n{}", outcome.report());
    // What came while the plug was being pulled counts too.
    let lines = outcome.console.lines();
    let numbers = lines.filter(|line| line.starts_with(ACKNOWLEDGED));
    // The last one may be cut in the middle.
    let mut numbers: Vec<u64> = numbers.map(number_in).collect();
    numbers.pop();
    for line in outcome
        .console
        .lines()
        .filter(|line| line.contains(" too many"))
    {
        println!("{name}: {line}");
    }
    println!("{name}: cut after number {:?}", numbers.last());
    Some(numbers.pop().unwrap_or(latest).max(latest))
}

fn number_in(line: &str) -> u64 {
    let number = line.strip_prefix(ACKNOWLEDGED).unwrap_or_default();
    number.parse().unwrap_or_default()
}

fn script(name: &str, seen: u64, area: &str) -> String {
    format!(
        "POWER_AREA={area} POWER_SEEN={seen} vm_guest --ignored --nocapture --exact power::{name}\n"
    )
}

fn allowed(name: &str) -> Vec<Allowance> {
    let story = Story {
        program: "vm_guest".into(),
        name: format!("power::{name}"),
    };
    telling::allowances(&story, &ALLOWED)
}

fn keep(kernel: &Kernel, name: &str, console: &str) {
    let logs = cache::folder("logs/power");
    let path = logs.join(format!("{}-{name}.log", kernel.release));
    fs::write(&path, console).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
