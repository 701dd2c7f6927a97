//! Mapped files whose words are damaged: the change map, and the state with its index.
//!
//! An input is a list of words and what they become, in a file that is otherwise sound. The words
//! are those that mean something; the rest of these files is zeros.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use tempfile::TempDir;
use tidemark_store::{
    changes::{DenseMap, Kind},
    cow::{Index, Layers},
    state::{CheckpointEntry, Fate, Identity, Lineage, State},
    units::{BlockRange, Epoch, Geometry, Id},
};

use crate::bytes::number;

const BLOCKS: u64 = 70_000;
const LINEAGE: Id = Id([3; 16]);
const SLOTS: u32 = 12;
/// Where the state's tables begin, in words: FORMAT.md, "State".
const SNAPSHOTS: usize = 512;
const CHECKPOINTS: usize = SNAPSHOTS + 1024 * 8;
const SLOT_WORDS: usize = CHECKPOINTS + 1024 * 2;
/// The word that says how many slots were ever in use, and how many were.
const FRESH: usize = 12;
const TAKEN: u64 = 9;

/// Files in memory, removed at the end.
struct Place {
    folder: TempDir,
    sound: Vec<u8>,
}

impl Place {
    fn new(make: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").expect("memory holds a few files");
        let path = folder.path().join("sound");
        make(&path);
        let sound = fs::read(&path).expect("it was made");
        Self { folder, sound }
    }

    /// The sound file with the input's words in it.
    fn damaged(&self, mut input: &[u8], word: impl Fn(usize) -> usize) -> PathBuf {
        let mut bytes = self.sound.clone();
        while !input.is_empty() {
            let place = usize::try_from(number::<1>(&mut input)).unwrap_or(0);
            let value = number::<8>(&mut input);
            let at = word(place) * 8;
            let Some(word) = bytes.get_mut(at..at + 8) else {
                continue;
            };
            // A mark that is too low hides slots that are in use. Only memory that forgets makes
            // one: it is stored before the slots that it covers.
            if at == FRESH * 8 && value < TAKEN {
                continue;
            }
            word.copy_from_slice(&value.to_le_bytes());
        }
        // The fuzzer's threads and the test's share the folder.
        let name = format!("{:?}", std::thread::current().id());
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).expect("memory holds a few files");
        path
    }
}

static MAP: LazyLock<Place> = LazyLock::new(|| {
    Place::new(|path| {
        let map = DenseMap::create(path, LINEAGE, Epoch(1), BLOCKS).expect("memory holds a map");
        map.mark(BlockRange::new(30, 90));
        map.settle(BlockRange::new(40, 50), Kind::Zero);
        map.mark(BlockRange::new(69_000, 69_100));
        map.settle(BlockRange::new(69_002, 69_005), Kind::Discarded);
    })
});

pub(crate) fn change_map(input: &[u8]) {
    // The header's words, those of `touched`, and the first and last of each plane's pages.
    let path = MAP.damaged(input, |place| match place {
        0..8 => place,
        8..16 => 512 + place - 8,
        _ => 1024 + (place - 16) * 64,
    });
    let Ok(map) = DenseMap::open(&path, LINEAGE, Epoch(1), BLOCKS) else {
        return;
    };
    let set = map.to_set(0);
    assert!(
        set.len() <= map.changed_blocks(),
        "a set of more than the map"
    );
    let mut end = 0;
    for (run, _) in set.runs(0) {
        assert!(run.start >= end && !run.is_empty(), "runs do not ascend");
        end = run.end;
    }
    map.mark(BlockRange::new(0, BLOCKS));
    assert!(map.to_set(0).contains(BLOCKS - 1), "a mark is lost");
}

pub(crate) fn change_maps() -> Vec<Vec<u8>> {
    let patch = |place: u8, value: u64| [&[place][..], &value.to_le_bytes()].concat();
    vec![
        Vec::new(),
        patch(8, u64::MAX),
        [patch(8, 7), patch(9, 7), patch(10, 7), patch(24, u64::MAX)].concat(),
    ]
}

fn identity() -> Identity {
    Identity {
        volume: Id([1; 16]),
        area: Id([2; 16]),
        geometry: Geometry::new(1 << 20, 4096).expect("a volume has this geometry"),
        slots: SLOTS,
    }
}

fn lineage() -> Lineage {
    Lineage {
        id: LINEAGE,
        cause: "attached".into(),
        since_us: 7,
    }
}

/// Three snapshots, one of which has ended, and copies of blocks for them.
fn make_state(path: &Path) {
    let state = State::create(path, identity(), &lineage(), Epoch(1)).expect("memory holds it");
    let state = Arc::new(state);
    let layers = Layers::open(Arc::clone(&state));
    let index = Index::open(Arc::clone(&state), SLOTS).expect("memory holds it");
    for epoch in 1..4_u8 {
        let (id, ended) = (Id([epoch; 16]), Epoch(u64::from(epoch)));
        layers.add(id, ended, 0, &index).expect("there is room");
        state.add_checkpoint(CheckpointEntry {
            epoch: ended,
            created_us: 5,
        });
        state.commit_epoch(ended.next());
        let layer = layers.newest().expect("it was added");
        let run = index.take(3).expect("there is room");
        for at in 0..3 {
            let block = u64::from(epoch + at);
            index.publish(run.first + u32::from(at), block, layer, 9);
        }
    }
    layers.end(Id([2; 16]), Fate::Released);
}

static STATE: LazyLock<Place> = LazyLock::new(|| Place::new(make_state));

pub(crate) fn state(input: &[u8]) {
    // The header's words, the first snapshots and checkpoints, the slots in use, the checksums.
    let path = STATE.damaged(input, |place| match place {
        0..128 => place,
        128..192 => SNAPSHOTS + place - 128,
        192..200 => CHECKPOINTS + place - 192,
        200..209 => SLOT_WORDS + place - 200,
        _ => SLOT_WORDS + SLOTS as usize + place - 209,
    });
    let Ok(Some(state)) = State::open(&path, identity()) else {
        return;
    };
    assert!(state.lineage().cause.len() <= 3 * 256);
    assert!(state.checkpoints().len() <= 1024);
    let state = Arc::new(state);
    let layers = Layers::open(Arc::clone(&state));
    let index = Index::open(Arc::clone(&state), SLOTS).expect("memory holds it");
    next_cut(&state, &layers, &index);
    let used = index.used();
    assert!(used <= SLOTS, "more slots than there are");
    for (layer, entry) in layers.all() {
        assert!(index.used_by(layer) <= used);
        for block in index.blocks_from(entry.epoch) {
            let found = index.find(block, entry.epoch);
            assert!(found.is_some_and(|found| found.slot < SLOTS));
        }
    }
    let mut given = BTreeSet::new();
    while let Some(run) = index.take(5) {
        for slot in run.first..run.first + run.count {
            assert!(slot < SLOTS && given.insert(slot), "slot {slot} twice");
        }
    }
    assert_eq!(given.len() + used as usize, SLOTS as usize);
    // Nothing stays once nobody needs it.
    while !index.sweep(&layers.live(), 5).finished {}
    while !index.sweep(&[], 5).finished {}
    assert_eq!(
        index.used() as usize,
        given.len(),
        "slots that nobody frees"
    );
}

/// A volume goes on with what it found: the next snapshot is the newest.
fn next_cut(state: &State, layers: &Layers, index: &Index) {
    let epoch = state.epoch();
    if layers.add(Id([0xee; 16]), epoch, 0, index).is_err() {
        return;
    }
    state.commit_epoch(epoch.next());
    assert_eq!(state.epoch(), epoch.next(), "the epoch does not go on");
    let newest = layers.newest().and_then(|layer| layers.epoch_of(layer));
    assert_eq!(newest, Some(epoch), "the new snapshot is not the newest");
}

pub(crate) fn states() -> Vec<Vec<u8>> {
    let patch = |place: u8, value: u64| [&[place][..], &value.to_le_bytes()].concat();
    vec![
        Vec::new(),
        // The commit word, a snapshot's fate and epoch, a slot, slots in use.
        patch(10, 8),
        [patch(128, 1), patch(129, 1)].concat(),
        patch(200, 3 << 48 | 5),
        patch(12, u64::MAX),
    ]
}
