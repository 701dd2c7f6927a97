//! Names of change maps in a folder: what a dead process left may be any of them.

use std::{fs, sync::LazyLock};

use tempfile::TempDir;
use tidemark_store::{
    changes::{DenseMap, History},
    units::{Epoch, Id},
};

const LINEAGE: Id = Id([3; 16]);
const BLOCKS: u64 = 1000;
const CURRENT: Epoch = Epoch(7);

static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("memory holds a folder"));

/// An input is a name a line.
pub(crate) fn names(input: &[u8]) {
    let folder = FOLDER
        .path()
        .join(format!("{:?}", std::thread::current().id()));
    // A name that the last input left must not be found by this one.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("memory holds a folder");
    let set = DenseMap::create(&folder.join("dense-7"), LINEAGE, CURRENT, BLOCKS)
        .expect("memory holds a map")
        .to_set(0)
        .encode();
    for line in input.split(|byte| *byte == b'\n').take(16) {
        let Ok(name) = std::str::from_utf8(line) else {
            continue;
        };
        if name != "dense-7" && !name.contains('/') {
            // Names that no file may have are not found either.
            let _ = fs::write(folder.join(name), &set);
        }
    }
    let Ok((mut history, _)) = History::open(&folder, LINEAGE, CURRENT, BLOCKS) else {
        return;
    };
    for since in 0..CURRENT.0 {
        let _ = history.diff(Epoch(since), Epoch(CURRENT.0 - 1));
    }
    let _ = history.housekeep(&[Epoch(2), Epoch(4)]);
    let _ = history.housekeep(&[]);
    assert!(
        !history.needs_housekeeping(&[]),
        "files that nobody removes"
    );
}

pub(crate) fn some_names() -> Vec<Vec<u8>> {
    [
        "set-1-3\nset-4-6",
        "set-1-6\nset-1-3\nset.tmp",
        "dense-6\ndense-8",
        "set-5-2\nset-0-18446744073709551615",
    ]
    .map(|names| names.as_bytes().to_vec())
    .to_vec()
}
