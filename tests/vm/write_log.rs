//! Every write under a volume and its area, recorded by dm-log-writes in a guest, and recovery from
//! each state that the log stands for. `guest/write_log.rs` is what happens inside.

use std::{fs, path::Path};

use tidemark_tests::{
    MIB,
    vm::{Disk, Family, Kernel, Machine, cache, story, story::Story, telling},
    write_log::{Effort, Recording, replay},
};

use super::ALLOWED;

/// The volume with its area, the log, and what was promised.
const DISKS_MIB: [u64; 3] = [288, 8192, 2048];
const NAME: &str = "write_log::every_write_is_recorded";
/// Rounds of writing, and prefixes that are recovered from: in CI, and by `make test-vm`.
const ROUNDS: u64 = 2;
const MANY_ROUNDS: u64 = 4;
const PREFIXES: u64 = 600;
const EVERY_PREFIX: u64 = u64::MAX;
/// Emulation may take a guest down that has done nothing wrong; see `telling`.
const TRIES: usize = 4;

#[test]
fn every_prefix_recovers_on_6_12() {
    tell(Family::V6_12);
}

#[test]
fn every_prefix_recovers_on_7_2() {
    if is_at_length() {
        tell(Family::V7_2);
    } else {
        println!("told by `make test-vm` only: the other kernel records the same");
    }
}

fn is_at_length() -> bool {
    std::env::var("TIDEMARK_VM").is_ok_and(|wish| wish == "all")
}

fn tell(family: Family) {
    let _alone = telling::alone();
    let kernel = Kernel::find(family);
    for attempt in 1..=TRIES {
        if try_to_tell(&kernel) {
            return;
        }
        println!("{kernel}: attempt {attempt} died of emulation");
    }
    panic!("{kernel}: {TRIES} guests died of emulation");
}

/// Gives whether it could be told to its end.
fn try_to_tell(kernel: &Kernel) -> bool {
    let folder = cache::scratch();
    let [disk, log, recording] = std::array::from_fn(|number| {
        let path = folder.path().join(format!("disk{number}.raw"));
        Disk::create(&path, DISKS_MIB[number] * MIB)
    });
    let machine = story::with_stories(Machine::new(kernel));
    let machine = machine.disk(&disk).disk(&log).disk(&recording);
    let rounds = if is_at_length() { MANY_ROUNDS } else { ROUNDS };
    let script =
        format!("WRITE_LOG_ROUNDS={rounds} vm_guest --ignored --nocapture --exact {NAME}\n");
    let (outcome, _results) = machine.run(&script);
    if telling::died_of_emulation(&outcome) {
        return false;
    }
    let story = Story {
        program: "vm_guest".into(),
        name: NAME.into(),
    };
    outcome.assert_good(&telling::allowances(&story, &ALLOWED));

    // A log that shows a fault is worth more than the room it takes.
    let folder = folder.keep();
    println!("{kernel}: recovering from what {} holds", folder.display());
    recover_from_all(log.path(), recording.path());
    fs::remove_dir_all(&folder).expect("the log can be removed");
    true
}

/// What a guest left, without a guest: TIDEMARK_WRITE_LOG is a folder with its disks `disk1.raw`, the
/// log, and `disk2.raw`, what was promised.
#[test]
#[ignore = "needs a recorded log"]
fn a_log_that_was_kept() {
    let folder = std::env::var_os("TIDEMARK_WRITE_LOG").expect("a folder is named");
    let [log, recording] = ["disk1.raw", "disk2.raw"].map(|name| Path::new(&folder).join(name));
    recover_from_all(&log, &recording);
}

fn recover_from_all(log: &Path, recording: &Path) {
    let recording = Recording::open(recording);
    let effort = Effort {
        prefixes: if is_at_length() {
            EVERY_PREFIX
        } else {
            PREFIXES
        },
        seed: 1,
        area_lost_from: None,
    };
    let report = replay(log, &recording, effort);
    println!("{report:?}");
    let report = report.unwrap_or_else(|why| panic!("{why}"));
    assert!(report.prefixes > 0 && report.torn > 0 && report.subsets > 0);
    assert!(report.diffs > report.prefixes, "{report:?}");
    assert!(report.snapshots > report.prefixes, "{report:?}");

    // That the checks see: an area that lost what it was told is caught.
    let blind = Effort {
        prefixes: 20,
        area_lost_from: Some(1),
        ..effort
    };
    let seen = replay(log, &recording, blind);
    assert!(
        seen.is_err(),
        "an area that lost writes went unseen: {seen:?}"
    );
}
