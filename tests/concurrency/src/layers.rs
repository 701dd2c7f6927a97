//! The table of snapshots and the record of the lineage: who finds the new one finds all of it.

use std::{path::Path, sync::Arc};

use loom::thread;
use tidemark_store::{
    cow::{Index, Layers},
    state::{Identity, Lineage, State},
    sync::Mistake,
    units::{Epoch, Geometry, Id},
};

use crate::explore::{
    Preemptions::{All, AtMost},
    holds, sees,
};

/// A volume's state in its first epoch, with few slots.
pub(crate) fn state(slots: u32) -> Arc<State> {
    let identity = Identity {
        volume: Id([1; 16]),
        area: Id([2; 16]),
        geometry: Geometry::new(1 << 20, 4096).expect("a volume has this geometry"),
        slots,
    };
    let state = State::create(Path::new("model"), identity, &lineage(3), Epoch::FIRST);
    Arc::new(state.expect("a model has memory"))
}

fn lineage(byte: u8) -> Lineage {
    Lineage {
        id: Id([byte; 16]),
        cause: char::from(b'a' + byte).to_string(),
        since_us: u64::from(byte),
    }
}

fn a_snapshot_is_added() {
    let state = state(1);
    let layers = Arc::new(Layers::open(Arc::clone(&state)));
    let index = Index::open(state, 1).expect("a model has memory");
    let reader = {
        let layers = Arc::clone(&layers);
        thread::spawn(move || {
            let newest = layers.newest();
            newest.map(|layer| layers.epoch_of(layer))
        })
    };
    layers
        .add(Id([9; 16]), Epoch(1), 5, &index)
        .expect("there is room");
    let found = reader.join().expect("it did not panic");
    assert!(
        matches!(found, None | Some(Some(Epoch(1)))),
        "{found:?} of a snapshot that was found"
    );
}

#[test]
fn who_finds_a_snapshot_finds_its_epoch() {
    holds(AtMost(3), a_snapshot_is_added);
    sees(
        Mistake::Relaxed,
        "of a snapshot that",
        AtMost(3),
        a_snapshot_is_added,
    );
}

fn a_lineage_begins() {
    let state = state(1);
    let reader = {
        let state = Arc::clone(&state);
        thread::spawn(move || state.lineage())
    };
    state.commit_lineage(&lineage(4), Epoch(2));
    let found = reader.join().expect("it did not panic");
    assert!(
        found == lineage(3) || found == lineage(4),
        "neither the old nor the new lineage: {found:?}"
    );
}

#[test]
fn a_lineage_is_read_whole() {
    holds(All, a_lineage_begins);
    sees(Mistake::Relaxed, "neither", All, a_lineage_begins);
}
