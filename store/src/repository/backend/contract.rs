//! What each storage must do, as its tests ask it.

use std::io::ErrorKind;

use super::Backend;

/// Tries what [`super::Backend`] promises on an empty storage, and leaves one object behind. Panics where a
/// promise is not kept.
pub fn holds(storage: &dyn Backend) {
    storage.create("points/a", b"one").unwrap();
    let taken = storage.create("points/a", b"two").unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    assert_eq!(storage.read("points/a", 3).unwrap(), b"one");
    let long = storage.read("points/a", 2).unwrap_err();
    assert_eq!(long.kind(), ErrorKind::InvalidData);
    let mut two = [0; 2];
    storage.read_range("points/a", 1, &mut two).unwrap();
    assert_eq!(&two, b"ne");
    let short = storage.read_range("points/a", 2, &mut two).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::UnexpectedEof);
    storage.create("packs/ab/c", b"four").unwrap();
    assert!(storage.list("index/").unwrap().is_empty());
    let packs = storage.list("packs/").unwrap();
    assert_eq!(packs.len(), 1);
    assert_eq!((packs[0].name.as_str(), packs[0].bytes), ("packs/ab/c", 4));
    assert_eq!(storage.stat("packs/ab/c").unwrap(), packs[0]);
    assert!(storage.now().unwrap() >= packs[0].created);
    storage.sweep().unwrap();
    storage.delete("points/a").unwrap();
    storage.delete("points/a").unwrap();
    let gone = storage.read("points/a", 9).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert!(storage.stat("points/a").is_err());
}
