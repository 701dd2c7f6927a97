//! The device-mapper device that is protected, told from others after it was away.

use std::path::{Path, PathBuf};

use crate::host::{
    device::DeviceNumber,
    dm::{Address, Control, DmError, Info, disk},
};

/// Bytes of a sector, the unit of tables and of the kernel's counters.
pub const SECTOR_BYTES: u64 = 512;

/// A device-mapper volume as it was when it was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DmVolume {
    /// Its name in /dev/mapper; may change.
    pub name: String,
    /// What it was made with, `LVM-...` or `CRYPT-...`; empty for devices made by hand.
    pub uuid: String,
    /// Its number; another device's once this one is gone.
    pub number: DeviceNumber,
    /// The kernel's count of disks when it was made: never given twice until the next boot.
    pub sequence: Option<u64>,
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
}

impl DmVolume {
    /// The volume that a path names; `None` when that is no device-mapper device.
    pub fn of_path(path: &Path) -> Result<Option<Self>, DmError> {
        let number = match DeviceNumber::of_block_device(path) {
            Ok(Some(number)) if disk::is_dm(number) => number,
            _ => return Ok(None),
        };
        let info = Control::open()?.info(Address::Number(number))?;
        Ok(info.map(|info| Self::of(&info)))
    }

    pub(super) fn of(info: &Info) -> Self {
        Self {
            name: info.name.clone(),
            uuid: info.uuid.clone(),
            number: info.number,
            sequence: disk::sequence(info.number),
            sectors: info.number.capacity().unwrap_or(0) / SECTOR_BYTES,
        }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES)
    }

    /// Its node.
    pub fn node(&self) -> PathBuf {
        self.number.node()
    }

    /// The device as it is now, be it another incarnation of the same volume.
    pub(super) fn find(&self, control: &Control) -> Result<Option<Info>, DmError> {
        if !self.uuid.is_empty() {
            return control.info(Address::Uuid(&self.uuid));
        }
        if let Some(info) = control.info(Address::Name(&self.name))? {
            return Ok(Some(info));
        }
        // Renamed, when the number was not given to another since.
        let same = self.sequence.is_some() && disk::sequence(self.number) == self.sequence;
        match same {
            true => control.info(Address::Number(self.number)),
            false => Ok(None),
        }
    }

    /// Whether `info` is this very device and not one that was made anew under its name.
    pub(super) fn is_same_device(&self, info: &Info) -> bool {
        self.number == info.number && self.sequence == disk::sequence(info.number)
    }
}
