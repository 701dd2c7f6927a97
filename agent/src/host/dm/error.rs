//! What can go wrong with device-mapper.

use std::io;

/// Why device-mapper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DmError {
    /// There is no device-mapper.
    #[error(
        "/dev/mapper/control cannot be opened ({0}): run modprobe dm-mod, and run as root with \
         CAP_SYS_ADMIN"
    )]
    Control(#[source] io::Error),
    /// A call failed; the kernel log often tells more.
    #[error("device-mapper: {call} of {device}: {source} (the kernel log may tell more: dmesg)")]
    Call {
        /// What was asked.
        call: &'static str,
        /// Of which device.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel's answer makes no sense to us.
    #[error("device-mapper: {call} of {device}: the answer cannot be read: {what}")]
    Answer {
        /// What was asked.
        call: &'static str,
        /// Of which device.
        device: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The call was made, but udev could not be waited for.
    #[error("device-mapper: {call} of {device}: waiting for udev: {reason}")]
    Udev {
        /// What was asked.
        call: &'static str,
        /// Of which device.
        device: String,
        /// What the wait ended with.
        reason: String,
    },
}

impl DmError {
    /// The kernel's error number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Control(source) | Self::Call { source, .. } => source.raw_os_error(),
            Self::Answer { .. } | Self::Udev { .. } => None,
        }
    }

    /// Whether there is no such device.
    pub fn is_no_device(&self) -> bool {
        self.errno() == Some(libc::ENXIO)
    }
}
