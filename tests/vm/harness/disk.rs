//! Disks of guests: sparse files that outlive the guest when their owner wants it.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// A raw disk. The file stays; its folder's owner removes it.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Makes an empty disk.
    pub fn create(path: &Path, bytes: u64) -> Self {
        crate::image::sparse(path, bytes);
        Self {
            path: path.to_owned(),
        }
    }

    /// Uses a disk that is there, for example one that a guest was killed with.
    pub fn open(path: &Path) -> Self {
        File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self {
            path: path.to_owned(),
        }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
