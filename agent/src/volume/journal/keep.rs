//! The keeper: the one task that writes the journal.
//!
//! ```text
//! arm ──> image ──> log ──half full──> image in the other half ──> log there ...
//!  ^        │        │
//!  └─ wait ─┴────────┴── the area fails: wipe, suspend
//! ```

use std::{
    sync::atomic::Ordering::{Relaxed, SeqCst},
    time::Duration,
};

use futures_lite::future;

use tidemark_store::{
    cow::Layer,
    journal::{BLOCK_BYTES, Facts, Placed, seal},
    state::SnapshotEntry,
};

use super::{
    super::{Clock, Tracker, Volume, random_u64},
    image::{Capture, ImageFailure, ImageWriter, Log, begin_header},
    recover,
};
use crate::disk::Disk;

/// Between two tries to begin anew after a failure: the first time, doubled up to the last.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What the keeper has in hand.
#[derive(Default)]
struct Keeper {
    /// Where records go; `None` while an image must come first.
    log: Option<Log>,
    writer: Option<ImageWriter>,
    /// What snapshots of an earlier process need is certain, as far as it can be.
    past_is_settled: bool,
    blocks: Vec<u8>,
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Writes the journal as long as the volume lives; returns only where tracking is not durable.
    /// To be run by one task or thread.
    pub async fn keep_journal(&self) {
        if !self.journal.durable {
            return;
        }
        loop {
            let mut keeper = Keeper::default();
            let Err(why) = self.keep(&mut keeper).await;
            self.give_up(&why).await;
            let mut pause = RETRY.0;
            loop {
                let closing = self.journal.closing.listen();
                if !self.journal.closed.load(SeqCst) {
                    future::or(self.clock.sleep(pause), closing).await;
                    pause = (pause * 2).min(RETRY.1);
                }
                let wiped = recover::wipe(&self.area, self.layout()).await.is_ok();
                match (wiped, self.journal.closed.load(SeqCst)) {
                    (true, false) => break,
                    (true, true) => return self.journal.ended.store(true, SeqCst),
                    (false, true) => self.clock.sleep(RETRY.0).await,
                    (false, false) => {}
                }
            }
            self.journal.arm();
        }
    }

    /// I7: what was told no longer counts, and changes go on untold.
    async fn give_up(&self, why: &str) {
        // Before any change goes on untold, if the area still listens.
        let unsaid = match recover::wipe(&self.area, self.layout()).await {
            Ok(()) => "",
            Err(_) => ", and the area cannot be told so: reset tracking after the next start",
        };
        self.journal.suspend(&format!("{why}{unsaid}"));
    }

    /// Writes images and logs until something fails.
    async fn keep(&self, keeper: &mut Keeper) -> Result<std::convert::Infallible, String> {
        self.catch_up().await?;
        loop {
            let work = self.journal.work.listen();
            if let Some(why) = self.journal.suspension() {
                return Err(why);
            }
            let due = keeper.log.is_none_or(|log| log.is_filling());
            if due && keeper.writer.is_none() {
                self.begin_image(keeper).await?;
            }
            let mut busy = self.write_batch(keeper).await?;
            self.finish_ends();
            busy |= self.write_copies().await?;
            busy |= self.step_image(keeper).await?;
            if keeper.log.is_some() {
                busy |= self.write_damaged().await?;
                self.journal.at_origin.store(true, Relaxed);
                // An earlier process may have died before it had.
                if !std::mem::replace(&mut keeper.past_is_settled, true) {
                    busy |= self.settle_snapshots().await.unwrap_or(false);
                }
                busy |= self.look_at_origin().await;
                self.journal.at_origin.store(false, Relaxed);
            }
            if !busy {
                work.await;
            }
        }
    }

    /// Writes what waits to the log, if there is one.
    async fn write_batch(&self, keeper: &mut Keeper) -> Result<bool, String> {
        if keeper.log.is_none() {
            return Ok(false);
        }
        let Some(batch) = self.journal.take(&mut keeper.blocks) else {
            return Ok(false);
        };
        self.append(keeper, batch).await?;
        Ok(true)
    }

    /// Appends the blocks in hand. A log without room for them is at its end: the next image has
    /// what they tell.
    async fn append(&self, keeper: &mut Keeper, batch: u64) -> Result<(), String> {
        let Some(log) = &mut keeper.log else {
            return Ok(());
        };
        if log.room() < keeper.blocks.len() as u64 {
            (keeper.log, keeper.writer) = (None, None);
            return Ok(());
        }
        let blocks = &mut keeper.blocks;
        seal(blocks, log.number, log.next, self.clock.now_us());
        let written = self.area.write(log.at(), blocks, true).await;
        written.map_err(|errno| ImageFailure::Area(errno).to_string())?;
        log.next += (blocks.len() / BLOCK_BYTES) as u64;
        if let Some(writer) = keeper.writer.as_mut().filter(|w| batch > w.batch()) {
            writer.carry(blocks);
        }
        self.journal.progress.fetch_add(1, Relaxed);
        self.journal.commit(batch);
        Ok(())
    }

    /// Starts an image of what is known now.
    async fn begin_image(&self, keeper: &mut Keeper) -> Result<(), String> {
        let generation = self.journal.generation.fetch_add(1, Relaxed) + 1;
        let header = begin_header(self.superblock.area, generation, random_u64());
        let capture = self.capture(&mut keeper.blocks);
        let batch = capture.batch;
        let half = self.journal.half.load(Relaxed) ^ 1;
        let writer = ImageWriter::new(self.layout(), header, half, capture);
        if !keeper.blocks.is_empty() {
            // Queued before the image: the log before it is told, so that nobody waits.
            self.append(keeper, batch).await?;
        }
        keeper.writer = Some(writer);
        Ok(())
    }

    /// One moment: what was queued before it is in `blocks`, what is queued after it will be
    /// carried.
    fn capture(&self, blocks: &mut Vec<u8>) -> Capture {
        loop {
            let epoch = self.tracker.epoch();
            let spans = self.tracker.spans();
            let mut queue = self.journal.queue();
            if self.tracker.epoch() != epoch {
                continue;
            }
            queue.packer.take(blocks);
            queue.batch += 1;
            let asked = queue.activating.iter().map(|(_, regions)| *regions);
            let active = self.journal.regions.all().into_iter().chain(asked);
            let mut checkpoints = self.state.checkpoints();
            // One of the running epoch belongs to a cut that is under way.
            checkpoints.retain(|checkpoint| checkpoint.epoch < epoch);
            let placed = |(layer, entry): (Layer, SnapshotEntry)| {
                let fate = queue.endings.fate(entry.id).unwrap_or(entry.fate);
                let snapshot = SnapshotEntry { fate, ..entry };
                let place = layer.number();
                Placed { place, snapshot }
            };
            let mut snapshots = self.layers.all();
            snapshots.retain(|(_, entry)| self.journal.keeps_snapshots && entry.epoch < epoch);
            return Capture {
                lineage: self.tracker.lineage(),
                checkpoints,
                spans: spans.into(),
                snapshots: snapshots.into_iter().map(placed).collect(),
                current: self.tracker.current(),
                active: active.collect(),
                origin: queue.watch.seen.as_ref().map(Facts::encode),
                batch: queue.batch - 1,
            };
        }
    }

    /// Goes on with the image, if there is one.
    async fn step_image(&self, keeper: &mut Keeper) -> Result<bool, String> {
        let Some(mut writer) = keeper.writer.take() else {
            return Ok(false);
        };
        let batch = writer.batch();
        let stepped = writer.step(&self.area, &self.tracker).await;
        self.journal.progress.fetch_add(1, Relaxed);
        let finished = match stepped {
            Ok(false) => {
                keeper.writer = Some(writer);
                return Ok(true);
            }
            Ok(true) => {
                let progress = &self.journal.progress;
                writer.finish(&self.area, &self.clock, progress).await
            }
            Err(failure) => Err(failure),
        };
        match finished {
            Ok(log) => {
                self.journal.half.store(log.which, Relaxed);
                keeper.log = Some(log);
                self.journal.commit(batch);
                self.journal.resumed();
            }
            // The next one is begun anew.
            Err(ImageFailure::Again) => {}
            Err(ImageFailure::TooLarge) => self.forget_oldest()?,
            Err(failure) => return Err(failure.to_string()),
        }
        Ok(true)
    }

    /// Makes room in the journal.
    fn forget_oldest(&self) -> Result<(), String> {
        let epochs = self.checkpoint_epochs();
        let Some(oldest) = epochs.first() else {
            return Err(ImageFailure::TooLarge.to_string());
        };
        self.forget_for_room(*oldest, "the area's journal has no room for its changes");
        let ordered = self.tracker.housekeep(&epochs[1..]);
        ordered.map_err(|error| error.to_string())
    }
}
