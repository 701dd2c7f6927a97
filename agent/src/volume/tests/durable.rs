//! Power cuts: the state in memory is gone, the area tells what it was.

use std::{
    cell::RefCell, collections::BTreeSet, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration,
};

use proptest::prelude::*;
use tidemark_store::units::ByteRange;

use super::world::{Random, SimVolume, Tasks, World, run};
use crate::{
    request::Request,
    volume::{Checkpoint, Continuity, Counters, Durability, Extent, Tracker, journal},
};

/// More regions than may be active at a time.
const CAPACITY: usize = (40 << 20) + 4096 * 3 + 5;

/// What was promised: a checkpoint that a client knows of, and the bytes of its moment.
struct Promise {
    checkpoint: Checkpoint,
    frozen: Vec<u8>,
}

#[derive(Default)]
struct Model {
    promises: Vec<Promise>,
    /// Blocks that any request may have changed, since ever.
    touched: BTreeSet<u64>,
}

fn world() -> World {
    let mut world = World::new(CAPACITY, 4000);
    world.durable = true;
    world.continuity = Continuity::Unbroken;
    world
}

async fn write(volume: &SimVolume, random: &Random, model: &Rc<RefCell<Model>>) {
    let hot = random.below(3) > 0;
    let span = if hot { 3 << 20 } else { CAPACITY as u64 };
    let offset = random.below(span / 512) * 512;
    let len = match random.below(20) {
        0 => 11 << 20,
        1..5 => 1 << 17,
        _ => 512 * (1 + random.below(30)),
    };
    let range = ByteRange::new(offset, len.min(CAPACITY as u64 - offset));
    let blocks = volume.geometry().touched(range).blocks();
    model.borrow_mut().touched.extend(blocks.map(|b| b.0));
    let data = vec![random.below(255) as u8 + 1; range.len as usize];
    let request = if range.len > 1 << 20 {
        Request::Discard { range }
    } else {
        Request::Write {
            offset,
            from: &data,
            fua: false,
        }
    };
    volume.serve(request).await.expect("the host sees no error");
}

async fn cut(volume: &SimVolume, world: &World, model: &Rc<RefCell<Model>>) {
    let hold = volume.hold(Duration::from_secs(3600)).await;
    let hold = hold.expect("writers drain");
    let frozen = world.origin.bytes().clone();
    let checkpoint = volume.cut(hold, None).expect("cut").checkpoint;
    volume.settle().await;
    // Time that jumps may have made an area look dead: then nothing is promised.
    if volume.journal.durability() == Durability::Durable {
        let promise = Promise { checkpoint, frozen };
        model.borrow_mut().promises.push(promise);
    }
}

/// The blocks of a diff, and how many bytes it may have too many.
fn diff(
    volume: &SimVolume,
    since: &Checkpoint,
    until: Option<&Checkpoint>,
) -> (BTreeSet<u64>, u64) {
    let mut reported = BTreeSet::new();
    let mut start = 0;
    loop {
        let until = until.map(|until| until.epoch);
        let page = volume
            .changes(Some(since.lineage), since.epoch, until, start, 50)
            .expect("tracking went on");
        for Extent { range, .. } in page.extents {
            let blocks = volume.geometry().touched(range).blocks();
            reported.extend(blocks.map(|block| block.0));
        }
        match page.next {
            Some(next) => start = next,
            None => return (reported, page.over_report_bytes),
        }
    }
}

fn check(volume: &SimVolume, world: &World, model: &Model) {
    let now = world.origin.bytes().clone();
    for (at, since) in model.promises.iter().enumerate() {
        let later = model.promises[at + 1..].iter();
        let later = later.map(|until| (Some(&until.checkpoint), &until.frozen));
        for (until, bytes) in later.chain([(None, &now)]) {
            let (reported, bound) = diff(volume, &since.checkpoint, until);
            for (block, (old, new)) in since
                .frozen
                .chunks(4096)
                .zip(bytes.chunks(4096))
                .enumerate()
            {
                assert!(
                    old == new || reported.contains(&(block as u64)),
                    "block {block} after {:?} is missing",
                    since.checkpoint
                );
            }
            let beyond = reported.difference(&model.touched).count() as u64 * 4096;
            assert!(beyond <= bound, "{beyond} bytes too many, bound {bound}");
            assert!(bound <= (2 * 32) << 20, "bound {bound}");
        }
    }
}

fn live(world: &World, random: &Random, steps: u64, model: &Rc<RefCell<Model>>) {
    let jump = [100_000, 300_000, 700_000][random.below(3) as usize];
    let volume = world.open();
    check(&volume, world, &model.borrow());
    let mut tasks = Tasks::default();
    tasks.spawn(volume.keep_journal());
    for _ in 0..steps {
        match random.below(60) {
            0 if tasks.len() == 1 => tasks.spawn(cut(&volume, world, model)),
            1 => volume.housekeep(),
            2 => drop(world.clock.0.fetch_add(jump, Relaxed)),
            3 if random.below(6) == 0 && model.borrow().promises.len() > 2 => {
                let promise = model.borrow_mut().promises.remove(0);
                volume.forget(promise.checkpoint.epoch).expect("known");
            }
            4..12 if tasks.len() < 9 => tasks.spawn(write(&volume, random, model)),
            _ => tasks.step(random),
        }
    }
    let durable = volume.journal.durability() == Durability::Durable;
    // The power goes: whatever is in flight stays as it is, the memory is gone. Or, and always where
    // nothing is promised, the process dies.
    drop(tasks);
    let epoch = volume.tracker.epoch();
    drop(volume);
    if durable && random.below(4) > 0 {
        world.forget_state();
    }
    model
        .borrow_mut()
        .promises
        .retain(|promise| promise.checkpoint.epoch <= epoch);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_loses_no_change(seed: u64) {
        let world = world();
        let random = Random::new(seed);
        let model = Rc::new(RefCell::new(Model::default()));
        for _ in 0..4 {
            live(&world, &random, 2500, &model);
        }
        check(&world.open(), &world, &model.borrow());
    }
}

/// Lets everything go on until `done`.
fn until(random: &Random, tasks: &mut Tasks<'_>, mut done: impl FnMut() -> bool) {
    for _ in 0..2_000_000 {
        if done() {
            return;
        }
        tasks.step(random);
    }
    panic!("it never happens");
}

/// A life in which a first cut was promised.
fn keeping<'a>(
    volume: &'a SimVolume,
    world: &'a World,
    random: &Random,
    model: &'a Rc<RefCell<Model>>,
) -> Tasks<'a> {
    let mut tasks = Tasks::default();
    tasks.spawn(volume.keep_journal());
    tasks.spawn(cut(volume, world, model));
    until(random, &mut tasks, || model.borrow().promises.len() == 1);
    tasks
}

#[test]
fn an_idle_volume_is_continuous_and_writes_nothing() {
    let world = world();
    let random = Random::new(3);
    let model = Rc::new(RefCell::new(Model::default()));
    {
        let volume = world.open();
        let mut tasks = keeping(&volume, &world, &random, &model);
        let writes = Rc::new(RefCell::new(0));
        for _ in 0..30 {
            let (writes, volume, random, model) = (writes.clone(), &volume, &random, &model);
            tasks.spawn(async move {
                write(volume, random, model).await;
                *writes.borrow_mut() += 1;
            });
        }
        until(&random, &mut tasks, || *writes.borrow() == 30);
        for _ in 0..8 {
            world.clock.0.fetch_add(1_100_000, Relaxed);
            volume.housekeep();
            for _ in 0..2000 {
                tasks.step(&random);
            }
        }
        let before = world.area.bytes().clone();
        for _ in 0..50 {
            world.clock.0.fetch_add(1_100_000, Relaxed);
            volume.housekeep();
            for _ in 0..100 {
                tasks.step(&random);
            }
        }
        assert!(
            *world.area.bytes() == before,
            "an idle volume was written of"
        );
    }
    world.forget_state();
    let volume = world.open();
    let since = model.borrow().promises[0].checkpoint;
    let (reported, bound) = diff(&volume, &since, None);
    assert_eq!(bound, 0);
    assert!(reported == model.borrow().touched);
}

#[test]
fn others_writing_to_the_first_blocks_is_noticed() {
    for (place, noticed) in [(1024, true), (0, true), (20 << 20, false)] {
        let world = world();
        let random = Random::new(4);
        let model = Rc::new(RefCell::new(Model::default()));
        {
            let volume = world.open();
            let mut tasks = keeping(&volume, &world, &random, &model);
            for _ in 0..2000 {
                tasks.step(&random);
            }
        }
        world.forget_state();
        world.origin.bytes()[place] ^= 1;
        let lineage = world.open().status();
        let same = lineage.lineage == model.borrow().promises[0].checkpoint.lineage;
        assert_eq!(same, !noticed, "{}", lineage.lineage_cause);
        if noticed {
            assert!(lineage.lineage_cause.contains("superblock"));
        }
    }
}

/// An ext4's first page that was mounted so often.
fn mounted(times: u8) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
    page[1024 + 0x34] = times;
    page
}

/// The power goes before anybody could look what the superblock has become.
#[test]
fn a_mount_that_the_host_made_is_no_mount_by_others() {
    for (left, others) in [(1, false), (2, false), (3, false), (0, true), (4, true)] {
        let world = world();
        world.origin.bytes()[..4096].copy_from_slice(&mounted(1));
        let random = Random::new(4);
        let model = Rc::new(RefCell::new(Model::default()));
        let answers = Rc::new(RefCell::new(0));
        {
            let volume = world.open();
            let mut tasks = keeping(&volume, &world, &random, &model);
            for _ in 0..2000 {
                tasks.step(&random);
            }
            for times in [2, 3] {
                let (volume, count) = (&volume, answers.clone());
                tasks.spawn(async move {
                    let request = Request::Write {
                        offset: 1024,
                        from: &mounted(times)[1024..2048],
                        fua: false,
                    };
                    volume.serve(request).await.expect("the host sees no error");
                    *count.borrow_mut() += 1;
                });
                until(&random, &mut tasks, || *answers.borrow() == times - 1);
            }
        }
        world.forget_state();
        // Without a flush any of the three may be there.
        world.origin.bytes()[..4096].copy_from_slice(&mounted(left));
        let lineage = world.open().status();
        let same = lineage.lineage == model.borrow().promises[0].checkpoint.lineage;
        assert_eq!(same, !others, "{left}: {}", lineage.lineage_cause);
        assert_eq!(others, lineage.lineage_cause.contains("was mounted"));
    }
}

/// A new file system's superblock comes to where none was looked for, and the power goes at once.
#[test]
fn a_superblock_that_the_host_made_elsewhere_is_no_change_by_others() {
    let world = world();
    let random = Random::new(4);
    let model = Rc::new(RefCell::new(Model::default()));
    let answered = Rc::new(RefCell::new(false));
    {
        let volume = world.open();
        let mut tasks = keeping(&volume, &world, &random, &model);
        for _ in 0..2000 {
            tasks.step(&random);
        }
        let mut page = vec![0; 4096];
        page[0x40..0x48].copy_from_slice(b"_BHRfS_M");
        let (serving, answer) = (&volume, answered.clone());
        tasks.spawn(async move {
            let request = Request::Write {
                offset: 64 << 10,
                from: &page,
                fua: true,
            };
            serving
                .serve(request)
                .await
                .expect("the host sees no error");
            *answer.borrow_mut() = true;
        });
        until(&random, &mut tasks, || *answered.borrow());
    }
    world.forget_state();
    let found = world.open().status();
    let lineage = model.borrow().promises[0].checkpoint.lineage;
    assert_eq!(found.lineage, lineage, "{}", found.lineage_cause);
}

#[test]
fn a_failing_area_delays_nobody_for_ever_and_tells_nothing_false() {
    let world = world();
    let random = Random::new(5);
    let model = Rc::new(RefCell::new(Model::default()));
    let suspended = |volume: &SimVolume| volume.journal.durability() != Durability::Durable;
    {
        let volume = world.open();
        let mut tasks = keeping(&volume, &world, &random, &model);
        world.area.fail_writes.store(true, Relaxed);
        tasks.spawn(write(&volume, &random, &model));
        until(&random, &mut tasks, || suspended(&volume));
        // The host's write goes on.
        until(&random, &mut tasks, || {
            volume.status().counters != Counters::default()
        });
        // Nothing is missing in memory, so that it goes on by itself once the area works again.
        world.area.fail_writes.store(false, Relaxed);
        until(&random, &mut tasks, || !suspended(&volume));
        tasks.spawn(cut(&volume, &world, &model));
        until(&random, &mut tasks, || model.borrow().promises.len() == 2);
    }
    world.forget_state();
    check(&world.open(), &world, &model.borrow());
    {
        let volume = world.open();
        let mut tasks = Tasks::default();
        tasks.spawn(volume.keep_journal());
        volume.journal.suspend("a test");
        // The area listens: it is told to speak of the past no more.
        let whole = || run(journal::images(&volume.area, &volume.superblock)) != Ok(Vec::new());
        until(&random, &mut tasks, || !whole());
    }
    world.forget_state();
    let status = world.open().status();
    assert!(status.lineage_cause.contains("no whole image"));
}

/// The control plane believes the area again as soon as a server says that tracking is durable.
#[test]
fn a_process_that_follows_one_whose_area_failed_says_so_until_the_area_tells_all() {
    let world = world();
    let random = Random::new(8);
    let model = Rc::new(RefCell::new(Model::default()));
    let durable = |volume: &SimVolume| volume.journal.durability() == Durability::Durable;
    let images = |volume: &SimVolume| run(journal::images(&volume.area, &volume.superblock));
    let old = {
        let volume = world.open();
        let mut tasks = keeping(&volume, &world, &random, &model);
        until(&random, &mut tasks, || durable(&volume));
        world.area.fail_writes.store(true, Relaxed);
        tasks.spawn(write(&volume, &random, &model));
        until(&random, &mut tasks, || !durable(&volume));
        images(&volume)
    };
    world.area.fail_writes.store(false, Relaxed);
    let volume = world.open();
    // What is there is from before the change that was told nowhere.
    assert_eq!(images(&volume), old);
    assert!(!durable(&volume));
    let mut tasks = Tasks::default();
    tasks.spawn(volume.keep_journal());
    until(&random, &mut tasks, || durable(&volume));
    assert_ne!(images(&volume), old);
    drop(tasks);
    drop(volume);
    assert!(
        durable(&world.open()),
        "the next one has nothing to make up for"
    );
    world.forget_state();
    check(&world.open(), &world, &model.borrow());
}

#[test]
fn what_identifies_a_lineage_is_kept() {
    let world = world();
    let random = Random::new(6);
    let model = Rc::new(RefCell::new(Model::default()));
    let told = Rc::new(RefCell::new(None));
    {
        let volume = world.open();
        let mut tasks = keeping(&volume, &world, &random, &model);
        tasks.spawn(async {
            let lineage = volume.reset_tracking("asked for").await;
            *told.borrow_mut() = Some(lineage.expect("reset"));
        });
        until(&random, &mut tasks, || told.borrow().is_some());
    }
    world.forget_state();
    let status = world.open().status();
    assert_eq!(Some(status.lineage), told.take());
    assert_eq!(status.lineage_cause, "asked for");
    assert!(status.checkpoints.is_empty());
}

#[test]
fn a_death_and_a_power_cut_soon_after_it_lose_nothing() {
    // Wherever the second process is with its first image.
    for steps in (0..120).step_by(3) {
        let world = world();
        let random = Random::new(7);
        let model = Rc::new(RefCell::new(Model::default()));
        {
            let volume = world.open();
            let _tasks = keeping(&volume, &world, &random, &model);
        }
        {
            let volume = world.open();
            let mut tasks = Tasks::default();
            tasks.spawn(volume.keep_journal());
            for _ in 0..steps {
                tasks.step(&random);
            }
        }
        world.forget_state();
        let status = world.open().status();
        let before = model.borrow().promises[0].checkpoint.lineage;
        assert_eq!(status.lineage, before, "{steps}: {}", status.lineage_cause);
    }
}
