//! A disk, a clock and a scheduler for engine tests: all choices come from one seed.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tidemark_store::units::{ByteRange, Geometry, Id};

use crate::{
    disk::{Disk, Run},
    request::Errno,
    volume::{Clock, Continuity, FullPolicy, Options, Volume},
};

/// splitmix64 (Steele, Lea and Flood, 2014): small, and good enough to choose steps.
pub(super) struct Random(Cell<u64>);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub(super) fn below(&self, limit: u64) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit.max(1)
    }
}

/// A disk in memory. Each call yields before and after its effect, so that a scheduler can put
/// any other step in between, and can be told to fail.
pub(super) struct SimDisk {
    bytes: Mutex<Vec<u8>>,
    yields: AtomicU64,
    pub(super) fail_reads: AtomicBool,
    pub(super) fail_writes: AtomicBool,
}

impl SimDisk {
    pub(super) fn new(len: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(vec![0; len]),
            yields: AtomicU64::new(0),
            fail_reads: AtomicBool::new(false),
            fail_writes: AtomicBool::new(false),
        })
    }

    pub(super) fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap()
    }

    /// Pending zero to two times; the pattern only needs to differ from call to call.
    async fn step(&self) {
        let mut left = self.yields.fetch_add(1, Relaxed) * 7 % 3;
        poll_fn(|_| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            Poll::Pending
        })
        .await;
    }

    async fn change(&self, range: ByteRange, bytes: impl Fn(&mut [u8])) -> Result<(), Errno> {
        self.step().await;
        if self.fail_writes.load(Relaxed) {
            return Err(Errno::EIO);
        }
        // In two halves: a write is not atomic.
        let (from, to) = (range.offset as usize, range.end() as usize);
        let mut new = vec![0; to - from];
        bytes(&mut new);
        let half = (to - from) / 2;
        self.bytes()[from..from + half].copy_from_slice(&new[..half]);
        self.step().await;
        self.bytes()[from + half..to].copy_from_slice(&new[half..]);
        self.step().await;
        Ok(())
    }
}

/// What the engine owns; the test keeps the disk itself.
pub(super) struct Handle(pub(super) Arc<SimDisk>);

impl Disk for Handle {
    fn capacity(&self) -> u64 {
        self.0.bytes().len() as u64
    }

    fn discard_zeroes(&self) -> bool {
        true
    }

    async fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.0.step().await;
        if self.0.fail_reads.load(Relaxed) {
            return Err(Errno::EIO);
        }
        let (from, half) = (offset as usize, into.len() / 2);
        into[..half].copy_from_slice(&self.0.bytes()[from..from + half]);
        self.0.step().await;
        let len = into.len();
        into[half..].copy_from_slice(&self.0.bytes()[from + half..from + len]);
        self.0.step().await;
        Ok(())
    }

    async fn write(&self, offset: u64, from: &[u8], _fua: bool) -> Result<(), Errno> {
        let range = ByteRange::new(offset, from.len() as u64);
        self.0.change(range, |new| new.copy_from_slice(from)).await
    }

    async fn flush(&self) -> Result<(), Errno> {
        self.0.step().await;
        Ok(())
    }

    async fn discard(&self, range: ByteRange) -> Result<(), Errno> {
        self.0.change(range, |new| new.fill(0)).await
    }

    async fn write_zeroes(&self, range: ByteRange, _: bool, _: bool) -> Result<(), Errno> {
        self.0.change(range, |new| new.fill(0)).await
    }

    async fn run_at(&self, offset: u64) -> Result<Run, Errno> {
        self.0.step().await;
        let bytes = self.0.bytes();
        let rest = &bytes[offset as usize..];
        let hole = rest[0] == 0;
        let len = rest.iter().take_while(|byte| (**byte == 0) == hole).count();
        let end = offset + len as u64;
        Ok(Run { end, hole })
    }
}

/// Time that moves only when somebody sleeps.
#[derive(Clone, Default)]
pub(super) struct SimClock(pub(super) Arc<AtomicU64>);

impl Clock for SimClock {
    fn now_us(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn elapsed_us(&self) -> u64 {
        self.now_us()
    }

    async fn sleep(&self, time: Duration) {
        let wake = self.now_us() + u64::try_from(time.as_micros()).unwrap();
        poll_fn(|_| {
            // Each look takes a moment, so every sleep ends.
            let now = self.0.fetch_add(100, Relaxed);
            if now >= wake {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

pub(super) type SimVolume = Volume<Handle, Handle, SimClock>;

/// Everything that outlives the engine's process.
pub(super) struct World {
    pub(super) origin: Arc<SimDisk>,
    pub(super) area: Arc<SimDisk>,
    pub(super) geometry: Geometry,
    pub(super) clock: SimClock,
    pub(super) policy: FullPolicy,
    pub(super) durable: bool,
    pub(super) durable_snapshots: bool,
    pub(super) continuity: Continuity,
    dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new(capacity: usize, slots: usize) -> Self {
        Self {
            origin: SimDisk::new(capacity),
            area: SimDisk::new((1 << 20) + slots * 4096),
            geometry: Geometry::new(capacity as u64, 4096).unwrap(),
            clock: SimClock::default(),
            policy: FullPolicy::Drop,
            durable: false,
            durable_snapshots: false,
            continuity: Continuity::ModifiedAt(0),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) fn options(&self) -> Options<Handle, Handle, SimClock> {
        Options {
            origin: Handle(Arc::clone(&self.origin)),
            area: Handle(Arc::clone(&self.area)),
            geometry: self.geometry,
            state_dir: self.dir.path().to_owned(),
            volume_id: Id([5; 16]),
            policy: self.policy,
            clock: self.clock.clone(),
            continuity: self.continuity.clone(),
            durable: self.durable,
            durable_snapshots: self.durable_snapshots,
            distrust: None,
            max_active_regions: Some(16),
        }
    }

    /// As a power cut does.
    pub(super) fn forget_state(&self) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    pub(super) fn open(&self) -> SimVolume {
        run(Volume::open(self.options())).expect("volume opens")
    }
}

/// Polls one future to its end: nothing else runs meanwhile.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("the future waits for something that nothing does");
}

/// Futures polled in an order that the seed chooses.
#[derive(Default)]
pub(super) struct Tasks<'a>(Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>);

impl<'a> Tasks<'a> {
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + 'a) {
        self.0.push(Box::pin(task));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Polls one task that the seed chooses.
    pub(super) fn step(&mut self, random: &Random) {
        if self.0.is_empty() {
            return;
        }
        let at = random.below(self.0.len() as u64) as usize;
        let mut context = Context::from_waker(Waker::noop());
        if self.0[at].as_mut().poll(&mut context).is_ready() {
            drop(self.0.swap_remove(at));
        }
    }

    pub(super) fn finish(&mut self, random: &Random) {
        for _ in 0..1_000_000 {
            if self.0.is_empty() {
                return;
            }
            self.step(random);
        }
        panic!("{} tasks never end", self.0.len());
    }
}
