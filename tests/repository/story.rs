//! Cycles of writing, dying and looking.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tidemark_store::repository::backend::{Backend, Directory};
use tidemark_tests::{FaultDisk, FsKind, Mounted, Random, World, programs, stored::restored};

use crate::{
    claims::Claims,
    worker::{Report, Versions, Writer, open, store},
};

/// Cycles over all file systems where the environment does not say more.
const CYCLES: usize = 24;

/// When the power is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// At the write after so many.
    Write(u64),
    /// When so many things were said to be done, and nothing was written since.
    AfterReport(u64),
}

impl Moment {
    /// Also among the first writes, in which a file system is made ready.
    fn any(random: &mut Random) -> Self {
        if random.below(3) == 0 {
            return Self::AfterReport(random.between(1, 8));
        }
        let magnitude = 1 << random.between(1, 10);
        Self::Write(random.below(magnitude))
    }
}

fn cycles() -> usize {
    let wish = std::env::var("TIDEMARK_FAULT_CYCLES").ok();
    wish.map_or(CYCLES, |text| text.parse().expect("a number of cycles"))
}

/// A repository over a disk whose power is cut.
pub(crate) struct PowerCuts {
    kind: FsKind,
    random: Random,
    claims: Claims,
    disk: FaultDisk,
    world: World,
}

impl PowerCuts {
    pub(crate) fn begin(kind: FsKind, bytes: u64) -> Self {
        let mut random = Random::announced(&format!("a repository on {}", kind.name()));
        let disk = FaultDisk::new(bytes, random.next_u64());
        kind.make(disk.path());
        Self {
            kind,
            claims: Claims::new(random.next_u64()),
            random,
            disk,
            world: World::new(),
        }
    }

    /// The disk forgets what it promised, from now on.
    pub(crate) fn lie(&self) {
        self.disk.lie();
    }

    pub(crate) fn tell(mut self) {
        for cycle in 0..cycles().div_ceil(3) {
            let moment = Moment::any(&mut self.random);
            println!("{} {cycle}: {moment:?}", self.kind.name());
            self.cycle(moment);
        }
        let doubtful = self.disk.doubtful();
        assert!(doubtful > 0, "no power cut met an unflushed sector");
        println!(
            "{}: {doubtful} sectors in doubt, {} restores",
            self.kind.name(),
            self.claims.restored
        );
    }

    fn point(&self) -> PathBuf {
        self.world.path("mnt")
    }

    fn place(&self) -> PathBuf {
        self.point().join("repository")
    }

    fn mount(&self) -> Mounted {
        Mounted::new(self.kind, self.disk.path(), &self.point())
    }

    pub(crate) fn cycle(&mut self, moment: Moment) {
        let mounted = self.mount();
        self.disk.delay(self.random.below(300));
        let stop_after = match moment {
            Moment::Write(writes) => {
                self.disk.cut_power_in(writes);
                u64::MAX
            }
            Moment::AfterReport(reports) => reports,
        };
        let task = self.claims.task(self.random.next_u64(), stop_after);
        let mut writer = Writer::start(&self.place(), task);
        while let Some(report) = writer.report() {
            self.claims.hear(report);
            match report {
                Report::Failed => assert!(!self.disk.has_power(), "it failed with power"),
                Report::Waits => {
                    self.disk.cut_power();
                    break;
                }
                _ => {}
            }
        }
        assert!(!self.disk.has_power(), "a writer ended with power");
        writer.kill();
        drop(writer);
        self.bring_back(mounted);
        let mounted = self.mount();
        self.claims.verify(&self.place());
        drop(mounted);
    }

    /// Each object is there, whole, when its creation has returned, and not when its deletion has.
    pub(crate) fn keeps_what_it_created(self) {
        // The first makes the repository's folder.
        let names = ["config", "packs/ab/two", "points/three"];
        let object = |number: usize| vec![u8::try_from(number).unwrap_or(0) + 1; 70_000];
        for round in 0..names.len() * 2 {
            let mounted = self.mount();
            let storage = Directory::new(self.place());
            let (number, deletes) = (round % names.len(), round >= names.len());
            let done = match deletes {
                false => storage.create(names[number], &object(number)),
                true => storage.delete(names[number]),
            };
            self.disk.cut_power();
            done.expect("the disk had power");
            self.bring_back(mounted);
            let mounted = self.mount();
            // What is mounted anew may be another device.
            let storage = Directory::new(self.place());
            for (at, name) in names.iter().enumerate() {
                let there = storage.read(name, 1 << 20);
                let created = deletes || at <= number;
                if created && !(deletes && at <= number) {
                    assert!(there.expect(name) == object(at), "{name}, round {round}");
                } else {
                    let why = there.expect_err(name);
                    assert_eq!(why.kind(), ErrorKind::NotFound, "{name}, round {round}");
                }
            }
            drop(mounted);
        }
    }

    /// A writer links its packs and dies before it flushes their folders. The next one finds them, and its
    /// point must not rely on what the medium does not have.
    pub(crate) fn relies_on_what_a_dead_writer_left(self) {
        let mounted = self.mount();
        let place = self.place();
        let mut versions = Versions::new(0);
        let repository = open(&place, 0).expect("a repository");
        let first = store(&repository, &mut versions, None).expect("a backup");
        repository.forget(first).expect("it is there");
        let packs = files(&place.join("packs"));
        assert!(packs.len() > 1, "chunks and nodes");
        let parked = |number: usize| place.join("tmp").join(number.to_string());
        for (number, pack) in packs.iter().enumerate() {
            fs::rename(pack, parked(number)).expect("a file can be moved");
        }
        for index in files(&place.join("index")) {
            fs::remove_file(index).expect("a file can be removed");
        }
        programs::succeed(Command::new("sync").arg("-f").arg(&place));
        for (number, pack) in packs.iter().enumerate() {
            fs::hard_link(parked(number), pack).expect("its name is free");
            fs::remove_file(parked(number)).expect("a file can be removed");
        }

        let mut again = Versions::new(0);
        let id = store(&repository, &mut again, None).expect("a backup");
        assert_eq!(files(&place.join("packs")), packs, "all is found");
        self.disk.cut_power();
        drop(repository);
        self.bring_back(mounted);
        let mounted = self.mount();
        let repository = open(&place, 0).expect("it is there");
        let image = restored(&repository, id).unwrap_or_else(|why| panic!("{why}"));
        assert!(image == again.model.bytes);
        drop(mounted);
    }

    /// The host starts again: nothing is left of what its memory held.
    fn bring_back(&self, mounted: Mounted) {
        std::mem::forget(mounted);
        programs::succeed(Command::new("umount").arg("-l").arg(self.point()));
        self.disk.calm();
        self.disk.restore_power();
        drop(self.mount());
        self.kind.assert_device_sound(self.disk.path());
    }
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Writers killed with SIGKILL, one after the other, on a file system that stays.
pub(crate) fn kills() {
    let mut random = Random::announced("killed writers");
    let world = World::new();
    let place = world.path("repository");
    let mut claims = Claims::new(random.next_u64());
    for cycle in 0..cycles() {
        let mut writer = Writer::start(&place, claims.task(random.next_u64(), u64::MAX));
        // It has begun when it says something; what matters is where the kill finds it.
        let first = writer.report();
        first.into_iter().for_each(|report| claims.hear(report));
        let magnitude = 1 << random.between(4, 19);
        let pause_us = random.below(magnitude);
        std::thread::sleep(Duration::from_micros(pause_us));
        writer.kill();
        while let Some(report) = writer.report() {
            assert_ne!(report, Report::Failed, "cycle {cycle}");
            claims.hear(report);
        }
        drop(writer);
        claims.verify(&place);
    }
    println!("{} restores", claims.restored);
}
