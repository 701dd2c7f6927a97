//! What the host may ask of a device: mirrored from the device or file under it, so that the
//! layers above behave as they would without us.

use std::io;

use libublk::sys;

use crate::host::device::DeviceNumber;

/// Size of one request at most, in bytes: each queue keeps so much for each of its requests.
pub(super) const MAX_REQUEST_BYTES: u32 = 256 * 1024;

/// Limits of a device. Sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The smallest request and its alignment.
    pub logical_block: u32,
    /// The smallest request that needs no reading first.
    pub physical_block: u32,
    /// The preferred smallest request.
    pub io_min: u32,
    /// The preferred request; 0 is none.
    pub io_opt: u32,
    /// The unit of discards; 0 when there are none.
    pub discard_granularity: u32,
    /// The largest discard; 0 when there are none.
    pub max_discard: u64,
    /// The largest zeroing; 0 when there is none.
    pub max_write_zeroes: u64,
    /// Writes are durable only after a flush.
    pub volatile_cache: bool,
    /// A write can be asked to be durable by itself.
    pub fua: bool,
    /// Seeks cost.
    pub rotational: bool,
}

impl Limits {
    /// For an image file.
    pub fn of_file() -> Self {
        const LARGEST: u64 = 1 << 30;
        Self {
            logical_block: 512,
            physical_block: 4096,
            io_min: 4096,
            io_opt: 0,
            discard_granularity: 4096,
            max_discard: LARGEST,
            max_write_zeroes: LARGEST,
            volatile_cache: true,
            fua: true,
            rotational: false,
        }
    }

    /// What the kernel tells of a block device.
    pub fn of_device(device: DeviceNumber) -> io::Result<Self> {
        let disk = device.whole_disk().unwrap_or(device);
        let text = |name: &str| {
            let path = format!("queue/{name}");
            disk.attribute(&path).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("/sys/dev/block/{disk}/{path} cannot be read"),
                )
            })
        };
        let number = |name: &str| -> io::Result<u64> {
            text(name)?.parse().map_err(|_| {
                io::Error::other(format!(
                    "/sys/dev/block/{disk}/queue/{name} holds no number"
                ))
            })
        };
        let small = |name: &str| number(name).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Ok(Self {
            logical_block: small("logical_block_size")?,
            physical_block: small("physical_block_size")?,
            io_min: small("minimum_io_size")?,
            io_opt: small("optimal_io_size")?,
            discard_granularity: small("discard_granularity")?,
            max_discard: number("discard_max_bytes")?,
            max_write_zeroes: number("write_zeroes_max_bytes")?,
            volatile_cache: text("write_cache")?.contains("back"),
            fua: text("fua").is_ok_and(|fua| fua == "1"),
            rotational: text("rotational").is_ok_and(|is| is == "1"),
        })
    }

    /// Those of a read-only view.
    pub fn for_reading(self) -> Self {
        Self {
            discard_granularity: 0,
            max_discard: 0,
            max_write_zeroes: 0,
            volatile_cache: false,
            fua: false,
            ..self
        }
    }

    /// As the driver wants them, for a device of `capacity` bytes.
    pub(super) fn params(self, capacity: u64, read_only: bool) -> sys::ublk_params {
        let mut attrs = 0;
        for (is, attr) in [
            (read_only, sys::UBLK_ATTR_READ_ONLY),
            (self.rotational, sys::UBLK_ATTR_ROTATIONAL),
            (self.volatile_cache, sys::UBLK_ATTR_VOLATILE_CACHE),
            (self.volatile_cache && self.fua, sys::UBLK_ATTR_FUA),
        ] {
            if is {
                attrs |= attr;
            }
        }
        let logical = self.logical_block.clamp(512, 4096);
        let physical = self.physical_block.max(logical);
        let mut params = sys::ublk_params {
            types: sys::UBLK_PARAM_TYPE_BASIC,
            basic: sys::ublk_param_basic {
                attrs,
                logical_bs_shift: shift(logical),
                physical_bs_shift: shift(physical),
                io_opt_shift: shift(self.io_opt.max(logical)),
                io_min_shift: shift(self.io_min.max(logical)),
                max_sectors: MAX_REQUEST_BYTES >> 9,
                dev_sectors: capacity >> 9,
                ..Default::default()
            },
            ..Default::default()
        };
        if self.max_discard > 0 || self.max_write_zeroes > 0 {
            params.types |= sys::UBLK_PARAM_TYPE_DISCARD;
            params.discard = sys::ublk_param_discard {
                discard_granularity: self.discard_granularity.max(logical),
                max_discard_sectors: sectors(self.max_discard),
                max_write_zeroes_sectors: sectors(self.max_write_zeroes),
                max_discard_segments: 1,
                ..Default::default()
            };
        }
        params
    }
}

/// The power of two at or below.
fn shift(bytes: u32) -> u8 {
    u8::try_from(bytes.max(1).ilog2()).unwrap_or(u8::MAX)
}

/// As many sectors as one request's count can hold.
fn sectors(bytes: u64) -> u32 {
    u32::try_from(bytes >> 9).unwrap_or(u32::MAX >> 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_can_only_be_read() {
        let params = Limits::of_file().for_reading().params(1 << 20, true);
        assert_eq!(params.basic.attrs, sys::UBLK_ATTR_READ_ONLY);
        assert_eq!(params.types, sys::UBLK_PARAM_TYPE_BASIC);
        assert_eq!(params.basic.dev_sectors, 2048);
    }

    #[test]
    fn shifts_are_powers_of_two() {
        let limits = Limits {
            logical_block: 4096,
            physical_block: 512,
            io_min: 0,
            io_opt: 3 * 65536,
            ..Limits::of_file()
        };
        let basic = limits.params(1 << 30, false).basic;
        assert_eq!((basic.logical_bs_shift, basic.physical_bs_shift), (12, 12));
        assert_eq!((basic.io_min_shift, basic.io_opt_shift), (12, 17));
        assert_ne!(basic.attrs & sys::UBLK_ATTR_FUA, 0);
    }
}
