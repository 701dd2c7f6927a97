//! The process that writes until its disk fails or it is killed; and how another one starts it.

use std::{
    env,
    io::{BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    thread,
};

use tidemark_store::{
    repository::{
        Error, Made, Progress, Repository, Result,
        backend::Directory,
        care::PruneOptions,
        crypto::{Credential, KdfCost, Secret},
    },
    units::Id,
};
use tidemark_tests::{
    Random,
    stored::{Model, back_up},
};

const BLOCKS: usize = 300;
const CHANGED_BLOCKS: usize = 40;
const MOST_POINTS: usize = 6;

const PLACE: &str = "TIDEMARK_WRITER_PLACE";
const TASK: &str = "TIDEMARK_WRITER_TASK";
/// Before each line that is meant for the parent, for the test harness prints there, too.
const MARK: &str = "~ ";

/// What a writer is to do. The image's versions follow from `seed` alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// Of the image. An odd one's repository is encrypted.
    pub(crate) seed: u64,
    /// Of this writer's choices.
    pub(crate) choices: u64,
    /// The newest version of the image that any writer began to store.
    pub(crate) version: u64,
    /// The point to go on from, and its version.
    pub(crate) base: Option<(Id, u64)>,
    /// It does nothing more once it has said that so many things are done.
    pub(crate) stop_after: u64,
}

/// What a writer says, each after it is so, but for those that say otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Report {
    /// A version is going to be stored.
    Begins(u64),
    /// A version is stored as this point.
    Finished(Id, u64),
    /// A point is going to be forgotten.
    Forgets(Id),
    Forgot(Id),
    Pruned,
    /// It was told to do no more.
    Waits,
    /// The storage failed.
    Failed,
}

/// The image of one version after another.
pub(crate) struct Versions {
    pub(crate) model: Model,
    pub(crate) version: u64,
}

impl Versions {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            model: Model::new(Random::new(seed), BLOCKS),
            version: 0,
        }
    }

    pub(crate) fn next(&mut self) {
        self.model.change(CHANGED_BLOCKS);
        self.version += 1;
    }
}

/// Opens the repository, or makes it.
pub(crate) fn open(place: &Path, seed: u64) -> Result<Repository> {
    let master = Credential::Master(Secret::new([7; 32]));
    let key = (seed % 2 == 1).then_some(&master);
    let storage = Arc::new(Directory::new(place));
    match Repository::open(storage.clone(), key) {
        Err(Error::NoRepository(_)) => {
            Repository::init(storage, key.map(|key| (key, KdfCost::default())))
        }
        other => other,
    }
}

/// Of a host that has the repository for itself: what is condemned goes with the next prune.
pub(crate) fn prune(repository: &Repository) -> Result<()> {
    let options = PruneOptions {
        grace_seconds: 0,
        min_age_seconds: 0,
        max_waste_percent: 20,
        dry_run: false,
        by: "writer".to_owned(),
    };
    repository.prune(&options, &Progress::default()).map(drop)
}

/// Backs the newest version up.
pub(crate) fn store(
    repository: &Repository,
    versions: &mut Versions,
    base: Option<Id>,
) -> Result<Id> {
    let made = match base {
        Some(_) => Made::Incremental,
        None => Made::Full("there is no other".into()),
    };
    let id = back_up(repository, &versions.model, base, made)?;
    versions.model.settled();
    Ok(id)
}

/// In the writer's own process: writes for as long as it can.
pub(crate) fn run() {
    let Ok(task) = env::var(TASK) else { return };
    let task = Task::parse(&task).expect("the parent says what to do");
    let place = PathBuf::from(env::var_os(PLACE).expect("the parent says where"));
    if let Err(why) = write(&place, task) {
        println!("{why}");
        say(Report::Failed);
    }
}

fn write(place: &Path, task: Task) -> Result<()> {
    let mut random = Random::new(task.choices);
    let mut versions = Versions::new(task.seed);
    while versions.version < task.version {
        if task.base.is_some_and(|(_, base)| base == versions.version) {
            versions.model.settled();
        }
        versions.next();
    }
    if task.base.is_some_and(|(_, base)| base == versions.version) {
        versions.model.settled();
    }
    let mut base = task.base.map(|(id, _)| id);
    let repository = open(place, task.seed)?;
    for done in 0_u64.. {
        if done == task.stop_after {
            say(Report::Waits);
            loop {
                thread::park();
            }
        }
        let points = repository.points()?.points;
        match random.below(10) {
            0..6 => {
                versions.next();
                say(Report::Begins(versions.version));
                let id = store(&repository, &mut versions, base)?;
                base = Some(id);
                say(Report::Finished(id, versions.version));
            }
            6..8 if points.len() < MOST_POINTS => {
                prune(&repository)?;
                say(Report::Pruned);
            }
            _ => {
                let others = points.iter().map(|(id, _)| *id);
                let others: Vec<_> = others.filter(|id| Some(*id) != base).collect();
                let which = usize::try_from(random.below(others.len() as u64)).unwrap_or(0);
                if let Some(id) = others.get(which) {
                    say(Report::Forgets(*id));
                    repository.forget(*id)?;
                    say(Report::Forgot(*id));
                }
            }
        }
    }
    Ok(())
}

fn say(report: Report) {
    let text = match report {
        Report::Begins(version) => format!("begins {version}"),
        Report::Finished(id, version) => format!("finished {id} {version}"),
        Report::Forgets(id) => format!("forgets {id}"),
        Report::Forgot(id) => format!("forgot {id}"),
        Report::Pruned => "pruned".to_owned(),
        Report::Waits => "waits".to_owned(),
        Report::Failed => "failed".to_owned(),
    };
    // One write: a process that is killed says a whole line or nothing of it.
    println!("{MARK}{text}");
}

fn heard(line: &str) -> Option<Report> {
    let (_, text) = line.split_once(MARK)?;
    let words: Vec<_> = text.split(' ').collect();
    Some(match *words {
        ["begins", version] => Report::Begins(version.parse().ok()?),
        ["finished", id, version] => Report::Finished(Id::parse(id)?, version.parse().ok()?),
        ["forgets", id] => Report::Forgets(Id::parse(id)?),
        ["forgot", id] => Report::Forgot(Id::parse(id)?),
        ["pruned"] => Report::Pruned,
        ["waits"] => Report::Waits,
        ["failed"] => Report::Failed,
        _ => return None,
    })
}

impl Task {
    fn text(self) -> String {
        let base = self.base.map(|(id, version)| format!(" {id} {version}"));
        let (seed, choices, version) = (self.seed, self.choices, self.version);
        let (stop, base) = (self.stop_after, base.unwrap_or_default());
        format!("{seed} {choices} {version} {stop}{base}")
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split(' ').collect();
        let (numbers, base) = words.split_at_checked(4)?;
        Some(Self {
            seed: numbers[0].parse().ok()?,
            choices: numbers[1].parse().ok()?,
            version: numbers[2].parse().ok()?,
            stop_after: numbers[3].parse().ok()?,
            base: match base {
                [] => None,
                [id, version] => Some((Id::parse(id)?, version.parse().ok()?)),
                _ => return None,
            },
        })
    }
}

/// A writer that runs.
pub(crate) struct Writer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    pub(crate) fn start(place: &Path, task: Task) -> Self {
        let mut child = Command::new(env::current_exe().expect("a running test has a path"))
            .args(["--exact", "a_writer", "--nocapture", "--test-threads=1"])
            .env(PLACE, place)
            .env(TASK, task.text())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let stdout = child.stdout.take().expect("it was asked for");
        let lines = BufReader::new(stdout).lines();
        Self { child, lines }
    }

    /// What it says next; nothing once it has ended and all was heard.
    pub(crate) fn report(&mut self) -> Option<Report> {
        loop {
            let line = self.lines.next()?.expect("a writer says text");
            match heard(&line) {
                Some(report) => return Some(report),
                None => println!("writer: {line}"),
            }
        }
    }

    /// Ends it here and now.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.kill();
    }
}
