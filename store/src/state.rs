//! The state file: what a volume server leaves in memory for its successor.
//!
//! It lies on a memory file system and is mapped shared, so that it survives the process but not
//! the host. Everything is words that are stored whole; where several words belong together, one
//! of them commits. See FORMAT.md, "State".
//!
//! ```text
//! header (4 KiB) | snapshots (1,024 x 64 B) | checkpoints (1,024 x 16 B) | slots | checksums
//! ```

use std::{
    io,
    path::Path,
    sync::atomic::Ordering::{AcqRel, Acquire, Release},
};

use crate::{
    media::Mapping,
    sync::{AtomicU32, AtomicU64},
    units::{Epoch, Geometry, Id},
};

/// Most snapshots of a volume, live ones and those whose shared data is still needed.
pub const MAX_SNAPSHOTS: usize = if cfg!(loom) { 4 } else { 1024 };
/// Most checkpoints of a volume; each keeps the changes since the one before, at most 32 MiB a TiB.
pub const MAX_CHECKPOINTS: usize = if cfg!(loom) { 4 } else { 1024 };
/// Most bytes of the text that says why a lineage began.
pub const MAX_CAUSE_BYTES: usize = 256;

const MAGIC: u64 = u64::from_le_bytes(*b"TIDESTAT");
const VERSION: u64 = 2;

/// No volume sees as many cuts; damage does.
const NO_EPOCH: Epoch = Epoch(1 << 62);

const COMMIT: usize = 10;
const ALIVE: usize = 11;
const FRESH: usize = 12;
const COMMITS: usize = 13;
const UNTOLD: usize = 14;
const LINEAGES: usize = 16;
const LINEAGE_WORDS: usize = 4 + MAX_CAUSE_BYTES / 8;
const SNAPSHOTS: usize = 512;
const SNAPSHOT_WORDS: usize = 8;
const CHECKPOINTS: usize = SNAPSHOTS + MAX_SNAPSHOTS * SNAPSHOT_WORDS;
const CHECKPOINT_WORDS: usize = 2;
const SLOTS: usize = CHECKPOINTS + MAX_CHECKPOINTS * CHECKPOINT_WORDS;

const _: () = assert!(LINEAGES + 2 * LINEAGE_WORDS <= SNAPSHOTS);
const _: () = assert!(
    SLOTS.is_multiple_of(512) || cfg!(loom),
    "slots start on a page"
);

/// What a state file must agree on to be taken up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The volume.
    pub volume: Id,
    /// The area that the slots lie in.
    pub area: Id,
    /// Size and block size.
    pub geometry: Geometry,
    /// Slots of the area.
    pub slots: u32,
}

/// A span of unbroken tracking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lineage {
    /// Random.
    pub id: Id,
    /// Why it began.
    pub cause: String,
    /// When, in microseconds since the UNIX epoch.
    pub since_us: u64,
}

/// What became of a snapshot, as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Readable.
    Live,
    /// Released on request.
    Released,
    /// Dropped because the store filled.
    Overflowed,
    /// Lost to an I/O error.
    Lost,
}

impl Fate {
    pub(crate) const fn to_word(self) -> u64 {
        match self {
            Self::Live => 1,
            Self::Released => 2,
            Self::Overflowed => 3,
            Self::Lost => 4,
        }
    }

    pub(crate) const fn of_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Live),
            2 => Some(Self::Released),
            3 => Some(Self::Overflowed),
            4 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// A snapshot's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotEntry {
    /// Chosen by whoever asked for it.
    pub id: Id,
    /// The epoch that its cut ended.
    pub epoch: Epoch,
    /// When, in microseconds since the UNIX epoch.
    pub created_us: u64,
    /// Whether it is readable.
    pub fate: Fate,
    /// What was written before its cut is on the origin's medium.
    pub settled: bool,
}

/// A checkpoint's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointEntry {
    /// The epoch that its cut ended.
    pub epoch: Epoch,
    /// When, in microseconds since the UNIX epoch.
    pub created_us: u64,
}

/// The mapped state of one volume.
#[derive(Debug)]
pub struct State {
    mapping: Mapping,
    slots: usize,
}

impl State {
    /// Makes the state of a volume that begins a lineage with `epoch`.
    pub fn create(
        path: &Path,
        identity: Identity,
        lineage: &Lineage,
        epoch: Epoch,
    ) -> io::Result<Self> {
        let slots = slots_len(identity)?;
        let mapping = Mapping::create(path, total_bytes(slots))?;
        let state = Self { mapping, slots };
        for (word, value) in state
            .mapping
            .words(1, 8)
            .iter()
            .zip(identity_words(identity))
        {
            word.store(value, Release);
        }
        state.commit_lineage(lineage, epoch);
        // Last: a file without its magic was never finished.
        state.word(0).store(MAGIC, Release);
        Ok(state)
    }

    /// Takes up a dead process's state; `None` when there is none or it is another volume's.
    pub fn open(path: &Path, identity: Identity) -> io::Result<Option<Self>> {
        let slots = slots_len(identity)?;
        let mapping = match Mapping::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            mapping => mapping?,
        };
        if mapping.len() != total_bytes(slots) {
            return Ok(None);
        }
        let state = Self { mapping, slots };
        let same = state.word(0).load(Acquire) == MAGIC
            && state
                .mapping
                .words(1, 8)
                .iter()
                .zip(identity_words(identity))
                .all(|(word, value)| word.load(Acquire) == value)
            && (Epoch::FIRST..NO_EPOCH).contains(&state.epoch());
        Ok(same.then_some(state))
    }

    /// The running epoch.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.word(COMMIT).load(Acquire) >> 1)
    }

    /// Begins the next epoch of the same lineage: the moment that a cut counts.
    pub fn commit_epoch(&self, epoch: Epoch) {
        let which = self.word(COMMIT).load(Acquire) & 1;
        self.word(COMMIT).store(epoch.0 << 1 | which, Release);
    }

    /// Begins a new lineage with `epoch`. The record that is not in force is written first, one
    /// store then switches to it.
    pub fn commit_lineage(&self, lineage: &Lineage, epoch: Epoch) {
        let which = self.word(COMMIT).load(Acquire) & 1 ^ 1;
        let record = self.lineage_record(which);
        let [high, low] = id_words(lineage.id);
        let cause = truncated(&lineage.cause);
        for (word, value) in record
            .iter()
            .zip([high, low, lineage.since_us, cause.len() as u64])
        {
            word.store(value, Release);
        }
        for (word, chunk) in record[4..].iter().zip(cause.as_bytes().chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), Release);
        }
        self.word(COMMIT).store(epoch.0 << 1 | which, Release);
    }

    /// The lineage in force.
    pub fn lineage(&self) -> Lineage {
        let record = self.lineage_record(self.word(COMMIT).load(Acquire) & 1);
        let word = |index: usize| record[index].load(Acquire);
        let mut cause: Vec<u8> = record[4..]
            .iter()
            .flat_map(|word| word.load(Acquire).to_le_bytes())
            .collect();
        cause.truncate(usize::try_from(word(3)).unwrap_or(0));
        Lineage {
            id: id_of([word(0), word(1)]),
            cause: String::from_utf8_lossy(&cause).into_owned(),
            since_us: word(2),
        }
    }

    /// When the process that owned the state last said that it lives, in microseconds since the
    /// UNIX epoch.
    pub fn alive_us(&self) -> u64 {
        self.word(ALIVE).load(Acquire)
    }

    /// Says that this process lives.
    pub fn set_alive_us(&self, now_us: u64) {
        self.word(ALIVE).store(now_us, Release);
    }

    /// The number of the next commit of the slot table, see [`crate::cow::table`]; greater than every
    /// one before.
    pub fn next_commit(&self) -> u64 {
        self.word(COMMITS).fetch_add(1, AcqRel) + 1
    }

    /// Commits up to this number were made before the state was.
    pub fn set_commits(&self, commits: u64) {
        self.word(COMMITS).store(commits, Release);
    }

    /// Whether changes go on that the area's journal does not tell of: what it tells is not to be
    /// believed, whoever finds it.
    pub fn is_untold(&self) -> bool {
        self.word(UNTOLD).load(Acquire) != 0
    }

    /// Says whether they do; to be said before the first of them.
    pub fn set_untold(&self, untold: bool) {
        self.word(UNTOLD).store(u64::from(untold), Release);
    }

    /// Slots below this number have been used.
    pub(crate) fn fresh(&self) -> &AtomicU64 {
        self.word(FRESH)
    }

    /// For each slot its block and layer; 0 is free.
    pub(crate) fn slot_words(&self) -> &[AtomicU64] {
        self.mapping.words(SLOTS, self.slots)
    }

    /// For each slot the CRC32C of its block.
    pub(crate) fn checksums(&self) -> &[AtomicU32] {
        self.mapping
            .half_words((SLOTS + self.slots) * 8, self.slots)
    }

    /// The snapshot at a place of the table.
    pub fn snapshot(&self, place: usize) -> Option<SnapshotEntry> {
        let words = self.snapshot_words(place);
        let word = |index: usize| words[index].load(Acquire);
        Some(SnapshotEntry {
            fate: Fate::of_word(word(0))?,
            epoch: Epoch(word(1)),
            created_us: word(2),
            id: id_of([word(3), word(4)]),
            settled: word(5) != 0,
        })
    }

    /// Fills a free place; its fate is stored last and makes it count.
    pub fn set_snapshot(&self, place: usize, entry: &SnapshotEntry) {
        let words = self.snapshot_words(place);
        words[0].store(0, Release);
        let [high, low] = id_words(entry.id);
        for (word, value) in words[1..].iter().zip([
            entry.epoch.0,
            entry.created_us,
            high,
            low,
            entry.settled.into(),
        ]) {
            word.store(value, Release);
        }
        words[0].store(entry.fate.to_word(), Release);
    }

    /// Changes what became of a snapshot.
    pub fn set_fate(&self, place: usize, fate: Fate) {
        self.snapshot_words(place)[0].store(fate.to_word(), Release);
    }

    /// Notes that a snapshot is settled.
    pub fn settle_snapshot(&self, place: usize) {
        self.snapshot_words(place)[5].store(1, Release);
    }

    /// Frees a place.
    pub fn clear_snapshot(&self, place: usize) {
        self.snapshot_words(place)[0].store(0, Release);
    }

    /// Checkpoints in any order.
    pub fn checkpoints(&self) -> Vec<CheckpointEntry> {
        self.checkpoint_words()
            .filter_map(|words| {
                let epoch = Epoch(words[0].load(Acquire));
                let created_us = words[1].load(Acquire);
                (epoch.0 != 0).then_some(CheckpointEntry { epoch, created_us })
            })
            .collect()
    }

    /// Adds a checkpoint; `false` when the table is full.
    pub fn add_checkpoint(&self, entry: CheckpointEntry) -> bool {
        let free = self
            .checkpoint_words()
            .find(|words| words[0].load(Acquire) == 0);
        free.inspect(|words| {
            words[1].store(entry.created_us, Release);
            words[0].store(entry.epoch.0, Release);
        })
        .is_some()
    }

    /// Removes a checkpoint; `false` when there is none.
    pub fn remove_checkpoint(&self, epoch: Epoch) -> bool {
        // A place without a checkpoint has the epoch 0.
        let found = self
            .checkpoint_words()
            .find(|words| epoch.0 != 0 && words[0].load(Acquire) == epoch.0);
        found.inspect(|words| words[0].store(0, Release)).is_some()
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.mapping.words(index, 1)[0]
    }

    fn lineage_record(&self, which: u64) -> &[AtomicU64] {
        let first = if which == 0 {
            LINEAGES
        } else {
            LINEAGES + LINEAGE_WORDS
        };
        self.mapping.words(first, LINEAGE_WORDS)
    }

    fn snapshot_words(&self, place: usize) -> &[AtomicU64] {
        self.mapping
            .words(SNAPSHOTS + place * SNAPSHOT_WORDS, SNAPSHOT_WORDS)
    }

    fn checkpoint_words(&self) -> impl Iterator<Item = &[AtomicU64]> {
        self.mapping
            .words(CHECKPOINTS, MAX_CHECKPOINTS * CHECKPOINT_WORDS)
            .chunks_exact(CHECKPOINT_WORDS)
    }
}

fn slots_len(identity: Identity) -> io::Result<usize> {
    usize::try_from(identity.slots).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

const fn total_bytes(slots: usize) -> usize {
    // The last checksum of an odd number of slots shares its word with nothing.
    ((SLOTS + slots) * 8 + slots * 4).next_multiple_of(8)
}

fn identity_words(identity: Identity) -> [u64; 8] {
    let [volume_high, volume_low] = id_words(identity.volume);
    let [area_high, area_low] = id_words(identity.area);
    [
        VERSION,
        volume_high,
        volume_low,
        area_high,
        area_low,
        identity.geometry.capacity(),
        identity.geometry.block_bytes(),
        u64::from(identity.slots),
    ]
}

/// An identity as two words.
pub(crate) fn id_words(id: Id) -> [u64; 2] {
    let wide = u128::from_be_bytes(id.0);
    #[expect(clippy::cast_possible_truncation, reason = "each half has 64 bits")]
    [(wide >> 64) as u64, wide as u64]
}

fn id_of([high, low]: [u64; 2]) -> Id {
    Id((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

/// The text up to its limit, cut between characters.
fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_CAUSE_BYTES)]
}

#[cfg(test)]
mod tests;
