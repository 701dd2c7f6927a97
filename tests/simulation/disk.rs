//! A simulated disk: a medium behind a queue that is slow, reorders, and fails.
//!
//! Injected: latency, calls that overtake each other, writes in pieces, errors of single calls
//! with any part of the work done, times of failure, times without any answer, rotten bytes,
//! abandoned calls, power cuts. All of it is within the contract of `Disk` and of the medium, and
//! all of it must be survived; what a store's rotten bytes cost is a snapshot, with a typed error.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tidemark_agent::{
    disk::{Disk, Run},
    request::Errno,
};
use tidemark_store::units::ByteRange;

use super::{
    context::{Context, usize_of},
    errands::{Ask, Verb},
    faults::{Rates, Role, weather},
    medium::{Change, Medium, SECTOR},
    plan::{Fault, Invariant},
};

/// How often a stalled call looks whether its disk answers again.
const STALL_LOOK_US: u64 = 100_000;

/// See the module's comment. Outlives the processes that use it.
pub(super) struct SimDisk {
    context: Arc<Context>,
    rates: Rates,
    role: Role,
    volume: usize,
    discard_zeroes: bool,
    medium: Mutex<Medium>,
    fails_until_us: AtomicU64,
    answers_from_us: AtomicU64,
    /// What was changed since somebody looked.
    changed: Mutex<Vec<ByteRange>>,
}

impl SimDisk {
    pub(super) fn new(
        context: &Arc<Context>,
        rates: Rates,
        (role, volume): (Role, usize),
        len: u64,
        discard_zeroes: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            context: Arc::clone(context),
            rates,
            role,
            volume,
            discard_zeroes,
            medium: Mutex::new(Medium::new(len)),
            fails_until_us: AtomicU64::new(0),
            answers_from_us: AtomicU64::new(0),
            changed: Mutex::default(),
        })
    }

    pub(super) fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was changed since the last call.
    pub(super) fn take_changed(&self) -> Vec<ByteRange> {
        std::mem::take(&mut *self.changed())
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed().is_empty()
    }

    fn changed(&self) -> MutexGuard<'_, Vec<ByteRange>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails every call for a while.
    pub(super) fn fail_for(&self, time_us: u64) {
        let until = self.context.now_us().saturating_add(time_us);
        self.fails_until_us.store(until, Relaxed);
    }

    /// Answers no call for a while.
    pub(super) fn stall_for(&self, time_us: u64) {
        let until = self.context.now_us().saturating_add(time_us);
        self.answers_from_us.store(until, Relaxed);
    }

    /// Somebody else changes it at once.
    pub(super) fn meddle(&self, change: Change) {
        let mut medium = self.medium();
        let range = change.range;
        let id = medium.submit(change);
        medium.apply(id, range);
        medium.finish(id, false);
    }

    /// The operator takes an empty file in its place.
    pub(super) fn empty(&self) {
        let mut medium = self.medium();
        *medium = Medium::new(medium.current.len());
    }

    /// The process that used it died.
    pub(super) fn abandon(&self) {
        let concerned = self.medium().abandon(&self.context.faults);
        self.changed().extend(concerned);
    }

    /// The host lost power.
    pub(super) fn cut_power(&self) {
        let context = &self.context;
        self.medium().cut_power(&context.faults, &context.tally);
        self.changed().clear();
    }

    /// Until when it answered nothing, or will.
    pub(super) fn answers_from_us(&self) -> u64 {
        self.answers_from_us.load(Relaxed)
    }

    fn is_stalled(&self) -> bool {
        self.answers_from_us() > self.context.now_us() && self.context.allows(Fault::AreaStall)
    }

    fn is_down(&self) -> bool {
        let fault = match self.role {
            Role::Origin => Fault::OriginDown,
            Role::Area => Fault::AreaDown,
        };
        self.fails_until_us.load(Relaxed) > self.context.now_us() && self.context.allows(fault)
    }

    /// Waits a call's time; while the disk is stalled, until it is not.
    async fn wait(&self, time_us: u64) {
        self.context.sleep_us(time_us).await;
        while !self.context.is_instant() && self.is_stalled() {
            self.context.sleep_us(STALL_LOOK_US).await;
        }
    }

    /// Runs one call: `act` on the whole range, or on two parts of it in either order.
    async fn call(&self, ask: Ask, mut act: impl FnMut(&Self, ByteRange)) -> Result<(), Errno> {
        if self.context.is_instant() {
            act(self, ask.range);
            return Ok(());
        }
        let weather = weather(&self.context, &self.rates, self.role, ask.verb);
        self.wait(weather.first_us).await;
        let down = self.is_down().then_some((Errno::EIO, 0));
        if let Some((errno, done)) = down.or(weather.error) {
            act(self, first_part(ask.range, done));
            return Err(errno);
        }
        let first = first_part(ask.range, 500);
        let rest = ByteRange::new(first.end(), ask.range.len - first.len);
        let parts = [first, rest];
        match weather.second_us {
            Some(time_us) => {
                let first = usize_of(weather.first_us / 20 % 2);
                act(self, parts[first]);
                self.wait(time_us).await;
                act(self, parts[1 - first]);
            }
            None => act(self, ask.range),
        }
        Ok(())
    }

    async fn change(&self, verb: Verb, change: Change, fua: bool) -> Result<(), Errno> {
        let range = change.range;
        let ask = Ask { verb, range, fua };
        self.check(ask)?;
        let task = self.context.task();
        let id = self.medium().submit(change);
        let call = self.call(ask, |disk, part| {
            if part.len > 0 {
                disk.medium().apply(id, part);
                disk.context.medium_changed();
                if disk.role == Role::Origin {
                    disk.changed().push(part);
                }
            }
        });
        let said = call.await;
        self.medium().finish(id, fua && said.is_ok());
        self.answer(task, ask, said)
    }

    /// I7: the origin is changed by the host's requests, and by nothing else of ours.
    fn check(&self, ask: Ask) -> Result<(), Errno> {
        if ask.range.end() > self.medium().current.len() {
            return Err(Errno::EINVAL);
        }
        let context = &self.context;
        let asked = context.errands.is_asked(context.task(), self.volume, ask);
        if self.role == Role::Origin && ask.verb.changes() && !asked {
            context.violated(
                Invariant::TheVolumeFirst,
                format!("the origin was told {ask:?}, which the host did not ask"),
            );
        }
        Ok(())
    }

    fn answer(&self, task: usize, ask: Ask, said: Result<(), Errno>) -> Result<(), Errno> {
        if self.role == Role::Origin && !self.context.is_instant() {
            self.context.errands.answer(task, self.volume, ask, said);
        }
        self.context.trace(|| {
            let disk = self;
            format!("{disk:?} {:?} {} says {said:?}", ask.verb, ask.range)
        });
        said
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.role, self.volume)
    }
}

/// What the engine owns; the world keeps the disk itself.
#[derive(Debug)]
pub(super) struct Handle(pub(super) Arc<SimDisk>);

impl Disk for Handle {
    fn capacity(&self) -> u64 {
        self.0.medium().current.len()
    }

    fn discard_zeroes(&self) -> bool {
        self.0.discard_zeroes
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        let ask = Ask {
            verb: Verb::Read,
            range: ByteRange::new(offset, into.len() as u64),
            fua: false,
        };
        self.0.check(ask)?;
        let task = self.0.context.task();
        let call = self.0.call(ask, |disk, part| {
            let from = usize_of(part.offset - offset);
            let into = &mut into[from..from + usize_of(part.len)];
            disk.medium().current.read(part.offset, into);
        });
        let said = call.await;
        self.0.answer(task, ask, said)
    }

    async fn write(&self, offset: u64, from: &[u8], fua: bool) -> Result<(), Errno> {
        let change = Change {
            range: ByteRange::new(offset, from.len() as u64),
            bytes: Some(from.into()),
        };
        self.0.change(Verb::Write, change, fua).await
    }

    async fn flush(&self) -> Result<(), Errno> {
        let ask = Ask {
            verb: Verb::Flush,
            range: ByteRange::new(0, 0),
            fua: false,
        };
        self.0.check(ask)?;
        let task = self.0.context.task();
        let moment = self.0.medium().moment();
        let said = self.0.call(ask, |_, _| {}).await;
        if said.is_ok() {
            self.0.medium().flush(moment);
        }
        self.0.answer(task, ask, said)
    }

    async fn discard(&self, range: ByteRange) -> Result<(), Errno> {
        let zeroes = self.0.discard_zeroes || self.0.context.faults.per_mille(500);
        // Where discards do not zero, the bytes may be any.
        let bytes = (!zeroes).then(|| vec![0xD1; usize_of(range.len)].into());
        self.0
            .change(Verb::Discard, Change { range, bytes }, false)
            .await
    }

    async fn write_zeroes(
        &self,
        range: ByteRange,
        fua: bool,
        _may_unmap: bool,
    ) -> Result<(), Errno> {
        let change = Change { range, bytes: None };
        self.0.change(Verb::Zeroes, change, fua).await
    }

    async fn run_at(&self, offset: u64) -> Result<Run, Errno> {
        let mut run = Run {
            end: offset,
            hole: false,
        };
        let ask = Ask {
            verb: Verb::Read,
            range: ByteRange::new(offset, 1),
            fua: false,
        };
        let call = self.0.call(ask, |disk, part| {
            if part.len > 0 {
                (run.end, run.hole) = disk.medium().current.run(offset);
            }
        });
        call.await?;
        Ok(run)
    }
}

/// About so many of 1,000 bytes of a range, up to a sector's start.
fn first_part(range: ByteRange, per_mille: u64) -> ByteRange {
    let end = (range.offset + range.len * per_mille / 1000) / SECTOR * SECTOR;
    ByteRange::new(range.offset, end.saturating_sub(range.offset))
}
