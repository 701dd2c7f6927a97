//! What the host's ublk driver offers. Always asked, never concluded from a version: a server
//! that uses what the driver does not have waits for ever without an error.

use std::path::Path;

use libublk::{ctrl::UblkCtrl, sys};

/// What we use of the driver's features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    bits: u64,
}

/// The driver's features; why it cannot serve volumes, when it cannot.
pub fn probe() -> Result<Features, String> {
    if !Path::new("/dev/ublk-control").exists() {
        return Err(
            "no /dev/ublk-control: load the ublk_drv module (modprobe ublk_drv)".to_owned(),
        );
    }
    let Some(bits) = UblkCtrl::get_features() else {
        return Err(
            "the ublk driver does not tell its features: Linux 6.5 or later is needed".to_owned(),
        );
    };
    let features = Features { bits };
    if !features.has(sys::UBLK_F_USER_RECOVERY | sys::UBLK_F_USER_RECOVERY_REISSUE) {
        return Err("the ublk driver cannot outlive a server (no user recovery)".to_owned());
    }
    Ok(features)
}

impl Features {
    /// Whether requests can be served without copying them.
    pub fn zero_copy(self) -> bool {
        self.has(sys::UBLK_F_AUTO_BUF_REG)
    }

    /// Whether a device can be resized while it is used.
    pub fn resize(self) -> bool {
        self.has(sys::UBLK_F_UPDATE_SIZE)
    }

    /// Whether a device is as new once its dead server's file of it is closed. The driver learnt
    /// that in the version that brought this feature.
    pub(super) fn forgets_the_dead(self) -> bool {
        self.has(sys::UBLK_F_SUPPORT_ZERO_COPY)
    }

    fn has(self, bits: u32) -> bool {
        self.bits & u64::from(bits) == u64::from(bits)
    }

    /// What a new device asks the driver for.
    pub(super) fn to_ask_for(self, zero_copy: bool) -> u64 {
        let recovery = sys::UBLK_F_USER_RECOVERY | sys::UBLK_F_USER_RECOVERY_REISSUE;
        let copying = if zero_copy && self.zero_copy() {
            sys::UBLK_F_AUTO_BUF_REG
        } else {
            0
        };
        u64::from(recovery | copying)
    }
}
