//! What concerns change maps.

use tidemark_agent::volume::{ChangeError, Extent, ExtentPage, Kind};
use tidemark_store::units::{BlockRange, Epoch, Geometry, Id};

use super::super::{
    continuity,
    image::{Image, PAGE},
    life::{Life, SimVolume},
    model::{Blocks, Cut},
    plan::{Failure, Invariant},
    schedule::Outcome,
    tally::Count,
};

/// What a diff told, put together from its pages.
#[derive(Default)]
struct Told {
    blocks: Blocks,
    over_report_bytes: u64,
    end: u64,
}

impl Told {
    fn add(&mut self, page: &ExtentPage, geometry: Geometry) -> Result<(), String> {
        for extent in &page.extents {
            if extent.range.offset < self.end || extent.range.is_empty() {
                return Err(format!("extent {} is out of order", extent.range));
            }
            self.end = extent.range.end();
            self.blocks.insert(geometry.touched(extent.range));
        }
        let over = continuity::over_report_bytes(page);
        self.over_report_bytes = self.over_report_bytes.max(over);
        Ok(())
    }
}

/// The first block in which two images differ and that was not told.
fn untold(one: &Image, other: &Image, told: &Blocks, geometry: Geometry) -> Option<u64> {
    one.differing(other)
        .map(|page| page * PAGE / geometry.block_bytes())
        .find(|block| !told.has(*block))
}

/// **I1**: whatever differs on the origin's medium from the last checkpoint's frozen copy is
/// marked, at any moment. Also nothing is that nobody touched, up to the stated bound.
pub(in super::super) fn i1_mark_first(life: &Life, volume: usize) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    continuity::observe_reset(life, volume);
    let past = life.past(volume);
    let Some(cut) = past.last_checkpoint() else {
        return Ok(());
    };
    let geometry = past.geometry;
    let fail = |message| Err(life.fail(Invariant::MarkFirst, message));
    let mut told = Told::default();
    let mut start = Some(0);
    while let Some(at) = start {
        let asked = engine.changes(Some(cut.lineage), Epoch(cut.epoch), None, at, 1000);
        match asked.map_err(|error| error.to_string()) {
            Ok(page) => {
                if let Err(wrong) = told.add(&page, geometry) {
                    return fail(wrong);
                }
                start = page.next;
            }
            Err(error) => return fail(format!("changes since epoch {}: {error}", cut.epoch)),
        }
    }
    let medium = life.disks(volume).origin.medium();
    if let Some(block) = untold(&cut.frozen, &medium.current, &told.blocks, geometry) {
        return fail(format!(
            "block {block} of volume {volume} differs from epoch {} and is not marked",
            cut.epoch
        ));
    }
    let mut touched = past.touched_between(cut.epoch, past.epoch);
    for pending in past.pending.iter().filter(|p| p.request.ask.verb.changes()) {
        touched.insert(geometry.touched(pending.request.ask.range));
    }
    life.context.operation(Count::DiffsChecked);
    life.context
        .tally
        .add_many(Count::BlocksCompared, geometry.blocks());
    untouched(life, Invariant::Bounded, &told, &touched, geometry)
}

/// **I6, I8**: no more is told than was touched, up to the bound that the diff states.
fn untouched(
    life: &Life,
    invariant: Invariant,
    told: &Told,
    touched: &Blocks,
    geometry: Geometry,
) -> Outcome {
    if told.over_report_bytes > 0 {
        life.context.tally.add(Count::OverReports);
    }
    let mut more = told.blocks.without(touched).peekable();
    let first = more.peek().copied();
    let bytes = more.count() as u64 * geometry.block_bytes();
    match first.filter(|_| bytes > told.over_report_bytes) {
        Some(block) => Err(life.fail(
            invariant,
            format!(
                "{bytes} bytes are told that nobody touched, from block {block} on; {} are stated",
                told.over_report_bytes
            ),
        )),
        None => Ok(()),
    }
}

/// **I6**: the diff of two checkpoints has every block in which their frozen copies differ, and
/// what it says a block became is so; or it is refused, with the reason.
pub(in super::super) async fn i6_superset(
    life: &Life,
    volume: usize,
    since: &Cut,
    until: &Cut,
) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    let geometry = engine.geometry();
    let most = [1, 3, 1000][life.context.schedule.index(3)];
    let mut told = Told::default();
    let mut start = Some(0);
    while let Some(at) = start {
        let page = match ask(&engine, since, until, at, most) {
            Ok(page) => page,
            Err(error) => return refused(life, volume, since, until, &error),
        };
        let wrong = told.add(&page, geometry);
        let wrong = wrong.and_then(|()| kinds(&page.extents, &until.frozen));
        wrong.map_err(|wrong| missed(life, since, until, &wrong))?;
        start = page.next;
        let pause_us = life.context.schedule.below(60);
        life.context.sleep_us(pause_us).await;
    }
    life.context.operation(Count::DiffsChecked);
    life.context
        .tally
        .add_many(Count::BlocksCompared, geometry.blocks());
    continuity::observe_reset(life, volume);
    if let Some(block) = untold(&since.frozen, &until.frozen, &told.blocks, geometry) {
        let wrong = format!("block {block} differs and is not told");
        return Err(missed(life, since, until, &wrong));
    }
    let past = life.past(volume);
    if past.lineage != since.lineage {
        return Ok(());
    }
    untouched(
        life,
        Invariant::Superset,
        &told,
        &past.touched_between(since.epoch, until.epoch),
        geometry,
    )
}

fn ask(
    engine: &SimVolume,
    since: &Cut,
    until: &Cut,
    at: u64,
    most: usize,
) -> Result<ExtentPage, ChangeError> {
    let lineage: Option<Id> = Some(since.lineage);
    engine.changes(
        lineage,
        Epoch(since.epoch),
        Some(Epoch(until.epoch)),
        at,
        most,
    )
}

fn missed(life: &Life, since: &Cut, until: &Cut, wrong: &str) -> Failure {
    let message = format!("of epochs {} to {}: {wrong}", since.epoch, until.epoch);
    life.fail(Invariant::Superset, message)
}

/// What is told to be zero or discarded is zero.
fn kinds(extents: &[Extent], frozen: &Image) -> Result<(), String> {
    let wrong = extents
        .iter()
        .find(|extent| extent.kind != Kind::Data && !frozen.is_zero(extent.range));
    wrong.map_or(Ok(()), |extent| {
        Err(format!("{} is told as {:?}", extent.range, extent.kind))
    })
}

/// A diff is refused when its lineage has ended, or a checkpoint of it was forgotten.
fn refused(life: &Life, volume: usize, since: &Cut, until: &Cut, error: &ChangeError) -> Outcome {
    life.context.operation(Count::DiffsRefused);
    continuity::observe_reset(life, volume);
    let past = life.past(volume);
    let gone = |epoch: u64| {
        let known = past
            .cuts
            .iter()
            .find(|cut| cut.epoch == epoch && cut.lineage == past.lineage);
        known.is_none_or(|cut| cut.forgotten)
    };
    let ended = [since, until].iter().any(|cut| cut.lineage != past.lineage);
    let explained = match error {
        ChangeError::TrackingReset { cause } => ended && !cause.is_empty(),
        ChangeError::CheckpointGone(epoch) => ended || gone(epoch.0),
        ChangeError::Backwards { .. } => since.epoch > until.epoch,
        ChangeError::State { .. } => false,
    };
    if explained {
        return Ok(());
    }
    Err(missed(
        life,
        since,
        until,
        &format!("refused without a reason: {error}"),
    ))
}

/// Blocks of a range that are not in a set, in runs.
pub(super) fn runs_outside(range: BlockRange, set: &Blocks) -> Vec<BlockRange> {
    let mut runs: Vec<BlockRange> = Vec::new();
    for block in (range.start..range.end).filter(|block| !set.has(*block)) {
        match runs.last_mut() {
            Some(run) if run.end == block => run.end = block + 1,
            _ => runs.push(BlockRange::new(block, block + 1)),
        }
    }
    runs
}
