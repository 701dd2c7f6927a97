//! The catalog's file, damaged: an error, or records; never a panic.

use std::{collections::BTreeMap, fs, path::Path};

use tempfile::TempDir;
use tidemark_store::{
    catalog::{
        Catalog, CatalogError, Consistency, Durability, FullPolicy, NewEvent, RequestRecord,
        SnapshotRecord, SnapshotState, Transport, VolumeRecord,
    },
    units::{Epoch, Id},
};

use crate::bytes::{folder, number};

const VOLUME: &str = "data";

struct Place {
    folder: TempDir,
    sound: Vec<u8>,
}

std::thread_local! {
    static PLACE: Place = Place::new();
}

impl Place {
    fn new() -> Self {
        let folder = folder();
        let path = folder.path().join("sound.db");
        fill(&path).expect("a new catalog is sound");
        let sound = fs::read(&path).expect("it was made");
        Self { folder, sound }
    }
}

fn fill(path: &Path) -> Result<(), CatalogError> {
    let mut catalog = Catalog::open(path)?;
    let volume = VolumeRecord {
        name: VOLUME.into(),
        id: Id([8; 16]),
        origin_path: "/images/data".into(),
        area_path: "/areas/data".into(),
        area_size_bytes: 1 << 30,
        block_bytes: 4096,
        policy: FullPolicy::Slow {
            max_write_delay_ms: 250,
        },
        transport: Transport::Ublk,
        durability: Durability::Durable,
        durable_snapshots: true,
        distrust: Some("the area failed".into()),
        origin_identity: Some("wwid 1".into()),
        attached_us: 1,
    };
    let request = RequestRecord {
        call: "attach".into(),
        arguments: vec![1, 2, 3],
        results: vec![VOLUME.into()],
    };
    catalog.insert_volume(&volume, Some(("request", &request)))?;
    catalog.begin_lineage(VOLUME, Id([7; 16]), "attached", 1)?;
    let snapshot = SnapshotRecord {
        id: Id([1; 16]),
        set_id: Id([9; 16]),
        volume: VOLUME.into(),
        volume_id: Id([8; 16]),
        lineage: Id([7; 16]),
        epoch: Epoch(1),
        state: SnapshotState::Ready,
        state_reason: String::new(),
        lease_ended: false,
        consistency: Consistency::FileSystem,
        created_us: 1_700_000_000_000_000,
        lease_us: 60_000_000,
        lease_expires_us: Some(1_700_000_060_000_000),
        held_us: 120,
        frozen_us: Some(800),
        capacity_bytes: 1 << 40,
        block_bytes: 4096,
        labels: BTreeMap::from([("job".into(), "nightly".into())]),
    };
    catalog.insert_snapshots(&[snapshot], None)?;
    catalog.insert_group("both", &[VOLUME.into()])?;
    let event = NewEvent {
        at_us: 1,
        kind: "attached".into(),
        severity: "info".into(),
        volume: VOLUME.into(),
        snapshot: Some(Id([1; 16])),
        message: "it is attached".into(),
    };
    catalog.insert_event(&event, Some((VOLUME, "server", 1)))?;
    Ok(())
}

/// An input is a list of places in the file and what their bytes become.
pub(crate) fn damaged(input: &[u8]) {
    PLACE.with(|place| damage(place, input));
}

fn damage(place: &Place, mut input: &[u8]) {
    let mut bytes = place.sound.clone();
    while !input.is_empty() {
        let at = usize::try_from(number::<3>(&mut input)).unwrap_or(0) % bytes.len();
        bytes[at] = u8::try_from(number::<1>(&mut input)).unwrap_or(0);
    }
    let path = place.folder.path().join("catalog.db");
    fs::write(&path, bytes).expect("memory holds a catalog");
    if let Ok(catalog) = Catalog::open(&path) {
        read_all(&catalog);
    }
    for name in ["catalog.db", "catalog.db-journal", "catalog.db-wal"] {
        let _ = fs::remove_file(place.folder.path().join(name));
    }
}

fn read_all(catalog: &Catalog) {
    for snapshot in catalog.snapshots(None, true).unwrap_or_default() {
        let _ = catalog.snapshot(snapshot.id);
        let _ = catalog.lineage(snapshot.lineage);
    }
    for volume in catalog.volumes().unwrap_or_default() {
        let _ = catalog.volume(&volume.name);
        let _ = catalog.event_cursor(&volume.name, "server");
    }
    for group in catalog.groups().unwrap_or_default() {
        let _ = catalog.group(&group);
    }
    let _ = catalog.events(0, 100);
    let _ = catalog.lineage(Id([7; 16]));
    let _ = catalog.snapshots_by_prefix("01");
}

pub(crate) fn some_damage() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        vec![0, 16, 0, 9],
        vec![60, 0, 0, 200, 61, 0, 0, 1],
    ]
}
