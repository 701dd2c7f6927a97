//! Where new blobs go: each once, verified, into packs that are stored as they fill, and into indexes.
//!
//! Many threads put; the one that fills a pack stores it while the others fill the next. What was put
//! counts as stored only after [`Sink::finish`].

use std::{
    collections::HashSet,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::packer::OpenPack;
use crate::repository::{
    backend::StorageTime,
    error::{Error, Result},
    format::{
        blob::{Decoder, Encoder},
        envelope::Kind,
        index::{self, PackList},
        name,
        pack::Entry,
    },
    id::{Blob, Digest},
    index::{Table, fetch::decoder},
    limits::{INDEX_TARGET_ENTRIES, MAX_STORING},
    open::Repository,
};

/// Compresses, and checks what it made; one a thread.
pub(in crate::repository) struct Coder {
    encoder: Encoder,
    decoder: Decoder,
    frame: Vec<u8>,
    back: Vec<u8>,
}

impl Coder {
    pub(in crate::repository) fn new() -> Result<Self> {
        Ok(Self {
            encoder: Encoder::new().map_err(|why| Error::Storage {
                what: "prepare",
                name: "an encoder".to_owned(),
                why,
            })?,
            decoder: decoder()?,
            frame: Vec::new(),
            back: Vec::new(),
        })
    }
}

/// New blobs of one session.
pub(in crate::repository) struct Sink<'a> {
    repository: &'a Repository,
    table: &'a RwLock<Table>,
    /// Nodes have packs of their own, so that walking trees reads few of them.
    chunks: Mutex<OpenPack>,
    nodes: Mutex<OpenPack>,
    /// Blobs that are put and not in the table yet.
    claimed: Mutex<HashSet<Digest>>,
    relied: Mutex<HashSet<u32>>,
    /// Those of them that this session found and has not made sure of.
    found: Mutex<HashSet<u32>>,
    unindexed: Mutex<Vec<PackList>>,
    storing: Mutex<usize>,
    stored: Condvar,
    /// Those of stored packs, for the next ones.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Packs that count as if they were not there.
    avoided: HashSet<Digest>,
    new_bytes: AtomicU64,
    stored_bytes: AtomicU64,
}

impl<'a> Sink<'a> {
    /// What is put goes to `repository`; what `table` has in packs that are neither condemned nor in
    /// `avoided` is stored already.
    pub(in crate::repository) fn new(
        repository: &'a Repository,
        table: &'a RwLock<Table>,
        avoided: HashSet<Digest>,
    ) -> Result<Self> {
        Ok(Self {
            repository,
            table,
            chunks: Mutex::new(OpenPack::new(&repository.vault, Vec::new())?),
            nodes: Mutex::new(OpenPack::new(&repository.vault, Vec::new())?),
            claimed: Mutex::default(),
            relied: Mutex::default(),
            found: Mutex::default(),
            unindexed: Mutex::default(),
            storing: Mutex::new(0),
            stored: Condvar::new(),
            buffers: Mutex::default(),
            avoided,
            new_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
        })
    }

    /// Puts packs that are stored and in no index into this session's index.
    pub(in crate::repository) fn adopt(&self) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let orphans = (0_u32..)
            .zip(table.packs())
            .filter(|(_, pack)| !pack.indexed);
        let lists = orphans.map(|(number, _)| table.list_of(number));
        locked(&self.unindexed).extend(lists);
    }

    /// The blob's id; stores the blob unless it is stored. `at` is where it is in the image, for the
    /// error.
    pub(in crate::repository) fn put(
        &self,
        coder: &mut Coder,
        kind: Blob,
        plain: &[u8],
        at: u64,
    ) -> Result<Digest> {
        let vault = &self.repository.vault;
        let id = vault.id(kind, plain);
        if !self.claim(id) {
            return Ok(id);
        }
        let Coder {
            encoder,
            decoder,
            frame,
            back,
        } = coder;
        let compressed = encoder.compress(plain, frame);
        if let Some(compressed) = compressed {
            // A compressor's fault, or memory's, must not be found by the restore.
            let decoded = decoder.decompress(compressed, plain.len(), back);
            if decoded.is_err() || vault.id(kind, back) != id {
                return Err(Error::BadEncoding { offset: at });
            }
        }
        let entry = Entry {
            id,
            kind,
            compressed: compressed.is_some(),
            stored_bytes: 0,
            plain_bytes: u32::try_from(plain.len()).unwrap_or(u32::MAX),
        };
        self.new_bytes
            .fetch_add(plain.len() as u64, Ordering::Relaxed);
        self.add(entry, compressed.unwrap_or(plain))?;
        Ok(id)
    }

    fn add(&self, entry: Entry, frame: &[u8]) -> Result<()> {
        let vault = &self.repository.vault;
        let open = match entry.kind {
            Blob::Chunk => &self.chunks,
            Blob::Node => &self.nodes,
        };
        let full = {
            let mut open = locked(open);
            open.add(vault, entry, frame);
            if !open.is_full() {
                return Ok(());
            }
            std::mem::replace(&mut *open, self.open_pack()?)
        };
        self.store(full)
    }

    fn open_pack(&self) -> Result<OpenPack> {
        let buffer = locked(&self.buffers).pop();
        OpenPack::new(&self.repository.vault, buffer.unwrap_or_default())
    }

    /// Whether the caller is to store a blob: it is not stored, and nobody else does.
    fn claim(&self, id: Digest) -> bool {
        // Under the lock, for a blob is in the table before its claim ends.
        let mut claimed = locked(&self.claimed);
        !self.is_stored(id) && claimed.insert(id)
    }

    /// Whether a blob is in a pack that this session may rely on; relies on it from now on.
    fn is_stored(&self, id: Digest) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut places = table.find(id);
        let usable = places.find(|place| {
            let pack = table.pack(place.pack);
            !pack.condemned && !self.avoided.contains(&pack.name)
        });
        usable.is_some_and(|place| {
            if locked(&self.relied).insert(place.pack) {
                locked(&self.found).insert(place.pack);
            }
            true
        })
    }

    /// Stores a pack when there is a turn for it.
    fn store(&self, pack: OpenPack) -> Result<()> {
        let turn = locked(&self.storing);
        let turn = self.stored.wait_while(turn, |turn| *turn >= MAX_STORING);
        *turn.unwrap_or_else(PoisonError::into_inner) += 1;
        let stored = self.store_now(pack);
        *locked(&self.storing) -= 1;
        self.stored.notify_one();
        stored
    }

    fn store_now(&self, pack: OpenPack) -> Result<()> {
        let (bytes, list) = pack.finish(&self.repository.vault);
        self.repository.create(&name::pack(list.pack), &bytes)?;
        self.stored_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        locked(&self.buffers).push(bytes);
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            let number = table.add(&list, StorageTime::default(), false);
            locked(&self.relied).insert(number);
        }
        {
            let mut claimed = locked(&self.claimed);
            list.entries.iter().for_each(|entry| {
                claimed.remove(&entry.id);
            });
        }
        let mut unindexed = locked(&self.unindexed);
        unindexed.push(list);
        let entries: usize = unindexed.iter().map(|list| list.entries.len()).sum();
        if entries < INDEX_TARGET_ENTRIES {
            return Ok(());
        }
        let lists = std::mem::take(&mut *unindexed);
        drop(unindexed);
        self.store_index(lists)
    }

    fn store_index(&self, lists: Vec<PackList>) -> Result<()> {
        let bytes = self.repository.put_index(lists)?;
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Stores what is not stored yet, and makes sure of what was found. More may be put afterwards.
    pub(in crate::repository) fn finish(&self) -> Result<()> {
        self.hold_found()?;
        for open in [&self.chunks, &self.nodes] {
            let mut open = locked(open);
            if !open.is_empty() {
                let last = std::mem::replace(&mut *open, self.open_pack()?);
                drop(open);
                self.store(last)?;
            }
        }
        let lists = std::mem::take(&mut *locked(&self.unindexed));
        if lists.is_empty() {
            return Ok(());
        }
        self.store_index(lists)
    }

    fn hold_found(&self) -> Result<()> {
        let found = std::mem::take(&mut *locked(&self.found));
        let names: Vec<_> = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            let names = found.iter().map(|pack| name::pack(table.pack(*pack).name));
            names.collect()
        };
        self.repository.hold(&names)
    }

    /// The packs that this session relies on: those that it stored and those that it found.
    pub(in crate::repository) fn relied(&self) -> Vec<Digest> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let relied = locked(&self.relied);
        relied.iter().map(|pack| table.pack(*pack).name).collect()
    }

    /// Plain bytes that were new, and bytes that the storage has more for them.
    pub(in crate::repository) fn written(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.new_bytes), read(&self.stored_bytes))
    }
}

impl Repository {
    /// Stores an index of packs; gives its bytes.
    pub(in crate::repository) fn put_index(&self, mut lists: Vec<PackList>) -> Result<u64> {
        lists.sort_by_key(|list| list.pack);
        lists.dedup_by_key(|list| list.pack);
        let bytes = self.vault.wrap(Kind::Index, None, &index::encode(&lists))?;
        let digest = Digest(*blake3::hash(&bytes).as_bytes());
        match self.create(&name::index(digest), &bytes) {
            Err(why) if !why.is_taken() => Err(why),
            // The same packs in an index of the same bytes.
            _ => Ok(bytes.len() as u64),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
