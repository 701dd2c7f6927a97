//! What the engine allocates for a request once it has started: memory that only the volume's own
//! writes can free must not be waited for.
//!
//! Counted over disks that keep nothing, so that what is counted is the engine's.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    pin::pin,
    time::Duration,
};

use futures_lite::future::{block_on, poll_once, zip};
use tidemark_agent::request::Request;
use tidemark_store::units::{ByteRange, Id};
use tidemark_tests::{
    MIB,
    engine::{BLOCK, Engine, Void},
};

const BLOCKS: u64 = 4096;
/// Requests of each kind, after as many that are not counted.
const REQUESTS: u64 = 1000;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator as it came; the counter is a thread's own,
// needs no memory of its own and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn engine() -> Engine<Void, Void> {
    let origin = Void {
        capacity: BLOCKS * BLOCK,
    };
    // As large as the volume and something for the area's own.
    let area = Void {
        capacity: BLOCKS * BLOCK + 64 * MIB,
    };
    Engine::open(origin, area)
}

/// Allocations of `REQUESTS` calls with ascending numbers, after as many that warm up.
fn counted(mut call: impl FnMut(u64)) -> u64 {
    (0..REQUESTS).for_each(&mut call);
    let before = ALLOCATED.get();
    (REQUESTS..2 * REQUESTS).for_each(&mut call);
    ALLOCATED.get() - before
}

#[test]
fn reads_allocate_nothing() {
    let engine = engine();
    let mut into = [0; 4096];
    assert_eq!(counted(|block| engine.read(block, &mut into)), 0);
}

#[test]
fn writes_without_a_snapshot_allocate_nothing() {
    let engine = engine();
    assert_eq!(counted(|block| engine.write(block, &[1; 4096])), 0);
}

#[test]
fn first_writes_under_a_snapshot_allocate_nothing() {
    let engine = engine();
    engine.cut(Some(Id([1; 16])));
    assert_eq!(counted(|block| engine.write(block, &[1; 4096])), 0);
    let kept = engine.volume.status().counters.preserved_bytes;
    assert_eq!(kept, 2 * REQUESTS * BLOCK, "each was a first write");
    let again = counted(|block| engine.write(block, &[2; 4096]));
    assert_eq!(again, 0, "when everything is kept");
}

#[test]
fn other_changes_under_a_snapshot_allocate_nothing() {
    let engine = engine();
    engine.cut(Some(Id([1; 16])));
    let range = |block: u64| ByteRange::new(block * BLOCK, BLOCK);
    let serve = |request| block_on(engine.volume.serve(request)).expect("the void takes it");
    let discards = counted(|block| {
        serve(Request::Discard {
            range: range(block),
        });
    });
    let zeroes = counted(|block| {
        serve(Request::WriteZeroes {
            range: range(block),
            fua: true,
            may_unmap: true,
        });
    });
    let flushes = counted(|_| serve(Request::Flush));
    assert_eq!((discards, zeroes, flushes), (0, 0, 0));
}

#[test]
fn waiting_at_the_gate_allocates_nothing() {
    let engine = engine();
    let write = |block: u64| Request::Write {
        offset: block * BLOCK,
        from: &[1; 4096],
        fua: false,
    };
    let mut allocated = 0;
    for block in 0..2 * REQUESTS {
        let token = block_on(engine.volume.hold(Duration::from_secs(10))).expect("a hold");
        let before = ALLOCATED.get();
        // Both wait for the hold's end, and the second then for the first.
        let mut both = pin!(zip(
            engine.volume.serve(write(block)),
            engine.volume.serve(write(block))
        ));
        assert!(block_on(poll_once(&mut both)).is_none(), "they are held");
        allocated += ALLOCATED.get() - before;
        engine.volume.unhold(token);
        let before = ALLOCATED.get();
        let (first, second) = block_on(both);
        first.and(second).expect("the void takes them");
        allocated += ALLOCATED.get() - before;
        if block == REQUESTS {
            // What was allocated until now is kept for later.
            allocated = 0;
        }
    }
    assert_eq!(allocated, 0);
}
