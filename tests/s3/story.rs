//! Two agents, a prune and a check at once, on one service that fails at random and whose clock moves on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidemark_agent::backup::s3::S3;
use tidemark_store::{
    repository::{
        Error, Made, Progress, Repository,
        care::{PruneOptions, Pruned, ReadData},
    },
    units::Id,
};
use tidemark_tests::{
    Random,
    s3::{Faults, ObjectServer},
    stored::{Model, back_up, restored},
};

const AGENTS: usize = 2;
const BACKUPS: usize = 8;
const BLOCKS: usize = 300;
/// A backup whose packs were pruned under it again and again has something wrong.
const ATTEMPTS: usize = 20;

pub(crate) struct Story {
    seed: u64,
    server: ObjectServer,
    /// Every point that finished and was not forgotten.
    points: Mutex<BTreeMap<Id, Vec<u8>>>,
    working: AtomicUsize,
    /// Backups that had to be run again, as their error says.
    again: AtomicUsize,
}

impl Story {
    pub(crate) fn begin(seed: u64) -> Self {
        println!("story {seed}");
        let story = Self {
            seed,
            server: ObjectServer::start(Faults::seeded(seed)),
            points: Mutex::default(),
            working: AtomicUsize::new(AGENTS),
            again: AtomicUsize::new(0),
        };
        let storage = story.storage();
        Repository::init(storage, None).expect("there is none yet");
        story
    }

    fn storage(&self) -> Arc<S3> {
        let storage = S3::open(&self.server.settings("shared/repository"));
        Arc::new(storage.unwrap_or_else(|why| panic!("story {}: {why}", self.seed)))
    }

    /// As another host does.
    fn repository(&self) -> Repository {
        Repository::open(self.storage(), None)
            .unwrap_or_else(|why| panic!("story {}: {why}", self.seed))
    }

    fn points(&self) -> MutexGuard<'_, BTreeMap<Id, Vec<u8>>> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(self) {
        std::thread::scope(|scope| {
            for agent in 0..AGENTS {
                let story = &self;
                scope.spawn(move || {
                    // Whoever waits for it must not wait for one that failed.
                    let _working = Working(&story.working);
                    story.agent(agent as u64);
                });
            }
            scope.spawn(|| self.pruner());
            scope.spawn(|| self.checker());
        });
        let injected = self.server.calm();
        println!(
            "{injected:?}, {} backups run again",
            self.again.load(Ordering::Relaxed)
        );
        assert!(injected.cut > 5 && injected.refused > 10 && injected.denied > 0);
        self.all_is_there();
        let deleted = self.forget_most();
        assert!(deleted > 0, "story {}: nothing was ever deleted", self.seed);
        self.all_is_there();
    }

    /// Backs up a volume again and again, and forgets some of it.
    fn agent(&self, agent: u64) {
        let repository = self.repository();
        let mut random = Random::new(self.seed ^ (agent + 1));
        let mut model = Model::new(Random::new(random.next_u64()), BLOCKS);
        let mut mine: Vec<Id> = Vec::new();
        for number in 0..BACKUPS {
            let id = self.back_up(&repository, &mut model, mine.last().copied());
            self.points().insert(id, model.bytes.clone());
            mine.push(id);
            if random.below(2) == 0 && mine.len() > 1 {
                // Not the last: the next is made from it.
                let which = random.below(mine.len() as u64 - 1);
                let forgotten = mine.remove(usize::try_from(which).expect("it is small"));
                // First: what is forgotten may be gone at once.
                self.points().remove(&forgotten);
                let done = repository.forget(forgotten);
                done.unwrap_or_else(|why| panic!("story {}, forget: {why}", self.seed));
            }
            model.change(10 + number);
        }
    }

    fn back_up(&self, repository: &Repository, model: &mut Model, base: Option<Id>) -> Id {
        for _ in 0..ATTEMPTS {
            let made = match base {
                Some(_) => Made::Incremental,
                None => Made::Full("the first".into()),
            };
            match back_up(repository, model, base, made) {
                Ok(id) => {
                    model.settled();
                    return id;
                }
                Err(Error::Pruned(_)) => {
                    self.again.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => panic!("story {}, backup: {why}", self.seed),
            }
        }
        panic!("story {}: pruned {ATTEMPTS} times", self.seed);
    }

    fn prune(&self, repository: &Repository) -> Pruned {
        let options = PruneOptions {
            grace_seconds: 3600,
            min_age_seconds: 0,
            max_waste_percent: 30,
            dry_run: false,
            by: "story".into(),
        };
        let pruned = repository.prune(&options, &Progress::default());
        pruned.unwrap_or_else(|why| panic!("story {}, prune: {why}", self.seed))
    }

    fn pruner(&self) {
        let repository = self.repository();
        let mut random = Random::new(!self.seed);
        let mut done = Vec::new();
        while self.working.load(Ordering::Relaxed) > 0 {
            done.push(self.prune(&repository));
            self.server.pass(random.below(45 * 60));
        }
        let sum = |of: fn(&Pruned) -> usize| done.iter().map(of).sum::<usize>();
        println!(
            "{} prunes: {} packs condemned, {} pardoned, {} deleted",
            done.len(),
            sum(|pruned| pruned.condemned_packs),
            sum(|pruned| pruned.pardoned_packs),
            sum(|pruned| pruned.deleted_packs),
        );
    }

    /// Finds nothing wrong with any point that is still there afterwards.
    fn checker(&self) {
        let repository = self.repository();
        let mut checks = 0;
        while self.working.load(Ordering::Relaxed) > 0 {
            let checked = repository.check(ReadData::All, &Progress::default());
            let checked = checked.unwrap_or_else(|why| panic!("story {}, check: {why}", self.seed));
            let there = self.points();
            for finding in checked.findings {
                let gone = |id| !there.contains_key(id);
                let stale = !finding.points.is_empty() && finding.points.iter().all(gone);
                assert!(stale, "story {}: {finding:?}", self.seed);
            }
            checks += 1;
        }
        println!("{checks} checks");
    }

    /// Every point that finished restores to what its image was, and none other is there.
    fn all_is_there(&self) {
        let repository = self.repository();
        let points = self.points();
        for (id, bytes) in points.iter() {
            let there = restored(&repository, *id);
            let there = there.unwrap_or_else(|why| panic!("story {}, {id}: {why}", self.seed));
            assert!(there == *bytes, "story {}: {id} has other bytes", self.seed);
        }
        let listed = repository.points().expect("they can be listed").points;
        assert_eq!(listed.len(), points.len(), "story {}", self.seed);
        let checked = repository.check(ReadData::All, &Progress::default());
        let findings = checked.expect("it goes on to the end").findings;
        assert!(findings.is_empty(), "story {}: {findings:?}", self.seed);
    }

    /// Forgets all but the last point, and prunes until nothing is left to delete.
    fn forget_most(&self) -> usize {
        let repository = self.repository();
        let mut points = self.points();
        while points.len() > 1 {
            let (id, _) = points.pop_first().expect("there are some");
            repository.forget(id).expect("it is there");
        }
        drop(points);
        let mut deleted = 0;
        for _ in 0..3 {
            deleted += self.prune(&repository).deleted_packs;
            self.server.pass(3601);
        }
        deleted
    }
}

/// Counts down also where its agent fails.
struct Working<'a>(&'a AtomicUsize);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
