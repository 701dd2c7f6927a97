//! Snapshots as layers: the table that says which are live.
//!
//! ```text
//! free ──add──> live ──release──> released   ┐
//!                 ├──overflow──> overflowed  ├── its place is taken again once no slot
//!                 └──I/O error──> lost       ┘   belongs to it: the fate can be told until then
//! ```

use std::sync::{
    Arc, PoisonError,
    atomic::Ordering::{Acquire, Release},
};

use super::Index;
use crate::{
    state::{Fate, MAX_SNAPSHOTS, SnapshotEntry, State},
    sync::{AtomicUsize, RwLock, RwLockReadGuard},
    units::{Epoch, Id},
};

/// A snapshot's place in the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Layer(u16);

impl Layer {
    /// The layer at a place of the table; `None` past its end.
    pub(super) fn at(place: usize) -> Option<Self> {
        u16::try_from(place)
            .ok()
            .filter(|_| place < MAX_SNAPSHOTS)
            .map(Self)
    }

    /// Its place in the table, as stored.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Its place in the table.
    pub(super) fn place(self) -> usize {
        usize::from(self.0)
    }
}

/// A snapshot could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayersError {
    /// All places hold live snapshots, or copies that older live ones need.
    #[error("{MAX_SNAPSHOTS} snapshots are live or shared, which is the limit")]
    Full,
    /// The id is taken.
    #[error("snapshot {0} exists")]
    Exists(Id),
}

/// The table of a volume's snapshots.
#[derive(Debug)]
pub struct Layers {
    state: Arc<State>,
    /// What the state file says, by epoch.
    entries: RwLock<Vec<(Layer, SnapshotEntry)>>,
    /// Place of the newest live snapshot plus one; 0 is none.
    newest: AtomicUsize,
}

impl Layers {
    /// Reads the table. Entries of an epoch that has not ended were made by a cut that did not
    /// happen, and are removed.
    pub fn open(state: Arc<State>) -> Self {
        let current = state.epoch();
        let mut entries = Vec::new();
        for layer in (0..MAX_SNAPSHOTS).filter_map(Layer::at) {
            match state.snapshot(layer.place()) {
                Some(entry) if entry.epoch < current => entries.push((layer, entry)),
                Some(_) => state.clear_snapshot(layer.place()),
                None => {}
            }
        }
        entries.sort_by_key(|(_, entry)| entry.epoch);
        let layers = Self {
            state,
            entries: RwLock::new(entries),
            newest: AtomicUsize::new(0),
        };
        layers.note_newest(&layers.read());
        layers
    }

    /// The newest live snapshot's layer: where the write path preserves to. Between this and the
    /// end of a change no snapshot is added, because a cut waits for changes in flight.
    pub fn newest(&self) -> Option<Layer> {
        self.newest.load(Acquire).checked_sub(1).and_then(Layer::at)
    }

    /// The epoch of a layer that [`Layers::newest`] gave.
    pub fn epoch_of(&self, layer: Layer) -> Option<Epoch> {
        self.state.snapshot(layer.place()).map(|entry| entry.epoch)
    }

    /// Epochs of live snapshots, ascending.
    pub fn live(&self) -> Vec<Epoch> {
        self.read()
            .iter()
            .filter(|(_, e)| e.fate == Fate::Live)
            .map(|(_, e)| e.epoch)
            .collect()
    }

    /// All snapshots whose fate is still known, oldest first.
    pub fn all(&self) -> Vec<(Layer, SnapshotEntry)> {
        self.read().clone()
    }

    /// A snapshot by its id.
    pub fn get(&self, id: Id) -> Option<SnapshotEntry> {
        self.read()
            .iter()
            .rev()
            .find(|(_, entry)| entry.id == id)
            .map(|(_, entry)| *entry)
    }

    /// Whether a snapshot can be added now.
    pub fn check_room(&self, id: Id, index: &Index) -> Result<(), LayersError> {
        self.place_for(id, index).map(|_| ())
    }

    /// Adds a snapshot of the epoch that is about to end. No change is in flight. It counts once
    /// the state's epoch is past its own.
    pub fn add(
        &self,
        id: Id,
        epoch: Epoch,
        created_us: u64,
        index: &Index,
    ) -> Result<(Layer, SnapshotEntry), LayersError> {
        let layer = self.place_for(id, index)?;
        let entry = SnapshotEntry {
            id,
            epoch,
            created_us,
            fate: Fate::Live,
            settled: false,
        };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(other, _)| *other != layer);
        self.state.set_snapshot(layer.place(), &entry);
        index.begin_layer(layer, epoch);
        entries.push((layer, entry));
        self.note_newest(&entries);
        Ok((layer, entry))
    }

    /// Ends a live snapshot; `false` when it was not live.
    pub fn end(&self, id: Id, fate: Fate) -> bool {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let live = entries
            .iter_mut()
            .find(|(_, e)| e.id == id && e.fate == Fate::Live);
        let Some((layer, entry)) = live else {
            return false;
        };
        entry.fate = fate;
        self.state.set_fate(layer.place(), fate);
        self.note_newest(&entries);
        true
    }

    /// Notes that nothing from before the cuts up to `epoch` is in the origin's cache; whether that was
    /// not known of a live snapshot.
    pub fn settle(&self, epoch: Epoch) -> bool {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let mut news = false;
        for (layer, entry) in entries.iter_mut() {
            if entry.epoch <= epoch && !entry.settled {
                entry.settled = true;
                self.state.settle_snapshot(layer.place());
                news |= entry.fate == Fate::Live;
            }
        }
        news
    }

    /// The newest live snapshot that is not settled.
    pub fn unsettled(&self) -> Option<Epoch> {
        let entries = self.read();
        let mut newest = entries.iter().rev();
        let (_, entry) = newest.find(|(_, e)| e.fate == Fate::Live && !e.settled)?;
        Some(entry.epoch)
    }

    fn place_for(&self, id: Id, index: &Index) -> Result<Layer, LayersError> {
        let entries = self.read();
        if entries.iter().any(|(_, entry)| entry.id == id) {
            return Err(LayersError::Exists(id));
        }
        let taken = |layer: &Layer| entries.iter().any(|(other, _)| other == layer);
        let empty = (0..MAX_SNAPSHOTS)
            .filter_map(Layer::at)
            .find(|layer| !taken(layer));
        // Else forget the oldest fate.
        let ended = || {
            entries
                .iter()
                .find(|(layer, entry)| entry.fate != Fate::Live && index.used_by(*layer) == 0)
                .map(|(layer, _)| *layer)
        };
        empty.or_else(ended).ok_or(LayersError::Full)
    }

    fn note_newest(&self, entries: &[(Layer, SnapshotEntry)]) {
        let newest = entries
            .iter()
            .rev()
            .find(|(_, entry)| entry.fate == Fate::Live);
        self.newest
            .store(newest.map_or(0, |(layer, _)| layer.place() + 1), Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<(Layer, SnapshotEntry)>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}
