//! Device numbers, and what /sys knows of a block device.

use std::{
    fmt, fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// The number of a device, as the kernel shows it: `8:1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DeviceNumber {
    /// Which driver; 0 for a file system that is on no block device.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl DeviceNumber {
    /// Splits an `st_dev` or `st_rdev`.
    pub fn from_raw(raw: u64) -> Self {
        Self {
            major: libc::major(raw),
            minor: libc::minor(raw),
        }
    }

    /// Joins them to what `st_dev` and `st_rdev` hold.
    pub fn to_raw(self) -> u64 {
        libc::makedev(self.major, self.minor)
    }

    /// Reads `8:1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }

    /// The number of the block device that `path` names; `None` when it is something else.
    pub fn of_block_device(path: &Path) -> io::Result<Option<Self>> {
        let metadata = fs::metadata(path)?;
        Ok(metadata
            .file_type()
            .is_block_device()
            .then(|| Self::from_raw(metadata.rdev())))
    }

    /// Whether a block device can have it: file systems on none get numbers with major 0.
    pub fn is_block_device(self) -> bool {
        self.major != 0
    }

    fn sys(self) -> PathBuf {
        PathBuf::from(format!("/sys/dev/block/{self}"))
    }

    /// A file of the device's folder in /sys, without white space around.
    pub(crate) fn attribute(self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.sys().join(name)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The device's node: `/dev/loop3`. The bare number when /sys does not know it.
    pub fn node(self) -> PathBuf {
        let uevent = self.attribute("uevent").unwrap_or_default();
        let name = uevent.lines().find_map(|l| l.strip_prefix("DEVNAME="));
        match name {
            Some(name) => Path::new("/dev").join(name),
            None => PathBuf::from(self.to_string()),
        }
    }

    /// Size in bytes.
    pub fn capacity(self) -> Option<u64> {
        self.attribute("size")?
            .parse::<u64>()
            .ok()?
            .checked_mul(512)
    }

    /// Whether the device refuses writes.
    pub fn is_read_only(self) -> bool {
        self.attribute("ro").is_some_and(|ro| ro != "0")
    }

    /// The disk that this is a partition of.
    pub fn whole_disk(self) -> Option<Self> {
        let sys = fs::canonicalize(self.sys()).ok()?;
        if !sys.join("partition").exists() {
            return None;
        }
        Self::parse(&fs::read_to_string(sys.parent()?.join("dev")).ok()?)
    }

    /// The disk's partitions.
    pub fn partitions(self) -> Vec<Self> {
        children(&self.sys(), |dir| dir.join("partition").exists())
    }

    /// The devices that this one is built on, as device-mapper, md and their like tell.
    pub fn slaves(self) -> Vec<Self> {
        children(&self.sys().join("slaves"), |_| true)
    }

    /// The devices that are built on this one.
    pub fn holders(self) -> Vec<Self> {
        children(&self.sys().join("holders"), |_| true)
    }

    /// What a device-mapper or md device is called, for people.
    pub fn description(self) -> String {
        let node = self.node();
        match (self.attribute("dm/name"), self.attribute("md/level")) {
            (Some(name), _) => format!("{} (device-mapper {name:?})", node.display()),
            (None, Some(level)) => format!("{} (md {level})", node.display()),
            (None, None) => node.display().to_string(),
        }
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A file, whatever its name: device and inode number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileIdentity {
    /// The file system's `st_dev`.
    pub device: u64,
    /// The inode's number there.
    pub inode: u64,
}

impl FileIdentity {
    /// The identity of what `metadata` describes.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A block device or another file: what a stack of devices ends at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Anchor {
    /// A block device, by its number and not by the node that names it.
    Device(DeviceNumber),
    /// A file.
    File(FileIdentity),
}

impl Anchor {
    /// What `path` names; a symbolic link is followed.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::metadata(path)?))
    }

    /// What `metadata` describes.
    pub fn of(metadata: &fs::Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::Device(DeviceNumber::from_raw(metadata.rdev()))
        } else {
            Self::File(FileIdentity::of(metadata))
        }
    }

    /// The block device, if it is one.
    pub fn device(self) -> Option<DeviceNumber> {
        match self {
            Self::Device(device) => Some(device),
            Self::File(_) => None,
        }
    }
}

/// Every block device, partitions included, in the order of their numbers.
pub fn block_devices() -> io::Result<Vec<DeviceNumber>> {
    fs::read_dir("/sys/class/block")?;
    Ok(children(Path::new("/sys/class/block"), |_| true))
}

/// All devices of the btrfs file system that has `device`, which may be several.
pub fn btrfs_devices(device: DeviceNumber) -> Vec<DeviceNumber> {
    let file_systems = fs::read_dir("/sys/fs/btrfs")
        .into_iter()
        .flatten()
        .flatten();
    file_systems
        .map(|entry| children(&entry.path().join("devices"), |_| true))
        .find(|devices| devices.contains(&device))
        .unwrap_or_else(|| vec![device])
}

/// The devices among the entries of a folder of /sys.
fn children(folder: &Path, keep: impl Fn(&Path) -> bool) -> Vec<DeviceNumber> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut numbers: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| keep(path))
        .filter_map(|path| DeviceNumber::parse(&fs::read_to_string(path.join("dev")).ok()?))
        .collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_split_and_joined() {
        let number = DeviceNumber::parse("259:1048575\n").unwrap();
        assert_eq!(number.to_string(), "259:1048575");
        assert_eq!(DeviceNumber::from_raw(number.to_raw()), number);
        for text in ["", "8", "8:", ":1", "8:x", "8:-1", "8:1:1"] {
            assert_eq!(DeviceNumber::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_block_device_has_no_number() {
        let none = DeviceNumber::of_block_device(Path::new("/dev/null"));
        assert_eq!(none.unwrap(), None);
        let unknown = DeviceNumber {
            major: 7,
            minor: 1 << 19,
        };
        assert_eq!(unknown.capacity(), None);
        assert_eq!(unknown.whole_disk(), None);
        assert!(unknown.partitions().is_empty() && unknown.slaves().is_empty());
    }
}
