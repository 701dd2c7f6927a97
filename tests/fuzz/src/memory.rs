//! What a decoder allocates: a length in hostile bytes must not be believed.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

std::thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(by: isize) {
    // A thread that ends allocates after its cells have gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get().wrapping_add(by));
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

fn size(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

// SAFETY: hands everything to the system's allocator as it came; the counters are a thread's own,
// need no memory of their own and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-size(layout));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs, and tells the most bytes that this thread held more than before.
pub(crate) fn most_held(run: impl FnOnce()) -> usize {
    HELD.set(0);
    MOST.set(0);
    run();
    usize::try_from(MOST.get()).unwrap_or(0)
}
