//! How often which trouble comes in a world, and what it does to one call of a disk.

use tidemark_agent::request::Errno;

use super::{
    context::{Context, Stream},
    errands::Verb,
    plan::Fault,
    tally::Count,
};

/// A disk's part in the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Origin,
    Area,
}

/// Of 1,000 calls or moments. Many worlds have none of a kind, so that the others reach deep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    origin_error: u64,
    area_error: u64,
    slow: u64,
    pieces: u64,
    /// Of these moments, each some tens of milliseconds apart.
    pub(super) origin_down: u64,
    pub(super) area_down: u64,
    pub(super) area_stall: u64,
    pub(super) rot: u64,
    pub(super) clock_forward: u64,
    pub(super) clock_back: u64,
    pub(super) lost_hold: u64,
    pub(super) other_hands: u64,
    pub(super) power: u64,
    pub(super) spurious: u64,
}

impl Rates {
    pub(super) fn draw(choices: &Stream) -> Self {
        let rate = |share, most| {
            let rate = choices.between(1, most);
            if choices.per_mille(share) { rate } else { 0 }
        };
        Self {
            origin_error: rate(300, 20),
            area_error: rate(200, 10),
            slow: rate(500, 200),
            pieces: rate(700, 600),
            origin_down: rate(150, 100),
            area_down: rate(120, 60),
            area_stall: rate(60, 60),
            rot: rate(120, 60),
            clock_forward: rate(200, 100),
            clock_back: rate(200, 100),
            lost_hold: rate(250, 200),
            other_hands: rate(150, 300),
            power: [0, 300, 600][choices.index(3)],
            spurious: rate(500, 60),
        }
    }
}

/// What one call of a disk meets.
#[derive(Debug)]
pub(super) struct Weather {
    /// Before anything is done.
    pub(super) first_us: u64,
    /// Between two parts, where there are two.
    pub(super) second_us: Option<u64>,
    /// How it fails, and how many of 1,000 bytes it did first.
    pub(super) error: Option<(Errno, u64)>,
}

/// Draws what a call meets. Everything is drawn, whatever then is allowed, so that one kind of
/// trouble more or less leaves the others as they are.
pub(super) fn weather(context: &Context, rates: &Rates, role: Role, verb: Verb) -> Weather {
    let choices = &context.faults;
    let quick_us = choices.below(8) * 20;
    let slow_us = choices.below(40) * 500;
    let slow = choices.per_mille(rates.slow) && context.allows(Fault::Latency);
    let first_us = match (slow, context.allows(Fault::Latency)) {
        (true, _) => slow_us,
        (false, true) => quick_us,
        (false, false) => 0,
    };
    let second_us = choices.below(6) * 30;
    let pieces = choices.per_mille(rates.pieces) && context.allows(Fault::Pieces);
    let (rate, fault, count) = match role {
        Role::Origin => (rates.origin_error, Fault::OriginError, Count::OriginErrors),
        Role::Area => (rates.area_error, Fault::AreaError, Count::AreaErrors),
    };
    let errno = match choices.below(3) {
        0 if verb.changes() => Errno::ENOSPC,
        _ => Errno::EIO,
    };
    let done = [0, choices.below(1000)][choices.index(2)];
    let fails = choices.per_mille(rate) && context.allows(fault);
    if fails {
        context.tally.add(count);
    }
    Weather {
        first_us,
        second_us: pieces.then_some(second_us),
        error: fails.then_some((errno, done)),
    }
}
