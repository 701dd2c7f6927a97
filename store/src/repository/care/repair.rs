//! Mending what a check found: from other packs, and from a second copy of the repository.
//!
//! Nothing is overwritten. Blobs that are whole are stored again, away from damaged packs; these are
//! condemned and go with a later prune. What cannot be found anywhere stays missing, and a check says
//! which points lack it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{PoisonError, RwLock},
};

use super::check::ReadData;
use crate::{
    repository::{
        error::{Error, Result},
        format::{envelope::Kind, name, point::Point},
        id::{Blob, Digest},
        index::Fetcher,
        limits::{MAX_RECORD_BYTES, MIN_GRACE_SECONDS},
        open::Repository,
        writer::{
            Progress,
            sink::{Coder, Sink},
        },
    },
    units::Id,
};

/// What a repair did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Repaired {
    /// Blobs that were nowhere whole and came from the second copy.
    pub fetched_blobs: usize,
    /// Blobs that are still nowhere whole.
    pub lost_blobs: usize,
    /// Damaged packs whose whole blobs were stored again.
    pub replaced_packs: usize,
    /// Damaged indexes that were made anew.
    pub replaced_indexes: usize,
    /// Damaged points that came from the second copy.
    pub fetched_points: Vec<Id>,
    /// Damaged points that are still damaged.
    pub lost_points: Vec<Id>,
}

impl Repository {
    /// Checks everything and mends what can be mended. `second`: a copy with the same keys, such as a
    /// mirror of the directory.
    pub fn repair(&self, second: Option<&Self>, progress: &Progress) -> Result<Repaired> {
        let mut done = Repaired::default();
        self.mend_points(second, &mut done)?;
        let checked = self.check(ReadData::All, progress)?;
        let mut lost = checked.lost;
        // A node that comes back shows what else is missing below it.
        loop {
            let fetched = self.fetch_lost(second, &lost)?;
            done.fetched_blobs += fetched;
            if fetched == 0 {
                break;
            }
            lost = self.check(ReadData::None, progress)?.lost;
        }
        done.lost_blobs = lost.len();
        if !checked.damaged_packs.is_empty() {
            let packs: Vec<_> = checked.damaged_packs.into_iter().collect();
            self.leave(&packs)?;
            done.replaced_packs = packs.len();
        }
        done.replaced_indexes = self.mend_indexes()?;
        self.drop_damaged_condemnations()?;
        Ok(done)
    }

    /// Points, byte for byte from the second copy.
    fn mend_points(&self, second: Option<&Self>, done: &mut Repaired) -> Result<()> {
        for object in self.list(name::POINTS)? {
            let Some(id) = name::parse_id(name::POINTS, &object.name) else {
                continue;
            };
            match self.point(id) {
                Err(why) if why.is_integrity() => {}
                _ => continue,
            }
            let whole = second.and_then(|second| {
                let bytes = second.read(&object.name, MAX_RECORD_BYTES).ok()?;
                let body = self
                    .vault
                    .unwrap(Kind::Point, Some(id), &object.name, &bytes);
                Point::decode(&body.ok()?).map(|_| bytes)
            });
            let Some(bytes) = whole else {
                done.lost_points.push(id);
                continue;
            };
            self.delete(&object.name)?;
            self.create(&object.name, &bytes)?;
            done.fetched_points.push(id);
        }
        Ok(())
    }

    fn fetch_lost(&self, second: Option<&Self>, lost: &BTreeMap<Digest, Blob>) -> Result<usize> {
        let Some(second) = second.filter(|_| !lost.is_empty()) else {
            return Ok(0);
        };
        let theirs = second.table()?;
        let mut fetcher = Fetcher::new(second, &theirs)?;
        // Their damaged places must not count as stored.
        let ours = RwLock::default();
        let sink = Sink::new(self, &ours, HashSet::new())?;
        let (mut coder, mut plain, mut fetched) = (Coder::new()?, Vec::new(), 0);
        for (id, kind) in lost {
            let there = fetcher.fetch(*kind, *id, &mut plain).is_ok();
            // Another key gives other ids.
            if there && self.vault.id(*kind, &plain) == *id {
                sink.put(&mut coder, *kind, &plain, 0)?;
                fetched += 1;
            }
        }
        sink.finish()?;
        Ok(fetched)
    }

    /// Stores again what is whole in these packs, and condemns them.
    fn leave(&self, packs: &[Digest]) -> Result<()> {
        let table = RwLock::new(self.load()?.table);
        let sink = Sink::new(self, &table, packs.iter().copied().collect())?;
        let (mut coder, mut plain) = (Coder::new()?, Vec::new());
        let mut fetcher = Fetcher::new(self, &table)?;
        let entries: Vec<_> = {
            let table = table.read().unwrap_or_else(PoisonError::into_inner);
            let numbers = packs.iter().filter_map(|pack| table.number_of(*pack));
            numbers
                .flat_map(|number| table.list_of(number).entries)
                .collect()
        };
        for entry in entries {
            if fetcher.fetch(entry.kind, entry.id, &mut plain).is_ok() {
                sink.put(&mut coder, entry.kind, &plain, 0)?;
            }
        }
        sink.finish()?;
        let mut packs = packs.to_vec();
        packs.sort();
        self.condemn(packs, 24 * MIN_GRACE_SECONDS, "repair")
    }

    /// What a damaged condemnation meant to delete stays, for the next prune to find.
    fn drop_damaged_condemnations(&self) -> Result<()> {
        let mut damaged = Vec::new();
        self.condemnations(&mut damaged)?;
        for why in damaged {
            if let Error::Damaged { name, .. } = why {
                self.delete(&name)?;
            }
        }
        Ok(())
    }

    /// Puts packs that only damaged indexes had into a new one, and deletes the damaged ones.
    fn mend_indexes(&self) -> Result<usize> {
        let loaded = self.load()?;
        let damaged: Vec<_> = loaded
            .indexes
            .iter()
            .filter(|(_, packs)| packs.is_empty())
            .map(|(index, _)| *index)
            .collect();
        let table = RwLock::new(loaded.table);
        let sink = Sink::new(self, &table, HashSet::new())?;
        sink.adopt();
        sink.finish()?;
        for index in &damaged {
            self.delete(&name::index(*index))?;
        }
        Ok(damaged.len())
    }
}
