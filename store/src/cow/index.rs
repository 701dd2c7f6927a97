//! Slots and the hash chains that find them.

use std::{
    io,
    sync::{
        Arc, PoisonError,
        atomic::Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{Layer, table::Copy};
use crate::{
    media::Mapping,
    state::{MAX_SNAPSHOTS, State},
    sync::{AtomicU32, AtomicU64, Lock, LockGuard, Mutex, MutexGuard},
    units::Epoch,
};

/// A slot's word: the block in the low 48 bits, the layer above them; 0 is free.
const BLOCK_BITS: u32 = 48;
const BLOCK_MASK: u64 = (1 << BLOCK_BITS) - 1;
/// The area's medium tells of the copy too, see [`super::table`].
const TOLD: u64 = 1 << 63;
/// Blocks whose chains start side by side, and that share a lock.
const GROUP_BITS: u32 = 5;
/// Locks over the chains. More than threads, so that two seldom meet.
const STRIPES: usize = if cfg!(loom) { 2 } else { 256 };

/// Consecutive slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotRun {
    /// The first slot.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// A preserved block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Where it lies.
    pub slot: u32,
    /// The epoch of its layer.
    pub epoch: Epoch,
    /// CRC32C of its bytes, filled up with zeros to a whole block.
    pub checksum: u32,
}

/// How far a sweep came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sweep {
    /// Slots freed.
    pub freed: u32,
    /// The pass reached its end; the next call begins another.
    pub finished: bool,
}

#[derive(Debug, Default)]
struct Free {
    /// Free slots that were used before, the next to give last.
    recycled: Vec<u32>,
    /// Slots from here on have never been used.
    fresh: u32,
}

/// The index. All methods may be called by many threads at once.
#[derive(Debug)]
pub struct Index {
    state: Arc<State>,
    slots: u32,
    /// Heads of the chains, then each slot's link; a link is the slot's number plus one.
    links: Mapping,
    bucket_bits: u32,
    stripes: Box<[Lock]>,
    free: Mutex<Free>,
    /// Slots in use by layer.
    used_by: Box<[AtomicU32]>,
    /// The epoch of each layer that has slots.
    epochs: Box<[AtomicU64]>,
    /// Where the next [`Index::sweep`] goes on, downwards.
    cursor: Mutex<u32>,
}

impl Index {
    /// Makes the index of `slots` slots from the words in `state`. Slots of layers that the
    /// snapshot table does not know are freed.
    pub fn open(state: Arc<State>, slots: u32) -> io::Result<Self> {
        let bucket_bits = slots
            .next_power_of_two()
            .trailing_zeros()
            .max(GROUP_BITS + 1);
        let words = (1_usize << bucket_bits) + slots as usize;
        let index = Self {
            slots,
            links: Mapping::anonymous(words.next_multiple_of(2) * 4)?,
            bucket_bits,
            stripes: (0..STRIPES).map(|_| Lock::default()).collect(),
            free: Mutex::default(),
            used_by: (0..MAX_SNAPSHOTS).map(|_| AtomicU32::new(0)).collect(),
            epochs: (0..MAX_SNAPSHOTS)
                .map(|place| AtomicU64::new(state.snapshot(place).map_or(0, |entry| entry.epoch.0)))
                .collect(),
            cursor: Mutex::new(0),
            state,
        };
        index.rebuild();
        Ok(index)
    }

    fn rebuild(&self) {
        // A mark that makes no sense hides nothing.
        let fresh = u32::try_from(self.state.fresh().load(Acquire))
            .unwrap_or(u32::MAX)
            .min(self.slots);
        let mut free = lock(&self.free);
        free.fresh = fresh;
        // Downwards, so that low slots are given first.
        for slot in (0..fresh).rev() {
            let (block, layer) = split(self.word(slot).load(Acquire));
            let known = layer.is_some_and(|layer| self.state.snapshot(layer.place()).is_some());
            match layer.filter(|_| known) {
                Some(layer) => self.link(slot, block, layer),
                None => {
                    self.word(slot).store(0, Release);
                    free.recycled.push(slot);
                }
            }
        }
    }

    /// Number of slots.
    pub fn capacity(&self) -> u32 {
        self.slots
    }

    /// Slots that hold a block or are taken for one.
    pub fn used(&self) -> u32 {
        let free = lock(&self.free);
        free.fresh - u32::try_from(free.recycled.len()).unwrap_or(u32::MAX)
    }

    /// Slots that hold a block of `layer`.
    pub fn used_by(&self, layer: Layer) -> u32 {
        self.used_by[layer.place()].load(Acquire)
    }

    /// Tells the epoch of a layer before its first slot is published.
    pub fn begin_layer(&self, layer: Layer, epoch: Epoch) {
        self.epochs[layer.place()].store(epoch.0, Release);
    }

    /// The copy of `block` in the first layer at or after `from`: what a view of that epoch reads.
    pub fn find(&self, block: u64, from: Epoch) -> Option<Found> {
        let _chain = self.lock_chain(block);
        let slot = self
            .chain(block)
            .map(|(slot, epoch)| (epoch, slot))
            .filter(|(epoch, _)| *epoch >= from)
            .min()?;
        Some(Found {
            slot: slot.1,
            epoch: slot.0,
            checksum: self.state.checksums()[slot.1 as usize].load(Acquire),
        })
    }

    /// The newest layer that has `block`.
    pub fn newest(&self, block: u64) -> Option<Epoch> {
        let _chain = self.lock_chain(block);
        self.chain(block).map(|(_, epoch)| epoch).max()
    }

    /// Takes up to `wanted` consecutive slots; `None` when no slot is free. Each is then
    /// published, or given back.
    pub fn take(&self, wanted: u32) -> Option<SlotRun> {
        let mut free = lock(&self.free);
        if let Some(first) = free.recycled.pop() {
            let mut count = 1;
            while count < wanted && free.recycled.last() == Some(&(first + count)) {
                free.recycled.pop();
                count += 1;
            }
            return Some(SlotRun { first, count });
        }
        let count = wanted.min(self.slots - free.fresh);
        let first = free.fresh;
        free.fresh += count;
        // Before a word above the old mark is stored, or a successor would not look there.
        self.state.fresh().store(u64::from(free.fresh), Release);
        (count > 0).then_some(SlotRun { first, count })
    }

    /// Gives taken slots back unused.
    pub fn give_back(&self, run: SlotRun) {
        lock(&self.free)
            .recycled
            .extend((run.first..run.first + run.count).rev());
    }

    /// Makes a block's copy count. Its bytes are in the slot already; nobody publishes the same
    /// block of the same layer at the same time.
    pub fn publish(&self, slot: u32, block: u64, layer: Layer, checksum: u32) {
        let _chain = self.lock_chain(block);
        self.state.checksums()[slot as usize].store(checksum, Release);
        self.word(slot).store(join(block, layer), Release);
        self.link(slot, block, layer);
    }

    /// Looks at up to `budget` slots and frees those that no snapshot in `live` (ascending)
    /// needs. A snapshot that is added meanwhile needs none of them.
    pub fn sweep(&self, live: &[Epoch], budget: u32) -> Sweep {
        let mut cursor = lock(&self.cursor);
        if *cursor == 0 {
            *cursor = lock(&self.free).fresh;
        }
        let stop = cursor.saturating_sub(budget);
        let mut freed = 0;
        while *cursor > stop {
            *cursor -= 1;
            if self.free_unneeded(*cursor, live) {
                freed += 1;
            }
        }
        Sweep {
            freed,
            finished: *cursor == 0,
        }
    }

    /// The copy in a slot, and the word by which [`Index::mark_told`] knows it again.
    pub fn copy_in(&self, slot: u32) -> Option<(Copy, u64)> {
        let (block, Some(_)) = split(self.word(slot).load(Acquire)) else {
            return None;
        };
        let _chain = self.lock_chain(block);
        // The slot may have changed hands before the lock.
        let word = self.word(slot).load(Acquire);
        let (now, Some(layer)) = split(word) else {
            return None;
        };
        let copy = Copy {
            slot,
            block,
            epoch: self.epoch_of(layer),
            checksum: self.state.checksums()[slot as usize].load(Acquire),
        };
        (now == block).then_some((copy, word))
    }

    /// Notes that the area's medium tells of the copy that a slot held, if it still does.
    pub fn mark_told(&self, slot: u32, word: u64) {
        // Else it changed hands, and whoever has it now tells of it.
        let _ = self
            .word(slot)
            .compare_exchange(word, word | TOLD, Release, Relaxed);
    }

    /// Slots with copies of which the area's medium does not tell yet, ascending.
    pub fn untold(&self) -> Vec<u32> {
        let fresh = lock(&self.free).fresh;
        let untold = |slot: &u32| {
            let word = self.word(*slot).load(Acquire);
            word != 0 && word & TOLD == 0
        };
        (0..fresh).filter(untold).collect()
    }

    /// Every preserved block of an epoch at or after `from`, in no order, some more than once.
    pub fn blocks_from(&self, from: Epoch) -> impl Iterator<Item = u64> + '_ {
        let fresh = lock(&self.free).fresh;
        (0..fresh).filter_map(move |slot| {
            let (block, layer) = split(self.word(slot).load(Acquire));
            layer
                .filter(|layer| self.epoch_of(*layer) >= from)
                .map(|_| block)
        })
    }

    fn free_unneeded(&self, slot: u32, live: &[Epoch]) -> bool {
        let (block, Some(_)) = split(self.word(slot).load(Acquire)) else {
            return false;
        };
        let _chain = self.lock_chain(block);
        // The slot may have changed hands before the lock.
        let (now, Some(layer)) = split(self.word(slot).load(Acquire)) else {
            return false;
        };
        if now != block {
            return false;
        }
        let epoch = self.epoch_of(layer);
        let older = self
            .chain(block)
            .map(|(_, other)| other)
            .filter(|other| *other < epoch)
            .max();
        let first_reader =
            live.partition_point(|reader| older.is_some_and(|older| *reader <= older));
        if live
            .get(first_reader)
            .is_some_and(|reader| *reader <= epoch)
        {
            return false;
        }
        self.unlink(slot, block);
        self.word(slot).store(0, Release);
        self.used_by[layer.place()].fetch_sub(1, Release);
        lock(&self.free).recycled.push(slot);
        true
    }

    /// The slots of a block and their epochs; the caller holds the chain's lock.
    fn chain(&self, block: u64) -> impl Iterator<Item = (u32, Epoch)> + '_ {
        let mut link = self.head(block).load(Relaxed);
        std::iter::from_fn(move || {
            while let Some(slot) = link.checked_sub(1) {
                link = self.next(slot).load(Relaxed);
                if let (found, Some(layer)) = split(self.word(slot).load(Acquire))
                    && found == block
                {
                    return Some((slot, self.epoch_of(layer)));
                }
            }
            None
        })
    }

    fn link(&self, slot: u32, block: u64, layer: Layer) {
        let head = self.head(block);
        self.next(slot).store(head.load(Relaxed), Relaxed);
        head.store(slot + 1, Relaxed);
        self.used_by[layer.place()].fetch_add(1, Release);
    }

    fn unlink(&self, slot: u32, block: u64) {
        let mut place = self.head(block);
        while let Some(at) = place.load(Relaxed).checked_sub(1) {
            if at == slot {
                place.store(self.next(slot).load(Relaxed), Relaxed);
                return;
            }
            place = self.next(at);
        }
    }

    fn epoch_of(&self, layer: Layer) -> Epoch {
        Epoch(self.epochs[layer.place()].load(Acquire))
    }

    fn lock_chain(&self, block: u64) -> LockGuard<'_> {
        self.stripes[(self.bucket(block) >> GROUP_BITS) % STRIPES]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn word(&self, slot: u32) -> &AtomicU64 {
        &self.state.slot_words()[slot as usize]
    }

    fn head(&self, block: u64) -> &AtomicU32 {
        &self.links.half_words(self.bucket(block) * 4, 1)[0]
    }

    fn next(&self, slot: u32) -> &AtomicU32 {
        &self
            .links
            .half_words(((1 << self.bucket_bits) + slot as usize) * 4, 1)[0]
    }

    /// Where a block's chain starts: neighbours within a group side by side, groups spread by
    /// the golden ratio (Knuth, The Art of Computer Programming 6.4).
    #[expect(
        clippy::cast_possible_truncation,
        reason = "shifted down to bucket_bits first"
    )]
    fn bucket(&self, block: u64) -> usize {
        let group_bits = self.bucket_bits - GROUP_BITS;
        let spread = (block >> GROUP_BITS).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - group_bits);
        (spread << GROUP_BITS | block & ((1 << GROUP_BITS) - 1)) as usize
    }
}

fn join(block: u64, layer: Layer) -> u64 {
    (layer.place() as u64 + 1) << BLOCK_BITS | block
}

/// The word of a copy of which the area's medium tells.
pub(super) fn told(block: u64, layer: Layer) -> u64 {
    join(block & BLOCK_MASK, layer) | TOLD
}

fn split(word: u64) -> (u64, Option<Layer>) {
    let layer = usize::try_from((word & !TOLD) >> BLOCK_BITS)
        .ok()
        .and_then(|layer| layer.checked_sub(1));
    (word & BLOCK_MASK, layer.and_then(Layer::at))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic aborts the process; in tests a poisoned lock guards no invariant.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
