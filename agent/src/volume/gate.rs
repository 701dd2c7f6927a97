//! The gate: which changes are in flight, and whether more may enter.
//!
//! It serves two rules at once. Changes that share a block pass one after the other, in the order
//! they came, so that the second finds the first one's block preserved and settled. And a cut
//! closes the gate, waits until all that entered have left, and opens it again: before are the old
//! epoch's changes, after are the new one's.
//!
//! ```text
//!          enter                     done
//! queued ────────> in flight ──────────────> gone
//!   │ waits while the gate is closed, or an earlier entry shares a block
//! ```
//!
//! An entry waits only for earlier ones, so a large discard is not starved by small writes. Entries
//! are at most the transports' queue depths together; the list is scanned whole.
//!
//! Nothing else of the engine is used here: tests/concurrency builds this file by itself, and
//! explores its threads' interleavings.

use std::{pin::pin, sync::PoisonError};

use event_listener::{Event, listener};
use futures_lite::future;
use tidemark_store::{
    sync::{Mutex, MutexGuard},
    units::BlockRange,
};

struct Entry {
    ticket: u64,
    blocks: BlockRange,
    in_flight: bool,
}

#[derive(Default)]
struct State {
    /// In the order they came.
    entries: Vec<Entry>,
    in_flight: usize,
    next_ticket: u64,
    closed: bool,
}

impl State {
    fn may_enter(&self, at: usize) -> bool {
        let blocks = self.entries[at].blocks;
        !self.closed
            && !self.entries[..at]
                .iter()
                .any(|earlier| earlier.blocks.overlaps(blocks))
    }

    fn try_enter(&mut self, at: usize) -> bool {
        let may = self.may_enter(at);
        if may {
            self.entries[at].in_flight = true;
            self.in_flight += 1;
        }
        may
    }
}

/// See the module's comment.
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Event,
}

/// The gate was not closed by this call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CloseError {
    /// Somebody else closed it.
    Closed,
    /// What was in flight did not end in time; the gate is open again.
    TimedOut,
}

/// A change in flight; leaves when dropped.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    ticket: u64,
}

impl Gate {
    pub(super) fn new() -> Self {
        let state = State {
            entries: Vec::with_capacity(1024),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            changed: Event::new(),
        }
    }

    /// Waits until a change of `blocks` may begin.
    pub(super) async fn enter(&self, blocks: BlockRange) -> Pass<'_> {
        let (ticket, entered) = {
            let mut state = self.lock();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.entries.push(Entry {
                ticket,
                blocks,
                in_flight: false,
            });
            let last = state.entries.len() - 1;
            (ticket, state.try_enter(last))
        };
        // Leaves the queue also when this future is dropped while it waits.
        let pass = Pass { gate: self, ticket };
        if entered {
            return pass;
        }
        while !self.try_enter(ticket) {
            listener!(self.changed => changed);
            if self.try_enter(ticket) {
                break;
            }
            changed.await;
        }
        pass
    }

    fn try_enter(&self, ticket: u64) -> bool {
        let mut state = self.lock();
        let Some(at) = state
            .entries
            .iter()
            .position(|entry| entry.ticket == ticket)
        else {
            return false;
        };
        state.try_enter(at)
    }

    /// Lets nothing enter any more and waits for what is in flight until `time_is_up` ends.
    pub(super) async fn close(
        &self,
        time_is_up: impl Future<Output = ()>,
    ) -> Result<(), CloseError> {
        self.shut()?;
        let drained = async {
            while self.lock().in_flight > 0 {
                let mut changed = pin!(self.changed.listen());
                if self.lock().in_flight > 0 {
                    changed.as_mut().await;
                }
            }
            true
        };
        let drained = future::or(drained, async {
            time_is_up.await;
            false
        })
        .await;
        if drained {
            Ok(())
        } else {
            self.open();
            Err(CloseError::TimedOut)
        }
    }

    /// Lets nothing enter any more, and waits for nothing.
    pub(super) fn shut(&self) -> Result<(), CloseError> {
        let mut state = self.lock();
        if state.closed {
            return Err(CloseError::Closed);
        }
        state.closed = true;
        Ok(())
    }

    /// Lets changes enter again.
    pub(super) fn open(&self) {
        self.lock().closed = false;
        self.changed.notify(usize::MAX);
    }

    fn leave(&self, ticket: u64) {
        let mut state = self.lock();
        let Some(at) = state
            .entries
            .iter()
            .position(|entry| entry.ticket == ticket)
        else {
            return;
        };
        let entry = state.entries.remove(at);
        state.in_flight -= usize::from(entry.in_flight);
        let waiters = state.closed || state.entries.len() > state.in_flight;
        drop(state);
        if waiters {
            self.changed.notify(usize::MAX);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn changes_that_share_a_block_pass_in_order() {
        block_on(async {
            let gate = Gate::new();
            let first = gate.enter(BlockRange::new(0, 4)).await;
            let mut wide = pin!(gate.enter(BlockRange::new(3, 9)));
            assert!(poll_once(&mut wide).await.is_none());
            // Shares a block only with one that waits: it must not overtake.
            let mut third = pin!(gate.enter(BlockRange::new(8, 9)));
            assert!(poll_once(&mut third).await.is_none());
            let apart = poll_once(pin!(gate.enter(BlockRange::new(20, 21)))).await;
            assert!(apart.is_some());
            drop(first);
            let second = poll_once(&mut wide).await.expect("its turn");
            assert!(poll_once(&mut third).await.is_none());
            drop(second);
            assert!(poll_once(&mut third).await.is_some());
        });
    }

    #[test]
    fn a_waiter_that_gives_up_leaves_the_queue() {
        block_on(async {
            let gate = Gate::new();
            let first = gate.enter(BlockRange::new(0, 4)).await;
            {
                let mut gives_up = Box::pin(gate.enter(BlockRange::new(0, 9)));
                assert!(poll_once(&mut gives_up).await.is_none());
            }
            assert!(
                poll_once(pin!(gate.enter(BlockRange::new(5, 6))))
                    .await
                    .is_some()
            );
            drop(first);
            assert!(gate.lock().entries.is_empty());
        });
    }

    #[test]
    fn closing_waits_for_what_is_in_flight_and_holds_the_rest() {
        block_on(async {
            let gate = Gate::new();
            let pass = gate.enter(BlockRange::new(0, 4)).await;
            let mut close = pin!(gate.close(future::pending()));
            assert!(poll_once(&mut close).await.is_none());
            let mut late = pin!(gate.enter(BlockRange::new(50, 51)));
            assert!(poll_once(&mut late).await.is_none());
            drop(pass);
            assert_eq!(close.await, Ok(()));
            assert!(poll_once(&mut late).await.is_none());
            assert_eq!(gate.close(future::pending()).await, Err(CloseError::Closed));
            gate.open();
            assert!(poll_once(&mut late).await.is_some());
        });
    }

    #[test]
    fn closing_gives_up_in_time_and_opens_again() {
        block_on(async {
            let gate = Gate::new();
            let _pass = gate.enter(BlockRange::new(0, 4)).await;
            assert_eq!(
                gate.close(future::ready(())).await,
                Err(CloseError::TimedOut)
            );
            let mut other = pin!(gate.enter(BlockRange::new(50, 51)));
            assert!(poll_once(&mut other).await.is_some());
        });
    }
}
