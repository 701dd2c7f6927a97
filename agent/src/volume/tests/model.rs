//! Random requests in flight together, cuts, releases, reads and deaths, against frozen copies.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use proptest::prelude::*;
use tidemark_store::units::{ByteRange, Epoch, Id};

use super::world::{Random, SimVolume, Tasks, World, run};
use crate::{
    request::Request,
    volume::{Checkpoint, Extent, Kind, Tracker, ViewError},
};

/// No multiple of any block or sector size.
const CAPACITY: usize = 4096 * 40 + 777;

/// What the test remembers of one cut.
struct Cut {
    checkpoint: Checkpoint,
    snapshot: Id,
    frozen: Vec<u8>,
    live: bool,
}

/// What the test remembers: frozen copies, and the blocks that requests touched in each epoch.
#[derive(Default)]
struct Model {
    cuts: Vec<Cut>,
    touched: BTreeMap<Epoch, BTreeSet<u64>>,
}

fn request_bytes(random: &Random) -> ByteRange {
    let unit = [1, 512, 4096][random.below(3) as usize];
    let offset = random.below(CAPACITY as u64 / unit) * unit;
    let len = (1 + random.below(40_000 / unit)) * unit;
    ByteRange::new(offset, len.min(CAPACITY as u64 - offset))
}

/// Notes what a request touches at its start and at its end, if only by the process's death: it
/// may be admitted in any epoch between (at most one cut is under way, so there are two).
struct Touches<'a> {
    volume: &'a SimVolume,
    model: &'a Rc<RefCell<Model>>,
    range: ByteRange,
}

impl Touches<'_> {
    fn note(&self) {
        let blocks = self
            .volume
            .geometry()
            .touched(self.range)
            .blocks()
            .map(|block| block.0);
        let epoch = self.volume.tracker.epoch();
        self.model
            .borrow_mut()
            .touched
            .entry(epoch)
            .or_default()
            .extend(blocks);
    }
}

impl Drop for Touches<'_> {
    fn drop(&mut self) {
        self.note();
    }
}

/// One request of the host, from its start to its end.
async fn serve(volume: &SimVolume, random: &Random, model: &Rc<RefCell<Model>>) {
    let range = request_bytes(random);
    let fill = u8::try_from(1 + random.below(255)).unwrap();
    let kind = random.below(10);
    let touches = (kind > 1).then(|| Touches {
        volume,
        model,
        range,
    });
    if let Some(touches) = &touches {
        touches.note();
    }
    let data = vec![fill; range.len as usize];
    let mut into = vec![0; range.len as usize];
    let fua = fill.is_multiple_of(2);
    let request = match kind {
        0 => Request::Read {
            offset: range.offset,
            into: &mut into,
        },
        1 => Request::Flush,
        2 => Request::Discard { range },
        3 => Request::WriteZeroes {
            range,
            fua,
            may_unmap: !fua,
        },
        _ => Request::Write {
            offset: range.offset,
            from: &data,
            fua,
        },
    };
    volume.serve(request).await.expect("the host sees no error");
}

async fn cut(volume: &SimVolume, world: &World, id: Id, model: &Rc<RefCell<Model>>) {
    let token = volume
        .hold(Duration::from_secs(3600))
        .await
        .expect("writers drain");
    let frozen = world.origin.bytes().clone();
    let cut = volume.cut(token, Some(id)).expect("cut");
    model.borrow_mut().cuts.push(Cut {
        checkpoint: cut.checkpoint,
        snapshot: id,
        frozen,
        live: true,
    });
}

/// Reads a whole view while other tasks run.
async fn check_view(volume: &SimVolume, which: usize, model: &Rc<RefCell<Model>>) {
    let (id, frozen) = {
        let model = model.borrow();
        (model.cuts[which].snapshot, model.cuts[which].frozen.clone())
    };
    let mut at = 0;
    while at < CAPACITY {
        let len = (CAPACITY - at).min(50_001);
        let mut into = vec![0; len];
        match volume.read_view(id, at as u64, &mut into).await {
            Ok(()) => assert!(
                into == frozen[at..at + len],
                "view {id} differs in {at}+{len}"
            ),
            Err(ViewError::Released(_) | ViewError::NotFound(_)) => {
                assert!(!model.borrow().cuts[which].live, "a live view is gone");
                return;
            }
            Err(error) => panic!("view {id} at {at}: {error}"),
        }
        at += len;
    }
    check_allocated(volume, id, &frozen, which, model).await;
}

/// What is said to be zero must be; everything must be said.
async fn check_allocated(
    volume: &SimVolume,
    id: Id,
    frozen: &[u8],
    which: usize,
    model: &Rc<RefCell<Model>>,
) {
    let mut start = 0;
    loop {
        let page = match volume.allocated(id, start, 3).await {
            Ok(page) => page,
            Err(_) => return assert!(!model.borrow().cuts[which].live),
        };
        for Extent { range, kind } in page.extents {
            assert_eq!(range.offset, start, "a gap between extents");
            start = range.end();
            let bytes = &frozen[range.offset as usize..range.end() as usize];
            assert!(kind == Kind::Data || bytes.iter().all(|byte| *byte == 0));
        }
        match page.next {
            Some(next) => assert_eq!(next, start),
            None => return assert_eq!(start, CAPACITY as u64),
        }
    }
}

/// I6, and that nothing is reported that no request touched.
fn check_diffs(volume: &SimVolume, model: &Model) {
    let forgotten = |cut: &Cut| {
        volume
            .changes(None, cut.checkpoint.epoch, None, 0, 1)
            .is_err()
    };
    for (at, since) in model
        .cuts
        .iter()
        .enumerate()
        .filter(|(_, cut)| !forgotten(cut))
    {
        for until in model.cuts[at..].iter().filter(|cut| !forgotten(cut)) {
            check_diff(volume, model, since, until);
        }
    }
}

fn check_diff(volume: &SimVolume, model: &Model, since: &Cut, until: &Cut) {
    let (from, to) = (since.checkpoint.epoch, until.checkpoint.epoch);
    let mut reported = BTreeMap::new();
    let mut start = 0;
    loop {
        let lineage = Some(since.checkpoint.lineage);
        let page = volume
            .changes(lineage, from, Some(to), start, 4)
            .expect("diff");
        for extent in page.extents {
            assert!(extent.range.offset >= start);
            start = extent.range.end();
            let blocks = volume.geometry().touched(extent.range);
            reported.extend(blocks.blocks().map(|block| (block.0, extent.kind)));
        }
        match page.next {
            Some(next) => start = next,
            None => break,
        }
    }
    let touched: BTreeSet<u64> = model
        .touched
        .iter()
        .filter(|(epoch, _)| from < **epoch && **epoch <= to)
        .flat_map(|(_, blocks)| blocks.iter().copied())
        .collect();
    for block in 0..volume.geometry().blocks() {
        let range = (block as usize * 4096)..CAPACITY.min(block as usize * 4096 + 4096);
        let new = &until.frozen[range.clone()];
        if new != &since.frozen[range] {
            assert!(
                reported.contains_key(&block),
                "block {block} of {from}..{to} is missing"
            );
        }
        if let Some(kind) = reported.get(&block) {
            assert!(
                touched.contains(&block),
                "block {block} of {from}..{to} was not touched"
            );
            let zero = new.iter().all(|byte| *byte == 0);
            assert!(
                *kind == Kind::Data || zero,
                "block {block} is said to be {kind:?}"
            );
        }
    }
}

/// One life of the process; ends with all requests done, or, with `dies`, at any step.
fn live(world: &World, random: &Random, steps: u64, dies: bool, model: &Rc<RefCell<Model>>) {
    let volume = world.open();
    let mut tasks = Tasks::default();
    let mut cutting = false;
    for _ in 0..steps {
        match random.below(40) {
            0 if !cutting => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&random.below(u64::MAX).to_le_bytes());
                tasks.spawn(cut(&volume, world, Id(id), model));
                // One at a time: a second would be told that the volume is busy.
                cutting = true;
            }
            1 => {
                let mut model = model.borrow_mut();
                let count = model.cuts.len() as u64;
                if let Some(cut) = model.cuts.get_mut(random.below(count) as usize) {
                    cut.live = false;
                    volume.release(cut.snapshot).ok();
                }
            }
            2 => volume.housekeep(),
            3 => {
                let count = model.borrow().cuts.len() as u64;
                if count > 0 {
                    let which = random.below(count) as usize;
                    tasks.spawn(check_view(&volume, which, model));
                }
            }
            4 => {
                let count = model.borrow().cuts.len() as u64;
                let model = model.borrow();
                if let Some(cut) = model.cuts.get(random.below(count * 4) as usize) {
                    volume.forget(cut.checkpoint.epoch).ok();
                }
            }
            5..12 if tasks.len() < 12 => tasks.spawn(serve(&volume, random, model)),
            _ => tasks.step(random),
        }
        if tasks.len() == 0 {
            cutting = false;
        }
    }
    if dies {
        return;
    }
    tasks.finish(random);
    check_diffs(&volume, &model.borrow());
    for which in 0..model.borrow().cuts.len() {
        run(check_view(&volume, which, model));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn views_and_diffs_hold_whatever_happens(seed: u64) {
        let world = World::new(CAPACITY, 4000);
        let random = Random::new(seed);
        let model = Rc::new(RefCell::new(Model::default()));
        for life in 0..4 {
            live(&world, &random, 1500, life < 3, &model);
        }
    }
}
