use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{
    Catalog, CatalogError, Consistency, FullPolicy, MAX_EVENTS, MAX_GONE_SNAPSHOTS, NewEvent,
    RepositoryRecord, RequestRecord, SnapshotRecord, SnapshotState, VolumeRecord,
};
use crate::units::{Epoch, Id};

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    Place { _dir: dir, path }
}

fn id(byte: u8) -> Id {
    Id([byte; 16])
}

fn volume(name: &str, byte: u8) -> VolumeRecord {
    VolumeRecord {
        name: name.to_owned(),
        id: id(byte),
        origin_path: format!("/images/{name}").into(),
        area_path: format!("/areas/{name}").into(),
        area_size_bytes: 1 << 30,
        area_made: false,
        block_bytes: 4096,
        policy: FullPolicy::Slow {
            max_write_delay_ms: 250,
        },
        transport: super::Transport::Ublk,
        durability: super::Durability::Volatile,
        durable_snapshots: true,
        distrust: None,
        origin_identity: None,
        attached_us: 1,
    }
}

fn snapshot(volume: &str, id: Id, epoch: u64) -> SnapshotRecord {
    SnapshotRecord {
        id,
        set_id: Id([9; 16]),
        volume: volume.to_owned(),
        volume_id: Id([8; 16]),
        lineage: Id([7; 16]),
        epoch: Epoch(epoch),
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
        labels: BTreeMap::from([("job".to_owned(), "nightly".to_owned())]),
    }
}

fn event(message: &str) -> NewEvent {
    NewEvent {
        at_us: 5,
        kind: "SNAPSHOT_CREATED".to_owned(),
        severity: "INFO".to_owned(),
        volume: "data".to_owned(),
        snapshot: Some(id(1)),
        message: message.to_owned(),
    }
}

#[test]
fn everything_reads_back_after_reopening() {
    let place = place();
    let request = RequestRecord {
        call: "create".to_owned(),
        arguments: vec![1, 2, 3],
        results: vec!["b".to_owned(), "a".to_owned()],
    };
    {
        let mut catalog = Catalog::open(&place.path).unwrap();
        catalog.insert_volume(&volume("data", 1), None).unwrap();
        catalog
            .insert_snapshots(&[snapshot("data", id(2), 4)], Some(("r1", &request)))
            .unwrap();
        let members = ["z".to_owned(), "data".to_owned()];
        catalog.insert_group("g", &members).unwrap();
        catalog.insert_event(&event("first"), None).unwrap();
        catalog.begin_lineage("data", id(7), "attached", 3).unwrap();
    }
    let mut catalog = Catalog::open(&place.path).unwrap();
    assert_eq!(catalog.volumes().unwrap(), vec![volume("data", 1)]);
    assert_eq!(catalog.volume("data").unwrap(), Some(volume("data", 1)));
    assert_eq!(
        catalog.snapshot(id(2)).unwrap(),
        Some(snapshot("data", id(2), 4))
    );
    assert_eq!(catalog.request("r1").unwrap(), Some(request));
    assert_eq!(catalog.group("g").unwrap().unwrap(), ["z", "data"]);
    assert_eq!(catalog.lineage(id(7)).unwrap().unwrap().cause, "attached");
    assert_eq!(catalog.insert_event(&event("second"), None).unwrap(), 2);
    assert_eq!(catalog.events(1, 10).unwrap()[0].event, event("second"));
}

#[test]
fn names_origins_and_areas_are_unique() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    catalog.insert_volume(&volume("data", 1), None).unwrap();
    let again = catalog.insert_volume(&volume("data", 2), None);
    assert!(matches!(again, Err(CatalogError::Conflict { .. })));
    let mut other = volume("other", 3);
    other.origin_path = "/images/data".into();
    assert!(catalog.insert_volume(&other, None).is_err());
    other = volume("other", 3);
    other.area_path = "/areas/data".into();
    assert!(catalog.insert_volume(&other, None).is_err());
    assert_eq!(catalog.volumes().unwrap().len(), 1);
}

#[test]
fn repositories_are_remembered_with_their_options() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    let repository = |name: &str, location: &str| RepositoryRecord {
        name: name.to_owned(),
        id: id(3),
        location: location.to_owned(),
        append_only: name == "b",
        options: [("key.password-file", "/etc/key"), ("s3.region", "eu")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    let (a, b) = (repository("a", "/a"), repository("b", "/b"));
    for record in [&b, &a] {
        catalog.insert_repository(record).unwrap();
    }
    for taken in [repository("a", "/c"), repository("c", "/a")] {
        let refused = catalog.insert_repository(&taken).unwrap_err();
        assert!(
            matches!(refused, CatalogError::Conflict { .. }),
            "{refused}"
        );
    }
    drop(catalog);
    let mut catalog = Catalog::open(&place.path).unwrap();
    assert_eq!(catalog.repositories().unwrap(), [a, b.clone()]);
    assert!(catalog.remove_repository("a").unwrap());
    assert!(!catalog.remove_repository("a").unwrap());
    assert_eq!(catalog.repository("a").unwrap(), None);
    assert_eq!(catalog.repository("b").unwrap(), Some(b));
}

#[test]
fn an_area_that_was_made_is_unwanted_until_it_is_removed() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    let made = |name, byte| VolumeRecord {
        area_made: true,
        ..volume(name, byte)
    };
    catalog.insert_volume(&made("detached", 1), None).unwrap();
    catalog.insert_volume(&made("failed", 2), None).unwrap();
    catalog.insert_volume(&volume("given", 3), None).unwrap();
    assert!(catalog.volume("detached").unwrap().unwrap().area_made);
    assert!(!catalog.volume("given").unwrap().unwrap().area_made);
    assert_eq!(catalog.unwanted_areas().unwrap(), []);
    catalog.remove_volume("detached", "detached").unwrap();
    catalog.remove_volume("given", "detached").unwrap();
    catalog.take_back_volume("failed", None).unwrap();
    drop(catalog);

    let mut catalog = Catalog::open(&place.path).unwrap();
    let unwanted = catalog.unwanted_areas().unwrap();
    let paths: Vec<_> = unwanted.iter().map(|one| one.path.clone()).collect();
    assert_eq!(
        paths,
        [PathBuf::from("/areas/detached"), "/areas/failed".into()]
    );
    catalog.forget_unwanted_area(unwanted[0].volume).unwrap();
    assert_eq!(catalog.unwanted_areas().unwrap(), unwanted[1..]);
}

#[test]
fn a_volume_taken_back_can_be_asked_for_again() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    let request = RequestRecord {
        call: "attach".to_owned(),
        arguments: vec![1],
        results: vec!["data".to_owned()],
    };
    for _ in 0..2 {
        catalog
            .insert_volume(&volume("data", 1), Some(("r", &request)))
            .unwrap();
        catalog.take_back_volume("data", Some("r")).unwrap();
    }
    assert_eq!(catalog.request("r").unwrap(), None);
    assert!(catalog.volumes().unwrap().is_empty());
}

#[test]
fn a_failed_set_leaves_nothing() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    let twice = [snapshot("a", id(1), 1), snapshot("b", id(1), 1)];
    assert!(catalog.insert_snapshots(&twice, None).is_err());
    assert!(catalog.snapshots(None, true).unwrap().is_empty());
}

#[test]
fn a_snapshot_ends_once_and_forgets_its_labels_with_it() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    catalog
        .insert_snapshots(&[snapshot("data", id(1), 1)], None)
        .unwrap();
    assert!(catalog.set_lease(id(1), 5, Some(9)).unwrap());
    assert!(
        catalog
            .end_snapshot(id(1), SnapshotState::Released, "lease expired", true)
            .unwrap()
    );
    assert!(
        !catalog
            .end_snapshot(id(1), SnapshotState::Lost, "late", false)
            .unwrap()
    );
    assert!(!catalog.set_lease(id(1), 5, None).unwrap());
    let record = catalog.snapshot(id(1)).unwrap().unwrap();
    assert_eq!(record.state, SnapshotState::Released);
    assert!(record.lease_ended);
    assert!(catalog.snapshots(Some("data"), false).unwrap().is_empty());
    assert_eq!(catalog.snapshots(Some("data"), true).unwrap().len(), 1);
    assert!(catalog.remove_snapshot(id(1)).unwrap());
    assert!(!catalog.remove_snapshot(id(1)).unwrap());
}

#[test]
fn prefixes_tell_one_from_many() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    for byte in [0xa1, 0xa2, 0xb0] {
        catalog
            .insert_snapshots(&[snapshot("data", id(byte), 1)], None)
            .unwrap();
    }
    assert_eq!(catalog.snapshots_by_prefix("b").unwrap(), vec![id(0xb0)]);
    assert_eq!(catalog.snapshots_by_prefix("a").unwrap().len(), 2);
    assert!(catalog.snapshots_by_prefix("_").unwrap().is_empty());
}

#[test]
fn detaching_ends_snapshots_and_lineage_with_the_cause() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    catalog.insert_volume(&volume("data", 1), None).unwrap();
    catalog.begin_lineage("data", id(7), "attached", 3).unwrap();
    catalog
        .insert_snapshots(&[snapshot("data", id(2), 1)], None)
        .unwrap();
    assert_eq!(catalog.remove_volume("data", "detached").unwrap(), [id(2)]);
    let lineage = catalog.lineage(id(7)).unwrap().unwrap();
    assert_eq!(lineage.ended_cause.as_deref(), Some("detached"));
    let record = catalog.snapshot(id(2)).unwrap().unwrap();
    assert_eq!(record.state_reason, "detached");
}

#[test]
fn a_new_lineage_ends_the_one_before_with_its_cause() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    assert!(!catalog.begin_lineage("data", id(1), "attached", 1).unwrap());
    assert!(!catalog.begin_lineage("data", id(1), "attached", 1).unwrap());
    assert!(
        catalog
            .begin_lineage("data", id(2), "host restarted", 2)
            .unwrap()
    );
    let old = catalog.lineage(id(1)).unwrap().unwrap();
    assert_eq!(old.ended_cause.as_deref(), Some("host restarted"));
    assert_eq!(catalog.lineage(id(2)).unwrap().unwrap().ended_cause, None);
    assert_eq!(catalog.lineage(id(3)).unwrap(), None);
}

#[test]
fn events_and_gone_snapshots_are_bounded() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    // One transaction a row would be slow: fill by SQL.
    catalog
        .connection
        .execute_batch(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_EVENTS})
             INSERT INTO events (at_us, kind, severity, volume, message)
             SELECT i, 'K', 'S', '', 'm' FROM n;
             WITH RECURSIVE n(i) AS
                (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MAX_GONE_SNAPSHOTS} + 10)
             INSERT INTO snapshots (id, set_id, volume, volume_id, lineage, epoch, state,
                state_reason, lease_ended, consistency, created_us, lease_us, held_us,
                capacity_bytes, block_bytes)
             SELECT randomblob(16), zeroblob(16), 'data', zeroblob(16), zeroblob(16), i,
                'released', '', 0, 'crash', i, 0, 0, 1, 4096 FROM n"
        ))
        .unwrap();
    catalog.insert_event(&event("one more"), None).unwrap();
    let events = catalog.events(0, u32::MAX).unwrap();
    assert_eq!(events.len(), usize::try_from(MAX_EVENTS).unwrap());
    assert_eq!(events[0].sequence, 2);
    catalog
        .insert_snapshots(&[snapshot("data", id(1), 9999)], None)
        .unwrap();
    let kept = catalog.snapshots(Some("data"), true).unwrap();
    assert_eq!(kept.len(), usize::try_from(MAX_GONE_SNAPSHOTS).unwrap() + 1);
    assert_eq!(kept[0].epoch, Epoch(11));
}

#[test]
fn a_servers_events_are_read_on_from_where_they_were_left() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    catalog
        .insert_event(&event("taken"), Some(("data", "17:1", 4)))
        .unwrap();
    assert_eq!(catalog.event_cursor("data", "17:1").unwrap(), 4);
    assert_eq!(catalog.event_cursor("data", "18:1").unwrap(), 0);
    catalog.set_event_cursor(("data", "18:1", 2)).unwrap();
    assert_eq!(catalog.event_cursor("data", "17:1").unwrap(), 0);
    assert_eq!(catalog.event_cursor("data", "18:1").unwrap(), 2);
}

#[test]
fn numbers_that_sqlite_cannot_hold_are_refused() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    let mut record = snapshot("data", id(1), u64::MAX);
    assert!(catalog.insert_snapshots(&[record.clone()], None).is_err());
    record.epoch = Epoch(1);
    catalog.insert_snapshots(&[record], None).unwrap();
    assert!(catalog.events(u64::MAX, 5).unwrap().is_empty());
}

#[test]
fn a_damaged_file_and_a_foreign_one_are_told() {
    let place = place();
    fs::write(
        &place.path,
        b"no database at all, but long enough to be looked at",
    )
    .unwrap();
    let error = Catalog::open(&place.path).unwrap_err();
    assert!(matches!(error, CatalogError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("catalog.db"));

    fs::remove_file(&place.path).unwrap();
    let foreign = rusqlite::Connection::open(&place.path).unwrap();
    foreign.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(foreign);
    let error = Catalog::open(&place.path).unwrap_err();
    assert!(matches!(error, CatalogError::Corrupt { .. }), "{error}");
}

#[test]
fn torn_pages_are_found_on_opening() {
    let place = place();
    drop(Catalog::open(&place.path).unwrap());
    let mut bytes = fs::read(&place.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xff);
    fs::write(&place.path, bytes).unwrap();
    let error = Catalog::open(&place.path).unwrap_err();
    assert!(matches!(error, CatalogError::Corrupt { .. }), "{error}");
}

#[test]
fn a_stored_word_that_nobody_knows_is_corruption() {
    let place = place();
    let mut catalog = Catalog::open(&place.path).unwrap();
    catalog
        .insert_snapshots(&[snapshot("data", id(1), 1)], None)
        .unwrap();
    catalog
        .connection
        .execute_batch("PRAGMA ignore_check_constraints = 1; UPDATE snapshots SET state = 'odd'")
        .unwrap();
    let error = catalog.snapshot(id(1)).unwrap_err();
    assert!(matches!(error, CatalogError::Corrupt { .. }), "{error}");
}

#[test]
fn a_later_schema_and_a_second_user_are_refused() {
    let place = place();
    let catalog = Catalog::open(&place.path).unwrap();
    let error = Catalog::open(&place.path).unwrap_err();
    assert!(matches!(error, CatalogError::InUse { .. }), "{error}");
    catalog
        .connection
        .pragma_update(None, "user_version", 99)
        .unwrap();
    drop(catalog);
    let error = Catalog::open(&place.path).unwrap_err();
    assert!(
        matches!(error, CatalogError::TooNew { found: 99, .. }),
        "{error}"
    );
}

#[test]
fn distrust_in_an_area_is_kept_until_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.db");
    let mut catalog = Catalog::open(&path).unwrap();
    catalog.insert_volume(&volume("a", 1), None).unwrap();
    catalog.set_distrust("a", Some("it failed")).unwrap();
    drop(catalog);
    let mut catalog = Catalog::open(&path).unwrap();
    let distrust = |catalog: &Catalog| catalog.volume("a").unwrap().unwrap().distrust;
    assert_eq!(distrust(&catalog).as_deref(), Some("it failed"));
    catalog.set_distrust("a", None).unwrap();
    catalog.set_origin_identity("a", Some("wwid 1")).unwrap();
    let known = catalog.volume("a").unwrap().unwrap().origin_identity;
    assert_eq!(known.as_deref(), Some("wwid 1"));
    assert_eq!(distrust(&catalog), None);
}
