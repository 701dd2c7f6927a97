//! The folder for what is fetched and made: shared by processes, and never half-done.
//!
//! A folder is filled under another name and renamed when it is whole, so that what has its name
//! can be used. Whoever fills one holds the lock.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::programs::workspace;

/// The cache's root, made when it is not there.
pub fn root() -> PathBuf {
    let root = std::env::var_os("TIDEMARK_VM_CACHE")
        .map_or_else(|| workspace().join("target/vm"), PathBuf::from);
    make(&root);
    root
}

/// A folder in the cache, made when it is not there.
pub fn folder(name: &str) -> PathBuf {
    let path = root().join(name);
    make(&path);
    path
}

/// A new folder on the cache's disk, gone when dropped: disks of guests do not fit in memory.
pub fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(folder("scratch"))
        .expect("a temporary folder can be made in the cache")
}

/// Gives `path`, which `fill` makes when it is not there: a file or a folder.
///
/// `fill` gets the name to work under; only when it returns does the result get its own name.
pub fn ensure(path: &Path, fill: impl FnOnce(&Path)) -> PathBuf {
    if path.exists() {
        return path.to_owned();
    }
    let _lock = Lock::take();
    if path.exists() {
        return path.to_owned();
    }
    let parent = path.parent().expect("a name in the cache has a folder");
    make(parent);
    let unfinished = tempfile::Builder::new()
        .prefix("unfinished-")
        .tempdir_in(parent)
        .expect("a temporary folder can be made in the cache");
    let work = unfinished.path().join("work");
    fill(&work);
    fs::rename(&work, path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    path.to_owned()
}

/// Held while the cache is filled; other processes wait.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else holds it. Not to be taken twice by one thread.
    pub fn take() -> Self {
        let path = root().join("lock");
        let file = File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        file.lock()
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { _file: file }
    }
}

fn make(folder: &Path) {
    fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
}
