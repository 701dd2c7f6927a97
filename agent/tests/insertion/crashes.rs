//! A process that dies between any two steps leaves something that the next one puts right.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, exit},
    thread::sleep,
    time::Duration,
};

use tidemark_agent::insertion::{DmVolume, Hint, Recovered, Site, Step};
use tidemark_store::units::Id;

use crate::{
    load::Load,
    rig::{Mapped, Rig, assert_balanced, assert_interposed, number_of, run, step_number, text},
    volumes::{Group, Mounted},
};

/// What the child ends with when it died where it was told to.
const DIED: i32 = 77;
const SEED: u8 = 0x21;

/// Attaches and detaches until it dies; run by the tests below and not by hand.
#[test]
#[ignore = "is a child of the other tests"]
fn child() {
    let Ok(die_at) = env::var("TIDEMARK_DIE_AT") else {
        return;
    };
    // Not a number: goes on until it is killed.
    let die_at: Option<usize> = die_at.parse().ok();
    let place = |name: &str| PathBuf::from(env::var_os(name).unwrap());
    let site = || {
        let site = Site::new(Id([SEED; 16]), &place("TIDEMARK_JOURNAL")).unwrap();
        site.on_step(move |step| {
            if die_at.is_some() && step_number(step) == die_at {
                exit(DIED);
            }
        })
    };
    let volume = DmVolume::of_path(&place("TIDEMARK_VOLUME"))
        .unwrap()
        .unwrap();
    loop {
        let mut insertion = site().prepare(&volume).unwrap();
        let server = Mapped::linear("crash-server", &insertion.origin().unwrap());
        insertion.insert(number_of(&server.node())).unwrap();
        insertion.remove().unwrap();
        if die_at.is_some() {
            // It outlives the child, as a ublk device outlives its server.
            std::mem::forget(server);
            return;
        }
    }
}

fn child_for(rig: &Rig, volume: &Path, die_at: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "crashes::child", "--nocapture"])
        .env("TIDEMARK_DIE_AT", die_at)
        .env("TIDEMARK_JOURNAL", rig.journal())
        .env("TIDEMARK_VOLUME", volume);
    command
}

fn die(rig: &Rig, volume: &Path, at: usize) {
    let status = child_for(rig, volume, &at.to_string()).status().unwrap();
    assert_eq!(status.code(), Some(DIED), "step {:?}", Step::ALL[at]);
}

fn remove_server() {
    let _ = crate::rig::try_run(
        "dmsetup",
        &["remove", "--noudevsync", "--retry", "crash-server"],
    );
}

/// Whether the volume lies over the interposer after a death at this step.
fn is_inserted_at(step: Step) -> bool {
    matches!(
        step,
        Step::InsertSwapped | Step::Inserted | Step::Removing | Step::RemoveLoaded
    )
}

/// Dies at each step, recovers, detaches. `lose_journal`: the journal dies too.
fn die_everywhere(volume: &Path, lose_journal: bool) {
    for (at, step) in Step::ALL.into_iter().enumerate() {
        let rig = Rig::new(SEED);
        let table = run("dmsetup", &["table", text(volume)]);
        die(&rig, volume, at);
        if lose_journal {
            let _ = std::fs::remove_file(rig.journal());
        }
        let recovered = rig.site().recover(&Hint::default()).unwrap();
        match recovered {
            Recovered::Inserted {
                mut insertion,
                removing,
                ..
            } => {
                assert!(is_inserted_at(step), "{step:?}");
                let meant = matches!(step, Step::Removing | Step::RemoveLoaded);
                assert_eq!(removing, meant && !lose_journal, "{step:?}");
                if !lose_journal {
                    assert_interposed(&insertion);
                }
                insertion.remove().unwrap();
            }
            Recovered::Nothing | Recovered::Undone => {
                assert!(!is_inserted_at(step), "{step:?}");
            }
            Recovered::Bypassed(_) | Recovered::Gone(_) => panic!("{step:?}"),
        }
        remove_server();
        rig.assert_clean();
        assert_eq!(run("dmsetup", &["table", text(volume)]), table, "{step:?}");
        let state = run("dmsetup", &["info", text(volume)]);
        let said = |key: &str, value: &str| {
            let mut lines = state.lines().map(|line| line.split_once(':'));
            lines.any(|pair| pair.is_some_and(|(k, v)| k == key && v.trim() == value))
        };
        assert!(
            said("State", "ACTIVE") && said("Tables present", "LIVE"),
            "{step:?}: {state}"
        );
        assert!(matches!(rig.recover(), Recovered::Nothing));
    }
}

#[test]
#[ignore = "runs in a guest"]
fn a_death_at_each_step_under_load_is_finished_or_undone() {
    let group = Group::new("crash1", 96);
    let volume = group.volume("lv", 128, &[]);
    let mounted = Mounted::new("ext4", &volume);
    let load = Load::start(&mounted.point);
    die_everywhere(&volume, false);
    load.finish();
    mounted.check();
}

#[test]
#[ignore = "runs in a guest"]
fn the_kernels_tables_are_enough_when_the_journal_is_lost() {
    let group = Group::new("crash2", 96);
    let volume = group.volume("lv", 128, &[]);
    let mounted = Mounted::new("ext4", &volume);
    let load = Load::start(&mounted.point);
    die_everywhere(&volume, true);
    load.finish();
    mounted.check();
}

#[test]
#[ignore = "runs in a guest"]
fn the_ledger_goes_on_after_a_death() {
    let group = Group::new("crash3", 96);
    let volume = group.volume("lv", 128, &[]);
    let mounted = Mounted::new("ext4", &volume);
    let load = Load::start(&mounted.point);
    for step in [Step::InsertSwapped, Step::Inserted] {
        let rig = Rig::new(SEED);
        die(&rig, &volume, step_number(step).unwrap());
        let Recovered::Inserted { mut insertion, .. } = rig.recover() else {
            panic!("{step:?}");
        };
        std::fs::write(mounted.point.join("more"), vec![1; 300_000]).unwrap();
        nix::unistd::sync();
        assert!(assert_interposed(&insertion) > 0);
        insertion.remove().unwrap();
        remove_server();
        rig.assert_clean();
    }
    load.finish();
    let mut rig = Rig::new(SEED);
    let (mut insertion, _) = rig.attach(&volume);
    std::fs::write(mounted.point.join("more"), vec![2; 300_000]).unwrap();
    nix::unistd::sync();
    assert!(assert_balanced(&insertion) >= 300_000 / 512);
    rig.detach(&mut insertion);
    mounted.check();
}

/// Not between steps but anywhere, the kernel's calls included.
#[test]
#[ignore = "runs in a guest"]
fn a_kill_at_any_moment_is_finished_or_undone() {
    const KILLS: u64 = 30;
    let group = Group::new("crash4", 96);
    let volume = group.volume("lv", 128, &[]);
    let table = run("dmsetup", &["table", text(&volume)]);
    let mounted = Mounted::new("ext4", &volume);
    let load = Load::start(&mounted.point);
    let mut found = [0; 3];
    for kill in 0..KILLS {
        let rig = Rig::new(SEED);
        let mut child = child_for(&rig, &volume, "killed").spawn().unwrap();
        sleep(Duration::from_millis(60 + kill * 7919 % 700));
        child.kill().unwrap();
        child.wait().unwrap();
        // A dmsetup that the child started may still be at work.
        sleep(Duration::from_millis(200));
        match rig.recover() {
            Recovered::Inserted { mut insertion, .. } => {
                insertion.remove().unwrap();
                found[0] += 1;
            }
            Recovered::Undone => found[1] += 1,
            Recovered::Nothing => found[2] += 1,
            Recovered::Bypassed(_) | Recovered::Gone(_) => panic!("kill {kill}"),
        }
        remove_server();
        rig.assert_clean();
        assert_eq!(run("dmsetup", &["table", text(&volume)]), table);
    }
    println!("{KILLS} kills: [inserted, undone, nothing] {found:?}");
    load.finish();
    mounted.check();
}
