//! All that changes with durable tracking: how a volume is opened, what an open may have lost, and
//! what makes a cut count.
//!
//! Today tracking state lives in memory that outlives the process and not the host. So a death
//! costs nothing, and after a power cut a new lineage begins.

use std::{rc::Rc, sync::Arc};

use tidemark_agent::volume::{Continuity, Cut, CutError, ExtentPage, Options};
use tidemark_store::units::Id;

use super::{
    context::SimClock,
    disk::Handle,
    life::{Life, SimVolume},
    world::{Before, World},
};

/// Whether tracking survives a power cut.
const DURABLE: bool = false;
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
    /// Either a death's outcome or a new lineage: the clock jumped.
    Either,
}

/// How a volume is opened after what happened to it.
pub(super) fn options(world: &World, volume: usize) -> Options<Handle, Handle, SimClock> {
    let shape = world.shape.volumes[volume];
    let past = world.model.volumes[volume].borrow();
    let before = world.before[volume].get();
    let continuity = match (before, world.shape.keeps_requests) {
        (Before::OtherHands, true) => Continuity::Broken(CAUSE.to_owned()),
        (Before::OtherHands, false) => Continuity::ModifiedAt(
            past.modified_us
                .max(world.context.wall_us())
                .saturating_add(LATE_US),
        ),
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
    }
}

/// Why other hands end a lineage, where the transport knows of them.
pub(super) const CAUSE: &str = "other hands were on the origin";

/// What must be there after an open.
pub(super) fn expected(world: &World, before: Before) -> Expected {
    match before {
        Before::PowerCut if DURABLE => Expected::Lineage,
        Before::Nothing | Before::PowerCut | Before::OtherHands => Expected::NewLineage,
        Before::Death if world.shape.keeps_requests => Expected::Everything,
        Before::Death => Expected::Either,
    }
}

/// Tasks that a life has until its end.
pub(super) const ENDLESS: [&str; 2] = ["housekeeper", "keeper"];

/// Starts what a life needs beside the engine's own calls: nothing yet.
pub(super) fn start_keepers(_life: &Rc<Life>, _engine: &Arc<SimVolume>) {}

/// Returns when a power cut can no longer undo a cut. Today none survives one.
pub(super) async fn settle(_engine: &SimVolume, _cut: &Cut) -> Result<(), CutError> {
    Ok(())
}

/// How many bytes beyond what was touched a page of a diff may tell.
pub(super) fn over_report_bytes(_page: &ExtentPage) -> u64 {
    0
}
