//! What the command reads: the state beside an image, ranges for a picture, sizes and times.
//!
//! The command is a program and no library: its files are compiled here once more.

use std::{fs, sync::LazyLock};

use tempfile::TempDir;

use crate::{
    bytes::number,
    heatmap::HeatMap,
    state::{Loaded, StateFile},
    units::{parse_duration, parse_size, span},
};

static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("memory holds a file"));

pub(crate) fn state(bytes: &[u8]) {
    let name = format!("{:?}", std::thread::current().id());
    let file = StateFile::at(&FOLDER.path().join(name));
    fs::write(file.path(), bytes).expect("memory holds a file");
    if let Ok(Loaded::Found(state)) = file.load() {
        file.store(&state).expect("memory holds a file");
        let again = file.load().expect("we wrote it");
        assert_eq!(again, Loaded::Found(state));
    }
}

pub(crate) fn states() -> Vec<Vec<u8>> {
    let head = r#"{"version": 1, "volume": "v", "volume_id": "id", "capacity_bytes": 10000,
        "block_bytes": 4096, "image": "#;
    let file = r#"{"kind": "file", "inode": 1, "size_bytes": 2, "modified_s": 3,
        "modified_ns": 4}, "phase": "#;
    let device = r#"{"kind": "device", "number": 1, "size_bytes": 2}, "phase": "#;
    let point = r#"{"lineage": "l", "epoch": 3, "ours": true}"#;
    [
        format!(r#"{head}{file}"complete", "at": {point}}}"#),
        format!(
            r#"{head}{device}"in_progress", "base": {point}, "target": {point},
            "snapshot_id": "s", "resume_offset_bytes": 4096, "suspect": true}}"#
        ),
        format!(r#"{head}{file}"invalid", "reason": "r"}}"#),
        r#"{"version": 2}"#.to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// A size, a number of cells, then ranges that an agent may tell.
pub(crate) fn heat_map(mut input: &[u8]) {
    let capacity = number::<8>(&mut input);
    let cells = usize::try_from(number::<1>(&mut input)).unwrap_or(0);
    let mut map = HeatMap::new(capacity, cells);
    while !input.is_empty() {
        let offset = number::<8>(&mut input);
        map.add(offset, number::<8>(&mut input));
    }
    let drawn = map.terminal(16, false).concat().chars().count();
    assert_eq!(drawn, cells.max(1));
    assert!(map.svg(16, "all of it").ends_with("</svg>\n"));
}

pub(crate) fn heat_maps() -> Vec<Vec<u8>> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let small: Vec<u8> = [&10_000_u64.to_le_bytes()[..], &[9]].concat();
    let ranges: Vec<u8> = words(&[0, 4096, 8192, 1]);
    vec![small.clone(), [small, ranges].concat()]
}

pub(crate) fn sizes(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(size) = parse_size(text) {
        assert_eq!(parse_size(&size.to_string()), Ok(size));
    }
    if let Ok(time) = parse_duration(text) {
        assert_eq!(parse_duration(&format!("{}us", time.as_micros())), Ok(time));
        assert!(!span(time).is_empty());
    }
}

pub(crate) fn some_sizes() -> Vec<Vec<u8>> {
    ["4096", "1.5T", "64MiB", "1h30m", "50ms", "2d"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}
