//! Devices of our own, which udev is to leave alone.
//!
//! udev sees every device that is made. It is told by flags to look for nothing in ours: a
//! file system must not be found a second time under /dev/disk, nor a physical volume by LVM.
//! Where udev runs, it is waited for, so that it has no device open that is to go.

use devicemapper::{DM, DevId, DmFlags, DmOptions, DmUuid, errors};

use super::{Address, Control, DmError, Info, Table};

impl Control {
    /// Makes a device with a table that udev looks for nothing in.
    ///
    /// When it cannot get its table, nothing of it stays.
    pub fn create_private(
        &self,
        name: &str,
        uuid: &str,
        table: &Table,
        at: &mut dyn FnMut(Made),
    ) -> Result<Info, DmError> {
        self.create(name, uuid)?;
        at(Made::Created);
        self.finish_private(uuid, table, at).inspect_err(|_| {
            // What failed is told; a second failure would hide it.
            let _ = self.remove(uuid, Removal::Now);
        })
    }

    /// Gives a device that was made without a table what [`Control::create_private`] gives.
    pub fn finish_private(
        &self,
        uuid: &str,
        table: &Table,
        at: &mut dyn FnMut(Made),
    ) -> Result<Info, DmError> {
        self.load(Address::Uuid(uuid), table)?;
        at(Made::Loaded);
        let call = "resume";
        let id = checked(call, uuid)?;
        let answer = DM::new()
            .and_then(|dm| dm.device_suspend(&DevId::Uuid(id), DmOptions::private()))
            .map_err(|error| converted(call, uuid, error));
        answer?;
        self.info(Address::Uuid(uuid))?
            .ok_or_else(|| gone(call, uuid))
    }

    /// Removes a device, by its identity. Gives whether it is gone already.
    pub fn remove(&self, uuid: &str, how: Removal) -> Result<bool, DmError> {
        let call = "remove";
        let id = checked(call, uuid)?;
        let flags = match how {
            Removal::Now => DmFlags::empty(),
            Removal::WhenClosed => DmFlags::DM_DEFERRED_REMOVE,
        };
        let options = DmOptions::private().set_flags(flags);
        let answer = DM::new()
            .and_then(|dm| dm.device_remove(&DevId::Uuid(id), options))
            .map_err(|error| converted(call, uuid, error));
        match answer {
            Ok(_) => Ok(self.info(Address::Uuid(uuid))?.is_none()),
            Err(error) if error.is_no_device() => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// How far the making of a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Made {
    /// It is there, without a table.
    Created,
    /// It has a table, which is not in use yet.
    Loaded,
}

/// What becomes of a device that is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removal {
    /// It stays, and EBUSY is the answer.
    Now,
    /// It goes when its last user closes it.
    WhenClosed,
}

fn checked<'a>(call: &'static str, uuid: &'a str) -> Result<&'a DmUuid, DmError> {
    DmUuid::new(uuid).map_err(|error| converted(call, uuid, error))
}

fn converted(call: &'static str, uuid: &str, error: devicemapper::DmError) -> DmError {
    let device = uuid.to_owned();
    let errno = match &error {
        devicemapper::DmError::Core(errors::Error::Ioctl(_, _, _, errno)) => Some(**errno as i32),
        _ => None,
    };
    match (errno, error) {
        (Some(errno), _) => DmError::Call {
            call,
            device,
            source: std::io::Error::from_raw_os_error(errno),
        },
        (None, devicemapper::DmError::Core(errors::Error::ContextInit(reason))) => {
            DmError::Control(std::io::Error::other(reason))
        }
        (None, error) => DmError::Udev {
            call,
            device,
            reason: error.to_string(),
        },
    }
}

fn gone(call: &'static str, uuid: &str) -> DmError {
    DmError::Call {
        call,
        device: uuid.to_owned(),
        source: std::io::Error::from_raw_os_error(libc::ENXIO),
    }
}
