//! Disks of guests: sparse files that outlive the guest when their owner wants it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use crate::programs::succeed;

/// How a disk's file is laid out, as QEMU calls it.
const RAW: &str = "raw";
const OVERLAY: &str = "qcow2";

/// A disk. The file stays; its folder's owner removes it.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
    format: &'static str,
}

impl Disk {
    /// Makes an empty disk.
    pub fn create(path: &Path, bytes: u64) -> Self {
        crate::image::sparse(path, bytes);
        Self {
            path: path.to_owned(),
            format: RAW,
        }
    }

    /// Uses a disk that is there, for example one that a guest was killed with.
    pub fn open(path: &Path) -> Self {
        File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self {
            path: path.to_owned(),
            format: RAW,
        }
    }

    /// Makes a disk with what this one holds, which is read only as long as the new one is used.
    /// What is written goes to the new file, so that nothing is copied.
    ///
    /// A killed guest's writes that it did not flush may be missing from it.
    pub fn over(&self, path: &Path) -> Self {
        let mut make = Command::new("qemu-img");
        make.args(["create", "-q", "-f", OVERLAY, "-F", self.format, "-b"]);
        succeed(make.arg(&self.path).arg(path));
        Self {
            path: path.to_owned(),
            format: OVERLAY,
        }
    }

    /// How QEMU is to read it.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
