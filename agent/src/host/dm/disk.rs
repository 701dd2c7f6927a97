//! What /sys tells of a device that decides whether its table can be changed.

use std::{fs, path::PathBuf};

use crate::host::device::DeviceNumber;

/// A number that no other disk gets until the next boot, unlike the device number. `None` on
/// kernels before 5.15.
pub fn sequence(device: DeviceNumber) -> Option<u64> {
    device.attribute("diskseq")?.parse().ok()
}

/// Whether it is a device-mapper device.
pub fn is_dm(device: DeviceNumber) -> bool {
    device.attribute("dm/name").is_some()
}

/// Whether it is one of ublk's.
pub fn is_ublk(device: DeviceNumber) -> bool {
    let node = device.node();
    let name = node.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("ublkb"))
}

/// Whether its zones must be written in order.
pub fn is_zoned(device: DeviceNumber) -> bool {
    let zoned = device.attribute("queue/zoned");
    zoned.is_some_and(|zoned| zoned != "none")
}

/// Whether it is memory that file systems may map past the block layer.
pub fn is_dax(device: DeviceNumber) -> bool {
    device.attribute("queue/dax").as_deref() == Some("1")
}

/// Whether it takes requests and not single bios; device-mapper never changes a device between
/// the two.
pub fn is_request_based(device: DeviceNumber) -> bool {
    PathBuf::from(format!("/sys/dev/block/{device}/mq")).exists()
}

/// The device that the kernel would resume from hibernation.
pub fn hibernation() -> Option<DeviceNumber> {
    let text = fs::read_to_string("/sys/power/resume").ok()?;
    DeviceNumber::parse(&text).filter(|device| device.is_block_device())
}

/// The identity that a device-mapper device was made with.
pub fn dm_uuid(device: DeviceNumber) -> Option<String> {
    device.attribute("dm/uuid")
}
