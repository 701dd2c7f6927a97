//! Calls of the private protocol with any arguments, as the engine is given them: an answer or a
//! refusal, and pages that lead on.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use futures_lite::future::{block_on, pending};
use tidemark_agent::{
    disk::memory::MemoryDisk,
    request,
    server::wire,
    volume::{Clock, Continuity, ExtentPage, FullPolicy, HoldToken, Options, Volume},
};
use tidemark_proto::private::{
    Allocated, Changes, Cut, ForgetCheckpoint, Hold, ReleaseSnapshot, Request, ResetTracking,
    Unhold, WaitEvents, request::Call,
};
use tidemark_store::{
    area::Layout,
    units::{Epoch, Geometry, Id},
};

use crate::bytes::folder;

const BLOCK: u64 = 4096;
/// The last block is cut short.
const CAPACITY: u64 = 64 * BLOCK - 512;
/// Slots beyond the fewest.
const SPARE_SLOTS: u64 = 16;
const MAX_CALLS: usize = 24;
const MAX_RANGES: usize = 8;

/// Passes by a microsecond with each look.
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now_us(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }

    fn elapsed_us(&self) -> u64 {
        self.now_us()
    }

    async fn sleep(&self, _: Duration) {
        // Nothing is in flight, so nothing waits for time.
        pending().await
    }
}

type Engine = Volume<MemoryDisk, MemoryDisk, Ticking>;

/// An input is requests as they come over the socket. Those that tell of the server itself stand
/// for the host: a wait for events writes.
pub(crate) fn calls(input: &[u8]) {
    let folder = folder();
    let geometry = Geometry::new(CAPACITY, 4096).expect("a volume has this geometry");
    let options = Options {
        origin: MemoryDisk::new(CAPACITY),
        area: MemoryDisk::new(Layout::of(geometry).min_capacity(false) + SPARE_SLOTS * BLOCK),
        geometry,
        state_dir: folder.path().to_owned(),
        volume_id: Id([7; 16]),
        policy: FullPolicy::Drop,
        clock: Ticking(AtomicU64::new(1)),
        continuity: Continuity::ModifiedAt(0),
        durable: false,
        durable_snapshots: false,
        max_active_regions: None,
        distrust: None,
    };
    let volume = block_on(Volume::open(options)).expect("a new volume opens");
    let mut from = input;
    for _ in 0..MAX_CALLS {
        let Ok(Some(Request { call: Some(call) })) = wire::read::<Request>(&mut from) else {
            break;
        };
        answer(&volume, call);
        volume.housekeep();
    }
}

fn answer(volume: &Engine, call: Call) {
    match call {
        Call::Hold(hold) => drop(block_on(
            volume.hold(Duration::from_micros(hold.max_hold_us)),
        )),
        Call::Cut(cut) => {
            let made = volume.cut(HoldToken(cut.token), Id::from_slice(&cut.snapshot_id));
            if let Ok(made) = made {
                let page = volume.changes(None, made.checkpoint.epoch, None, 0, MAX_RANGES);
                let page = page.expect("the checkpoint was just made");
                assert!(page.extents.is_empty(), "nothing was written since");
            }
        }
        Call::Unhold(unhold) => volume.unhold(HoldToken(unhold.token)),
        Call::ReleaseSnapshot(release) => {
            if let Some(id) = Id::from_slice(&release.snapshot_id) {
                let _ = volume.release(id);
            }
        }
        Call::ForgetCheckpoint(forget) => {
            let known = volume.forget(Epoch(forget.epoch)).is_ok();
            assert!(!known || forget.epoch != 0, "no epoch is 0");
        }
        Call::Changes(asked) => changes(volume, &asked),
        Call::Allocated(asked) => allocated(volume, &asked),
        // A hold would keep it waiting: the clock's sleep never ends.
        Call::ResetTracking(reset) => {
            let reset = volume.reset_tracking(&reset.reason);
            let _ = block_on(futures_lite::future::poll_once(reset));
        }
        Call::WaitEvents(wait) => write(volume, wait.wait_us),
        Call::Describe(_) | Call::PresentViews(_) => drop(volume.status()),
        Call::Measure(_) => drop(volume.measurements()),
        Call::Hello(_) | Call::Stop(_) | Call::HandOver(_) => {}
    }
}

fn changes(volume: &Engine, asked: &Changes) {
    let until = (asked.until_epoch != 0).then_some(Epoch(asked.until_epoch));
    let page = volume.changes(
        Id::from_slice(&asked.lineage),
        Epoch(asked.since_epoch),
        until,
        asked.start_bytes,
        MAX_RANGES,
    );
    if let Ok(page) = page {
        check(&page, asked.start_bytes);
    }
}

fn allocated(volume: &Engine, asked: &Allocated) {
    let Some(id) = Id::from_slice(&asked.snapshot_id) else {
        return;
    };
    if let Ok(page) = block_on(volume.allocated(id, asked.start_bytes, MAX_RANGES)) {
        check(&page, asked.start_bytes);
    }
    let mut bytes = [0; 8192];
    let _ = block_on(volume.read_view(id, asked.start_bytes, &mut bytes));
}

/// What the control plane believes: see `manager::link::convert`.
fn check(page: &ExtentPage, start: u64) {
    let mut end = 0;
    for extent in &page.extents {
        assert!(extent.range.offset >= end && !extent.range.is_empty());
        end = extent.range.end();
        assert!(end <= CAPACITY, "an extent leaves the volume");
    }
    assert!(page.extents.len() <= MAX_RANGES);
    assert!(
        page.next.is_none_or(|next| next > start && next < CAPACITY),
        "a page that does not lead on"
    );
}

/// One write, which must not wait: a hold would keep it for ever.
fn write(volume: &Engine, place: u64) {
    let from = [0xa5; 700];
    let request = request::Request::Write {
        offset: place % (CAPACITY - 700),
        from: &from,
        fua: false,
    };
    let _ = block_on(futures_lite::future::poll_once(volume.serve(request)));
}

pub(crate) fn some_calls() -> Vec<Vec<u8>> {
    let framed = |call| wire::encode(&Request { call: Some(call) }).expect("a seed is short");
    let id = |byte: u8| vec![byte; 16].into();
    let cut = |token, byte| {
        let hold = Hold {
            max_hold_us: 1_000_000,
        };
        let cut = Cut {
            token,
            snapshot_id: id(byte),
        };
        [framed(Call::Hold(hold)), framed(Call::Cut(cut))].concat()
    };
    let write = |place| {
        framed(Call::WaitEvents(WaitEvents {
            wait_us: place,
            ..WaitEvents::default()
        }))
    };
    let changes = |since_epoch, start_bytes| {
        framed(Call::Changes(Changes {
            since_epoch,
            start_bytes,
            ..Changes::default()
        }))
    };
    let allocated = framed(Call::Allocated(Allocated {
        snapshot_id: id(1),
        ..Allocated::default()
    }));
    let release = framed(Call::ReleaseSnapshot(ReleaseSnapshot {
        snapshot_id: id(1),
    }));
    let forget = framed(Call::ForgetCheckpoint(ForgetCheckpoint { epoch: 1 }));
    let reset = framed(Call::ResetTracking(ResetTracking {
        reason: "asked".into(),
    }));
    let unhold = framed(Call::Unhold(Unhold { token: 1 }));
    vec![
        [
            write(5000),
            cut(1, 1),
            write(9000),
            changes(1, 0),
            allocated,
        ]
        .concat(),
        [
            cut(1, 1),
            write(77),
            cut(2, 2),
            changes(1, 4096),
            release,
            forget,
        ]
        .concat(),
        [cut(1, 1), reset, unhold, write(100_000)].concat(),
    ]
}
