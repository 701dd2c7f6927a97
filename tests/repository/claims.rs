//! What writers said, and whether the repository keeps it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tidemark_store::{
    repository::{Progress, Repository, care::ReadData},
    units::Id,
};
use tidemark_tests::stored::restored;

use crate::worker::{Report, Task, Versions, open, prune, store};

/// What must be there.
pub(crate) struct Claims {
    seed: u64,
    versions: Versions,
    /// By version.
    digests: Vec<blake3::Hash>,
    finished: BTreeMap<Id, u64>,
    /// May be there or not.
    going: BTreeSet<Id>,
    gone: BTreeSet<Id>,
    begun: u64,
    base: Option<(Id, u64)>,
    /// Points that were held against their versions.
    pub(crate) restored: usize,
}

impl Claims {
    pub(crate) fn new(seed: u64) -> Self {
        let versions = Versions::new(seed);
        let digests = vec![blake3::hash(&versions.model.bytes)];
        Self {
            seed,
            versions,
            digests,
            finished: BTreeMap::new(),
            going: BTreeSet::new(),
            gone: BTreeSet::new(),
            begun: 0,
            base: None,
            restored: 0,
        }
    }

    /// What the next writer is to do.
    pub(crate) fn task(&self, choices: u64, stop_after: u64) -> Task {
        Task {
            seed: self.seed,
            choices,
            version: self.begun,
            base: self.base,
            stop_after,
        }
    }

    pub(crate) fn hear(&mut self, report: Report) {
        match report {
            Report::Begins(version) => self.begun = version,
            Report::Finished(id, version) => {
                self.finished.insert(id, version);
                self.base = Some((id, version));
            }
            Report::Forgets(id) => {
                self.finished.remove(&id);
                self.going.insert(id);
            }
            Report::Forgot(id) => {
                assert!(self.going.remove(&id), "{id} was not going");
                self.gone.insert(id);
            }
            Report::Pruned | Report::Waits | Report::Failed => {}
        }
    }

    fn digest(&mut self, version: u64) -> blake3::Hash {
        while self.versions.version < version {
            self.versions.next();
            self.digests.push(blake3::hash(&self.versions.model.bytes));
        }
        self.digests[usize::try_from(version).expect("it is small")]
    }

    /// Panics unless all that was said is so; and then goes on, as the next writer would, and looks again.
    pub(crate) fn verify(&mut self, place: &Path) {
        let repository = open(place, self.seed).expect("what was made can be opened");
        self.hold(&repository, "after the cut");
        // What the dead writer left is in nobody's way, and all that nobody needs goes.
        // A prune may also begin to put many small packs together, which others end.
        let condemned = || repository.load().expect("it is sound").condemned.len();
        let mut prunes = 0;
        while prunes < 2 || condemned() > 0 {
            prune(&repository).expect("a prune goes on");
            prunes += 1;
            assert!(prunes < 6, "prunes come to no end");
        }
        self.hold(&repository, "after a prune");
        // No base: all of it is read, and what is stored of it is found.
        self.digest(self.begun + 1);
        self.begun = self.versions.version;
        let mut whole = Versions::new(self.seed);
        while whole.version < self.begun {
            whole.next();
        }
        let id = store(&repository, &mut whole, None).expect("a backup goes on");
        self.finished.insert(id, self.begun);
        self.base = Some((id, self.begun));
        self.hold(&repository, "after a backup");
    }

    fn hold(&mut self, repository: &Repository, when: &str) {
        let points = repository.points().expect("points can be listed");
        assert!(points.damaged.is_empty(), "{when}: {:?}", points.damaged);
        let there: BTreeSet<_> = points.points.iter().map(|(id, _)| *id).collect();
        for (id, version) in self.finished.clone() {
            assert!(
                there.contains(&id),
                "{when}: {id} was finished and is not there"
            );
            let image = restored(repository, id)
                .unwrap_or_else(|why| panic!("{when}: {id}, version {version}: {why}"));
            assert_eq!(
                blake3::hash(&image),
                self.digest(version),
                "{when}: {id} is not version {version}"
            );
            self.restored += 1;
        }
        let back = there.intersection(&self.gone).next();
        assert_eq!(back, None, "{when}: it was forgotten and is there");
        // What was not said to be finished is whole all the same, or not there.
        let checked = repository.check(ReadData::All, &Progress::default());
        let findings = checked.expect("a check ends").findings;
        assert!(findings.is_empty(), "{when}: {findings:?}");
        for id in there.iter().filter(|id| !self.finished.contains_key(*id)) {
            restored(repository, *id)
                .unwrap_or_else(|why| panic!("{when}: unfinished {id}: {why}"));
        }
    }
}
