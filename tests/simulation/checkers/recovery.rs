//! What must be there after an open, and at the end.

use std::{rc::Rc, sync::Arc};

use tidemark_agent::{
    request::Request,
    volume::{ChangeError, Fate, Status},
};
use tidemark_store::units::{ByteRange, Epoch, Id};

use super::{
    super::{
        context::usize_of,
        continuity::{self, Expected},
        life::{Life, SimVolume},
        model::{Blocks, Cut},
        plan::{Failure, Invariant},
        schedule::Outcome,
        tally::Count,
        world::Before,
    },
    diffs::{i1_mark_first, i6_superset},
    requests::i8_bounded,
    views::{i3_exact_listing, i3_exact_views, refused},
};

/// **I1, I6**: after an open, either everything is there that was, or the lineage is a new one
/// that says why. Nothing may be half there.
pub(in super::super) fn recovered(life: &Life, volume: usize, before: Before) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    let status = engine.status();
    let same = status.lineage == life.past(volume).lineage;
    match (continuity::expected(&life.world, volume, before), same) {
        (Expected::Everything | Expected::EverythingOrNew, true) => {
            nothing_is_missing(life, volume, &status)?;
        }
        (Expected::Lineage | Expected::LineageOrNew, true) => {
            life.context.tally.add(Count::Recoveries);
            what_counted_is_there(life, volume, &status)?;
            release_unknown(life, volume, &engine);
        }
        (Expected::NewLineage | Expected::EverythingOrNew | Expected::LineageOrNew, false) => {
            begins_anew(life, volume, &engine, &status, before)?;
        }
        (Expected::Anything, _) => {
            for snapshot in &status.snapshots {
                engine.release(snapshot.id).ok();
            }
            let mut past = life.past_mut(volume);
            past.lineage_unsure = false;
            past.cuts.clear();
            past.begin(status.lineage, status.epoch.0);
        }
        (expected, _) => {
            let message = format!(
                "after {before:?}, {expected:?} was expected, and the lineage is {}: {}",
                if same { "the same" } else { "new" },
                status.lineage_cause
            );
            return Err(life.fail(Invariant::Superset, message));
        }
    }
    i1_mark_first(life, volume)
}

fn unlike(life: &Life, message: String) -> Failure {
    life.fail(Invariant::Superset, message)
}

/// A death costs nothing.
fn nothing_is_missing(life: &Life, volume: usize, status: &Status) -> Outcome {
    let past = life.past(volume);
    if status.epoch.0 != past.epoch {
        let message = format!("epoch {} was running, now {}", past.epoch, status.epoch);
        return Err(unlike(life, message));
    }
    for cut in &past.cuts {
        let asked = cut.lineage == past.lineage && !cut.forgotten;
        if asked && !has_checkpoint(status, cut) {
            let message = format!("checkpoint {} is gone after a death", cut.epoch);
            return Err(unlike(life, message));
        }
        let live = |id| status.snapshots.iter().find(|snapshot| snapshot.id == id);
        match cut.snapshot.filter(|_| !cut.ended).map(|id| (id, live(id))) {
            Some((id, None)) => {
                let message = format!("snapshot {id} is gone after a death");
                return Err(life.fail(Invariant::ExactViews, message));
            }
            Some((id, Some(found))) if found.fate == Fate::Released => {
                let message = format!("snapshot {id} was released by nobody");
                return Err(life.fail(Invariant::ExactViews, message));
            }
            _ => {}
        }
    }
    Ok(())
}

fn has_checkpoint(status: &Status, cut: &Cut) -> bool {
    let epoch = Epoch(cut.epoch);
    status.checkpoints.iter().any(|found| found.epoch == epoch)
}

/// A power cut costs at most what nobody was told of. What was touched after a cut that it undid
/// keeps its number: no checkpoint lies in between any more.
fn what_counted_is_there(life: &Life, volume: usize, status: &Status) -> Outcome {
    let mut past = life.past_mut(volume);
    let lineage = past.lineage;
    let gone =
        |cut: &&Cut| cut.lineage == lineage && !cut.forgotten && !has_checkpoint(status, cut);
    let keeps_snapshots = life.world.shape.durable_snapshots;
    past.cuts.retain(|cut| {
        let kept = keeps_snapshots && cut.snapshot.is_some() && !cut.ended;
        cut.acknowledged && (cut.lineage == lineage || kept)
    });
    past.overwritten = Blocks::default();
    if let Some(cut) = past.cuts.iter().find(gone) {
        let message = format!("checkpoint {} counted, and a power cut undid it", cut.epoch);
        return Err(unlike(life, message));
    }
    if past.cuts.iter().any(|cut| cut.epoch >= status.epoch.0) {
        let message = format!("epoch {} was cut, and runs again", status.epoch);
        return Err(unlike(life, message));
    }
    past.epoch = status.epoch.0;
    for cut in &mut past.cuts {
        let live = |id| {
            let mut all = status.snapshots.iter();
            all.any(|found| found.id == id && found.fate == Fate::Live)
        };
        if keeps_snapshots && let Some(id) = cut.snapshot.filter(|_| !cut.ended) {
            let fate = status.snapshots.iter().find(|found| found.id == id);
            snapshot_is_explained(life, id, fate.map(|found| found.fate))?;
        }
        cut.ended |= !cut.snapshot.is_some_and(live);
        // That a checkpoint was forgotten may be forgotten.
        cut.forgotten &= !has_checkpoint(status, cut);
    }
    Ok(())
}

/// A snapshot that counted outlives the host, or was lost before to something that happened.
fn snapshot_is_explained(life: &Life, id: Id, fate: Option<Fate>) -> Outcome {
    let tally = &life.context.tally;
    let faults = [
        Count::OriginErrors,
        Count::OriginDown,
        Count::AreaErrors,
        Count::AreaDown,
        Count::AreaStalls,
        Count::Rotten,
        Count::OtherHands,
    ];
    let explained = match fate {
        Some(Fate::Live) => {
            tally.add(Count::SnapshotsKept);
            true
        }
        Some(Fate::Overflowed) => true,
        Some(Fate::Lost) => faults.iter().any(|fault| tally.of(*fault) > 0),
        Some(Fate::Released) | None => false,
    };
    if explained {
        return Ok(());
    }
    let message = format!("snapshot {id} counted, and after a power cut it is {fate:?}");
    Err(life.fail(Invariant::ExactViews, message))
}

/// Whoever keeps the books lets go of snapshots that nobody knows of.
fn release_unknown(life: &Life, volume: usize, engine: &SimVolume) {
    let past = life.past(volume);
    for snapshot in engine.snapshots() {
        let mut known = past.cuts.iter().filter(|cut| !cut.ended);
        if !known.any(|cut| cut.snapshot == Some(snapshot.id)) {
            engine.release(snapshot.id).ok();
        }
    }
}

/// A new lineage says why, refuses what was before, and shows no view of it.
fn begins_anew(
    life: &Life,
    volume: usize,
    engine: &Arc<SimVolume>,
    status: &Status,
    before: Before,
) -> Outcome {
    if before != Before::Nothing {
        life.context.tally.add(Count::NewLineages);
    }
    let cuts = life.past(volume).cuts.clone();
    let mut cause_is_told = !status.lineage_cause.is_empty();
    if before == Before::OtherHands && life.world.shape.keeps_requests && !cuts.is_empty() {
        cause_is_told = status.lineage_cause == continuity::CAUSE;
    }
    if !cause_is_told {
        let message = format!("a lineage began for {:?}", status.lineage_cause);
        return Err(unlike(life, message));
    }
    for cut in &cuts {
        let asked = engine.changes(Some(cut.lineage), Epoch(cut.epoch), None, 0, 1);
        if !matches!(asked, Err(ChangeError::TrackingReset { .. })) {
            let message = format!("epoch {} of a lineage that ended: {asked:?}", cut.epoch);
            return Err(unlike(life, message));
        }
        shows_nothing_wrong(life, engine, cut)?;
    }
    let mut past = life.past_mut(volume);
    past.cuts.clear();
    past.begin(status.lineage, status.epoch.0);
    Ok(())
}

fn shows_nothing_wrong(life: &Life, engine: &Arc<SimVolume>, cut: &Cut) -> Outcome {
    let Some(id) = cut.snapshot else {
        return Ok(());
    };
    let mut into = vec![0xEE; usize_of(cut.frozen.len())];
    match life.context.at_once(engine.read_view(id, 0, &mut into)) {
        Ok(()) if !cut.frozen.equals(0, &into) => {
            let message = format!("view {id} of a lineage that ended has other bytes");
            Err(life.fail(Invariant::ExactViews, message))
        }
        _ => Ok(()),
    }
}

/// Everything once more, when all is quiet: every diff, every view, every listing, the medium
/// after a flush, and that the store is empty once nobody needs it.
pub(in super::super) fn everything(life: &Life) -> Outcome {
    for volume in 0..life.count() {
        let Some(engine) = life.engine(volume) else {
            continue;
        };
        i1_mark_first(life, volume)?;
        i8_bounded(life, volume)?;
        let cuts = life.past(volume).cuts.clone();
        for (at, since) in cuts.iter().enumerate() {
            for until in &cuts[at..] {
                let diff = i6_superset(life, volume, since, until);
                life.context.at_once(diff)?;
            }
            if let Some(id) = since.snapshot {
                let all = ByteRange::new(0, since.frozen.len());
                let view = i3_exact_views(life, volume, since, id, all);
                life.context.at_once(view)?;
                let listing = i3_exact_listing(life, volume, since, id, 0);
                life.context.at_once(listing)?;
            }
        }
        i5_a_last_flush(life, volume, &engine)?;
    }
    Ok(())
}

/// **I5**: after a flush nothing is left in a cache.
fn i5_a_last_flush(life: &Life, volume: usize, engine: &SimVolume) -> Outcome {
    let moment = life.disks(volume).origin.medium().moment();
    let answer = life.context.at_once(engine.serve(Request::Flush));
    let left = life.disks(volume).origin.medium().undurable_before(moment);
    match (answer, left) {
        (Ok(()), None) => Ok(()),
        (answer, left) => Err(life.fail(
            Invariant::NoCacheOfOurs,
            format!("the last flush: {answer:?}, not on the medium: {left:?}"),
        )),
    }
}

/// Releases every snapshot, and waits until that is certain.
pub(in super::super) async fn let_all_go(life: Rc<Life>, volume: usize) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    for snapshot in engine.snapshots() {
        if snapshot.fate == Fate::Live {
            let known = life
                .past(volume)
                .cuts
                .iter()
                .any(|cut| cut.snapshot == Some(snapshot.id));
            if !known {
                let message = format!("snapshot {} was made by nobody", snapshot.id);
                return Err(life.fail(Invariant::Bounded, message));
            }
            let mut into = [0; 1];
            if let Err(error) = life
                .context
                .at_once(engine.read_view(snapshot.id, 0, &mut into))
            {
                refused(&life, volume, snapshot.id, &error)?;
            }
            engine.release(snapshot.id).ok();
        }
    }
    engine.ends_told().await;
    Ok(())
}

/// **I8**: a store that no snapshot needs is empty.
pub(in super::super) fn i8_nothing_leaks(life: &Life, volume: usize) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    engine.housekeep();
    let left = engine.status().store_used;
    if left == 0 {
        return Ok(());
    }
    let message = format!("{left} bytes of the store are in use, and by nobody");
    Err(life.fail(Invariant::Bounded, message))
}
