//! Any order of backups, forgets, prunes and waiting, against a model.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::world::{BLOCK, Dice, all, back_up, blocks, full, restored, restored_onto};
use crate::{
    repository::{
        Made, Progress, Repository,
        backend::Memory,
        care::{PruneOptions, ReadData},
    },
    units::Id,
};

#[derive(Clone, Debug)]
enum Step {
    /// Change so many blocks of an image and back it up from its last point.
    Incremental(usize, usize),
    /// Change so many blocks, and read everything: with its last point as base, or with none.
    Full(usize, usize, bool),
    Forget(prop::sample::Index),
    Prune(u8),
    Wait(u64),
    Copy,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2_usize, 0..60_usize).prop_map(|(image, blocks)| Step::Incremental(image, blocks)),
        2 => (0..2_usize, 0..60_usize, any::<bool>())
            .prop_map(|(image, blocks, base)| Step::Full(image, blocks, base)),
        3 => any::<prop::sample::Index>().prop_map(Step::Forget),
        3 => (0..100_u8).prop_map(Step::Prune),
        2 => (0..3_u64).prop_map(Step::Wait),
        1 => Just(Step::Copy),
    ];
    prop::collection::vec(step, 1..16)
}

struct Model {
    images: [Vec<u8>; 2],
    last: [Option<Id>; 2],
    points: BTreeMap<Id, Vec<u8>>,
    dice: Dice,
}

impl Model {
    fn change(&mut self, image: usize, blocks: usize) -> Vec<usize> {
        let count = self.images[image].len() / BLOCK;
        let changed: Vec<_> = (0..blocks).map(|_| self.dice.below(count)).collect();
        for block in &changed {
            let new = if block % 5 == 0 {
                vec![0; BLOCK]
            } else {
                self.dice.block()
            };
            self.images[image][block * BLOCK..(block + 1) * BLOCK].copy_from_slice(&new);
        }
        changed
    }

    fn done(&mut self, image: usize, id: Id) {
        self.points.insert(id, self.images[image].clone());
        self.last[image] = Some(id);
    }

    fn act(&mut self, step: &Step, storage: &Memory, repository: &Repository) {
        match *step {
            Step::Incremental(image, count) => {
                let changed = self.change(image, count);
                let bytes = &self.images[image];
                let base = self.last[image];
                let (changes, made) = match base {
                    Some(_) => (blocks(&changed), Made::Incremental),
                    None => (all(bytes.len()), full()),
                };
                let (id, _) = back_up(repository, bytes, changes, base, made).unwrap();
                self.done(image, id);
            }
            Step::Full(image, count, based) => {
                self.change(image, count);
                let base = self.last[image].filter(|_| based);
                let bytes = &self.images[image];
                let (id, _) = back_up(repository, bytes, all(bytes.len()), base, full()).unwrap();
                self.done(image, id);
            }
            Step::Forget(which) if !self.points.is_empty() => {
                let place = which.index(self.points.len());
                let id = *self.points.keys().nth(place).unwrap();
                self.points.remove(&id);
                repository.forget(id).unwrap();
                for last in &mut self.last {
                    *last = last.filter(|last| *last != id);
                }
            }
            Step::Forget(_) => {}
            Step::Prune(max_waste_percent) => {
                let options = PruneOptions {
                    grace_seconds: 3600,
                    min_age_seconds: 0,
                    max_waste_percent,
                    dry_run: false,
                    by: String::new(),
                };
                repository.prune(&options, &Progress::default()).unwrap();
            }
            Step::Wait(hours) => storage.pass(hours * 3600),
            Step::Copy => {
                let other = Repository::init(Arc::new(Memory::new()), None).unwrap();
                let ids: Vec<_> = self.points.keys().copied().collect();
                let copied = repository.copy(&ids, &other, &Progress::default()).unwrap();
                for (id, copied) in ids.iter().zip(copied) {
                    assert!(restored(&other, copied).unwrap() == self.points[id]);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn each_remaining_point_equals_its_model(seed in any::<u64>(), steps in steps()) {
        let storage = Arc::new(Memory::new());
        let repository = Repository::init(storage.clone(), None).unwrap();
        let mut model = Model {
            images: [vec![0; 600 * BLOCK], vec![0; 1100 * BLOCK]],
            last: [None; 2],
            points: BTreeMap::new(),
            dice: Dice(seed),
        };
        for step in &steps {
            model.act(step, &storage, &repository);
        }
        let there: Vec<_> = repository.points().unwrap().points.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(there.len(), model.points.len());
        for (id, image) in &model.points {
            prop_assert!(restored(&repository, *id).unwrap() == *image);
            let other = &model.images[usize::from(image.len() == model.images[1].len())];
            restored_onto(&repository, *id, other.clone());
        }
        let checked = repository.check(ReadData::All, &Progress::default()).unwrap();
        prop_assert!(checked.findings.is_empty(), "{:?}", checked.findings);
    }
}
