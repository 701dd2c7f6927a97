//! Trouble that comes from outside and lasts: disks that fail or answer nothing for a while,
//! clocks that are set, bytes that rot.

use std::rc::Rc;

use tidemark_store::area::Layout;

use super::{
    context::Context, faults::Rates, life::Life, plan::Fault, schedule::Outcome, tally::Count,
};

/// Between two moments at which each kind may come.
const EVERY_US: u64 = 25_000;

/// A stall that outlasts everybody's patience.
const LONG_US: u64 = 45_000_000;

/// Starts it for a volume.
pub(super) fn start(life: &Rc<Life>, volume: usize) {
    life.start("trouble", strike_on(Rc::clone(life), volume));
}

async fn strike_on(life: Rc<Life>, volume: usize) -> Outcome {
    while !life.is_stopping() {
        let pause_us = life.context.faults.below(EVERY_US * 2);
        life.context.sleep_us(pause_us).await;
        strike(&life, volume);
    }
    Ok(())
}

/// Draws for every kind, whatever then is allowed.
fn strike(life: &Life, volume: usize) {
    let Context { faults, tally, .. } = &*life.context;
    let rates: &Rates = &life.world.rates;
    let disks = life.disks(volume);
    let strikes = |rate, fault, count| {
        let struck = faults.per_mille(rate) && life.context.allows(fault);
        if struck {
            tally.add(count);
            life.context
                .trace(|| format!("trouble: {fault:?} of volume {volume}"));
        }
        struck
    };
    let time_us = [2_000, 50_000, 400_000][faults.index(3)];
    if strikes(rates.origin_down, Fault::OriginDown, Count::OriginDown) {
        disks.origin.fail_for(time_us);
    }
    if strikes(rates.area_down, Fault::AreaDown, Count::AreaDown) {
        disks.area.fail_for(time_us);
    }
    let lasts = faults.per_mille(300);
    if strikes(rates.area_stall, Fault::AreaStall, Count::AreaStalls) {
        disks.area.stall_for(if lasts { LONG_US } else { time_us });
    }
    let spot = faults.next();
    let mask = 1_u8 << faults.below(8);
    if strikes(rates.rot, Fault::Rot, Count::Rotten) {
        let mut medium = disks.area.medium();
        let slots = Layout::of(life.past(volume).geometry).first_slot_bytes();
        let room = medium.current.len() - slots;
        // Low slots are the ones in use.
        let spot = slots + spot % room.min(400_000);
        medium.rot(spot, mask);
    }
    let far = i64::try_from(faults.below(7_200_000_000)).unwrap_or(0);
    if strikes(
        rates.clock_forward,
        Fault::ClockForward,
        Count::ClockForward,
    ) {
        life.context.jump_us(far);
    }
    if strikes(rates.clock_back, Fault::ClockBack, Count::ClockBack) {
        life.context.jump_us(-far);
    }
}
