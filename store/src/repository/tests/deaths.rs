//! A client that dies at any change of the storage, in a backup, a forget or a prune.

use std::{collections::BTreeMap, sync::Arc};

use super::world::{BLOCK, Dice, all, back_up, blocks, full, restored};
use crate::{
    repository::{
        Made, Progress, Repository, Result,
        backend::{Death, Memory},
        care::{PruneOptions, ReadData},
    },
    units::Id,
};

/// What the steps of a scenario leave.
#[derive(Default)]
struct World {
    image: Vec<u8>,
    points: BTreeMap<Id, Vec<u8>>,
    latest: Option<Id>,
    dice: Option<Dice>,
}

const HOUR: u64 = 3600;

fn options() -> PruneOptions {
    PruneOptions {
        grace_seconds: HOUR,
        min_age_seconds: 0,
        max_waste_percent: 20,
        dry_run: false,
        by: "test".into(),
    }
}

type Step = fn(&mut World, &Memory, &Repository) -> Result<()>;

fn first(world: &mut World, _: &Memory, repository: &Repository) -> Result<()> {
    let dice = world.dice.insert(Dice(11));
    let mut image: Vec<u8> = (0..300).flat_map(|_| dice.block()).collect();
    image[40 * BLOCK..90 * BLOCK].fill(0);
    world.image = image;
    let changes = all(world.image.len());
    let (id, _) = back_up(repository, &world.image, changes, None, full())?;
    world.finished(id);
    Ok(())
}

fn next(world: &mut World, _: &Memory, repository: &Repository) -> Result<()> {
    // A step that is done again changes the same blocks to something else.
    let dice = world.dice.get_or_insert(Dice(12));
    let changed: Vec<_> = (0..90).map(|_| dice.below(300)).collect();
    for block in &changed {
        let new = dice.block();
        world.image[block * BLOCK..(block + 1) * BLOCK].copy_from_slice(&new);
    }
    let (base, made) = (world.latest, Made::Incremental);
    // All that differs from the base, also by a backup that did not finish.
    let changes = blocks(&(0..300).collect::<Vec<_>>());
    let (id, _) = back_up(repository, &world.image, changes, base, made)?;
    world.finished(id);
    Ok(())
}

fn forget_oldest(world: &mut World, _: &Memory, repository: &Repository) -> Result<()> {
    let oldest = *world
        .points
        .keys()
        .find(|id| Some(**id) != world.latest)
        .unwrap();
    // From here on nobody counts on it.
    world.points.remove(&oldest);
    repository.forget(oldest)
}

fn prune(_: &mut World, _: &Memory, repository: &Repository) -> Result<()> {
    repository.prune(&options(), &Progress::default()).map(drop)
}

fn wait(_: &mut World, storage: &Memory, _: &Repository) -> Result<()> {
    storage.pass(2 * HOUR);
    Ok(())
}

const STEPS: [Step; 15] = [
    first,
    next,
    next,
    forget_oldest,
    prune,
    wait,
    next,
    prune,
    forget_oldest,
    prune,
    next,
    wait,
    prune,
    wait,
    prune,
];

impl World {
    fn finished(&mut self, id: Id) {
        self.points.insert(id, self.image.clone());
        self.latest = Some(id);
    }

    /// Every finished point is whole, and whatever else is there is.
    fn check(&self, repository: &Repository, at: &str) {
        for (id, image) in &self.points {
            let read = restored(repository, *id).unwrap_or_else(|why| panic!("{at}: {id}: {why}"));
            assert!(read == *image, "{at}: {id} is another image");
        }
        let checked = repository
            .check(ReadData::All, &Progress::default())
            .unwrap();
        assert!(checked.findings.is_empty(), "{at}: {:?}", checked.findings);
    }
}

/// Runs the scenario with a death after so many changes; says whether it came to that.
fn run(deadly: Option<(u64, Death)>) -> bool {
    let storage = Arc::new(Memory::new());
    let repository = Repository::init(storage.clone(), None).unwrap();
    let mut world = World::default();
    if let Some((more, death)) = deadly {
        storage.die_after(more, death);
    }
    let mut died = false;
    for (number, step) in STEPS.iter().enumerate() {
        while let Err(why) = step(&mut world, &storage, &repository) {
            assert!(storage.revive(), "step {number}: {why}");
            died = true;
            world.check(&repository, &format!("{deadly:?} in step {number}"));
            // A forget that died may be done; doing it again would forget another.
            if number == 3 || number == 8 {
                break;
            }
        }
    }
    world.check(&repository, &format!("{deadly:?} at the end"));
    died
}

#[test]
fn whenever_a_client_dies_finished_points_are_whole_and_the_next_goes_on() {
    assert!(!run(None));
    for death in [Death::Before, Death::After] {
        let mut at = 0;
        while run(Some((at, death))) {
            at += 1;
        }
        assert!(at > 30, "the scenario has only {at} changes");
    }
}

#[test]
fn in_the_end_only_what_is_needed_stays() {
    let storage = Arc::new(Memory::new());
    let repository = Repository::init(storage.clone(), None).unwrap();
    let mut world = World::default();
    for step in [
        first as Step,
        next,
        next,
        forget_oldest,
        forget_oldest,
        prune,
        wait,
        prune,
    ] {
        step(&mut world, &storage, &repository).unwrap();
    }
    world.check(&repository, "before");
    let stats = repository.stats(&Progress::default()).unwrap();
    assert!(
        stats.needed_bytes * 10 > stats.stored_bytes * 8,
        "{stats:?}"
    );
    assert_eq!((stats.growth.len(), stats.condemned_packs), (1, 0));
    for id in world.points.keys() {
        repository.forget(*id).unwrap();
    }
    prune(&mut world, &storage, &repository).unwrap();
    wait(&mut world, &storage, &repository).unwrap();
    prune(&mut world, &storage, &repository).unwrap();
    assert_eq!(storage.names(), ["config"]);
}

#[test]
fn a_dead_backups_chunks_are_not_stored_again() {
    let storage = Arc::new(Memory::new());
    let repository = Repository::init(storage.clone(), None).unwrap();
    let mut dice = Dice(5);
    // Does not compress, and makes two packs of chunks.
    let image: Vec<u8> = (0..6000 * BLOCK / 8)
        .flat_map(|_| {
            (dice.below(1 << 31) as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes()
        })
        .collect();
    let changes = all(image.len());
    storage.die_after(1, Death::Before);
    back_up(&repository, &image, changes.clone(), None, full()).unwrap_err();
    assert!(storage.revive());
    assert!(
        !storage
            .names()
            .iter()
            .any(|name| name.starts_with("index/"))
    );
    let (id, point) = back_up(&repository, &image, changes, None, full()).unwrap();
    assert!(point.work.new_bytes < image.len() as u64 / 2);
    assert!(restored(&repository, id).unwrap() == image);
}
