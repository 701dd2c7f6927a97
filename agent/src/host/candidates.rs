//! The block devices of this host, and whether each can be attached.

use std::{io, path::PathBuf};

use super::{
    claim::is_swap,
    device::{Anchor, DeviceNumber, block_devices},
    loopdev::Backing,
    mounts::MountTable,
};

/// A block device that may or may not be attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its node.
    pub path: PathBuf,
    /// Size in bytes.
    pub capacity: u64,
    /// Why it cannot be attached, and what can be done; `None` when it can.
    pub refusal: Option<String>,
}

/// Every block device except those in `own`, which are ours, and loop devices without a file.
///
/// Nothing is opened, so processes that merely have a device open are not noticed:
/// [`super::claim::claim`] has the last word.
pub fn list(own: &[DeviceNumber]) -> io::Result<Vec<Candidate>> {
    let devices = block_devices()?;
    let mounts = MountTable::read()?;
    let backings = devices
        .iter()
        .filter(|device| !own.contains(device))
        .filter_map(|device| Backing::of(*device))
        // Only devices are asked for: a file may be on a FUSE file system that hangs.
        .filter(|backing| backing.path.starts_with("/dev"))
        .filter_map(|backing| Some((backing.anchor()?, backing.number)))
        .collect();
    let survey = Survey { mounts, backings };
    Ok(devices
        .into_iter()
        .filter(|device| !own.contains(device) && !is_unbound_loop(*device))
        .filter(|device| device.attribute("hidden").as_deref() != Some("1"))
        .map(|device| Candidate {
            path: device.node(),
            capacity: device.capacity().unwrap_or(0),
            refusal: survey.refusal(device),
        })
        .collect())
}

fn is_unbound_loop(device: DeviceNumber) -> bool {
    device.node().starts_with("/dev")
        && device
            .node()
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("loop"))
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
        && Backing::of(device).is_none()
}

struct Survey {
    mounts: MountTable,
    /// Devices behind loop devices.
    backings: Vec<(Anchor, DeviceNumber)>,
}

impl Survey {
    fn refusal(&self, device: DeviceNumber) -> Option<String> {
        if device.capacity().unwrap_or(0) == 0 {
            return Some("it has no size: no medium, or not set up".to_owned());
        }
        if device.is_read_only() {
            return Some("it is read-only".to_owned());
        }
        if let Some(reason) = self.user(device) {
            return Some(reason);
        }
        for partition in device.partitions() {
            if let Some(reason) = self.user(partition) {
                return Some(format!("its partition {}: {reason}", name(partition)));
            }
        }
        let disk = device.whole_disk()?;
        let reason = self.user(disk)?;
        Some(format!("its disk {}: {reason}", name(disk)))
    }

    fn user(&self, device: DeviceNumber) -> Option<String> {
        if let Some(mount) = self.mounts.on_device(device).next() {
            return Some(format!(
                "mounted at {}; a mounted plain device cannot be interposed: attach it before \
                 it is mounted",
                mount.mount_point.display()
            ));
        }
        if let Some(holder) = device.holders().first() {
            return Some(format!("part of {}", holder.description()));
        }
        if is_swap(Anchor::Device(device)) {
            return Some("in use as swap space".to_owned());
        }
        let anchor = Anchor::Device(device);
        let (_, number) = self.backings.iter().find(|(found, _)| *found == anchor)?;
        Some(format!("behind the loop device {}", name(*number)))
    }
}

fn name(device: DeviceNumber) -> String {
    device.node().display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{
        fixtures::{Mounted, sparse_file},
        loopdev::{LoopDevice, LoopOptions},
    };

    fn find(own: &[DeviceNumber], device: &LoopDevice) -> Option<Candidate> {
        let list = list(own).unwrap();
        list.into_iter().find(|c| c.path == device.path())
    }

    #[test]
    fn a_free_device_can_be_attached_unless_it_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        sparse_file(&image, 1 << 20);
        let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
        let candidate = find(&[], &device).unwrap();
        assert_eq!(candidate.capacity, 1 << 20);
        assert_eq!(candidate.refusal, None);
        assert_eq!(find(&[device.number()], &device), None);
        let upper = LoopDevice::attach(device.path(), LoopOptions::default()).unwrap();
        let refusal = find(&[], &device).unwrap().refusal.unwrap();
        assert!(refusal.contains("behind the loop device"), "{refusal}");
        drop(upper);
    }

    #[test]
    fn a_mounted_or_read_only_device_cannot() {
        let mounted = Mounted::ext4();
        let refusal = find(&[], &mounted.device).unwrap().refusal.unwrap();
        assert!(
            refusal.contains("attach it before it is mounted"),
            "{refusal}"
        );
        let options = LoopOptions {
            read_only: true,
            ..LoopOptions::default()
        };
        let image = mounted.folder.path().join("image");
        sparse_file(&image, 1 << 20);
        let device = LoopDevice::attach(&image, options).unwrap();
        let refusal = find(&[], &device).unwrap().refusal.unwrap();
        assert_eq!(refusal, "it is read-only");
    }

    #[test]
    fn loop_devices_without_a_file_are_left_out() {
        let unbound = |candidate: &Candidate| {
            let device = DeviceNumber::of_block_device(&candidate.path);
            device.is_ok_and(|device| device.is_some_and(is_unbound_loop))
        };
        let list = list(&[]).unwrap();
        // Others may detach theirs meanwhile: what has no size now must have had one.
        assert!(list.iter().all(|c| c.capacity > 0 || !unbound(c)));
    }
}
