//! An insertion with its stand-in for a server, and what it takes to run programs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::Duration,
};

use tidemark_agent::{
    host::device::DeviceNumber,
    insertion::{DmVolume, Hint, Insertion, Recovered, SECTOR_BYTES, Sight, Site, Step, Swap},
};
use tidemark_store::units::Id;

/// LVM in a guest without udev; only loop devices are looked at.
const LVM_CONFIG: &str = "activation{udev_sync=0 udev_rules=0 monitoring=0} \
     devices{use_devicesfile=0 obtain_device_list_from_udev=0 \
     global_filter=[\"a|^/dev/loop|\",\"r|.*|\"]} backup{backup=0 archive=0}";

/// Runs a program and gives its answer, whatever it is.
pub(crate) fn try_run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; these tests run in a guest"))
}

/// Runs a program that must do well, and gives what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = try_run(program, args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Runs an LVM command.
pub(crate) fn lvm(args: &[&str]) -> String {
    let config = ["--config", LVM_CONFIG];
    let words: Vec<_> = args[..1].iter().chain(&config).chain(&args[1..]).collect();
    let words: Vec<_> = words.into_iter().copied().collect();
    run("lvm", &words)
}

/// A device by its name in /dev/mapper, which need not have a node there.
pub(crate) fn node_of(name: &str) -> PathBuf {
    let out = run(
        "dmsetup",
        &["info", "-c", "--noheadings", "-o", "major,minor", name],
    );
    DeviceNumber::parse(&out)
        .expect("dmsetup prints MAJOR:MINOR")
        .node()
}

pub(crate) fn number_of(path: &Path) -> DeviceNumber {
    DeviceNumber::of_block_device(path).unwrap().unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("names here are plain")
}

/// A device made by dmsetup, removed when it goes.
pub(crate) struct Mapped {
    pub(crate) name: String,
}

impl Mapped {
    pub(crate) fn new(name: &str, table: &str) -> Self {
        run(
            "dmsetup",
            &["create", "--noudevsync", name, "--table", table],
        );
        Self {
            name: name.to_owned(),
        }
    }

    pub(crate) fn linear(name: &str, below: &Path) -> Self {
        let number = number_of(below);
        let sectors = number.capacity().unwrap() / SECTOR_BYTES;
        Self::new(name, &format!("0 {sectors} linear {number} 0"))
    }

    pub(crate) fn node(&self) -> PathBuf {
        node_of(&self.name)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = try_run(
            "dmsetup",
            &["remove", "--noudevsync", "--retry", &self.name],
        );
    }
}

/// One volume's insertion; a new one for each process that there would be.
pub(crate) struct Rig {
    id: Id,
    folder: tempfile::TempDir,
    /// The stand-in for the interposer.
    server: Option<Mapped>,
}

impl Rig {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            id: Id([seed; 16]),
            folder: tempfile::tempdir_in("/dev/shm").unwrap(),
            server: None,
        }
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.path().join("insertion")
    }

    pub(crate) fn site(&self) -> Site {
        Site::new(self.id, &self.journal()).unwrap()
    }

    /// Starts what serves the private origin.
    pub(crate) fn serve(&mut self, insertion: &Insertion) -> DeviceNumber {
        let name = format!("server-{}", self.id);
        let server = Mapped::linear(&name, &insertion.origin().unwrap());
        let number = number_of(&server.node());
        self.server = Some(server);
        number
    }

    /// Ends it; the private origin goes with its last user.
    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    /// All of an attach.
    pub(crate) fn attach(&mut self, volume: &Path) -> (Insertion, Swap) {
        let volume = DmVolume::of_path(volume).unwrap().unwrap();
        let mut insertion = self.site().prepare(&volume).unwrap();
        let over = self.serve(&insertion);
        let swap = insertion.insert(over).unwrap();
        (insertion, swap)
    }

    /// All of a detach.
    pub(crate) fn detach(&mut self, insertion: &mut Insertion) -> Swap {
        let swap = insertion.remove().unwrap();
        self.stop();
        self.assert_clean();
        swap
    }

    pub(crate) fn recover(&self) -> Recovered {
        self.site().recover(&Hint::default()).unwrap()
    }

    /// After a bypass: the same interposer again, or one of the new size.
    pub(crate) fn reinsert(&mut self, insertion: &mut Insertion) -> Swap {
        let adopted = insertion.adopt().unwrap();
        let over = match (&self.server, adopted.resized) {
            (Some(server), false) => number_of(&server.node()),
            _ => {
                self.stop();
                self.serve(insertion)
            }
        };
        let swap = insertion.insert(over).unwrap();
        assert_interposed(insertion);
        swap
    }

    /// Neither a private origin nor a journal is left.
    pub(crate) fn assert_clean(&self) {
        // The kernel removes what was closed a moment later.
        for attempt in 1.. {
            let all = run("dmsetup", &["info", "-c", "--noheadings", "-o", "uuid"]);
            if !all.contains(&self.id.to_string()) {
                break;
            }
            assert!(attempt < 200, "left: {all}");
            sleep(Duration::from_millis(50));
        }
        assert!(!self.journal().exists());
    }
}

/// Nothing went around the interposer; gives sectors written and discarded since insertion.
pub(crate) fn assert_interposed(insertion: &Insertion) -> u64 {
    match insertion.look().unwrap() {
        Sight::Interposed(Some(ledger)) => ledger.presented.total(),
        other => panic!("{other:?}"),
    }
}

/// With nothing in flight both sides of the ledger are equal, to the sector.
///
/// A mounted file system that is left alone still writes its log now and then, and what is in
/// flight is counted below before it is above: so the sides are equal soon, and not at each look.
pub(crate) fn assert_balanced(insertion: &Insertion) -> u64 {
    for attempt in 1.. {
        match insertion.look().unwrap() {
            Sight::Interposed(Some(ledger)) if ledger.presented == ledger.served => {
                return ledger.presented.total();
            }
            Sight::Interposed(Some(ledger)) => assert!(attempt < 100, "{ledger:?}"),
            other => panic!("{other:?}"),
        }
        sleep(Duration::from_millis(50));
    }
    unreachable!()
}

/// The steps in which a process can die, with a number that tells a child which.
pub(crate) fn step_number(step: Step) -> Option<usize> {
    Step::ALL.iter().position(|known| *known == step)
}
