//! Two clients at once, against a model: in the middle of what one does the other does something, prunes
//! condemn and execute, packs break and are repaired, and the storage's clock jumps both ways.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use proptest::{prelude::*, strategy::ValueTree};

use super::{
    between::Between,
    world::{BLOCK, Dice, all, back_up, blocks, full, restored},
};
use crate::{
    repository::{
        Error, Made, Progress, Repository, Result,
        backend::{Backend, Memory},
        care::{Finding, PruneOptions, ReadData},
        crypto::{Credential, KdfCost, Secret},
        format::name::{self, PACKS},
        id::Digest,
    },
    units::Id,
};

const BLOCKS: [usize; 2] = [300, 1100];
/// A storage's clock may run back by a quarter of the least grace.
const JUMPS_MINUTES: [i64; 8] = [0, 0, 20, 35, 70, 130, 190, -14];

#[derive(Clone, Debug)]
enum Act {
    /// Change so many blocks of the client's own image and back it up from its last point.
    Incremental(usize),
    /// The same, but read everything: with its last point as base, or with none.
    Full(usize, bool),
    Forget(prop::sample::Index),
    Prune(u8),
    /// All points into another repository, and back again under other ids.
    Copy,
    /// A repair where nothing is broken.
    Repair,
}

#[derive(Clone, Debug)]
enum Step {
    /// One client does something; before its call of that number the clock jumps and the other client acts.
    Both(usize, Act, u64, usize, Act),
    /// The clock jumps.
    Jump(usize),
    /// A byte of some pack breaks, and is repaired from a copy of the storage.
    Break(prop::sample::Index, prop::sample::Index),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (0..50_usize).prop_map(Act::Incremental),
        2 => (0..50_usize, any::<bool>()).prop_map(|(count, based)| Act::Full(count, based)),
        4 => any::<prop::sample::Index>().prop_map(Act::Forget),
        5 => (0..100_u8).prop_map(Act::Prune),
        1 => Just(Act::Copy),
        1 => Just(Act::Repair),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let jump = || 0..JUMPS_MINUTES.len();
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        8 => (0..2_usize, act(), 0..60_u64, jump(), act())
            .prop_map(|(client, outer, at, jump, inner)| Step::Both(client, outer, at, jump, inner)),
        3 => jump().prop_map(Step::Jump),
        1 => (index(), index()).prop_map(|(pack, at)| Step::Break(pack, at)),
    ];
    prop::collection::vec(step, 1..28)
}

struct State {
    images: [Vec<u8>; 2],
    last: [Option<Id>; 2],
    /// Whole and not forgotten.
    points: BTreeMap<Id, Vec<u8>>,
    dice: Dice,
    /// Packs that broke while they were condemned: nobody mends them, and they may be pardoned.
    broken: BTreeSet<Digest>,
    /// Packs that were condemned or deleted, copies and repairs of damage: that the test is of something.
    seen: [usize; 4],
}

impl State {
    /// Whether it is about what no point needs, in a pack that was given up when it broke.
    fn is_of_no_consequence(&self, found: &Finding) -> bool {
        let pack = match &found.error {
            Error::DamagedBlob { pack, .. } => Some(*pack),
            Error::Damaged { name, .. } => name::parse_pack(name),
            _ => None,
        };
        found.points.is_empty() && pack.is_some_and(|pack| self.broken.contains(&pack))
    }
}

/// What both clients and their storage share.
#[derive(Clone)]
struct Model {
    storage: Arc<Memory>,
    key: Option<Secret>,
    state: Arc<Mutex<State>>,
}

impl Model {
    fn new(seed: u64, sealed: bool) -> Self {
        let storage = Arc::new(Memory::new());
        let key = sealed.then(|| Secret::new([3; 32]));
        let credential = key.clone().map(Credential::Master);
        let with = credential.as_ref().map(|key| (key, KdfCost::default()));
        Repository::init(storage.clone(), with).unwrap();
        // So that the clock can run back.
        storage.pass(24 * 3600);
        let state = State {
            images: BLOCKS.map(|blocks| vec![0; blocks * BLOCK]),
            last: [None; 2],
            points: BTreeMap::new(),
            dice: Dice(seed),
            broken: BTreeSet::new(),
            seen: [0; 4],
        };
        let state = Arc::new(Mutex::new(state));
        Self {
            storage,
            key,
            state,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn repository(&self, storage: Arc<dyn Backend>) -> Repository {
        let credential = self.key.clone().map(Credential::Master);
        Repository::open(storage, credential.as_ref()).unwrap()
    }

    fn jump(&self, which: usize) {
        let minutes = JUMPS_MINUTES[which];
        match u64::try_from(minutes) {
            Ok(minutes) => self.storage.pass(minutes * 60),
            Err(_) => self.storage.run_back(minutes.unsigned_abs() * 60),
        }
    }

    fn take(&self, step: &Step) {
        match step {
            Step::Jump(which) => self.jump(*which),
            Step::Break(pack, at) => self.break_and_repair(pack, at),
            Step::Both(client, outer, at, jump, inner) => {
                let (model, jump, inner, other) = (self.clone(), *jump, inner.clone(), 1 - client);
                let between = Between::new(self.storage.clone(), *at, move || {
                    model.jump(jump);
                    let repository = model.repository(model.storage.clone());
                    model.act(&repository, other, &inner).unwrap();
                });
                let between = Arc::new(between);
                let repository = self.repository(self.storage.clone());
                let done = self.act(&repository.at(between.clone()), *client, outer);
                if let Err(why) = done {
                    // Only what the other took away.
                    let gone = matches!(
                        why,
                        Error::Pruned(_) | Error::NoPoint(_) | Error::Missing(_)
                    );
                    assert!(between.came(), "{outer:?} failed alone: {why}");
                    assert!(gone || why.is_not_found(), "{outer:?}: {why}");
                }
            }
        }
    }

    /// Changes blocks of a client's image; gives it and the client's last point.
    fn change(&self, client: usize, count: usize) -> (Vec<u8>, Option<Id>) {
        let mut state = self.state();
        let State { images, dice, .. } = &mut *state;
        for _ in 0..count {
            let block = dice.below(BLOCKS[client]);
            // Some are of the other image, some zeros.
            let new = match block % 5 {
                0 => vec![0; BLOCK],
                1 => images[1 - client][..BLOCK].to_vec(),
                _ => dice.block(),
            };
            images[client][block * BLOCK..(block + 1) * BLOCK].copy_from_slice(&new);
        }
        (images[client].clone(), state.last[client])
    }

    fn act(&self, repository: &Repository, client: usize, act: &Act) -> Result<()> {
        match act {
            Act::Incremental(count) => {
                let (image, base) = self.change(client, *count);
                let Some(base) = base else {
                    return self.store(repository, client, image, None, full());
                };
                self.store(repository, client, image, Some(base), Made::Incremental)
            }
            Act::Full(count, based) => {
                let (image, base) = self.change(client, *count);
                self.store(repository, client, image, base.filter(|_| *based), full())
            }
            Act::Forget(which) => {
                let mut state = self.state();
                if state.points.is_empty() {
                    return Ok(());
                }
                let place = which.index(state.points.len());
                let id = *state.points.keys().nth(place).unwrap();
                state.points.remove(&id);
                for last in &mut state.last {
                    *last = last.filter(|last| *last != id);
                }
                drop(state);
                repository.forget(id)
            }
            Act::Prune(max_waste_percent) => {
                let options = PruneOptions {
                    grace_seconds: 3600,
                    min_age_seconds: 0,
                    max_waste_percent: *max_waste_percent,
                    dry_run: false,
                    by: String::new(),
                };
                let pruned = repository.prune(&options, &Progress::default())?;
                let mut state = self.state();
                state.seen[0] += pruned.condemned_packs;
                state.seen[1] += pruned.deleted_packs;
                Ok(())
            }
            Act::Copy => self.copy(repository),
            Act::Repair => {
                let repaired = repository.repair(None, &Progress::default())?;
                assert_eq!((repaired.lost_points.len(), repaired.lost_blobs), (0, 0));
                Ok(())
            }
        }
    }

    fn store(
        &self,
        repository: &Repository,
        client: usize,
        image: Vec<u8>,
        base: Option<Id>,
        made: Made,
    ) -> Result<()> {
        let changes = match (&made, base) {
            (Made::Incremental, Some(base)) => {
                let old = self.state().points.get(&base).cloned();
                let Some(old) = old else { return Ok(()) };
                let differs = |block: &usize| {
                    let range = block * BLOCK..(block + 1) * BLOCK;
                    image[range.clone()] != old[range]
                };
                blocks(&(0..image.len() / BLOCK).filter(differs).collect::<Vec<_>>())
            }
            _ => all(image.len()),
        };
        let (id, _) = back_up(repository, &image, changes, base, made)?;
        let mut state = self.state();
        state.points.insert(id, image);
        state.last[client] = Some(id);
        Ok(())
    }

    fn copy(&self, repository: &Repository) -> Result<()> {
        let points = self.state().points.clone();
        let ids: Vec<_> = points.keys().copied().take(3).collect();
        let other = Repository::init(Arc::new(Memory::new()), None)?;
        let there = repository.copy(&ids, &other, &Progress::default())?;
        let before = other.points()?.points;
        repository.copy(&ids, &other, &Progress::default())?;
        assert_eq!(before, other.points()?.points, "nothing is put twice");
        for (id, there) in ids.iter().zip(&there) {
            assert!(restored(&other, *there)? == points[id]);
        }
        for (id, was) in there.iter().zip(&ids) {
            let back = other.copy(&[*id], repository, &Progress::default())?;
            let mut state = self.state();
            state.points.insert(back[0], points[was].clone());
            state.seen[2] += 1;
        }
        Ok(())
    }

    fn break_and_repair(&self, pack: &prop::sample::Index, at: &prop::sample::Index) {
        let mut packs = self.storage.names();
        packs.retain(|name| name.starts_with(PACKS));
        if packs.is_empty() {
            return;
        }
        let second = Arc::new(Memory::new());
        for name in self.storage.names() {
            let bytes = self.storage.read(&name, u64::MAX).unwrap();
            second.create(&name, &bytes).unwrap();
        }
        let repository = self.repository(self.storage.clone());
        let broken = pack.get(packs.as_slice());
        self.storage.damage(broken, |bytes| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << (at % 8);
        });
        let digest = name::parse_pack(broken).unwrap();
        if repository.load().unwrap().is_condemned(digest) {
            self.state().broken.insert(digest);
        }
        let second = self.repository(second);
        let repaired = repository.repair(Some(&second), &Progress::default());
        assert_eq!(repaired.unwrap().lost_blobs, 0);
        self.state().seen[3] += 1;
    }

    /// Each point equals its model, and nothing is broken.
    fn hold(&self, when: &str) {
        let repository = self.repository(self.storage.clone());
        let there = repository.points().unwrap();
        assert!(there.damaged.is_empty());
        let state = self.state();
        for (id, image) in &state.points {
            let read = restored(&repository, *id).unwrap_or_else(|why| panic!("{when}: {why}"));
            assert!(read == *image, "{when}: {id} is another image");
        }
        let there: Vec<_> = there.points.iter().map(|(id, _)| *id).collect();
        for id in &there {
            assert!(state.points.contains_key(id), "{when}: {id} is too many");
        }
        let checked = repository.check(ReadData::All, &Progress::default());
        let mut findings = checked.unwrap().findings;
        findings.retain(|found| !state.is_of_no_consequence(found));
        assert!(findings.is_empty(), "{when}: {findings:?}");
    }
}

/// Tells a story; gives what it saw.
fn tell(seed: u64, sealed: bool, steps: &[Step]) -> [usize; 4] {
    let model = Model::new(seed, sealed);
    for (number, step) in steps.iter().enumerate() {
        model.take(step);
        if number % 4 == 3 {
            model.hold(&format!("after step {number}"));
        }
    }
    model.hold("at the end");
    let seen = model.state().seen;
    // What was condemned goes, and nothing else.
    for _ in 0..3 {
        model.storage.pass(2 * 3600);
        let repository = model.repository(model.storage.clone());
        model.act(&repository, 0, &Act::Prune(20)).unwrap();
        model.hold("after all was pruned");
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn each_point_of_two_clients_equals_its_model(
        seed in any::<u64>(),
        sealed in any::<bool>(),
        steps in steps(),
    ) {
        tell(seed, sealed, &steps);
    }
}

/// That such stories have in them what they are about.
#[test]
fn stories_of_two_clients_condemn_and_delete_and_copy_and_break() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let stories = prop::collection::vec(steps(), 16);
    let stories = stories.new_tree(&mut runner).unwrap().current();
    let mut all = [0; 4];
    for (seed, steps) in (0_u64..).zip(&stories) {
        let seen = tell(seed, seed % 2 == 1, steps);
        all.iter_mut()
            .zip(seen)
            .for_each(|(all, seen)| *all += seen);
    }
    assert!(all.iter().all(|seen| *seen > 0), "{all:?}");
}
