//! What this host can do, and why not the rest.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use super::{lvm, memory_dir};

/// Bit of CAP_SYS_ADMIN in the capability sets (linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;

/// One thing that a host may or may not be able to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Stable name.
    pub name: &'static str,
    /// Whether it can be used.
    pub available: bool,
    /// Why not, and what mends it; empty when available.
    pub reason: String,
}

impl Feature {
    fn new(name: &'static str, answer: Result<(), String>) -> Self {
        Self {
            name,
            available: answer.is_ok(),
            reason: answer.err().unwrap_or_default(),
        }
    }
}

/// Probes everything; `runtime_dir` need not exist yet.
pub fn features(runtime_dir: &Path) -> Vec<Feature> {
    vec![
        Feature::new("transport.portable", portable()),
        Feature::new("transport.ublk", ublk()),
        Feature::new("state.memory", memory(runtime_dir)),
        Feature::new("snapshot.freeze", freeze()),
        Feature::new("area.logical_volume", logical_volume()),
    ]
}

/// The running kernel, as `uname -r` shows it.
pub fn kernel_release() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(text.trim().to_owned())
}

fn portable() -> Result<(), String> {
    openable("/dev/fuse").map_err(|error| {
        format!("/dev/fuse cannot be opened ({error}): run modprobe fuse (CONFIG_FUSE_FS), and let containers have the device")
    })?;
    openable("/dev/loop-control").map_err(|error| {
        format!("/dev/loop-control cannot be opened ({error}): run modprobe loop (CONFIG_BLK_DEV_LOOP), and let containers have the device")
    })?;
    admin("mounting FUSE and setting up loop devices")
}

fn ublk() -> Result<(), String> {
    openable("/dev/ublk-control").map_err(|error| {
        format!("/dev/ublk-control cannot be opened ({error}): run modprobe ublk_drv (CONFIG_BLK_DEV_UBLK, Linux 6.5 and later), and let containers have the device")
    })?;
    admin("making ublk devices")
}

fn memory(runtime_dir: &Path) -> Result<(), String> {
    let existing = runtime_dir.ancestors().find(|path| path.exists());
    let places = existing.into_iter().chain([Path::new("/dev/shm")]);
    for place in places {
        if memory_dir::is_in_memory(place).unwrap_or(false) {
            return Ok(());
        }
    }
    Err(format!(
        "neither {} nor /dev/shm is on a memory file system: mount a tmpfs on one of them",
        runtime_dir.display()
    ))
}

/// Whether attach can make an area on a logical volume.
fn logical_volume() -> Result<(), String> {
    lvm::installed().map_err(|error| error.to_string())?;
    openable("/dev/mapper/control").map_err(|error| {
        format!("/dev/mapper/control cannot be opened ({error}): run modprobe dm-mod (CONFIG_BLK_DEV_DM), and let containers have the device")
    })
}

fn freeze() -> Result<(), String> {
    admin("freezing file systems")
}

fn admin(what: &str) -> Result<(), String> {
    match has_capability(CAP_SYS_ADMIN) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{what} needs CAP_SYS_ADMIN: run as root")),
        Err(error) => Err(format!("/proc/self/status cannot be read: {error}")),
    }
}

fn has_capability(bit: u32) -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let set = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("no CapEff line"))?;
    Ok(set >> bit & 1 == 1)
}

fn openable(path: &str) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_a_reason_and_what_is_there_has_none() {
        let features = features(Path::new("/dev/shm/none/such"));
        let names: Vec<_> = features.iter().map(|feature| feature.name).collect();
        assert_eq!(
            names,
            [
                "transport.portable",
                "transport.ublk",
                "state.memory",
                "snapshot.freeze",
                "area.logical_volume"
            ]
        );
        for feature in features {
            assert_eq!(feature.available, feature.reason.is_empty(), "{feature:?}");
        }
    }

    #[test]
    fn the_kernel_has_a_release() {
        assert!(kernel_release().unwrap().contains('.'));
    }
}
