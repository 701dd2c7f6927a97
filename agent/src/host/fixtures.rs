//! Files, file systems and mounts for tests, which clean up after themselves.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::loopdev::{LoopDevice, LoopOptions};

/// Makes a file of `len` bytes that is one hole.
pub(crate) fn sparse_file(path: &Path, len: u64) {
    File::create(path).unwrap().set_len(len).unwrap();
}

/// Runs a program to its end, which must be a good one.
pub(crate) fn run(program: &str, args: &[&Path]) {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

/// An image with a file system, mounted through a loop device.
pub(crate) struct Mounted {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) image: PathBuf,
    pub(crate) device: LoopDevice,
    pub(crate) point: PathBuf,
}

impl Mounted {
    pub(crate) fn ext4() -> Self {
        Self::new("ext4", 16 << 20, &["-q"])
    }

    pub(crate) fn btrfs() -> Self {
        Self::new("btrfs", 256 << 20, &["-q"])
    }

    fn new(kind: &str, len: u64, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("origin.img");
        let point = folder.path().join("mount point");
        sparse_file(&image, len);
        let mut args: Vec<&Path> = options.iter().map(Path::new).collect();
        args.push(&image);
        run(&format!("mkfs.{kind}"), &args);
        std::fs::create_dir(&point).unwrap();
        let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
        let none = None::<&str>;
        mount(
            Some(device.path()),
            &point,
            Some(kind),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        Self {
            folder,
            image,
            device,
            point,
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a test that failed may have something open there.
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}
