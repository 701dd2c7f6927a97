//! The ublk transport: block devices of the kernel's own, served by this process.
//!
//! ```text
//! host -> (dm) -> /dev/ublkbN -> queue threads -> Backend -> origin, by the same ring
//!         readers -> /dev/ublkbM (read-only) -> one thread a view
//! ```
//!
//! A device outlives its server: the kernel queues what the host asks for until a successor
//! takes the device up ([`Ublk::present`] finds it by its [`identity`]) and then issues again
//! what was in flight. So a device is deleted in two places only: where the volume is taken away,
//! and where a view's snapshot has ended. A process that simply ends, however, leaves it.
//!
//! Requests are copied into buffers of ours, or, where the driver can, go from the host's pages
//! to the origin without being copied ([`crate::request::Registered`]).

mod device;
mod features;
mod identity;
mod limits;
mod mark;
mod mend;
mod queue;
mod reactor;
mod requests;
mod tasks;
mod views;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemark_store::units::Id;

use crate::{host::device::DeviceNumber, transport::Backend};
use device::Served;
pub use device::UblkError;
pub use features::{Features, probe};
pub use limits::Limits;
pub use views::{Views, abandon_views};

/// What a device stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The live volume.
    Live,
    /// A snapshot's bytes, read-only.
    View(Id),
}

/// How a device serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The volume's identity; with the role it identifies a device that a dead server left.
    pub volume: Id,
    /// Hardware queues, each with a thread; a device that is taken up keeps those it has.
    pub queues: u16,
    /// What the host may ask for, mirrored from the origin.
    pub limits: Limits,
    /// Whether to leave the host's pages where they are, if the driver can.
    pub zero_copy: bool,
}

/// The live volume as a block device of the kernel's.
#[derive(Debug)]
pub struct Ublk {
    served: Served,
}

impl Ublk {
    /// Presents `backend`: takes up the device that a dead server left, or makes one.
    pub fn present<B: Backend>(backend: Arc<B>, options: &Options) -> Result<Self, UblkError> {
        let served = Served::start(backend, Role::Live, options)?;
        Ok(Self { served })
    }

    /// The device that a dead server of this volume left, if there is one.
    pub fn left_behind(volume: Id) -> Option<DeviceNumber> {
        let id = device::find(identity::of(volume, Role::Live))?;
        DeviceNumber::of_block_device(&device::block_path(id)).ok()?
    }

    /// Deletes the device that a dead server left. Nobody may use it: what was in flight fails.
    pub fn delete_left_behind(volume: Id) -> Result<(), UblkError> {
        match device::find(identity::of(volume, Role::Live)) {
            Some(id) => device::delete(id),
            None => Ok(()),
        }
    }

    /// The block device.
    pub fn device_path(&self) -> &Path {
        self.served.path()
    }

    /// Its number.
    pub fn number(&self) -> io::Result<DeviceNumber> {
        let number = DeviceNumber::of_block_device(self.served.path())?;
        number.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTBLK))
    }

    /// Whether it was taken up from a dead server.
    pub fn was_taken_up(&self) -> bool {
        self.served.was_taken_up()
    }

    /// Whether requests are served; `false` when somebody else deleted the device.
    pub fn is_serving(&self) -> bool {
        self.served.is_serving()
    }

    /// Deletes the device. Nobody may use it any more.
    pub fn delete(self) -> Result<(), UblkError> {
        self.served.delete()
    }
}

/// The file that leads to a device, as people and tools know it.
pub fn node_of(id: u32) -> PathBuf {
    device::block_path(id)
}
