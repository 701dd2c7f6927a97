//! Marks by which udev knows our devices, before it sees them: a volume's bytes must not be found a
//! second time under /dev/disk, nor be scanned by LVM. The rule is in packaging/udev.

use std::{fs, io, path::PathBuf};

/// The same for all agents of a host: rules of udev have no settings.
const FOLDER: &str = "/run/tidemark/devices";

fn path(id: u32) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("ublkb{id}"))
}

/// Marks a device that is about to be started.
pub(super) fn set(id: u32) {
    let made = fs::create_dir_all(FOLDER).and_then(|()| fs::write(path(id), ""));
    if let Err(error) = made {
        tracing::warn!(id, %error, "udev may look into our device: its mark cannot be made");
    }
}

/// The device is gone, and its number may be another's.
pub(super) fn clear(id: u32) {
    match fs::remove_file(path(id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(id, %error, "the mark of a device stays, and udev leaves the next one of its number alone");
        }
        _ => {}
    }
}
