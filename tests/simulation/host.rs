//! The host: tasks that send requests and compare what they are answered.

use std::rc::Rc;

use tidemark_agent::request::{Errno, Request};
use tidemark_store::units::ByteRange;

use super::{
    checkers::{self, Served},
    context::usize_of,
    continuity,
    errands::{Ask, Verb},
    life::Life,
    model::Pending,
    schedule::Outcome,
    tally::Count,
    workload::{Habit, HostRequest, PAIR_BYTES, content},
};

/// Where the writer of pairs writes.
pub(super) const PAIR: ByteRange = ByteRange::new(0, PAIR_BYTES);

/// Starts the host's tasks of a volume, and issues again what a dead process left unanswered.
pub(super) fn start(life: &Rc<Life>, volume: usize) {
    let left = std::mem::take(&mut life.past_mut(volume).pending);
    // The writer of pairs repeats its own.
    let (pairs, mut left): (Vec<Pending>, Vec<Pending>) = left
        .into_iter()
        .partition(|pending| life.count() > 1 && pending.request.ask.range == PAIR);
    drop(pairs);
    for pending in &mut left {
        pending.since_us = life.context.now_us();
    }
    life.past_mut(volume).pending.clone_from(&left);
    for pending in left {
        life.start("replay", replay(Rc::clone(life), volume, pending));
    }
    for _ in 0..life.world.shape.hosts {
        life.start("host", ask_on(Rc::clone(life), volume));
    }
}

async fn replay(life: Rc<Life>, volume: usize, pending: Pending) -> Outcome {
    life.context.tally.add(Count::Replays);
    serve(&life, volume, &pending.request, Some(pending.number))
        .await
        .map(drop)
}

async fn ask_on(life: Rc<Life>, volume: usize) -> Outcome {
    let mut habit = Habit::draw(&life.context);
    while !life.is_stopping() {
        let shape = &life.world.shape;
        let request = habit.next(&life.context, shape, volume);
        let think_us = life.context.workload.below(shape.think_us + 1);
        if life.context.workload.below(200) == 0 {
            ask_outside(&life, volume).await?;
        } else {
            serve(&life, volume, &request, None).await?;
        }
        life.context.sleep_us(think_us).await;
    }
    Ok(())
}

/// Sends one request and judges the answer; gives whether it was done.
async fn serve(
    life: &Rc<Life>,
    volume: usize,
    request: &HostRequest,
    again: Option<u64>,
) -> Result<bool, super::plan::Failure> {
    let Some(engine) = life.engine(volume) else {
        return Ok(false);
    };
    let context = &life.context;
    let number = again.unwrap_or_else(|| note_pending(life, volume, request));
    let moment = life.disks(volume).origin.medium().moment();
    let task = context.task();
    let ask = request.ask;
    let mut into = match ask.verb {
        Verb::Read => vec![0xEE; usize_of(ask.range.len)],
        _ => Vec::new(),
    };
    context.errands.begin(task, volume, ask);
    let answer = engine.serve(build(request, &mut into)).await;
    let errand = context.errands.end(task);
    context.operation(count_of(ask));
    context.trace(|| format!("host {volume} {ask:?}: {answer:?}"));
    continuity::observe_reset(life, volume);
    {
        let mut past = life.past_mut(volume);
        past.pending.retain(|pending| pending.number != number);
        if ask.verb.changes() {
            past.touch(ask.range);
            past.modified_us = context.wall_us();
        }
    }
    let served = Served {
        request,
        answer,
        errand,
        into: &into,
        moment,
    };
    checkers::i5_no_cache_of_ours(life, volume, &served)?;
    checkers::i7_the_volume_first(life, volume, &served)?;
    if answer.is_err() {
        context.tally.add(Count::Failed);
    }
    Ok(answer.is_ok())
}

fn note_pending(life: &Life, volume: usize, request: &HostRequest) -> u64 {
    let number = life.context.workload.next();
    life.past_mut(volume).pending.push(Pending {
        number,
        request: request.clone(),
        since_us: life.context.now_us(),
    });
    number
}

fn build<'a>(request: &'a HostRequest, into: &'a mut [u8]) -> Request<'a> {
    let Ask { verb, range, fua } = request.ask;
    match verb {
        Verb::Read => Request::Read {
            offset: range.offset,
            into,
        },
        Verb::Write => Request::Write {
            offset: range.offset,
            from: request.bytes.as_deref().unwrap_or_default(),
            fua,
        },
        Verb::Flush => Request::Flush,
        Verb::Discard => Request::Discard { range },
        Verb::Zeroes => Request::WriteZeroes {
            range,
            fua,
            may_unmap: fua,
        },
    }
}

fn count_of(ask: Ask) -> Count {
    match ask.verb {
        Verb::Read => Count::Reads,
        Verb::Write if ask.fua => Count::FuaWrites,
        Verb::Write => Count::Writes,
        Verb::Flush => Count::Flushes,
        Verb::Discard => Count::Discards,
        Verb::Zeroes => Count::Zeroes,
    }
}

/// A request that leaves the volume, if only by a byte, is refused whole.
async fn ask_outside(life: &Life, volume: usize) -> Outcome {
    let Some(engine) = life.engine(volume) else {
        return Ok(());
    };
    let capacity = engine.geometry().capacity();
    let back = life.context.workload.below(600);
    let range = ByteRange::new(capacity - back.min(capacity), 601 + back);
    let answer = engine.serve(Request::Discard { range }).await;
    life.context.operation(Count::Refused);
    if answer == Err(Errno::EINVAL) {
        return Ok(());
    }
    let message = format!("{range} leaves the volume and was answered {answer:?}");
    Err(life.fail(super::plan::Invariant::TheVolumeFirst, message))
}

/// Starts the writer of pairs.
pub(super) fn start_pairs(life: &Rc<Life>) {
    life.start("pairs", write_pairs(Rc::clone(life)));
}

/// Writes a number to the first volume and, once that is answered, to the second: no cut of both
/// may have the second without the first.
async fn write_pairs(life: Rc<Life>) -> Outcome {
    while !life.is_stopping() {
        let (number, volume) = life.world.model.pair.get();
        let mut bytes = content(0, PAIR_BYTES).to_vec();
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let request = HostRequest {
            ask: Ask {
                verb: Verb::Write,
                range: PAIR,
                fua: false,
            },
            bytes: Some(bytes.into()),
        };
        if serve(&life, volume, &request, None).await? {
            let next = if volume == 0 {
                (number, 1)
            } else {
                (number + 1, 0)
            };
            life.world.model.pair.set(next);
        }
        let think_us = life.context.workload.below(1000);
        life.context.sleep_us(think_us).await;
    }
    Ok(())
}
