//! The table of all blobs. 56 bytes a blob and 6 to 12 for the search: a TiB in chunks of 1 MiB, with its
//! tree, takes about 85 MiB.

use std::collections::HashMap;

use crate::repository::{
    backend::StorageTime,
    format::{
        index::PackList,
        pack::{Entry, HEADER_BYTES, SALT_BYTES},
    },
    id::Digest,
};

/// A pack that the storage has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackInfo {
    /// Its name.
    pub name: Digest,
    /// What is random in it.
    pub salt: [u8; SALT_BYTES],
    /// Its bytes.
    pub bytes: u64,
    /// When it came to be.
    pub created: StorageTime,
    /// Whether some condemnation has it.
    pub condemned: bool,
    /// Whether some index has it.
    pub indexed: bool,
    first: u32,
    blobs: u32,
}

/// Where a blob is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The blob, as its pack lists it.
    pub entry: Entry,
    /// Number of the pack in the table.
    pub pack: u32,
    /// Number of the blob in its pack.
    pub number: u32,
    /// Its first byte in the pack.
    pub offset: u32,
}

// There are millions of them.
const _: () = assert!(size_of::<Place>() == 56);

/// All blobs of a repository.
#[derive(Debug, Default)]
pub struct Table {
    packs: Vec<PackInfo>,
    names: HashMap<Digest, u32>,
    places: Vec<Place>,
    /// Numbers of places plus one, found by their ids' bytes; 0 is free. A power of two, at most two
    /// thirds used. A blob in several packs has a slot for each.
    slots: Vec<u32>,
}

impl Table {
    /// Adds a pack and its blobs; gives its number. A pack that is known already is left as it is.
    pub fn add(&mut self, list: &PackList, created: StorageTime, indexed: bool) -> u32 {
        if let Some(known) = self.names.get(&list.pack) {
            return *known;
        }
        let pack = count(self.packs.len());
        self.packs.push(PackInfo {
            name: list.pack,
            salt: list.salt,
            bytes: list.bytes(),
            created,
            condemned: false,
            indexed,
            first: count(self.places.len()),
            blobs: count(list.entries.len()),
        });
        self.names.insert(list.pack, pack);
        let mut offset = count(HEADER_BYTES);
        for (number, entry) in list.entries.iter().enumerate() {
            self.place(Place {
                entry: *entry,
                pack,
                number: count(number),
                offset,
            });
            offset = offset.saturating_add(entry.stored_bytes);
        }
        pack
    }

    /// Says that some condemnation has a pack.
    pub fn condemn(&mut self, name: Digest) {
        if let Some(pack) = self.names.get(&name) {
            self.packs[*pack as usize].condemned = true;
        }
    }

    /// The number of a pack.
    pub fn number_of(&self, name: Digest) -> Option<u32> {
        self.names.get(&name).copied()
    }

    /// A pack; panics on a number that is not of this table.
    pub fn pack(&self, number: u32) -> &PackInfo {
        &self.packs[number as usize]
    }

    /// All packs, by number.
    pub fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    /// All blobs; those of a pack stand together, in its order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The numbers of a pack's blobs among [`Table::places`].
    pub fn blobs_of(&self, pack: u32) -> std::ops::Range<usize> {
        let info = self.pack(pack);
        info.first as usize..info.first as usize + info.blobs as usize
    }

    /// A pack with its blobs, as an index has it.
    pub fn list_of(&self, pack: u32) -> PackList {
        let info = self.pack(pack);
        let places = &self.places[self.blobs_of(pack)];
        PackList {
            pack: info.name,
            salt: info.salt,
            entries: places.iter().map(|place| place.entry).collect(),
        }
    }

    /// Everywhere that a blob is, as numbers among [`Table::places`].
    pub fn numbers(&self, id: Digest) -> impl Iterator<Item = usize> + '_ {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = spread(id) & mask;
        std::iter::from_fn(move || {
            while let Some(number) = self.slots.get(at)?.checked_sub(1) {
                at = (at + 1) & mask;
                if self.places[number as usize].entry.id == id {
                    return Some(number as usize);
                }
            }
            None
        })
    }

    /// Everywhere that a blob is.
    pub fn find(&self, id: Digest) -> impl Iterator<Item = &Place> + '_ {
        self.numbers(id).map(|number| &self.places[number])
    }

    fn place(&mut self, place: Place) {
        if (self.places.len() + 1) * 3 > self.slots.len() * 2 {
            self.grow();
        }
        self.places.push(place);
        let number = count(self.places.len());
        self.enter(place.entry.id, number);
    }

    fn enter(&mut self, id: Digest, number: u32) {
        let mask = self.slots.len() - 1;
        let mut at = spread(id) & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = number;
    }

    fn grow(&mut self) {
        self.slots = vec![0; (self.slots.len() * 2).max(1024)];
        for place in 0..self.places.len() {
            self.enter(self.places[place].entry.id, count(place + 1));
        }
    }
}

/// Ids are digests: any of their bytes spread evenly.
fn spread(id: Digest) -> usize {
    usize::try_from(id.spread() & u64::from(u32::MAX)).unwrap_or(0)
}

/// Four thousand million blobs are 4 PiB in chunks of 1 MiB; a table of them does not fit in memory.
fn count(number: usize) -> u32 {
    u32::try_from(number).expect("a table has fewer than 2^32 blobs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::id::Blob;

    #[test]
    fn every_place_of_a_blob_is_found() {
        let id = |n: u32| Digest(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let list = |pack: u32, blobs: std::ops::Range<u32>| PackList {
            pack: id(1_000_000 + pack),
            salt: [0; SALT_BYTES],
            entries: blobs
                .map(|n| Entry {
                    id: id(n),
                    kind: Blob::Chunk,
                    compressed: false,
                    stored_bytes: 4096,
                    plain_bytes: 4096,
                })
                .collect(),
        };
        let mut table = Table::default();
        assert_eq!(table.find(id(1)).count(), 0);
        for pack in 0..30 {
            table.add(
                &list(pack, pack * 100..pack * 100 + 200),
                StorageTime(0),
                true,
            );
        }
        assert_eq!(table.find(id(50)).count(), 1);
        let places: Vec<_> = table
            .find(id(150))
            .map(|place| (place.pack, place.number))
            .collect();
        assert_eq!(places, [(0, 150), (1, 50)]);
        assert_eq!(table.find(id(150)).nth(1).unwrap().offset, 48 + 50 * 4096);
        assert_eq!(table.find(id(3100)).count(), 0);
        assert_eq!(table.list_of(7), list(7, 700..900));
        assert_eq!(table.number_of(id(1_000_007)), Some(7));
    }
}
