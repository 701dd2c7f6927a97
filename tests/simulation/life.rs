//! The life of one process: it opens its volumes, serves, and ends when it is told or killed.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    rc::Rc,
    sync::Arc,
};

use tidemark_agent::volume::{OpenError, Volume};
use tidemark_store::units::Id;

use super::{
    checkers,
    context::{Context, SimClock},
    continuity,
    disk::Handle,
    host,
    image::Image,
    model::Past,
    plan::{Failure, Invariant},
    schedule::{Outcome, Schedule},
    snapshots,
    tally::Count,
    trouble,
    world::{Before, Disks, World},
};

/// The engine as the simulator drives it.
pub(super) type SimVolume = Volume<Handle, Handle, SimClock>;

/// Between two attempts to open a volume whose disks fail.
const RETRY_US: u64 = 20_000;

type Started = RefCell<Vec<(&'static str, super::schedule::Job)>>;

/// See the module's comment.
pub(super) struct Life {
    pub(super) world: Rc<World>,
    pub(super) context: Arc<Context>,
    volumes: Vec<RefCell<Option<Arc<SimVolume>>>>,
    started: Started,
    stopping: Cell<bool>,
}

impl Life {
    pub(super) fn new(world: &Rc<World>) -> Rc<Self> {
        Rc::new(Self {
            world: Rc::clone(world),
            context: Arc::clone(&world.context),
            volumes: world.disks.iter().map(|_| RefCell::default()).collect(),
            started: RefCell::default(),
            stopping: Cell::new(false),
        })
    }

    /// Starts to open every volume.
    pub(super) fn begin(life: &Rc<Self>) {
        for volume in 0..life.volumes.len() {
            life.start("opener", open(Rc::clone(life), volume));
        }
    }

    /// A task of this process.
    pub(super) fn start(&self, name: &'static str, job: impl Future<Output = Outcome> + 'static) {
        self.started.borrow_mut().push((name, Box::pin(job)));
    }

    /// Hands what was started to the schedule.
    pub(super) fn start_jobs(&self, schedule: &mut Schedule) {
        for (name, job) in self.started.borrow_mut().drain(..) {
            schedule.spawn(name, job);
        }
    }

    /// Tells everybody to end.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Whether every volume is open.
    pub(super) fn is_open(&self) -> bool {
        (0..self.volumes.len()).all(|volume| self.opened(volume))
    }

    pub(super) fn opened(&self, volume: usize) -> bool {
        self.volumes[volume].borrow().is_some()
    }

    pub(super) fn count(&self) -> usize {
        self.volumes.len()
    }

    /// An open volume.
    pub(super) fn engine(&self, volume: usize) -> Option<Arc<SimVolume>> {
        self.volumes[volume].borrow().clone()
    }

    pub(super) fn disks(&self, volume: usize) -> &Disks {
        &self.world.disks[volume]
    }

    pub(super) fn past(&self, volume: usize) -> Ref<'_, Past> {
        self.world.model.volumes[volume].borrow()
    }

    pub(super) fn past_mut(&self, volume: usize) -> RefMut<'_, Past> {
        self.world.model.volumes[volume].borrow_mut()
    }

    /// What the origin reads as now.
    pub(super) fn origin_now(&self, volume: usize) -> Rc<Image> {
        Rc::new(self.disks(volume).origin.medium().current.clone())
    }

    pub(super) fn fail(&self, invariant: Invariant, message: String) -> Failure {
        self.context.fail(invariant, message)
    }
}

/// Whether power went while an area was being made a volume's for the first time: what is left
/// may look like somebody else's, and the operator is asked to choose an empty file.
fn is_unclaimed(life: &Life, volume: usize) -> bool {
    let never_opened = life.past(volume).lineage == Id::NIL;
    never_opened && life.context.tally.of(Count::PowerCuts) > 0
}

/// Opens a volume, retrying as a supervisor does, and starts all that a life is made of.
async fn open(life: Rc<Life>, volume: usize) -> Outcome {
    let engine = loop {
        match Volume::open(continuity::options(&life.world, volume)).await {
            Ok(engine) => break Arc::new(engine),
            Err(OpenError::Area(errno) | OpenError::Stale(errno)) => {
                life.context
                    .trace(|| format!("volume {volume} does not open: {errno}"));
                life.context.sleep_us(RETRY_US).await;
            }
            Err(OpenError::AreaCorrupt(_)) if is_unclaimed(&life, volume) => {
                life.disks(volume).area.empty();
            }
            Err(error) => {
                let message = format!("volume {volume} does not open: {error}");
                return Err(life.fail(Invariant::Progress, message));
            }
        }
    };
    life.context.trace(|| format!("volume {volume} is open"));
    *life.volumes[volume].borrow_mut() = Some(Arc::clone(&engine));
    checkers::recovered(&life, volume, life.world.before[volume].get())?;
    life.world.before[volume].set(Before::Death);
    continuity::start_keepers(&life, &engine);
    host::start(&life, volume);
    snapshots::start(&life, volume);
    trouble::start(&life, volume);
    if life.is_open() && life.count() > 1 {
        host::start_pairs(&life);
        snapshots::start_groups(&life);
    }
    Ok(())
}
