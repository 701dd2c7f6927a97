//! The note of a server that gave its volume back: what the kernel had counted then. It lies with the
//! state in memory and ends with the host, as the counts do.

use std::{fs, path::Path};

use super::start::log_unless_gone;
use crate::host::{
    device::DeviceNumber,
    dm::{Sectors, disk},
};

const FILE: &str = "left";

/// A device, and what was written to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Left {
    device: DeviceNumber,
    /// Tells the device from another of its number.
    sequence: u64,
    sectors: Sectors,
}

impl Left {
    /// What the kernel has counted; `None` where it does not, or cannot tell devices apart.
    pub(super) fn now(device: DeviceNumber) -> Option<Self> {
        let disk = device.whole_disk().unwrap_or(device);
        Some(Self {
            device,
            sequence: disk::sequence(disk)?,
            sectors: Sectors::of(device)?,
        })
    }

    /// Whether a server that left noted the same: nobody has written since.
    pub(super) fn is_noted(self, state_dir: &Path) -> bool {
        fs::read_to_string(state_dir.join(FILE)).is_ok_and(|noted| noted == self.line())
    }

    /// Leaves the note. Without it the next server takes the volume for changed.
    pub(super) fn note(self, state_dir: &Path) {
        let path = state_dir.join(FILE);
        log_unless_gone(&path, fs::write(&path, self.line()));
    }

    fn line(self) -> String {
        let Self {
            device,
            sequence,
            sectors,
        } = self;
        format!(
            "{device} {sequence} {} {}\n",
            sectors.written, sectors.discarded
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_count_of_the_same_device_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let left = Left {
            device: DeviceNumber { major: 7, minor: 1 },
            sequence: 5,
            sectors: Sectors {
                written: 10,
                discarded: 3,
            },
        };
        assert!(!left.is_noted(dir.path()));
        left.note(dir.path());
        assert!(left.is_noted(dir.path()));
        let mut others = [left; 4];
        others[0].device.minor = 2;
        others[1].sequence = 6;
        others[2].sectors.written = 11;
        others[3].sectors.discarded = 4;
        assert!(others.iter().all(|other| !other.is_noted(dir.path())));
    }
}
