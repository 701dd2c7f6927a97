//! Deleting what no recovery point needs, in two phases with a grace between them, beside any number of
//! backups and other prunes. FORMAT.md, "Many hosts, no locks", says why that is safe.
//!
//! ```text
//! in use --nothing needs it--> condemned --a grace later, nothing needs it still--> deleted
//!    ^                             |
//!    +------ a point needs it -----+   (pardoned)
//! ```
//!
//! Each run first executes what is due, then condemns what it finds. A death at any point leaves
//! what the next run can go on from: new indexes are put before old ones go, indexes go before packs, and a
//! condemnation goes last.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use super::marks::Marks;
use crate::{
    repository::{
        backend::StorageTime,
        crypto::secret,
        error::Result,
        format::{condemned::Condemned, envelope::Kind, name},
        id::Digest,
        index::{Fetcher, Loaded, Table},
        limits::{INDEX_TARGET_ENTRIES, PACK_TARGET_BYTES},
        open::{Repository, now_us},
        writer::{
            Progress,
            sink::{Coder, Sink},
        },
    },
    units::Id,
};

/// So many packs of less than a quarter of the usual size are worth putting together.
const MANY_SMALL: usize = 16;
/// So many indexes are worth putting together.
const MANY_INDEXES: usize = 64;

/// What a prune may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PruneOptions {
    /// How long condemned packs stay, in seconds. Less than an hour only when nothing else runs.
    pub grace_seconds: u64,
    /// Packs younger than this, in seconds, are left alone: a backup may be about to need them.
    pub min_age_seconds: u64,
    /// A pack is stored anew when more than this part of it, in percent, is waste.
    pub max_waste_percent: u8,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Who, for people.
    pub by: String,
}

impl Default for PruneOptions {
    /// A day of grace, a day of age, half of a pack.
    fn default() -> Self {
        Self {
            grace_seconds: 24 * 3600,
            min_age_seconds: 24 * 3600,
            max_waste_percent: 50,
            dry_run: false,
            by: String::new(),
        }
    }
}

/// What a prune did, or would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// Packs deleted,
    pub deleted_packs: usize,
    /// and their bytes.
    pub deleted_bytes: u64,
    /// Packs condemned by earlier runs and needed after all.
    pub pardoned_packs: usize,
    /// Packs condemned,
    pub condemned_packs: usize,
    /// and their bytes.
    pub condemned_bytes: u64,
    /// Stored bytes of blobs that were stored anew because most of their packs was waste.
    pub moved_bytes: u64,
}

/// What one run knows.
struct Prune<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    /// Before anything was listed.
    now: StorageTime,
    table: RwLock<Table>,
    condemned: Vec<(Id, Condemned, StorageTime)>,
    indexes: BTreeMap<Digest, Vec<Digest>>,
    unreadable: HashSet<Digest>,
    marks: Marks,
    gone: HashSet<Digest>,
    done: Pruned,
}

impl Repository {
    /// Executes condemnations that are due and condemns what no point needs. Refuses while anything
    /// that a point needs is damaged or missing.
    pub fn prune(&self, options: &PruneOptions, progress: &Progress) -> Result<Pruned> {
        let now = self.now()?;
        let points = self.points()?;
        let Loaded {
            table,
            condemned,
            indexes,
            unreadable,
            ..
        } = self.load()?;
        let table = RwLock::new(table);
        let marks = Marks::of_all_points(self, points, &table, progress)?;
        let mut prune = Prune {
            repository: self,
            options,
            now,
            table,
            condemned,
            indexes,
            unreadable: unreadable.into_iter().collect(),
            marks,
            gone: HashSet::new(),
            done: Pruned::default(),
        };
        prune.execute()?;
        progress.go_on()?;
        prune.condemn()?;
        if !options.dry_run {
            // What it leaves is no object; that it stays a while harms nobody.
            self.backend.sweep().unwrap_or_default();
        }
        Ok(prune.done)
    }
}

impl Prune<'_> {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes what was condemned a grace ago and is still not needed.
    fn execute(&mut self) -> Result<()> {
        let due = self
            .condemned
            .iter()
            .filter(|(_, condemned, created)| {
                self.now.seconds_since(*created) >= condemned.grace_seconds
            })
            .map(|(id, condemned, _)| (*id, condemned.packs.clone()));
        let due: Vec<_> = due.collect();
        for (_, packs) in &due {
            for pack in packs {
                self.judge(*pack);
            }
        }
        if self.options.dry_run {
            return Ok(());
        }
        self.rewrite_indexes()?;
        for pack in &self.gone {
            self.repository.delete(&name::pack(*pack))?;
        }
        for (id, _) in &due {
            self.repository
                .delete(&name::with_id(name::CONDEMNED, *id))?;
        }
        let executed: HashSet<_> = due.iter().map(|(id, _)| *id).collect();
        self.condemned.retain(|(id, ..)| !executed.contains(id));
        Ok(())
    }

    /// Whether a condemned pack goes.
    fn judge(&mut self, pack: Digest) {
        let table = self.table();
        let bytes = match table.number_of(pack) {
            Some(number) => {
                let mut blobs = table.blobs_of(number);
                if blobs.any(|blob| self.marks.has(blob) && !has_elsewhere(&table, blob)) {
                    drop(table);
                    self.done.pardoned_packs += 1;
                    return;
                }
                table.pack(number).bytes
            }
            // All that is needed was found without it.
            None if self.unreadable.contains(&pack) => 0,
            // Deleted by another prune.
            None => return,
        };
        drop(table);
        if self.gone.insert(pack) {
            self.done.deleted_packs += 1;
            self.done.deleted_bytes += bytes;
        }
    }

    /// Puts indexes without the packs that go, and deletes those with them.
    fn rewrite_indexes(&self) -> Result<()> {
        let table = self.table();
        let stays = |pack: &Digest| !self.gone.contains(pack) && table.number_of(*pack).is_some();
        let all = self.indexes.len() > MANY_INDEXES;
        let old: Vec<_> = self
            .indexes
            .iter()
            .filter(|(_, packs)| all || !packs.iter().all(stays))
            .collect();
        let kept: HashSet<_> = old
            .iter()
            .flat_map(|(_, packs)| packs.iter())
            .copied()
            .collect();
        let lists: Vec<_> = kept
            .into_iter()
            .filter(stays)
            .filter_map(|pack| table.number_of(pack).map(|number| table.list_of(number)))
            .collect();
        drop(table);
        let mut batch = Vec::new();
        let mut entries = 0;
        for list in lists {
            entries += list.entries.len();
            batch.push(list);
            if entries >= INDEX_TARGET_ENTRIES {
                self.repository.put_index(std::mem::take(&mut batch))?;
                entries = 0;
            }
        }
        if !batch.is_empty() {
            self.repository.put_index(batch)?;
        }
        for (index, _) in old {
            self.repository.delete(&name::index(*index))?;
        }
        Ok(())
    }

    /// Condemns packs that nothing needs, and those whose blobs it stored anew.
    fn condemn(&mut self) -> Result<()> {
        let (mut packs, moving) = self.choose();
        self.done.condemned_packs = packs.len() + moving.len();
        let table = self.table();
        let number = |pack: &Digest| table.number_of(*pack);
        let chosen = packs.iter().chain(&moving).filter_map(number);
        let bytes = chosen.map(|number| table.pack(number).bytes).sum();
        drop(table);
        self.done.condemned_bytes = bytes;
        if self.options.dry_run || self.done.condemned_packs == 0 {
            return Ok(());
        }
        self.done.moved_bytes = self.relocate(&moving)?;
        packs.extend(moving);
        packs.sort();
        self.repository
            .condemn(packs, self.options.grace_seconds, &self.options.by)
    }

    /// Packs that nothing needs, and packs that are mostly waste or too small.
    fn choose(&self) -> (Vec<Digest>, Vec<Digest>) {
        let table = self.table();
        let (mut waste, mut partly, mut small) = (Vec::new(), Vec::new(), Vec::new());
        for (number, pack) in (0_u32..).zip(table.packs()) {
            let age = self.now.seconds_since(pack.created);
            let young = age < self.options.min_age_seconds;
            if pack.condemned || young || self.gone.contains(&pack.name) {
                continue;
            }
            // Of blobs only: what a pack has around them would be around them in another, too.
            let (mut blobs, mut needed) = (0, 0);
            for blob in table.blobs_of(number) {
                let stored = u64::from(table.places()[blob].entry.stored_bytes);
                blobs += stored;
                if self.marks.has(blob) && is_first(&table, blob) {
                    needed += stored;
                }
            }
            let percent = u64::from(self.options.max_waste_percent.min(100));
            if needed == 0 {
                waste.push(pack.name);
            } else if (blobs - needed) * 100 > blobs * percent {
                partly.push(pack.name);
            } else if pack.bytes < PACK_TARGET_BYTES as u64 / 4 {
                small.push(pack.name);
            }
        }
        if small.len() >= MANY_SMALL {
            partly.append(&mut small);
        }
        (waste, partly)
    }

    /// Stores what is needed of these packs anew; gives its bytes.
    fn relocate(&self, packs: &[Digest]) -> Result<u64> {
        let avoided: HashSet<_> = packs.iter().chain(&self.gone).copied().collect();
        let sink = Sink::new(self.repository, &self.table, avoided)?;
        let (mut coder, mut plain) = (Coder::new()?, Vec::new());
        let mut fetcher = Fetcher::new(self.repository, &self.table)?;
        let mut moved = 0;
        for pack in packs {
            let table = self.table();
            let Some(number) = table.number_of(*pack) else {
                continue;
            };
            let blobs = table.blobs_of(number).filter(|blob| self.marks.has(*blob));
            let blobs: Vec<_> = blobs.map(|blob| table.places()[blob].entry).collect();
            drop(table);
            for entry in blobs {
                fetcher.fetch(entry.kind, entry.id, &mut plain)?;
                sink.put(&mut coder, entry.kind, &plain, 0)?;
                moved += u64::from(entry.stored_bytes);
            }
        }
        sink.finish()?;
        Ok(moved)
    }
}

impl Repository {
    /// Says that packs, which ascend, are to be deleted.
    pub(in crate::repository) fn condemn(
        &self,
        packs: Vec<Digest>,
        grace_seconds: u64,
        by: &str,
    ) -> Result<()> {
        let condemned = Condemned {
            by: by.to_owned(),
            said_us: now_us(),
            grace_seconds,
            packs,
        };
        let id = Id(secret::random()?);
        let bytes = self
            .vault
            .wrap(Kind::Condemned, Some(id), &condemned.encode())?;
        self.create(&name::with_id(name::CONDEMNED, id), &bytes)
    }
}

/// Whether a blob is in a pack that nobody wants to delete.
fn has_elsewhere(table: &Table, blob: usize) -> bool {
    let id = table.places()[blob].entry.id;
    table
        .find(id)
        .any(|place| !table.pack(place.pack).condemned)
}

/// Of a blob's places in packs that nobody wants to delete, whether this is the one that counts.
fn is_first(table: &Table, blob: usize) -> bool {
    let id = table.places()[blob].entry.id;
    let mut places = table.numbers(id);
    places.find(|other| !table.pack(table.places()[*other].pack).condemned) == Some(blob)
}
