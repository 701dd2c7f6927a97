//! A world: what outlives the processes in it, and the lives that they lead.
//!
//! ```text
//! life ──> death ───────────────> life   the state directory and all disks' caches stay
//!   │                               ^    the driver issues again what was not answered
//!   ├────> power cut ───────────────┤    the state directory is gone, disks keep what they
//!   │                               │    promised; the host starts anew
//!   └────> enough operations: trouble ends, everybody ends, the last checks
//! ```

use std::{
    cell::{Cell, RefCell},
    fs,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use tempfile::TempDir;
use tidemark_store::units::ByteRange;

use super::{
    checkers,
    context::Context,
    continuity,
    disk::SimDisk,
    faults::{Rates, Role},
    life::Life,
    medium::Change,
    model::{Model, Past},
    plan::{Failure, Fault, Invariant, Plan},
    schedule::Schedule,
    tally::Count,
    workload::{Shape, content},
};

/// Simulated time after which whoever has not ended never will, once trouble has ended.
const PATIENCE_US: u64 = 600_000_000;

/// The disks of one volume.
#[derive(Clone, Debug)]
pub(super) struct Disks {
    pub(super) origin: Arc<SimDisk>,
    pub(super) area: Arc<SimDisk>,
}

/// What happened to a volume between two lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Before {
    /// There was none.
    Nothing,
    /// The process died.
    Death,
    /// It died, and then somebody else wrote to the origin.
    OtherHands,
    /// The host lost power.
    PowerCut,
}

/// See the module's comment.
#[derive(Debug)]
pub(super) struct World {
    pub(super) context: Arc<Context>,
    pub(super) shape: Shape,
    pub(super) rates: Rates,
    pub(super) disks: Vec<Disks>,
    pub(super) model: Model,
    /// By volume.
    pub(super) before: Vec<Cell<Before>>,
    states: TempDir,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let context = Arc::new(Context::new(plan));
        let shape = Shape::draw(plan, &context.workload);
        let rates = Rates::draw(&context.faults);
        let disk =
            |role, volume, len, zeroes| SimDisk::new(&context, rates, (role, volume), len, zeroes);
        let disks = shape.volumes.iter().enumerate().map(|(at, volume)| Disks {
            origin: disk(
                Role::Origin,
                at,
                volume.geometry.capacity(),
                volume.discard_zeroes,
            ),
            area: disk(Role::Area, at, volume.area_bytes, true),
        });
        let disks: Vec<Disks> = disks.collect();
        let pasts = shape
            .volumes
            .iter()
            .map(|volume| Past::new(volume.geometry));
        Self {
            model: Model {
                volumes: pasts.map(RefCell::new).collect(),
                pair: Cell::new((1, 0)),
                pairs_from: Cell::new(1),
            },
            before: disks.iter().map(|_| Cell::new(Before::Nothing)).collect(),
            states: tempfile::Builder::new()
                .prefix("tidemark-simulation-")
                .tempdir_in("/dev/shm")
                .expect("memory holds the state"),
            disks,
            rates,
            shape,
            context,
        }
    }

    /// The directory that outlives a process and not the host.
    pub(super) fn state_dir(&self, volume: usize) -> PathBuf {
        self.states.path().join(format!("{volume}"))
    }

    /// Lives through the whole plan.
    pub(super) fn run(self: &Rc<Self>) -> Result<(), Failure> {
        self.context.tally.add(Count::Worlds);
        for volume in 0..self.disks.len() {
            fs::create_dir(self.state_dir(volume)).expect("the state's directory is new");
        }
        while !self.live()? {}
        self.context
            .tally
            .add_many(Count::Steps, self.context.step());
        Ok(())
    }

    /// One process; whether it was the last.
    fn live(self: &Rc<Self>) -> Result<bool, Failure> {
        let context = &self.context;
        let life = Life::new(self);
        let mut schedule = Schedule::new(context, self.rates.spurious);
        Life::begin(&life);
        let mut dies = self.draw_crash();
        let power;
        let born = context.step();
        loop {
            life.start_jobs(&mut schedule);
            let late = context.step() - born >= dies || context.is_crash_due();
            if late {
                if let Some(fault) = self.crash(&life)? {
                    power = fault == Fault::PowerCut;
                    break;
                }
                dies = u64::MAX;
            }
            if self.is_over() {
                self.finish(&life, &mut schedule)?;
                return Ok(true);
            }
            if !schedule.step()? && !context.advance() {
                return Err(self.hang(&schedule));
            }
            self.look(&life)?;
        }
        drop(schedule);
        self.bury(life, power);
        Ok(false)
    }

    /// What is checked after every step.
    fn look(&self, life: &Life) -> Result<(), Failure> {
        self.context.check()?;
        checkers::i2_preserve_first(life)
    }

    fn is_over(&self) -> bool {
        let done = self.context.tally.of(Count::Operations);
        done >= self.shape.operations || self.context.step() >= self.context.plan.steps
    }

    /// Steps until the crash of this life; some come after a change of a medium instead.
    fn draw_crash(&self) -> u64 {
        let choices = &self.context.faults;
        let steps = match choices.below(8) {
            0 => choices.between(1, 40),
            1 => choices.between(1, 400),
            _ => choices.between(1, self.shape.life_steps * 2),
        };
        let changes = choices.between(2, 2 + self.shape.life_steps / 4);
        let by_change = choices.per_mille(500);
        self.context
            .crash_after(if by_change { changes } else { 0 });
        if by_change { u64::MAX } else { steps }
    }

    /// Ends this life, unless both ways to end it are left out.
    fn crash(&self, life: &Life) -> Result<Option<Fault>, Failure> {
        let context = &self.context;
        context.crash_after(0);
        let power = context.faults.per_mille(self.rates.power);
        let fault = if power { Fault::PowerCut } else { Fault::Death };
        if !context.allows(fault) {
            return Ok(None);
        }
        // What the dying process was told still counts.
        self.look(life)?;
        context.trace(|| format!("{fault:?}"));
        context.tally.add(if power {
            Count::PowerCuts
        } else {
            Count::Deaths
        });
        context.note(fault as u64);
        if !life.is_open() {
            context.tally.add(Count::DeathsInOpen);
        }
        for (volume, state) in self.before.iter().enumerate() {
            // A process that died in its open has taken up nothing.
            state.set(match (power, state.get(), life.opened(volume)) {
                (false, earlier, false) | (true, earlier @ Before::OtherHands, false) => earlier,
                (false, _, true) => Before::Death,
                (true, _, _) => Before::PowerCut,
            });
        }
        Ok(Some(fault))
    }

    /// What a crash leaves.
    fn bury(&self, life: Rc<Life>, power: bool) {
        continuity::host_notes(&life);
        drop(life);
        self.context.errands.clear();
        for (volume, disks) in self.disks.iter().enumerate() {
            let mut past = self.model.volumes[volume].borrow_mut();
            past.touch_pending();
            past.held = None;
            past.closing = 0;
            past.lineage_unsure |= std::mem::take(&mut past.resetting) > 0;
            if power {
                past.pending.clear();
                disks.origin.cut_power();
                disks.area.cut_power();
                let dir = self.state_dir(volume);
                fs::remove_dir_all(&dir).expect("the state can go");
                fs::create_dir(&dir).expect("the state's directory can be made anew");
            } else {
                disks.origin.abandon();
                disks.area.abandon();
                drop(past);
                self.meddle(volume);
            }
        }
        if power {
            self.model.restart_pairs();
        }
    }

    /// Somebody else writes to the origin while nobody looks.
    fn meddle(&self, volume: usize) {
        let choices = &self.context.faults;
        let capacity = self.shape.volumes[volume].geometry.capacity();
        let offset = choices.below(capacity);
        let len = choices.between(1, 20_000).min(capacity - offset);
        let bytes = content(choices.next(), len);
        if choices.per_mille(self.rates.other_hands) && self.context.allows(Fault::OtherHands) {
            self.context.tally.add(Count::OtherHands);
            self.disks[volume].origin.meddle(Change {
                range: ByteRange::new(offset, len),
                bytes: Some(bytes),
            });
            self.before[volume].set(Before::OtherHands);
            self.model.restart_pairs();
        }
    }

    /// Ends all trouble, lets everybody end, and checks everything once more.
    fn finish(&self, life: &Rc<Life>, schedule: &mut Schedule) -> Result<(), Failure> {
        self.context.set_calm(true);
        life.stop();
        self.let_end(life, schedule)?;
        checkers::everything(life)?;
        for volume in 0..life.count() {
            life.start("releaser", checkers::let_all_go(Rc::clone(life), volume));
        }
        life.start_jobs(schedule);
        self.let_end(life, schedule)?;
        (0..life.count()).try_for_each(|volume| checkers::i8_nothing_leaks(life, volume))
    }

    fn let_end(&self, life: &Rc<Life>, schedule: &mut Schedule) -> Result<(), Failure> {
        let context = &self.context;
        let until_us = context.now_us() + PATIENCE_US;
        while schedule.has_more_than(&continuity::ENDLESS) {
            let stuck = !schedule.step()? && !context.advance();
            if stuck || context.now_us() > until_us {
                return Err(self.hang(schedule));
            }
            life.start_jobs(schedule);
            self.look(life)?;
        }
        Ok(())
    }

    fn hang(&self, schedule: &Schedule) -> Failure {
        let waiting = schedule.names().join(", ");
        self.context.fail(
            Invariant::Progress,
            format!("these wait for what nobody does: {waiting}"),
        )
    }
}
