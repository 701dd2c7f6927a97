//! Which regions become active and go cold, and what is told of them; all under the journal's lock.

use std::sync::{
    Arc,
    atomic::{Ordering::SeqCst, fence},
};

use tidemark_store::{
    changes::DenseMap,
    journal::{Record, Regions},
    units::BlockRange,
};

use super::{AHEAD, AT_ONCE, Journal, MANY, MAX_QUEUED, Queue};

impl Journal {
    /// Queues some bits of the oldest ended epoch; whether there is more to do.
    pub(super) fn tell_ended(&self) -> bool {
        let mut queue = self.queue();
        let Some(map) = queue.inexact.first().cloned() else {
            return false;
        };
        if queue.packer.len() >= MAX_QUEUED {
            return false;
        }
        for _ in 0..AT_ONCE {
            let Some(region) = self.regions.next_active(queue.telling) else {
                queue.telling = 0;
                queue.inexact.remove(0);
                self.push(&mut queue, &Record::Exact(map.epoch()));
                return true;
            };
            self.tell(&mut queue, region, &map);
            queue.telling = region + 1;
        }
        true
    }

    /// Queues that the blocks' regions become active; the batch that tells so.
    pub(super) fn ask(
        &self,
        blocks: BlockRange,
        regions: Regions,
        map: &impl Fn() -> Arc<DenseMap>,
    ) -> u64 {
        let mut queue = self.queue();
        if regions.end - regions.first <= MANY {
            let asked = (regions.first..regions.end).map(|at| self.ask_one(&mut queue, at, map));
            return asked.max().unwrap_or(0);
        }
        // Known to change whole: nothing has to be over-reported, nor kept active.
        let inner = self.covered(blocks);
        let whole = Record::Whole {
            epoch: map().epoch(),
            regions: inner,
        };
        self.push(&mut queue, &whole);
        let mut batch = queue.batch;
        for edge in [regions.first, regions.end - 1] {
            if !(inner.first..inner.end).contains(&edge) {
                batch = batch.max(self.ask_one(&mut queue, edge, map));
            }
        }
        batch
    }

    fn ask_one(&self, queue: &mut Queue, region: u64, map: &impl Fn() -> Arc<DenseMap>) -> u64 {
        if self.regions.is_active(region) {
            return 0;
        }
        if let Some(batch) = queue.asked(region) {
            return batch;
        }
        let follows = region > 0 && self.regions.is_active(region - 1);
        let ahead = if follows { self.ahead() } else { 1 };
        let limit = (region + ahead).min(self.regions.len());
        // One that is active already may go cold before this is written, and must stay so then.
        let mut others = region + 1..limit;
        let known = |at: &u64| self.regions.is_active(*at) || queue.asked(*at).is_some();
        let end = others.find(known).unwrap_or(limit);
        self.make_active(queue, Regions { first: region, end }, map);
        queue.batch
    }

    /// A sequential writer came to the middle of what was made active for it.
    pub(super) fn go_ahead(&self, region: u64, map: &impl Fn() -> Arc<DenseMap>) {
        let middle = region + self.ahead().div_ceil(2);
        let follows = region > 0 && self.regions.is_active(region - 1);
        if follows && middle < self.regions.len() && !self.regions.is_active(middle) {
            let end = (region + self.ahead() + 1).min(self.regions.len());
            let mut queue = self.queue();
            for next in region + 1..end {
                self.ask_one(&mut queue, next, map);
            }
        }
    }

    /// Regions made active at a time; few where few may be.
    fn ahead(&self) -> u64 {
        AHEAD.min(self.max_active / 4).max(1)
    }

    fn make_active(&self, queue: &mut Queue, regions: Regions, map: &impl Fn() -> Arc<DenseMap>) {
        self.make_room(queue, regions.end - regions.first, map);
        queue.activating.push((queue.batch, regions));
        self.push(queue, &Record::Activate(regions));
    }

    /// Keeps the number of active regions within its limit.
    fn make_room(&self, queue: &mut Queue, wanted: u64, map: &impl Fn() -> Arc<DenseMap>) {
        let waiting = queue.activating.iter().map(|(_, r)| r.end - r.first);
        let waiting = waiting.sum::<u64>() + wanted;
        // Once around takes the marks off, the second finds any.
        let mut rounds = 0;
        while self.regions.count() + waiting > self.max_active
            && self.regions.count() > 0
            && rounds < 3
        {
            match self.regions.next_unused(queue.hand) {
                Some(region) => {
                    self.make_cold(queue, region, &map());
                    queue.hand = region + 1;
                }
                None => (queue.hand, rounds) = (0, rounds + 1),
            }
        }
    }

    /// See the head of this file.
    pub(super) fn make_cold(&self, queue: &mut Queue, region: u64, current: &DenseMap) {
        self.regions.deactivate(region);
        fence(SeqCst);
        for map in queue.inexact.clone() {
            self.tell(queue, region, &map);
        }
        self.tell(queue, region, current);
        self.push(queue, &Record::Cold(region));
    }

    fn tell(&self, queue: &mut Queue, region: u64, map: &DenseMap) {
        let bits = map.bits(self.geometry.blocks_of_regions(region, region + 1));
        if bits != [0; 32] {
            let epoch = map.epoch();
            let record = Record::Fine {
                epoch,
                region,
                bits,
            };
            self.push(queue, &record);
        }
    }

    pub(super) fn regions_of(&self, blocks: BlockRange) -> Regions {
        let per_region = self.geometry.region_blocks();
        Regions {
            first: blocks.start / per_region,
            end: blocks.end.div_ceil(per_region),
        }
    }

    /// Regions of which every block is among `blocks`.
    fn covered(&self, blocks: BlockRange) -> Regions {
        let per_region = self.geometry.region_blocks();
        let end = if blocks.end >= self.geometry.blocks() {
            self.geometry.regions()
        } else {
            blocks.end / per_region
        };
        let first = blocks.start.div_ceil(per_region);
        Regions {
            first,
            end: end.max(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemark_store::{
        state::{Identity, Lineage, State},
        units::{Epoch, Geometry, Id},
    };

    use super::*;

    #[test]
    fn a_region_that_goes_cold_meanwhile_stays_cold() {
        let geometry = Geometry::new(64 << 20, 4096).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let map = DenseMap::create(
            &dir.path().join("m"),
            Id([1; 16]),
            Epoch(1),
            geometry.blocks(),
        );
        let map = Arc::new(map.unwrap());
        let identity = Identity {
            volume: Id([1; 16]),
            area: Id([2; 16]),
            geometry,
            slots: 16,
        };
        let lineage = Lineage {
            id: Id([3; 16]),
            cause: "attached".to_owned(),
            since_us: 0,
        };
        let state = State::create(&dir.path().join("state"), identity, &lineage, Epoch(1));
        let state = Arc::new(state.unwrap());
        let journal = Journal::new(geometry, true, false, Some(64), (0, 0), state);
        let current = || Arc::clone(&map);
        let ask = |region: u64| {
            let regions = Regions {
                first: region,
                end: region + 1,
            };
            let blocks = geometry.blocks_of_regions(region, region + 1);
            journal.ask(blocks, regions, &current)
        };
        let write = || {
            let batch = journal.take(&mut Vec::new()).unwrap();
            journal.commit(batch);
        };
        for region in [4, 6] {
            ask(region);
            write();
        }
        // Runs ahead, but not over what is active.
        ask(5);
        journal.make_cold(&mut journal.queue(), 6, &map);
        write();
        assert!(journal.regions.is_active(5));
        assert!(!journal.regions.is_active(6));
    }
}
