//! A full read against a base: blocks that the base has are not stored again, at 4 KiB.
//!
//! Where tracking broke, everything must be read, but little has changed. A chunk of the base whose
//! blocks still have its id costs a hash. Only of the others are the old bytes fetched and compared.

use std::sync::{PoisonError, RwLock};

use super::{
    backup::Source,
    gather::{byte_of, read_image},
    plan::{Draft, Slot},
};
use crate::repository::{
    error::Result,
    format::{envelope::Vault, node::Run},
    id::{Blob, Digest},
    index::{Fetcher, Table},
    limits::BLOCK_BYTES,
    open::Repository,
};

/// Compares leaves with the base's.
pub(super) struct Comparer<'a> {
    source: &'a dyn Source,
    capacity: u64,
    vault: &'a Vault,
    table: &'a RwLock<Table>,
    fetcher: Fetcher<'a>,
    new: Vec<u8>,
    old: Vec<u8>,
    /// Bytes read here.
    pub(super) read_bytes: u64,
}

impl<'a> Comparer<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        table: &'a RwLock<Table>,
        source: &'a dyn Source,
        capacity: u64,
    ) -> Result<Self> {
        Ok(Self {
            source,
            capacity,
            vault: &repository.vault,
            table,
            fetcher: Fetcher::new(repository, table)?,
            new: Vec::new(),
            old: Vec::new(),
            read_bytes: 0,
        })
    }

    /// Of the blocks that the draft wants, leaves alone those that are as the base has them.
    pub(super) fn keep_equal(&mut self, draft: &mut Draft) -> Result<()> {
        let chunks = draft.base().chunks.clone();
        for (chunk, id) in (0_u32..).zip(chunks) {
            let mut runs: Vec<Run> = draft.base().runs.clone();
            runs.retain(|run| run.chunk == chunk);
            runs.sort_by_key(|run| run.start);
            // What the repository lost is stored again.
            if self.is_there(id) {
                self.keep_chunk(draft, id, &runs)?;
            }
        }
        Ok(())
    }

    fn keep_chunk(&mut self, draft: &mut Draft, id: Digest, runs: &[Run]) -> Result<()> {
        self.new.clear();
        for run in runs {
            let before = self.new.len();
            self.new
                .resize(before + run.blocks as usize * BLOCK_BYTES, 0);
            let offset = byte_of(draft.number, run.at);
            read_image(self.source, self.capacity, offset, &mut self.new[before..])?;
        }
        self.read_bytes += self.new.len() as u64;
        let whole = self.vault.id(Blob::Chunk, &self.new) == id;
        // What cannot be fetched any more counts as changed.
        if !whole && self.fetcher.fetch(Blob::Chunk, id, &mut self.old).is_err() {
            return Ok(());
        }
        let mut behind = 0;
        for run in runs {
            for n in 0..run.blocks {
                let new = &self.new[behind..behind + BLOCK_BYTES];
                let at = (run.start + n) as usize * BLOCK_BYTES;
                let equal = whole || self.old.get(at..at + BLOCK_BYTES) == Some(new);
                let slot = &mut draft.slots[(run.at + n) as usize];
                if equal && *slot == Slot::Wanted {
                    *slot = Slot::Old {
                        chunk: run.chunk,
                        block: run.start + n,
                    };
                }
                behind += BLOCK_BYTES;
            }
        }
        Ok(())
    }

    fn is_there(&self, id: Digest) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table
            .find(id)
            .any(|place| place.entry.kind == Blob::Chunk && !table.pack(place.pack).condemned)
    }
}
