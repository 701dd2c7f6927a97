//! How much was written to a device, as the kernel counts it.

use crate::host::device::DeviceNumber;

/// Sectors (512 bytes) that a device has completed since it was made.
///
/// Kernels since 6.3 count a request when it ends: first the device at the bottom, then the one
/// above it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sectors {
    /// Written, written as zeros included.
    pub written: u64,
    /// Discarded.
    pub discarded: u64,
}

impl Sectors {
    /// What the kernel has counted; `None` when there is no such device or counting is off.
    pub fn of(device: DeviceNumber) -> Option<Self> {
        if device.attribute("queue/iostats").as_deref() == Some("0") {
            return None;
        }
        Self::parse(&device.attribute("stat")?)
    }

    /// Fields of /sys/block/NAME/stat (Documentation/block/stat.rst), from 0: 6 is sectors
    /// written, 13 sectors discarded.
    pub fn parse(stat: &str) -> Option<Self> {
        let mut fields = stat.split_ascii_whitespace();
        Some(Self {
            written: fields.nth(6)?.parse().ok()?,
            discarded: fields.nth(6)?.parse().ok()?,
        })
    }

    /// What was counted since `earlier`; 0 when that was more.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            written: self.written.saturating_sub(earlier.written),
            discarded: self.discarded.saturating_sub(earlier.discarded),
        }
    }

    /// Both together.
    pub fn total(self) -> u64 {
        self.written.saturating_add(self.discarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_fields_are_found() {
        let line = "1 2 3 4 5 6 700 8 9 10 11 12 13 1400 15 16 17";
        let sectors = Sectors::parse(line).unwrap();
        assert_eq!((sectors.written, sectors.discarded), (700, 1400));
        assert_eq!(sectors.total(), 2100);
        assert_eq!(Sectors::parse("1 2 3 4 5 6 7 8 9 10 11"), None);
        assert_eq!(Sectors::parse("1 2 3 4 5 6 x 8 9 10 11 12 13 14"), None);
    }

    #[test]
    fn a_device_that_was_made_anew_has_written_nothing_since() {
        let (few, many) = (
            Sectors {
                written: 1,
                discarded: 9,
            },
            Sectors {
                written: 5,
                discarded: 2,
            },
        );
        assert_eq!(
            many.since(few),
            Sectors {
                written: 4,
                discarded: 0
            }
        );
    }
}
