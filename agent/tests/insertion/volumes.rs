//! Volumes to protect: LVM, dm-crypt, plain device-mapper, over loop devices in memory.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tidemark_agent::host::loopdev::{LoopDevice, LoopOptions};

use crate::rig::{Mapped, lvm, node_of, run, text, try_run};

/// A disk in memory.
pub(crate) struct Disk {
    device: LoopDevice,
    _folder: tempfile::TempDir,
}

impl Disk {
    pub(crate) fn new(mib: u64) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("disk");
        File::create(&path).unwrap().set_len(mib << 20).unwrap();
        Self {
            device: LoopDevice::attach(&path, LoopOptions::default()).unwrap(),
            _folder: folder,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.device.path()
    }
}

/// A volume group over two disks.
pub(crate) struct Group {
    pub(crate) name: String,
    _disks: [Disk; 2],
}

impl Group {
    pub(crate) fn new(name: &str, mib_each: u64) -> Self {
        let disks = [Disk::new(mib_each), Disk::new(mib_each)];
        let paths = [text(disks[0].path()), text(disks[1].path())];
        lvm(&["vgcreate", "-y", "-s", "4m", name, paths[0], paths[1]]);
        Self {
            name: name.to_owned(),
            _disks: disks,
        }
    }

    /// Makes a logical volume with further options, and gives its node.
    pub(crate) fn volume(&self, name: &str, mib: u64, options: &[&str]) -> PathBuf {
        let size = format!("{mib}m");
        let mut args = vec!["lvcreate", "-y", "-Wn", "-n", name, "-L", &size];
        args.extend(options);
        args.push(&self.name);
        lvm(&args);
        self.node(name)
    }

    pub(crate) fn node(&self, name: &str) -> PathBuf {
        node_of(&format!("{}-{name}", self.name))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::panic::catch_unwind(|| lvm(&["vgremove", "-ff", "-y", &self.name]));
    }
}

/// A LUKS2 volume over a device.
pub(crate) struct Crypt {
    pub(crate) name: String,
    key: tempfile::NamedTempFile,
}

impl Crypt {
    pub(crate) fn new(name: &str, below: &Path, options: &[&str]) -> Self {
        let mut key = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        key.write_all(b"correct horse battery staple").unwrap();
        let below = text(below);
        let fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let mut format = vec!["luksFormat", "-q", "--type", "luks2"];
        format.extend(fast);
        format.extend([below, text(key.path())]);
        run("cryptsetup", &format);
        let mut open = vec!["open", "--key-file", text(key.path())];
        open.extend(options);
        open.extend([below, name]);
        run("cryptsetup", &open);
        Self {
            name: name.to_owned(),
            key,
        }
    }

    pub(crate) fn node(&self) -> PathBuf {
        node_of(&self.name)
    }

    /// What a refusal tells the operator to run.
    pub(crate) fn refresh_without_keyring(&self) {
        let key = text(self.key.path());
        let words = [
            "refresh",
            "--disable-keyring",
            "--key-file",
            key,
            &self.name,
        ];
        run("cryptsetup", &words);
    }
}

impl Drop for Crypt {
    fn drop(&mut self) {
        let _ = try_run("cryptsetup", &["close", &self.name]);
    }
}

/// A plain device-mapper volume, made by hand and without an identity.
pub(crate) fn plain(name: &str, mib: u64) -> (Mapped, Disk) {
    let disk = Disk::new(mib);
    (Mapped::linear(name, disk.path()), disk)
}

/// A file system on a device, mounted until it goes.
pub(crate) struct Mounted {
    pub(crate) point: PathBuf,
    device: PathBuf,
    kind: &'static str,
    _folder: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn new(kind: &'static str, device: &Path) -> Self {
        let quiet = match kind {
            "ext4" => &["-q", "-F"][..],
            _ => &["-q", "-f"],
        };
        let mut args = quiet.to_vec();
        args.push(text(device));
        run(&format!("mkfs.{kind}"), &args);
        let folder = tempfile::tempdir_in("/run").unwrap();
        let mounted = Self {
            point: folder.path().to_owned(),
            device: device.to_owned(),
            kind,
            _folder: folder,
        };
        mounted.mount();
        mounted
    }

    fn mount(&self) {
        let none = None::<&str>;
        let flags = MsFlags::empty();
        mount(
            Some(&self.device),
            &self.point,
            Some(self.kind),
            flags,
            none,
        )
        .unwrap();
    }

    /// Unmounts it and has it checked by the file system's own program.
    pub(crate) fn check(&self) {
        umount2(&self.point, MntFlags::empty()).unwrap();
        let device = text(&self.device);
        match self.kind {
            "ext4" => run("e2fsck", &["-fn", device]),
            _ => run("xfs_repair", &["-n", device]),
        };
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}
