//! Whoever cuts, reads views, asks for diffs, releases, forgets and resets.

use std::{rc::Rc, time::Duration};

use tidemark_agent::volume::{self, ChangeError, HoldToken};
use tidemark_store::units::{ByteRange, Epoch, Id};

use super::{
    checkers, continuity,
    life::{Life, SimVolume},
    model::{Blocks, Cut, Held, KEPT_CUTS, Past},
    plan::{Failure, Fault, Invariant},
    schedule::Outcome,
    tally::Count,
};

/// Housekeeping ends a hold at its next turn; so late may that be.
pub(super) const HOLD_SLACK_US: u64 = 500_000;

/// Starts them all for a volume.
pub(super) fn start(life: &Rc<Life>, volume: usize) {
    life.start("housekeeper", keep_house(Rc::clone(life), volume));
    life.start("cutter", cut_on(Rc::clone(life), volume));
    for _ in 0..2 {
        life.start("viewer", view_on(Rc::clone(life), volume));
    }
    life.start("differ", diff_on(Rc::clone(life), volume));
    life.start("clerk", let_go_on(Rc::clone(life), volume));
}

/// Starts whoever cuts two volumes together.
pub(super) fn start_groups(life: &Rc<Life>) {
    life.start("group cutter", cut_groups(Rc::clone(life)));
}

async fn keep_house(life: Rc<Life>, volume: usize) -> Outcome {
    let period_us = life.world.shape.housekeep_us;
    while let Some(engine) = life.engine(volume) {
        life.context.sleep_us(period_us).await;
        engine.housekeep();
        life.context.operation(Count::Housekeeps);
        checkers::i7_nobody_waits_too_long(&life, volume)?;
        checkers::i8_bounded(&life, volume)?;
    }
    Ok(())
}

async fn pause(life: &Life, most_us: u64) {
    let time_us = life.context.workload.below(most_us);
    life.context.sleep_us(time_us).await;
}

async fn cut_on(life: Rc<Life>, volume: usize) -> Outcome {
    while let Some(engine) = life.engine(volume).filter(|_| !life.is_stopping()) {
        pause(&life, 30_000).await;
        let Some(token) = hold(&life, &engine, volume).await? else {
            continue;
        };
        let (draw, lost) = (
            life.context.workload.below(100),
            life.context.faults.below(1000),
        );
        if lost < life.world.rates.lost_hold && life.context.allows(Fault::LostHold) {
            // Whoever asked for the cut died: only time ends its hold.
            life.context.tally.add(Count::LostHolds);
            continue;
        }
        // The file system below is held for a moment before the cut.
        pause(&life, 400).await;
        if draw < 10 {
            engine.unhold(token);
            release_hold(&life, volume, token);
            life.context.operation(Count::Unheld);
            continue;
        }
        if let Some(cut) = cut(&life, &engine, volume, token)? {
            acknowledge(&life, &engine, volume, &cut).await;
        }
    }
    Ok(())
}

/// Holds a volume for a cut; `None` when it was refused, which must have its reason.
async fn hold(
    life: &Life,
    engine: &SimVolume,
    volume: usize,
) -> Result<Option<HoldToken>, Failure> {
    let max_us = [2_000, 50_000, 1_000_000][life.context.workload.index(3)];
    let since_us = life.context.now_us();
    life.past_mut(volume).closing += 1;
    let outcome = engine.hold(Duration::from_micros(max_us)).await;
    life.past_mut(volume).closing -= 1;
    match outcome {
        Ok(token) => {
            let ends_us = life.context.now_us().max(since_us + max_us);
            life.past_mut(volume).held = Some(Held { token, ends_us });
            Ok(Some(token))
        }
        Err(error) => {
            life.context.operation(Count::CutsRefused);
            checkers::i8_holds_end(life, volume, &error)?;
            checkers::cut_refused(life, &error).map(|()| None)
        }
    }
}

fn release_hold(life: &Life, volume: usize, token: HoldToken) {
    let mut past = life.past_mut(volume);
    past.held = past.held.filter(|held| held.token != token);
}

/// Cuts a held volume and notes what is frozen; `None` when the hold had run out.
fn cut(
    life: &Life,
    engine: &SimVolume,
    volume: usize,
    token: HoldToken,
) -> Result<Option<volume::Cut>, Failure> {
    checkers::i1_mark_first(life, volume)?;
    let keeps_data = life.context.workload.below(100) < 80;
    let snapshot = keeps_data.then(|| {
        let number = u128::from(life.context.workload.next());
        Id((number << 64 | 1).to_be_bytes())
    });
    continuity::observe_reset(life, volume);
    let outcome = engine.cut(token, snapshot);
    let held = life.past(volume).held;
    release_hold(life, volume, token);
    life.context.operation(Count::Cuts);
    let cut = match outcome {
        Ok(cut) => cut,
        Err(error) => {
            life.context.tally.add(Count::CutsRefused);
            return checkers::cut_refused(life, &error).map(|()| None);
        }
    };
    checkers::i4_clean_cut(life, volume)?;
    checkers::i8_cut_in_time(life, held.filter(|held| held.token == token))?;
    note_cut(life, volume, &cut, snapshot)?;
    forget_surplus(life, engine, volume);
    Ok(Some(cut))
}

/// Waits until a cut counts, where it can.
async fn acknowledge(life: &Life, engine: &SimVolume, volume: usize, cut: &volume::Cut) {
    if continuity::settle(engine).await {
        let epoch = cut.checkpoint.epoch.0;
        for noted in &mut life.past_mut(volume).cuts {
            noted.acknowledged |= noted.epoch <= epoch;
        }
    }
}

fn note_cut(life: &Life, volume: usize, cut: &volume::Cut, snapshot: Option<Id>) -> Outcome {
    let frozen = life.origin_now(volume);
    let mut past = life.past_mut(volume);
    let epoch = cut.checkpoint.epoch.0;
    life.context
        .trace(|| format!("cut of {volume} ends epoch {epoch}, snapshot {snapshot:?}"));
    if cut.checkpoint.lineage != past.lineage || epoch != past.epoch {
        let message = format!(
            "a cut ended epoch {epoch} of {}, while {} of {} was running",
            cut.checkpoint.lineage, past.epoch, past.lineage
        );
        return Err(life.fail(Invariant::CleanCut, message));
    }
    past.cuts.push(Cut {
        lineage: cut.checkpoint.lineage,
        epoch,
        snapshot,
        frozen,
        acknowledged: false,
        ended: false,
        forgotten: false,
    });
    past.epoch = epoch + 1;
    if snapshot.is_some() {
        past.overwritten = Blocks::default();
    }
    Ok(())
}

/// Keeps the number of cuts, and of frozen copies, small.
fn forget_surplus(life: &Life, engine: &SimVolume, volume: usize) {
    let mut past = life.past_mut(volume);
    while past.cuts.len() > KEPT_CUTS {
        let cut = past.cuts.remove(0);
        if let Some(id) = cut.snapshot {
            engine.release(id).ok();
        }
        if !cut.forgotten && cut.lineage == past.lineage {
            engine.forget(Epoch(cut.epoch)).ok();
        }
    }
}

async fn cut_groups(life: Rc<Life>) -> Outcome {
    while !life.is_stopping() {
        pause(&life, 60_000).await;
        let order = [[0, 1], [1, 0]][life.context.workload.index(2)];
        let mut held = Vec::new();
        for volume in order {
            let Some(engine) = life.engine(volume) else {
                break;
            };
            let Some(token) = hold(&life, &engine, volume).await? else {
                break;
            };
            held.push((volume, engine, token));
        }
        if held.len() < 2 {
            for (volume, engine, token) in held {
                engine.unhold(token);
                release_hold(&life, volume, token);
            }
            continue;
        }
        let mut cuts = Vec::new();
        for (volume, engine, token) in held {
            pause(&life, 300).await;
            if let Some(cut) = cut(&life, &engine, volume, token)? {
                cuts.push((volume, engine, cut));
            }
        }
        if let [one, other] = &cuts[..] {
            life.context.operation(Count::GroupCuts);
            checkers::i4_whole_group(&life, [(one.0, &one.2), (other.0, &other.2)])?;
        }
        for (volume, engine, cut) in cuts {
            acknowledge(&life, &engine, volume, &cut).await;
        }
    }
    Ok(())
}

/// A cut that is remembered; of three that the seed offers, the first that is still `of_use`.
fn any_cut(life: &Life, volume: usize, of_use: impl Fn(&Past, &Cut) -> bool) -> Option<Cut> {
    let past = life.past(volume);
    let len = past.cuts.len();
    let offered = [(); 3].map(|()| life.context.workload.index(len.max(1)));
    let chosen = offered
        .into_iter()
        .find(|at| past.cuts.get(*at).is_some_and(|cut| of_use(&past, cut)));
    past.cuts.get(chosen.unwrap_or(offered[2])).cloned()
}

fn is_readable(_: &Past, cut: &Cut) -> bool {
    cut.snapshot.is_some() && !cut.ended
}

fn is_checkpoint(past: &Past, cut: &Cut) -> bool {
    cut.lineage == past.lineage && !cut.forgotten
}

async fn view_on(life: Rc<Life>, volume: usize) -> Outcome {
    while let Some(engine) = life.engine(volume).filter(|_| !life.is_stopping()) {
        pause(&life, 8_000).await;
        let Some((cut, id)) =
            any_cut(&life, volume, is_readable).and_then(|cut| cut.snapshot.map(|id| (cut, id)))
        else {
            continue;
        };
        let choices = &life.context.workload;
        let capacity = engine.geometry().capacity();
        let offset = choices.below(capacity);
        let most = [4096, 64 << 10, capacity][choices.index(3)];
        let range = ByteRange::new(offset, choices.between(1, most).min(capacity - offset));
        match choices.below(8) {
            0 => checkers::i3_exact_listing(&life, volume, &cut, id, offset).await?,
            1 => checkers::i3_exact_run(&life, volume, &cut, id, offset).await?,
            _ => checkers::i3_exact_views(&life, volume, &cut, id, range).await?,
        }
    }
    Ok(())
}

async fn diff_on(life: Rc<Life>, volume: usize) -> Outcome {
    while !life.is_stopping() {
        pause(&life, 15_000).await;
        let pair = [(); 2].map(|()| any_cut(&life, volume, is_checkpoint));
        let [Some(one), Some(other)] = pair else {
            continue;
        };
        if life.context.workload.below(4) == 0 {
            checkers::i1_mark_first(&life, volume)?;
        } else {
            let (since, until) = if one.epoch <= other.epoch {
                (one, other)
            } else {
                (other, one)
            };
            checkers::i6_superset(&life, volume, &since, &until).await?;
        }
    }
    Ok(())
}

/// Releases, forgets and resets.
async fn let_go_on(life: Rc<Life>, volume: usize) -> Outcome {
    while let Some(engine) = life.engine(volume).filter(|_| !life.is_stopping()) {
        pause(&life, 60_000).await;
        let draw = life.context.workload.below(100);
        let Some(cut) = any_cut(&life, volume, |_, _| true) else {
            continue;
        };
        match draw {
            0..55 => release(&life, &engine, volume, &cut),
            55..95 => forget(&life, &engine, volume, &cut)?,
            _ => reset(&life, &engine, volume).await?,
        }
    }
    Ok(())
}

fn release(life: &Life, engine: &SimVolume, volume: usize, cut: &Cut) {
    if let Some(id) = cut.snapshot {
        engine.release(id).ok();
        life.past_mut(volume).end(id);
        life.context.operation(Count::Releases);
        life.context.trace(|| format!("release of {id}"));
    }
}

fn forget(life: &Life, engine: &SimVolume, volume: usize, cut: &Cut) -> Outcome {
    let known = !cut.forgotten && cut.lineage == life.past(volume).lineage;
    let outcome = engine.forget(Epoch(cut.epoch));
    life.context.operation(Count::Forgets);
    life.context.trace(|| format!("forget epoch {}", cut.epoch));
    if outcome.is_ok() != known && cut.lineage == life.past(volume).lineage {
        let message = format!("to forget epoch {} gave {outcome:?}", cut.epoch);
        return Err(life.fail(Invariant::Superset, message));
    }
    let mut past = life.past_mut(volume);
    let lineage = past.lineage;
    for noted in &mut past.cuts {
        noted.forgotten |= noted.epoch == cut.epoch && noted.lineage == lineage;
    }
    Ok(())
}

async fn reset(life: &Life, engine: &SimVolume, volume: usize) -> Outcome {
    let cause = "the simulator asked for it";
    {
        let mut past = life.past_mut(volume);
        past.closing += 1;
        past.resetting += 1;
    }
    let outcome = engine.reset_tracking(cause).await;
    continuity::observe_reset(life, volume);
    {
        let mut past = life.past_mut(volume);
        past.closing -= 1;
        past.resetting -= 1;
    }
    let lineage = match outcome {
        Ok(lineage) => lineage,
        Err(error) => {
            life.context.operation(Count::CutsRefused);
            checkers::i8_holds_end(life, volume, &error)?;
            return checkers::cut_refused(life, &error);
        }
    };
    life.context.operation(Count::Resets);
    life.context.trace(|| format!("reset of {volume}"));
    let past = life.past(volume);
    if past.lineage != lineage {
        let message = format!("a reset gave {lineage}, and {} runs", past.lineage);
        return Err(life.fail(Invariant::Superset, message));
    }
    let Some(older) = past.cuts.iter().find(|cut| cut.lineage != lineage) else {
        return Ok(());
    };
    let asked = engine.changes(Some(older.lineage), Epoch(older.epoch), None, 0, 1);
    if matches!(&asked, Err(ChangeError::TrackingReset { cause: told }) if told == cause) {
        return Ok(());
    }
    let message = format!("after a reset, epoch {} answers {asked:?}", older.epoch);
    Err(life.fail(Invariant::Superset, message))
}
