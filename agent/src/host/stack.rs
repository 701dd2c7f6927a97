//! Whether a path lies on a given origin, however many layers down.
//!
//! An area, a catalog or a log on the volume that it serves is a deadlock at the first write
//! under a snapshot. So the path is followed down: its mount, the mount's devices, what these
//! are partitions of or built on, the files behind loop devices, the mounts of those files.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    device::{Anchor, DeviceNumber},
    loopdev::Backing,
    mounts::{Mount, MountTable},
};

/// Deeper than any sane stack; a bound on a walk whose ground may move under it.
const MAX_DEPTH: usize = 64;

/// Whether `path` lies on one of `origins`: the origin itself and, for a volume that is
/// attached, the files and devices that present it. `path` need not exist yet; what exists of
/// it counts.
///
/// Gives the chain that leads there, to be shown with [`explain`]; `None` when none does.
pub fn lies_on(path: &Path, origins: &[Anchor]) -> io::Result<Option<Vec<String>>> {
    let mounts = MountTable::read()?;
    let mut walk = Walk {
        mounts: &mounts,
        origins,
        seen: HashSet::new(),
        chain: Vec::new(),
    };
    let found = walk.path(&nearest_existing(path)?, 0)?;
    Ok(found.then_some(walk.chain))
}

/// Puts a chain into words: "/mnt/x is on /dev/loop3, which is backed by /img".
pub fn explain(chain: &[String]) -> String {
    chain.join(", which ")
}

struct Walk<'a> {
    mounts: &'a MountTable,
    origins: &'a [Anchor],
    seen: HashSet<(DeviceNumber, bool)>,
    /// The steps from the path to where the walk is.
    chain: Vec<String>,
}

impl Walk<'_> {
    /// Takes one step down; what was said of it is taken back when it leads nowhere.
    fn step(
        &mut self,
        says: String,
        down: impl FnOnce(&mut Self) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let depth = self.chain.len();
        self.chain.push(says);
        let found = down(self)?;
        if !found {
            self.chain.truncate(depth);
        }
        Ok(found)
    }

    /// A file, directory or device by name.
    fn path(&mut self, path: &Path, depth: usize) -> io::Result<bool> {
        if depth > MAX_DEPTH {
            return Ok(false);
        }
        let anchor = Anchor::of_path(path)?;
        if self.origins.contains(&anchor) {
            let says = if self.chain.is_empty() {
                format!("{} is the volume's origin or device itself", path.display())
            } else {
                "is the volume's origin or device".to_owned()
            };
            return self.step(says, |_| Ok(true));
        }
        if let Anchor::Device(device) = anchor {
            return self.step(subject(&self.chain, path, device), |walk| {
                walk.device(device, false, depth + 1)
            });
        }
        match self.mounts.of_path(path)? {
            Some(mount) => self.mount(path, mount, depth),
            None => Ok(false),
        }
    }

    /// The file system that `path` is on.
    fn mount(&mut self, path: &Path, mount: &Mount, depth: usize) -> io::Result<bool> {
        for device in mount.block_devices() {
            let says = subject(&self.chain, path, device);
            if self.step(says, |walk| walk.device(device, false, depth + 1))? {
                return Ok(true);
            }
        }
        match upper_dir(mount) {
            Some(upper) if upper.exists() => {
                let says = match self.chain.is_empty() {
                    true => format!("{} is an overlay of {}", path.display(), upper.display()),
                    false => format!("is on an overlay of {}", upper.display()),
                };
                self.step(says, |walk| walk.path(&upper, depth + 1))
            }
            _ => Ok(false),
        }
    }

    /// A block device. `as_disk`: we came from one of its partitions, so only the device as a
    /// whole counts and not its other partitions.
    fn device(&mut self, device: DeviceNumber, as_disk: bool, depth: usize) -> io::Result<bool> {
        if self.origins.contains(&Anchor::Device(device)) {
            return Ok(true);
        }
        if depth > MAX_DEPTH || !self.seen.insert((device, as_disk)) {
            return Ok(false);
        }
        if !as_disk && self.has_origin_partition(device) {
            return self.step("holds the volume's partition".to_owned(), |_| Ok(true));
        }
        if let Some(disk) = device.whole_disk() {
            let says = format!("is a partition of {}", disk.node().display());
            if self.step(says, |walk| walk.device(disk, true, depth + 1))? {
                return Ok(true);
            }
        }
        for slave in device.slaves() {
            let says = format!("is built on {}", slave.node().display());
            if self.step(says, |walk| walk.device(slave, false, depth + 1))? {
                return Ok(true);
            }
        }
        match Backing::of(device) {
            None => Ok(false),
            Some(backing) => {
                let says = format!("is backed by {}", backing.path.display());
                self.step(says, |walk| walk.backing(&backing, depth + 1))
            }
        }
    }

    fn has_origin_partition(&self, device: DeviceNumber) -> bool {
        let partitions = device.partitions();
        partitions
            .iter()
            .any(|p| self.origins.contains(&Anchor::Device(*p)))
    }

    /// What is behind a loop device.
    fn backing(&mut self, backing: &Backing, depth: usize) -> io::Result<bool> {
        let Some(anchor) = backing.anchor() else {
            return Ok(false);
        };
        if self.origins.contains(&anchor) {
            return Ok(true);
        }
        match anchor {
            Anchor::Device(device) => self.device(device, false, depth + 1),
            // Its name tells the mount, as long as it still leads there.
            Anchor::File(_) if Anchor::of_path(&backing.path).is_ok_and(|now| now == anchor) => {
                self.path(&backing.path, depth + 1)
            }
            Anchor::File(identity) => {
                let device = DeviceNumber::from_raw(identity.device);
                if !device.is_block_device() {
                    return Ok(false);
                }
                let says = format!("is on {}", device.node().display());
                self.step(says, |walk| walk.device(device, false, depth + 1))
            }
        }
    }
}

/// "/mnt/x is on /dev/loop3" at the start of a chain, "is on /dev/loop3" further down.
fn subject(chain: &[String], path: &Path, device: DeviceNumber) -> String {
    let node = device.node();
    if !chain.is_empty() {
        return format!("is on {}", node.display());
    }
    if path == node {
        return format!("{} is a block device", path.display());
    }
    format!("{} is on {}", path.display(), node.display())
}

/// Where an overlay puts what is written to it.
fn upper_dir(mount: &Mount) -> Option<PathBuf> {
    if mount.fs_type != "overlay" {
        return None;
    }
    let options = mount.super_options.split(',');
    options
        .filter_map(|option| option.strip_prefix("upperdir="))
        .map(PathBuf::from)
        .next()
}

/// `path` itself, or the nearest folder above it that exists.
fn nearest_existing(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    for ancestor in absolute.ancestors() {
        match fs::metadata(ancestor) {
            Ok(_) => return Ok(ancestor.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(error),
        }
    }
    Ok(PathBuf::from("/"))
}

#[cfg(test)]
mod tests;
