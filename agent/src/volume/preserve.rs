//! Keeping old data before it is overwritten.

use std::{
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use futures_lite::future;
use tidemark_store::{
    cow::{Layer, SlotRun},
    state::Fate,
    units::{BlockRange, Epoch},
};

use super::{Clock, Step, Volume};
use crate::{disk::Disk, request::Errno};

/// Old data copied at a time, in bytes: large enough for sequential speed, small enough that
/// buffers of many queues stay in memory (64 requests x 1 MiB).
const BATCH_BYTES: u64 = 1 << 20;
/// Buffers kept for reuse.
const KEPT_BUFFERS: usize = 64;

/// Where a buffer begins: direct I/O wants its memory aligned, to a page at most.
const ALIGNMENT: usize = 4096;

/// Aligned memory of any length.
#[derive(Default)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn resize(&mut self, len: usize) {
        if self.memory.len() < len + ALIGNMENT {
            self.memory.resize(len + ALIGNMENT, 0);
            self.start = self.memory.as_ptr().align_offset(ALIGNMENT);
        }
        self.len = len;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Buffers that are reused, so that the data path seldom allocates. What one holds when it is
/// taken means nothing.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Buffer>>);

impl Buffers {
    pub(super) fn take(&self, len: usize) -> Buffer {
        let mut buffer = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        buffer.resize(len);
        buffer
    }

    pub(super) fn put(&self, buffer: Buffer) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_BUFFERS {
            kept.push(buffer);
        }
    }
}

/// Why old data was not kept.
enum Failure {
    /// The origin cannot be read.
    Origin(Errno),
    /// The store cannot be written.
    Store(Errno),
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// I2: returns when every block of `blocks` that a live snapshot needs has its old data
    /// published, or no live snapshot needs it any more. The caller has the blocks for itself.
    ///
    /// Exactly the blocks are copied, each once for all snapshots. A block that was published
    /// before, by a request that a dead process left and the kernel replays, is not copied again.
    ///
    /// Where snapshots outlive the host, the area's slot table tells of the copies by then.
    pub(super) async fn preserve(&self, blocks: BlockRange) {
        if let Some(group) = self.copy_missing(blocks).await
            && !self.clock.omits(Step::TellCopies)
        {
            self.journal.copies_told(group, &self.clock).await;
        }
    }

    /// Publishes what is missing; the group of copies to wait for.
    async fn copy_missing(&self, blocks: BlockRange) -> Option<u64> {
        let mut group = None;
        let batch = (BATCH_BYTES / self.geometry.block_bytes()).max(1);
        let mut at = blocks.start;
        while at < blocks.end {
            // Asked anew each time: the store may have filled and dropped the newest snapshot.
            let Some((layer, epoch)) = self.newest_layer() else {
                break;
            };
            let run = self.next_missing(BlockRange::new(at, blocks.end), epoch, batch);
            if run.is_empty() {
                break;
            }
            at = run.start;
            if let Some(slots) = self.make_room(run.len()).await {
                let part = BlockRange::new(run.start, run.start + u64::from(slots.count));
                group = self.preserve_run(part, slots, layer).await.max(group);
                at = part.end;
            }
        }
        group
    }

    fn newest_layer(&self) -> Option<(Layer, Epoch)> {
        let layer = self.layers.newest()?;
        Some((layer, self.layers.epoch_of(layer)?))
    }

    /// The first blocks in a row, at most `batch`, without a copy for the newest snapshot.
    fn next_missing(&self, blocks: BlockRange, newest: Epoch, batch: u64) -> BlockRange {
        let missing = |block: &u64| self.index.find(*block, newest).is_none();
        let Some(start) = (blocks.start..blocks.end).find(missing) else {
            return BlockRange::new(blocks.end, blocks.end);
        };
        let limit = blocks.end.min(start + batch);
        let end = (start + 1..limit)
            .find(|block| !missing(block))
            .unwrap_or(limit);
        BlockRange::new(start, end)
    }

    /// Copies blocks to as many slots; the group in which the area tells of them.
    async fn preserve_run(&self, part: BlockRange, slots: SlotRun, layer: Layer) -> Option<u64> {
        let mut group = None;
        let len = usize::try_from(part.len() * self.geometry.block_bytes()).unwrap_or(0);
        let mut buffer = self.buffers.take(len);
        match self.copy(part, slots, &mut buffer).await {
            Ok(()) => {
                self.publish(part, slots, layer, &buffer);
                group = self.journal.tell_copies(slots);
                self.counters
                    .preserved_bytes
                    .fetch_add(buffer.len() as u64, Relaxed);
            }
            Err(failure) => {
                self.index.give_back(slots);
                self.lose_readers_of(part, &failure);
                self.ends_told().await;
            }
        }
        self.buffers.put(buffer);
        group
    }

    /// Reads old data and puts it into its slots. The last block of the volume is filled up with
    /// zeros.
    async fn copy(
        &self,
        part: BlockRange,
        slots: SlotRun,
        buffer: &mut [u8],
    ) -> Result<(), Failure> {
        let bytes = self.geometry.bytes_of(part);
        let (old, fill) = buffer.split_at_mut(usize::try_from(bytes.len).unwrap_or(0));
        self.origin
            .read(bytes.offset, old)
            .await
            .map_err(Failure::Origin)?;
        fill.fill(0);
        let place = self.layout().slots(slots.first, slots.count);
        self.area
            .write(place.offset, buffer, false)
            .await
            .map_err(Failure::Store)
    }

    fn publish(&self, part: BlockRange, slots: SlotRun, layer: Layer, buffer: &[u8]) {
        let block_len = usize::try_from(self.geometry.block_bytes()).unwrap_or(usize::MAX);
        let copies = part
            .blocks()
            .zip(slots.first..)
            .zip(buffer.chunks_exact(block_len));
        for ((block, slot), bytes) in copies {
            self.index
                .publish(slot, block.0, layer, crc32c::crc32c(bytes));
        }
        // The snapshot may have ended meanwhile; its copy is then swept.
        if self.layers.newest() != Some(layer) {
            self.wants_sweep.store(true, Relaxed);
        }
    }

    /// I3: a snapshot that would read one of these blocks from the origin is lost, because the
    /// host's write goes on (I7).
    fn lose_readers_of(&self, part: BlockRange, failure: &Failure) {
        let oldest_copy = part
            .blocks()
            .map(|block| self.index.newest(block.0))
            .min()
            .flatten();
        let why = match failure {
            Failure::Origin(errno) => {
                format!("old data could not be read from the origin: {errno}")
            }
            Failure::Store(errno) => format!("old data could not be written to the store: {errno}"),
        };
        for (_, entry) in self.layers.all() {
            if oldest_copy.is_none_or(|copy| entry.epoch > copy) {
                self.end_snapshot(entry.id, Fate::Lost, &why);
            }
        }
    }

    /// Waits for `time`, or less when space is freed.
    pub(super) async fn wait_for_space(&self, time: std::time::Duration) {
        let freed = pin!(self.space_freed.listen());
        future::or(freed, self.clock.sleep(time)).await;
    }
}
