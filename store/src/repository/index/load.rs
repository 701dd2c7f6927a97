//! Reading what a repository has, in the order that makes it safe to rely on (FORMAT.md, W1):
//! condemnations, then packs, then indexes.

use std::collections::{BTreeMap, HashMap};

use super::table::Table;
use crate::{
    repository::{
        backend::StorageTime,
        error::{Damage, Error, Result},
        format::{
            condemned::Condemned,
            envelope::Kind,
            index::{self, PackList},
            name,
            pack::{HEADER_BYTES, TRAILER_BYTES, parse_footer, parse_header, parse_trailer},
        },
        id::Digest,
        limits::{MAX_CONDEMNED_BYTES, MAX_INDEX_BYTES, MAX_PACK_BYTES},
        open::Repository,
    },
    units::Id,
};

/// What a repository had when it was read.
#[derive(Debug)]
pub struct Loaded {
    /// All blobs of packs that can be read.
    pub table: Table,
    /// Condemnations with the time when each came to be.
    pub condemned: Vec<(Id, Condemned, StorageTime)>,
    /// Indexes, each with the packs that it tells of.
    pub indexes: BTreeMap<Digest, Vec<Digest>>,
    /// Objects that are damaged.
    pub damaged: Vec<Error>,
    /// Packs that the storage has and that cannot be read.
    pub unreadable: Vec<Digest>,
}

impl Repository {
    /// Reads what there is. Damaged objects do not stop it: a damaged index is made up for by the
    /// footers of its packs.
    pub fn load(&self) -> Result<Loaded> {
        let mut damaged = Vec::new();
        let condemned = self.condemnations(&mut damaged)?;
        let packs = self.packs()?;
        let mut loaded = Loaded {
            table: Table::default(),
            condemned,
            indexes: BTreeMap::new(),
            damaged,
            unreadable: Vec::new(),
        };
        self.load_indexes(&packs, &mut loaded)?;
        for (pack, about) in &packs {
            if loaded.table.number_of(*pack).is_some() {
                continue;
            }
            match self.pack_list(*pack, about.bytes) {
                Ok(list) => {
                    loaded.table.add(&list, about.created, false);
                }
                // A prune took it since the listing.
                Err(why) if why.is_not_found() => {}
                Err(why) if why.is_integrity() => {
                    loaded.unreadable.push(*pack);
                    if !loaded.is_condemned(*pack) {
                        loaded.damaged.push(why);
                    }
                }
                Err(why) => return Err(why),
            }
        }
        for (_, condemned, _) in &loaded.condemned {
            for pack in &condemned.packs {
                loaded.table.condemn(*pack);
            }
        }
        Ok(loaded)
    }

    /// Condemnations, with the time when each came to be. Damaged ones go to `damaged`: what they
    /// condemn is not deleted.
    pub(in crate::repository) fn condemnations(
        &self,
        damaged: &mut Vec<Error>,
    ) -> Result<Vec<(Id, Condemned, StorageTime)>> {
        let mut found = Vec::new();
        for object in self.list(name::CONDEMNED)? {
            let Some(id) = name::parse_id(name::CONDEMNED, &object.name) else {
                continue;
            };
            let bytes = match self.read(&object.name, MAX_CONDEMNED_BYTES) {
                Err(why) if why.is_not_found() => continue,
                Err(why) if why.is_integrity() => {
                    damaged.push(why);
                    continue;
                }
                other => other?,
            };
            let body = self
                .vault
                .unwrap(Kind::Condemned, Some(id), &object.name, &bytes);
            let malformed = || Error::damaged(&object.name, Damage::Malformed);
            match body.and_then(|body| Condemned::decode(&body).ok_or_else(malformed)) {
                Ok(condemned) => found.push((id, condemned, object.created)),
                Err(why) => damaged.push(why),
            }
        }
        Ok(found)
    }

    /// The packs that the storage has.
    pub(in crate::repository) fn packs(&self) -> Result<HashMap<Digest, PackAbout>> {
        let listed = self.list(name::PACKS)?.into_iter();
        let packs = listed.filter_map(|object| {
            let about = PackAbout {
                bytes: object.bytes,
                created: object.created,
            };
            Some((name::parse_pack(&object.name)?, about))
        });
        Ok(packs.collect())
    }

    fn load_indexes(&self, packs: &HashMap<Digest, PackAbout>, loaded: &mut Loaded) -> Result<()> {
        // An index that a prune replaces meanwhile has a successor in the next listing.
        loop {
            let mut gone = false;
            for object in self.list(name::INDEXES)? {
                let Some(digest) = name::parse_index(&object.name) else {
                    continue;
                };
                if loaded.indexes.contains_key(&digest) {
                    continue;
                }
                match self.read_index(digest, &object.name) {
                    Ok(lists) => loaded.take_index(digest, &lists, packs),
                    Err(why) if why.is_not_found() => gone = true,
                    Err(why) if why.is_integrity() => {
                        loaded.indexes.insert(digest, Vec::new());
                        loaded.damaged.push(why);
                    }
                    Err(why) => return Err(why),
                }
            }
            if !gone {
                return Ok(());
            }
        }
    }

    fn read_index(&self, digest: Digest, name: &str) -> Result<Vec<PackList>> {
        let bytes = self.read(name, MAX_INDEX_BYTES)?;
        if Digest(*blake3::hash(&bytes).as_bytes()) != digest {
            return Err(Error::damaged(name, Damage::Checksum));
        }
        let body = self.vault.unwrap(Kind::Index, None, name, &bytes)?;
        index::decode(&body, self.vault.is_sealed())
            .ok_or_else(|| Error::damaged(name, Damage::Malformed))
    }

    /// What a pack lists in its footer.
    pub(in crate::repository) fn pack_list(&self, pack: Digest, bytes: u64) -> Result<PackList> {
        let name = name::pack(pack);
        let damaged = |damage| Error::damaged(&name, damage);
        let around = (HEADER_BYTES + TRAILER_BYTES) as u64;
        if !(around..=MAX_PACK_BYTES).contains(&bytes) {
            return Err(damaged(Damage::Length));
        }
        let (mut header, mut trailer) = ([0; HEADER_BYTES], [0; TRAILER_BYTES]);
        self.read_range(&name, 0, &mut header)?;
        self.read_range(&name, bytes - TRAILER_BYTES as u64, &mut trailer)?;
        let len = parse_trailer(bytes, &trailer).map_err(damaged)?;
        let mut footer = vec![0; usize::try_from(len).unwrap_or(0)];
        let at = bytes - TRAILER_BYTES as u64 - u64::from(len);
        self.read_range(&name, at, &mut footer)?;
        let entries = parse_footer(&self.vault, bytes, &header, &footer).map_err(damaged)?;
        Ok(PackList {
            pack,
            salt: parse_header(&self.vault, &header).map_err(damaged)?,
            entries,
        })
    }
}

/// What a listing says of a pack.
#[derive(Clone, Copy, Debug)]
pub(in crate::repository) struct PackAbout {
    /// Its bytes.
    pub(in crate::repository) bytes: u64,
    /// When it came to be.
    pub(in crate::repository) created: StorageTime,
}

impl Loaded {
    /// Whether some condemnation has a pack.
    pub fn is_condemned(&self, pack: Digest) -> bool {
        let mut condemned = self.condemned.iter();
        condemned.any(|(_, condemned, _)| condemned.packs.binary_search(&pack).is_ok())
    }

    fn take_index(
        &mut self,
        digest: Digest,
        lists: &[PackList],
        packs: &HashMap<Digest, PackAbout>,
    ) {
        for list in lists {
            // What is not listed is gone, and what has another length is not what was indexed.
            if let Some(about) = packs
                .get(&list.pack)
                .filter(|about| about.bytes == list.bytes())
            {
                self.table.add(list, about.created, true);
            }
        }
        let names = lists.iter().map(|list| list.pack).collect();
        self.indexes.insert(digest, names);
    }
}
