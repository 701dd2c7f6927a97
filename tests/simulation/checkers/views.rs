//! What concerns snapshots.

use tidemark_agent::volume::{Kind, ViewError};
use tidemark_store::units::{ByteRange, Id};

use super::{
    super::{
        context::usize_of,
        life::Life,
        model::Cut,
        plan::{Failure, Invariant},
        schedule::Outcome,
        tally::Count,
    },
    diffs::runs_outside,
};

/// **I2**: when a block is overwritten for the first time since a snapshot, the snapshot reads as
/// before, at that very moment.
pub(in super::super) fn i2_preserve_first(life: &Life) -> Outcome {
    for volume in 0..life.count() {
        if life.opened(volume) && life.disks(volume).origin.has_changed() {
            check_overwritten(life, volume)?;
        }
    }
    Ok(())
}

fn check_overwritten(life: &Life, volume: usize) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    let geometry = engine.geometry();
    for range in life.disks(volume).origin.take_changed() {
        let blocks = geometry.touched(range);
        let runs = runs_outside(blocks, &life.past(volume).overwritten);
        if runs.is_empty() {
            continue;
        }
        life.past_mut(volume).overwritten.insert(blocks);
        let Some(cut) = life.past(volume).newest_snapshot().cloned() else {
            continue;
        };
        let Some(id) = cut.snapshot else { continue };
        for run in runs {
            let bytes = geometry.bytes_of(run);
            let mut into = vec![0xEE; usize_of(bytes.len)];
            let read = engine.read_view(id, bytes.offset, &mut into);
            match life.context.at_once(read) {
                Ok(()) if cut.frozen.equals(bytes.offset, &into) => {
                    life.context.tally.add(Count::Preserved);
                    life.context
                        .tally
                        .add_many(Count::BlocksCompared, run.len());
                }
                Ok(()) => {
                    let message = format!(
                        "{bytes} of volume {volume} was overwritten, and snapshot {id} lost it"
                    );
                    return Err(life.fail(Invariant::PreserveFirst, message));
                }
                Err(error) => {
                    refused(life, volume, id, &error)?;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// **I3**: a view gives the frozen copy's bytes, or an error that has its reason.
pub(in super::super) async fn i3_exact_views(
    life: &Life,
    volume: usize,
    cut: &Cut,
    id: Id,
    range: ByteRange,
) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    let mut into = vec![0xEE; usize_of(range.len)];
    if let Err(error) = engine.read_view(id, range.offset, &mut into).await {
        return refused(life, volume, id, &error);
    }
    life.context.operation(Count::ViewsChecked);
    let blocks = engine.geometry().touched(range).len();
    life.context.tally.add_many(Count::BlocksCompared, blocks);
    if cut.frozen.equals(range.offset, &into) {
        return Ok(());
    }
    Err(wrong(life, id, &format!("{range} has other bytes")))
}

/// **I3**: a listing covers everything, and what it says is zero is.
pub(in super::super) async fn i3_exact_listing(
    life: &Life,
    volume: usize,
    cut: &Cut,
    id: Id,
    offset: u64,
) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    let geometry = engine.geometry();
    let mut at = offset / geometry.block_bytes() * geometry.block_bytes();
    let most = [1, 3, 100][life.context.schedule.index(3)];
    for _ in 0..20 {
        let page = match engine.allocated(id, at, most).await {
            Ok(page) => page,
            Err(error) => return refused(life, volume, id, &error),
        };
        life.context.operation(Count::Listings);
        for extent in &page.extents {
            if extent.range.offset != at {
                let message = format!("a listing goes on at {} after {at}", extent.range.offset);
                return Err(wrong(life, id, &message));
            }
            if extent.kind != Kind::Data && !cut.frozen.is_zero(extent.range) {
                let message = format!("{} is listed as {:?}", extent.range, extent.kind);
                return Err(wrong(life, id, &message));
            }
            at = extent.range.end();
        }
        match page.next {
            Some(next) if next == at => {}
            None if at == geometry.capacity() => return Ok(()),
            next => {
                let message = format!("a listing ends at {at} and goes on at {next:?}");
                return Err(wrong(life, id, &message));
            }
        }
    }
    Ok(())
}

/// **I3**: a view's hole was one.
pub(in super::super) async fn i3_exact_run(
    life: &Life,
    volume: usize,
    cut: &Cut,
    id: Id,
    offset: u64,
) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    let run = match engine.view_run(id, offset).await {
        Ok(run) => run,
        Err(error) => return refused(life, volume, id, &error),
    };
    life.context.operation(Count::Listings);
    let range = ByteRange::new(offset, run.end.saturating_sub(offset));
    if range.is_empty() || (run.hole && !cut.frozen.is_zero(range)) {
        return Err(wrong(life, id, &format!("{range} is no such run: {run:?}")));
    }
    Ok(())
}

fn wrong(life: &Life, id: Id, message: &str) -> Failure {
    life.fail(Invariant::ExactViews, format!("view {id}: {message}"))
}

/// A view is refused when it was released or dropped, or when a fault cost it.
pub(super) fn refused(life: &Life, volume: usize, id: Id, error: &ViewError) -> Outcome {
    life.context.operation(Count::ViewsRefused);
    life.context.trace(|| format!("view refused: {error}"));
    let tally = &life.context.tally;
    let happened = |counts: &[Count]| counts.iter().any(|count| tally.of(*count) > 0);
    let failed = happened(&[Count::OriginErrors, Count::OriginDown]);
    let known = life.past(volume);
    let ended = known
        .cuts
        .iter()
        .find(|cut| cut.snapshot == Some(id))
        .is_none_or(|cut| cut.ended);
    drop(known);
    let explained = match error {
        ViewError::NotFound(_) | ViewError::Released(_) => ended,
        ViewError::Overflowed(_) => true,
        ViewError::Lost(_) => {
            failed
                || happened(&[
                    Count::AreaErrors,
                    Count::AreaDown,
                    Count::AreaStalls,
                    Count::Rotten,
                    Count::OtherHands,
                ])
                || !life.world.shape.durable_snapshots && happened(&[Count::PowerCuts])
        }
        ViewError::OutOfRange(_) => false,
        ViewError::Origin(_) => failed,
    };
    if !explained {
        return Err(wrong(
            life,
            id,
            &format!("refused without a reason: {error}"),
        ));
    }
    match error {
        ViewError::Overflowed(_) | ViewError::Lost(_) if !ended => {
            let lost = matches!(error, ViewError::Lost(_));
            tally.add(if lost { Count::Lost } else { Count::Overflowed });
            life.past_mut(volume).end(id);
        }
        _ => {}
    }
    Ok(())
}
