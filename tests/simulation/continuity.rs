//! How far tracking goes on: how a volume is opened, what an open may have lost, and what makes a
//! cut count.
//!
//! Tracking state lives in memory that outlives the process and not the host, so a death costs
//! nothing. After a power cut a new lineage begins; or, where tracking is durable, the lineage goes
//! on with what was acknowledged: with snapshots where they are durable too, else without.

use std::sync::Arc;

use tidemark_agent::volume::{Continuity, Durability, ExtentPage, Options};
use tidemark_store::units::Id;

use super::{
    context::SimClock,
    disk::Handle,
    life::{Life, SimVolume},
    tally::Count,
    world::{Before, World},
};

/// Later than the engine forgives a dead process, in microseconds.
const LATE_US: u64 = 1_500_000;

/// What an open goes on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expected {
    /// The lineage, with all that it knew.
    Everything,
    /// The lineage; a cut that nobody was told of may be undone, and snapshots may be gone.
    Lineage,
    /// A new lineage, that says why.
    NewLineage,
    /// That, or a new lineage that says why.
    LineageOrNew,
    /// Everything, or a new lineage that says why: the clock jumped.
    EverythingOrNew,
    /// Nobody was told of the last change of lineage.
    Anything,
}

/// How a volume is opened after what happened to it.
pub(super) fn options(world: &World, volume: usize) -> Options<Handle, Handle, SimClock> {
    let shape = world.shape.volumes[volume];
    let past = world.model.volumes[volume].borrow();
    let before = world.before[volume].get();
    let continuity = match (before, world.shape.keeps_requests) {
        (Before::OtherHands, true) => Continuity::Broken(CAUSE.to_owned()),
        // A clock that was set back would hide it: a time of modification is all that there is.
        (Before::OtherHands, false) => {
            Continuity::ModifiedAt(world.context.latest_us().saturating_add(LATE_US))
        }
        (Before::Nothing | Before::Death | Before::PowerCut, true) => Continuity::Unbroken,
        (Before::Nothing | Before::Death | Before::PowerCut, false) => {
            Continuity::ModifiedAt(past.modified_us)
        }
    };
    let number = u8::try_from(volume + 1).unwrap_or(u8::MAX);
    Options {
        origin: Handle(Arc::clone(&world.disks[volume].origin)),
        area: Handle(Arc::clone(&world.disks[volume].area)),
        geometry: shape.geometry,
        state_dir: world.state_dir(volume),
        volume_id: Id([number; 16]),
        policy: shape.policy,
        clock: SimClock(Arc::clone(&world.context)),
        continuity,
        durable: world.shape.durable,
        durable_snapshots: world.shape.durable_snapshots,
        distrust: past.distrust.clone(),
        max_active_regions: world.shape.max_active,
    }
}

/// Why other hands end a lineage, where the transport knows of them.
pub(super) const CAUSE: &str = "other hands were on the origin";

/// What must be there after an open.
pub(super) fn expected(world: &World, volume: usize, before: Before) -> Expected {
    let past = world.model.volumes[volume].borrow();
    if past.lineage_unsure {
        return Expected::Anything;
    }
    match before {
        Before::PowerCut if world.shape.durable && past.distrust.is_none() => {
            // Where nothing ever failed, what was acknowledged must be there.
            let counts = past.cuts.iter().any(|cut| {
                cut.acknowledged && cut.lineage == past.lineage && world.shape.keeps_requests
            });
            let tally = &world.context.tally;
            let failed = [Count::AreaErrors, Count::AreaDown, Count::AreaStalls]
                .iter()
                .chain(&[Count::OriginErrors, Count::OriginDown])
                .any(|count| tally.of(*count) > 0);
            if counts && !failed {
                Expected::Lineage
            } else {
                Expected::LineageOrNew
            }
        }
        Before::Nothing | Before::PowerCut | Before::OtherHands => Expected::NewLineage,
        Before::Death if world.shape.keeps_requests => Expected::Everything,
        Before::Death => Expected::EverythingOrNew,
    }
}

/// Tasks that a life has until its end.
pub(super) const ENDLESS: [&str; 2] = ["housekeeper", "keeper"];

/// Starts what a life needs beside the engine's own calls.
pub(super) fn start_keepers(life: &Life, engine: &Arc<SimVolume>) {
    let engine = Arc::clone(engine);
    life.start("keeper", async move {
        engine.keep_journal().await;
        Ok(())
    });
}

/// Returns when a power cut can no longer undo what was cut; `false` when it still can.
pub(super) async fn settle(engine: &SimVolume) -> bool {
    engine.settle().await;
    engine.status().durability == Durability::Durable
}

/// What the control plane has written down when the host stops: that tracking did not outlive it
/// then.
pub(super) fn host_notes(life: &Life) {
    for volume in 0..life.count() {
        let Some(engine) = life.engine(volume) else {
            continue;
        };
        life.past_mut(volume).distrust = match engine.status().durability {
            Durability::Suspended(why) => Some(why),
            Durability::Durable | Durability::Volatile => None,
        };
    }
}

/// Notes a new lineage as soon as it runs: whoever asked for it may be answered later.
pub(super) fn observe_reset(life: &Life, volume: usize) {
    let mut past = life.past_mut(volume);
    if past.resetting == 0 {
        return;
    }
    if let Some(engine) = life.engine(volume) {
        let status = engine.status();
        if status.lineage != past.lineage {
            past.begin(status.lineage, status.epoch.0);
        }
    }
}

/// How many bytes beyond what was touched a diff may tell.
pub(super) fn over_report_bytes(page: &ExtentPage) -> u64 {
    page.over_report_bytes
}
