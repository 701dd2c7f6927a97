//! Listing what changed and what a snapshot holds.

use roaring::RoaringTreemap;
use tidemark_store::{
    changes::{ChangeSet, HistoryError},
    units::{BlockRange, ByteRange, Epoch, Id},
};

use super::{ChangeError, Clock, Extent, ExtentPage, Kind, Step, Tracker, ViewError, Volume};
use crate::{disk::Disk, request::Errno};

/// The last diff between two checkpoints, so that its next page need not compute it again.
pub(super) type DiffCache = Option<((Id, Epoch, Epoch), std::sync::Arc<ChangeSet>)>;

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// What changed after the checkpoint `since` and up to the checkpoint `until` (`None`: now),
    /// from byte `start` on, in at most `max` extents. I6: every block that differs is in it.
    pub fn changes(
        &self,
        lineage: Option<Id>,
        since: Epoch,
        until: Option<Epoch>,
        start: u64,
        max: usize,
    ) -> Result<ExtentPage, ChangeError> {
        let current = self.tracker.lineage();
        if lineage.is_some_and(|asked| asked != current.id) {
            return Err(ChangeError::TrackingReset {
                cause: current.cause,
            });
        }
        self.check_checkpoints(since, until)?;
        let first = start / self.geometry.block_bytes();
        let set = self.diff(current.id, since, until, first)?;
        // A reset between the two would have given another lineage's changes.
        let now = self.tracker.lineage();
        if now.id != current.id {
            return Err(ChangeError::TrackingReset { cause: now.cause });
        }
        let extents = set.runs(first).map(|(run, kind)| self.extent(run, kind));
        Ok(ExtentPage {
            over_report_bytes: set.coarse_blocks() * self.geometry.block_bytes(),
            ..page(extents, max)
        })
    }

    fn check_checkpoints(&self, since: Epoch, until: Option<Epoch>) -> Result<(), ChangeError> {
        if let Some(until) = until.filter(|until| *until < since) {
            return Err(ChangeError::Backwards { since, until });
        }
        let known = self.checkpoint_epochs();
        match [Some(since), until]
            .into_iter()
            .flatten()
            .find(|e| known.binary_search(e).is_err())
        {
            Some(gone) => Err(ChangeError::CheckpointGone(gone)),
            None => Ok(()),
        }
    }

    fn diff(
        &self,
        lineage: Id,
        since: Epoch,
        until: Option<Epoch>,
        first: u64,
    ) -> Result<std::sync::Arc<ChangeSet>, ChangeError> {
        let key = until.map(|until| (lineage, since, until));
        let mut cache = super::lock(&self.diff_cache);
        if let (Some(key), Some((cached, set))) = (key, cache.as_ref())
            && (*cached == key || self.clock.omits(Step::CompareSpan))
        {
            return Ok(set.clone());
        }
        let set = self
            .tracker
            .changes(since, until, first)
            .map_err(|error| match error {
                HistoryError::Missing(epoch) => ChangeError::CheckpointGone(epoch),
                error => ChangeError::State {
                    epoch: until.unwrap_or(since),
                    errno: error.raw_os_error().map_or(Errno::EIO, Errno),
                },
            })?;
        let set = std::sync::Arc::new(set);
        if let Some(key) = key {
            *cache = Some((key, set.clone()));
        }
        Ok(set)
    }

    /// What a snapshot holds from byte `start` on, in at most `max` extents: data, and zeros
    /// where the origin has and had a hole. Together they cover everything up to the page's end.
    pub async fn allocated(&self, id: Id, start: u64, max: usize) -> Result<ExtentPage, ViewError> {
        let snapshot = self.live_snapshot(id)?;
        let capacity = self.geometry.capacity();
        let mut holes = Vec::new();
        let mut at = start;
        // As with reads: the origin first, then the index.
        while at < capacity && holes.len() < max {
            let run = self.origin.run_at(at).await.map_err(ViewError::Origin)?;
            if run.hole {
                holes.push(self.geometry.covered(ByteRange::new(at, run.end - at)));
            }
            at = run.end;
        }
        let end = self
            .geometry
            .touched(ByteRange::new(0, at.min(capacity)))
            .end;
        let mut zero = RoaringTreemap::new();
        for hole in holes {
            zero.insert_range(hole.start..hole.end);
        }
        let copied: RoaringTreemap = self.index.blocks_from(snapshot.epoch).collect();
        zero -= copied;
        self.live_snapshot(id)?;
        let first = self.geometry.touched(ByteRange::new(start, 1)).start;
        let all = BlockRange::new(first, end);
        let mut found = page(
            runs(&zero, all).map(|(run, kind)| self.extent(run, kind)),
            max,
        );
        // A scan that stopped within the last block told all of it.
        let told = self.geometry.bytes_of(all).end();
        if found.next.is_none() && told < capacity {
            found.next = Some(told);
        }
        Ok(found)
    }

    fn extent(&self, run: BlockRange, kind: Kind) -> Extent {
        Extent {
            range: self.geometry.bytes_of(run),
            kind,
        }
    }
}

/// The first `max` extents, and where the next begins.
fn page(extents: impl Iterator<Item = Extent>, max: usize) -> ExtentPage {
    let mut extents = extents.filter(|extent| !extent.range.is_empty());
    let page = extents.by_ref().take(max.max(1)).collect();
    ExtentPage {
        extents: page,
        next: extents.next().map(|extent| extent.range.offset),
        over_report_bytes: 0,
    }
}

/// The blocks of `all` in runs, zero where `zero` has them, else data.
fn runs(zero: &RoaringTreemap, all: BlockRange) -> impl Iterator<Item = (BlockRange, Kind)> {
    let mut at = all.start;
    std::iter::from_fn(move || {
        if at >= all.end {
            return None;
        }
        let is_zero = zero.contains(at);
        let end = if is_zero {
            first_missing(zero, at, all.end)
        } else {
            let mut later = zero.iter();
            later.advance_to(at);
            later.next().unwrap_or(all.end).min(all.end)
        };
        let run = BlockRange::new(at, end);
        at = end;
        Some((run, if is_zero { Kind::Zero } else { Kind::Data }))
    })
}

/// The first block after `at`, which is in the set, that is not; at most `limit`. Doubles and
/// halves its steps, because runs are long.
fn first_missing(set: &RoaringTreemap, at: u64, limit: u64) -> u64 {
    let mut end = at;
    let mut step = 1;
    while step > 0 {
        let next = (end + step).min(limit);
        if next > end && set.contains_range(end..next) {
            end = next;
            step *= 2;
        } else {
            step /= 2;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_cover_all_blocks_once(
            blocks in prop::collection::btree_set(0_u64..300, 0..200), start in 0_u64..300,
        ) {
            let zero: RoaringTreemap = blocks.iter().collect();
            let mut at = start;
            for (run, kind) in runs(&zero, BlockRange::new(start, 300)) {
                prop_assert_eq!(run.start, at);
                prop_assert!(!run.is_empty());
                for block in run.blocks() {
                    prop_assert_eq!(blocks.contains(&block.0), kind == Kind::Zero);
                }
                at = run.end;
            }
            prop_assert_eq!(at, 300);
        }
    }
}
