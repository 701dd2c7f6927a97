//! What happens when the snapshot store fills. The host's write always goes on (I7).
//!
//! ```text
//! used:  0 % ───── 75 % ──────────────── 100 %
//!               event STORE_FILLING      event STORE_FULL
//! drop:  no delay ─────────────────────> oldest snapshot dropped, until a slot is free
//! slow:  no delay │ delay grows to the ─> one wait of the bound for space, then as with drop
//!                 │ bound
//! ```

use std::{
    sync::atomic::Ordering::{AcqRel, Relaxed},
    time::Duration,
};

use tidemark_store::{cow::SlotRun, state::Fate, units::Id};

use super::{Clock, EventKind, FullPolicy, Volume};
use crate::disk::Disk;

/// Share of the store, in percent, from which on it counts as filling.
const FILLING_PERCENT: u64 = 75;
/// The warning is given again only after use fell below this.
const CALM_PERCENT: u64 = 60;
/// Slots looked at in one go by a writer that finds the store full: about 0.1 ms.
const SWEEP_SLOTS: u32 = 8192;

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Slots for up to `wanted` blocks; `None` when snapshots were dropped instead, so that the
    /// caller asks again whether any needs the blocks.
    pub(super) async fn make_room(&self, wanted: u64) -> Option<SlotRun> {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        self.warn_when_filling();
        if let FullPolicy::Slow(bound) = self.policy {
            self.slow_down(bound).await;
        }
        if let Some(slots) = self.take_or_sweep(wanted) {
            return Some(slots);
        }
        if let FullPolicy::Slow(bound) = self.policy {
            self.delay(bound).await;
            if let Some(slots) = self.take_or_sweep(wanted) {
                return Some(slots);
            }
        }
        self.drop_oldest().await;
        self.take_or_sweep(wanted)
    }

    fn take_or_sweep(&self, wanted: u32) -> Option<SlotRun> {
        let mut passes = 0;
        loop {
            if let Some(slots) = self.index.take(wanted) {
                return Some(slots);
            }
            // The pass under way may have begun before the last release: one more whole one.
            if passes == 2 {
                return None;
            }
            let live = self.layers.live();
            passes += u8::from(self.index.sweep(&live, SWEEP_SLOTS).finished);
        }
    }

    fn used_percent(&self) -> u64 {
        u64::from(self.index.used()) * 100 / u64::from(self.index.capacity().max(1))
    }

    fn warn_when_filling(&self) {
        if self.used_percent() >= FILLING_PERCENT && !self.filling.swap(true, AcqRel) {
            let message = format!(
                "the snapshot store is {} % full: release snapshots, or attach with a larger area",
                self.used_percent()
            );
            self.event(EventKind::StoreFilling, Id::NIL, message);
        }
    }

    /// Lets the warning be given again once use has fallen.
    pub(super) fn note_calm(&self) {
        if self.used_percent() < CALM_PERCENT {
            self.filling.store(false, Relaxed);
        }
    }

    /// Delays a writer by a share of the bound that grows from 0 to all of it as the store fills.
    async fn slow_down(&self, bound: Duration) {
        let over = self.used_percent().saturating_sub(FILLING_PERCENT);
        let share = u32::try_from(over * 100 / (100 - FILLING_PERCENT))
            .unwrap_or(100)
            .min(100);
        if share > 0 {
            self.delay(bound * share / 100).await;
        }
    }

    async fn delay(&self, time: Duration) {
        let began = self.clock.elapsed_us();
        self.wait_for_space(time).await;
        let waited = self.clock.elapsed_us().saturating_sub(began);
        self.counters.delayed_us.fetch_add(waited, Relaxed);
    }

    /// Returns when it no longer needs its slots. One that ends already makes room enough.
    async fn drop_oldest(&self) {
        let all = self.layers.all();
        let live = all.iter().find(|(_, entry)| entry.fate == Fate::Live);
        if let Some((_, entry)) = live.filter(|(_, entry)| self.fate_of(entry) == Fate::Live) {
            let why = "the snapshot store is full";
            self.event(EventKind::StoreFull, Id::NIL, why.to_owned());
            self.end_snapshot(entry.id, Fate::Overflowed, why);
        }
        self.ends_told().await;
    }
}
