//! What is mounted where: /proc/self/mountinfo.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use super::device::{DeviceNumber, btrfs_devices};

/// One line of mountinfo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Tells this mount from any other of its namespace.
    pub id: u64,
    /// The file system's device number; major 0 for btrfs and file systems on no device.
    pub device: DeviceNumber,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// `ext4`, `btrfs`, `fuse.NAME` and so on.
    pub fs_type: String,
    /// What was mounted: a device, or what the file system calls its source.
    pub source: PathBuf,
    /// The file system's own options.
    pub super_options: String,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let text = |field: &[u8]| String::from_utf8(unescape(field)).ok();
        let id = text(fields.next()?)?.parse().ok()?;
        let _parent = fields.next()?;
        let device = DeviceNumber::parse(&text(fields.next()?)?)?;
        let root = path(fields.next()?);
        let mount_point = path(fields.next()?);
        // Optional fields of unknown number end at a dash.
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        Some(Self {
            id,
            device,
            root,
            mount_point,
            fs_type: text(fields.next()?)?,
            source: path(fields.next().unwrap_or_default()),
            super_options: String::from_utf8_lossy(&unescape(fields.next().unwrap_or_default()))
                .into_owned(),
        })
    }

    /// The block devices that the file system is on; none for one that is in memory, on the
    /// network or served by a process.
    pub fn block_devices(&self) -> Vec<DeviceNumber> {
        if self.device.is_block_device() {
            return vec![self.device];
        }
        // A source may be any text; only what looks like a device is looked at.
        if !self.source.starts_with("/dev") {
            return Vec::new();
        }
        match DeviceNumber::of_block_device(&self.source) {
            Ok(Some(device)) if self.fs_type == "btrfs" => btrfs_devices(device),
            Ok(Some(device)) => vec![device],
            _ => Vec::new(),
        }
    }

    /// Whether the mount point leads to this mount and not to one that covers it.
    fn is_reachable(&self) -> bool {
        mount_id_of(&self.mount_point).is_ok_and(|id| id == self.id)
    }
}

/// The mounts of this process's namespace, in the order in which they were made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MountTable(Vec<Mount>);

impl MountTable {
    /// Reads the kernel's table.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    /// Reads lines in the format of mountinfo; those that are not are left out.
    pub fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        Self(lines.filter_map(Mount::parse).collect())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The mounts of file systems that are on `device`, be it as one of several.
    pub fn on_device(&self, device: DeviceNumber) -> impl Iterator<Item = &Mount> {
        self.0
            .iter()
            .filter(move |mount| mount.block_devices().contains(&device))
    }

    /// One mount point for each mounted file system on `device`, to freeze it by: a file
    /// system that is mounted twice can be frozen only once. Left out are those that other
    /// mounts cover.
    pub fn file_systems_on(&self, device: DeviceNumber) -> Vec<PathBuf> {
        let mut seen = Vec::new();
        let mut points = Vec::new();
        for mount in self.on_device(device) {
            if !seen.contains(&mount.device) && mount.is_reachable() {
                seen.push(mount.device);
                points.push(mount.mount_point.clone());
            }
        }
        points
    }

    /// The mount that `path`, which exists, is on.
    pub fn of_path(&self, path: &Path) -> io::Result<Option<&Mount>> {
        let id = mount_id_of(path)?;
        Ok(self.0.iter().find(|mount| mount.id == id))
    }
}

/// The mount that a path leads to, without asking its file system more than the look-up does.
fn mount_id_of(path: &Path) -> io::Result<u64> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/fdinfo has no mnt_id"))
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Undoes the kernel's `\040` for a space and its like.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'\\')
            .then(|| tail.first_chunk::<3>().and_then(octal))
            .flatten();
        if let Some(byte) = escaped {
            plain.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = br"22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
61 27 7:1 / /mnt/a\040b\134c rw,relatime shared:2 master:3 - xfs /dev/loop1 rw,attr2
62 27 0:50 /@home /home rw - btrfs /dev/no-such-device rw,subvolid=256,subvol=/@home
63 27 0:51 / /mnt/none rw -
not a line
64 27 7:1 /sub /mnt/bind ro - xfs /dev/loop1 rw
";

    fn number(major: u32, minor: u32) -> DeviceNumber {
        DeviceNumber { major, minor }
    }

    #[test]
    fn lines_that_are_none_are_left_out() {
        let table = MountTable::parse(SAMPLE);
        let ids: Vec<_> = table.iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [22, 27, 61, 62, 64]);
    }

    #[test]
    fn escapes_and_optional_fields_are_read() {
        let table = MountTable::parse(SAMPLE);
        let mount = table.iter().find(|mount| mount.id == 61).unwrap();
        assert_eq!(mount.mount_point, Path::new("/mnt/a b\\c"));
        assert_eq!(mount.fs_type, "xfs");
        assert_eq!(mount.source, Path::new("/dev/loop1"));
        assert_eq!(mount.super_options, "rw,attr2");
    }

    #[test]
    fn a_device_has_all_its_mounts() {
        let table = MountTable::parse(SAMPLE);
        let points: Vec<_> = table
            .on_device(number(7, 1))
            .map(|mount| mount.mount_point.to_str().unwrap())
            .collect();
        assert_eq!(points, ["/mnt/a b\\c", "/mnt/bind"]);
        assert_eq!(table.on_device(number(0, 50)).count(), 0);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(unescape(br"a\04"), br"a\04");
        assert_eq!(unescape(br"a\999b\"), br"a\999b\");
        assert_eq!(unescape(br"\011"), b"\t");
    }

    #[test]
    fn the_root_is_on_a_mount() {
        let table = MountTable::read().unwrap();
        let mount = table.of_path(Path::new("/")).unwrap().unwrap();
        assert_eq!(mount.mount_point, Path::new("/"));
    }
}
