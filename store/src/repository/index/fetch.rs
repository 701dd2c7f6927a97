//! Getting a blob out of the storage.

use std::sync::{PoisonError, RwLock};

use super::table::{PackInfo, Place, Table};
use crate::repository::{
    error::{Error, Result},
    format::{blob::Decoder, name},
    id::{Blob, Digest},
    open::Repository,
};

/// Fetches blobs; one a thread.
pub struct Fetcher<'a> {
    repository: &'a Repository,
    table: &'a RwLock<Table>,
    decoder: Decoder,
    stored: Vec<u8>,
}

impl<'a> Fetcher<'a> {
    /// A new one.
    pub fn new(repository: &'a Repository, table: &'a RwLock<Table>) -> Result<Self> {
        Ok(Self {
            repository,
            table,
            decoder: decoder()?,
            stored: Vec::new(),
        })
    }

    /// The plain bytes of a blob in `plain`, from any pack that has it undamaged.
    pub fn fetch(&mut self, kind: Blob, id: Digest, plain: &mut Vec<u8>) -> Result<()> {
        let places = self.places(kind, id);
        let mut failed = Error::Missing(id);
        for (place, pack) in places {
            match self.fetch_from(&place, &pack, plain) {
                Ok(()) => return Ok(()),
                Err(why) => failed = why,
            }
        }
        Err(failed)
    }

    /// The plain bytes of a blob from one pack.
    pub fn fetch_from(
        &mut self,
        place: &Place,
        pack: &PackInfo,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        let len = usize::try_from(place.entry.stored_bytes).unwrap_or(usize::MAX);
        self.stored.resize(len, 0);
        let name = name::pack(pack.name);
        self.repository
            .read_range(&name, place.offset.into(), &mut self.stored)?;
        let stored = std::mem::take(&mut self.stored);
        let opened = self.open(place, pack, &stored, plain);
        self.stored = stored;
        opened
    }

    /// The plain bytes of a blob whose stored bytes were read already.
    pub fn open(
        &mut self,
        place: &Place,
        pack: &PackInfo,
        stored: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        let vault = &self.repository.vault;
        self.decoder
            .open(vault, pack.salt, place.number, &place.entry, stored, plain)
            .map_err(|damage| Error::DamagedBlob {
                pack: pack.name,
                offset: place.offset.into(),
                len: place.entry.stored_bytes,
                blob: place.entry.id,
                damage,
            })
    }

    /// Where a blob is, packs that nobody wants to delete first.
    fn places(&self, kind: Blob, id: Digest) -> Vec<(Place, PackInfo)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut places: Vec<_> = table
            .find(id)
            .filter(|place| place.entry.kind == kind)
            .map(|place| (*place, *table.pack(place.pack)))
            .collect();
        places.sort_by_key(|(_, pack)| pack.condemned);
        places
    }
}

pub(in crate::repository) fn decoder() -> Result<Decoder> {
    Decoder::new().map_err(|why| Error::Storage {
        what: "prepare",
        name: "a decoder".to_owned(),
        why,
    })
}
