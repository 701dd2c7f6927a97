//! What concerns the host: its answers, its flushes, its delays, and the moment of a cut.

use std::cell::Ref;

use tidemark_agent::{
    request::Errno,
    volume::{Cut, CutError, Durability},
};

use super::super::{
    errands::{Errand, Verb},
    life::Life,
    model::{Held, Past, Pending},
    plan::{Failure, Invariant},
    schedule::Outcome,
    snapshots::HOLD_SLACK_US,
    tally::Count,
    workload::HostRequest,
};

/// What a request may take, origin and holds included.
const MOST_DELAY_US: u64 = 30_000_000;

/// A request with its answer.
pub(in super::super) struct Served<'a> {
    pub(in super::super) request: &'a HostRequest,
    pub(in super::super) answer: Result<(), Errno>,
    pub(in super::super) errand: Option<Errand>,
    /// What was read.
    pub(in super::super) into: &'a [u8],
    /// Of the origin's medium, when the request was sent.
    pub(in super::super) moment: u64,
}

/// **I4**: when the epoch ends, no change is between its admission and its answer.
pub(in super::super) fn i4_clean_cut(life: &Life, volume: usize) -> Outcome {
    match life.context.errands.change_in_flight(volume) {
        Some(ask) => Err(life.fail(
            Invariant::CleanCut,
            format!("volume {volume} was cut while {ask:?} was in flight"),
        )),
        None => Ok(()),
    }
}

/// **I4**: of a pair that was written to the first volume and then to the second, no cut of both
/// has the second write without the first.
pub(in super::super) fn i4_whole_group(life: &Life, cuts: [(usize, &Cut); 2]) -> Outcome {
    let mut numbers = [0; 2];
    for (volume, cut) in cuts {
        let epoch = cut.checkpoint.epoch.0;
        let frozen = |past: Ref<'_, Past>| {
            let cut = past.cuts.iter().find(|cut| cut.epoch == epoch)?;
            let mut number = [0; 8];
            cut.frozen.read(0, &mut number);
            Some(u64::from_le_bytes(number))
        };
        match frozen(life.past(volume)) {
            Some(number) => numbers[volume] = number,
            None => return Ok(()),
        }
    }
    let [first, second] = numbers;
    // Anything else is not from the writer of pairs: a power cut brought back what was there before.
    let pairs = &life.world.model;
    let written = pairs.pairs_from.get()..=pairs.pair.get().0;
    if !written.contains(&second) || first == second || first == second + 1 {
        return Ok(());
    }
    let message = format!("a group has {first} in its first volume and {second} in its second");
    Err(life.fail(Invariant::CleanCut, message))
}

/// **I5**: what was answered before an answered flush, and an answered FUA write, are on the
/// origin's medium.
pub(in super::super) fn i5_no_cache_of_ours(
    life: &Life,
    volume: usize,
    served: &Served<'_>,
) -> Outcome {
    if served.answer.is_err() {
        return Ok(());
    }
    let ask = served.request.ask;
    let medium = life.disks(volume).origin.medium();
    if ask.verb == Verb::Flush
        && let Some(range) = medium.undurable_before(served.moment)
    {
        let message = format!("a flush was answered and {range} is not on the medium");
        return Err(life.fail(Invariant::NoCacheOfOurs, message));
    }
    if ask.fua && !medium.has_durably(ask.range, served.request.bytes.as_deref()) {
        let message = format!("{ask:?} was answered and is not on the medium");
        return Err(life.fail(Invariant::NoCacheOfOurs, message));
    }
    Ok(())
}

/// **I7**: the host's answer is the origin's own, and its bytes too.
pub(in super::super) fn i7_the_volume_first(
    life: &Life,
    volume: usize,
    served: &Served<'_>,
) -> Outcome {
    let ask = served.request.ask;
    let said = served.errand.and_then(|errand| errand.answer);
    // A flush that need not go to the origin is I5's business.
    let needless = ask.verb == Verb::Flush && said.is_none() && served.answer.is_ok();
    if said != Some(served.answer) && !needless {
        let message = format!(
            "{ask:?} was answered {:?}, and the origin said {said:?}",
            served.answer
        );
        return Err(life.fail(Invariant::TheVolumeFirst, message));
    }
    let medium = life.disks(volume).origin.medium();
    if ask.verb == Verb::Read
        && served.answer.is_ok()
        && medium.is_unchanged_since(served.moment)
        && !medium.current.equals(ask.range.offset, served.into)
    {
        let message = format!("{ask:?} gave other bytes than the origin has");
        return Err(life.fail(Invariant::TheVolumeFirst, message));
    }
    Ok(())
}

/// **I7**: nothing that happens to the area or the store keeps a request waiting for long, save
/// that the engine waits for an area that answers nothing for as long as it does not: such a
/// time does not count here, and the wait must end with it.
pub(in super::super) fn i7_nobody_waits_too_long(life: &Life, volume: usize) -> Outcome {
    let now_us = life.context.now_us();
    let past = life.past(volume);
    let answers_from_us = life.disks(volume).area.answers_from_us();
    let since_us = |pending: &Pending| pending.since_us.max(answers_from_us);
    let late = past
        .pending
        .iter()
        .find(|pending| since_us(pending) + MOST_DELAY_US < now_us);
    match late {
        Some(pending) => Err(life.fail(
            Invariant::TheVolumeFirst,
            format!(
                "{:?} has waited for {} ms",
                pending.request.ask,
                (now_us - pending.since_us) / 1000
            ),
        )),
        None => Ok(()),
    }
}

/// Whether a disk of this world ever failed or answered nothing.
fn has_failed(life: &Life) -> bool {
    [
        Count::AreaErrors,
        Count::AreaDown,
        Count::AreaStalls,
        Count::OriginErrors,
        Count::OriginDown,
    ]
    .iter()
    .any(|count| life.context.tally.of(*count) > 0)
}

/// **I8**: what the volume says of itself keeps to its limits.
pub(in super::super) fn i8_bounded(life: &Life, volume: usize) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    let status = engine.status();
    if let Durability::Suspended(why) = &status.durability {
        life.context.tally.add(Count::Suspensions);
        if !has_failed(life) {
            let message = format!("nothing failed, and the journal is suspended: {why}");
            return Err(life.fail(Invariant::Bounded, message));
        }
    }
    let wrong = if status.store_used > status.store_capacity {
        Some("more of the store is in use than there is")
    } else if status.snapshots.len() > tidemark_store::state::MAX_SNAPSHOTS {
        Some("too many snapshots")
    } else if status.checkpoints.len() >= tidemark_store::state::MAX_CHECKPOINTS {
        Some("too many checkpoints")
    } else if status.changed_bytes > status.geometry.blocks() * status.geometry.block_bytes() {
        Some("more changed than there is")
    } else {
        None
    };
    match wrong {
        Some(wrong) => Err(life.fail(Invariant::Bounded, wrong.to_owned())),
        None => i8_nobody_is_held(life, volume),
    }
}

/// **I8**: once a hold's time has run out, somebody who waited for its end is let in.
fn i8_nobody_is_held(life: &Life, volume: usize) -> Outcome {
    let past = life.past(volume);
    let (Some(held), 0) = (past.held, past.closing) else {
        return Ok(());
    };
    let waits =
        |pending: &Pending| pending.since_us < held.ends_us && pending.request.ask.verb.changes();
    let nobody_is_in = life.context.errands.change_in_flight(volume).is_none();
    if nobody_is_in && past.pending.iter().any(waits) {
        return i8_in_time(life, held, "a volume is still held");
    }
    Ok(())
}

/// **I8**: a volume that refuses a hold is held by somebody whose time has not run out.
pub(in super::super) fn i8_holds_end(life: &Life, volume: usize, error: &CutError) -> Outcome {
    let past = life.past(volume);
    // Whoever closes the gate now found it open.
    let (CutError::Busy, 0, Some(held)) = (error, past.closing, past.held) else {
        return Ok(());
    };
    i8_in_time(life, held, "a volume is still held")
}

/// **I8**: no cut comes after its hold's time.
pub(in super::super) fn i8_cut_in_time(life: &Life, held: Option<Held>) -> Outcome {
    held.map_or(Ok(()), |held| i8_in_time(life, held, "a volume was cut"))
}

fn i8_in_time(life: &Life, held: Held, what: &str) -> Result<(), Failure> {
    let late_us = life.context.now_us().saturating_sub(held.ends_us);
    if late_us <= HOLD_SLACK_US {
        return Ok(());
    }
    let message = format!("{what} {} ms after its hold ran out", late_us / 1000);
    Err(life.fail(Invariant::Bounded, message))
}

/// Cuts are refused for lack of time, and for nothing else that these worlds have.
pub(in super::super) fn cut_refused(life: &Life, error: &CutError) -> Outcome {
    match error {
        CutError::TimedOut | CutError::Busy => Ok(()),
        CutError::TooManySnapshots(_) | CutError::Exists(_) | CutError::State(_) => {
            Err(life.fail(Invariant::Bounded, format!("a cut was refused: {error}")))
        }
    }
}
