//! Device-mapper, by its own calls.
//!
//! The crate `devicemapper` is used where udev has to be waited for ([`private`]) and nowhere
//! else: it prints tables, keys and all, to the log, leaves copies of them in freed memory, and
//! allocates and logs on the way, which nothing may do while a volume is held.

pub mod disk;
mod error;
mod events;
mod ioctl;
mod lvm;
mod private;
mod sectors;
mod table;

use std::{
    fs::File,
    time::{Duration, Instant},
};

pub use error::DmError;
pub use events::Watch;
pub use ioctl::Address;
pub use lvm::{GroupLock, GroupLockError, group_of_name};
pub use private::{Made, Removal};
pub use sectors::Sectors;
pub use table::{Line, Payload, Table};

use super::device::DeviceNumber;
use ioctl::{Command, Message, flag};

/// Length of a record in the kernel's list of devices, without its name: `struct dm_name_list`.
const RECORD_LEN: usize = 12;

/// What device-mapper tells of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// Its number.
    pub number: DeviceNumber,
    /// Its name in /dev/mapper.
    pub name: String,
    /// The identity that it was made with; often empty for devices made by hand.
    pub uuid: String,
    /// How many have it open: mounts, devices built on it, processes.
    pub open_count: u64,
    /// Grows when a target reports an event.
    pub event: u32,
    /// It refuses writes.
    pub read_only: bool,
    /// Its requests wait until it is resumed.
    pub suspended: bool,
    /// It has a table.
    pub active: bool,
    /// Another table is loaded and takes its place at the next resume.
    pub pending: bool,
    /// It goes when its last user closes it.
    pub going: bool,
}

/// Which of a device's two tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The one in use.
    Live,
    /// The one that the next resume puts in its place.
    Pending,
}

/// The control device.
#[derive(Debug)]
pub struct Control {
    file: File,
}

impl Control {
    /// Opens it.
    pub fn open() -> Result<Self, DmError> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/mapper/control")
            .map_err(DmError::Control)?;
        Ok(Self { file })
    }

    /// The names and numbers of all devices.
    pub fn devices(&self) -> Result<Vec<(DeviceNumber, String)>, DmError> {
        let mut message = Message::new(0);
        let call = Command::ListDevices;
        let all = "all devices";
        message
            .call(&self.file, call)
            .map_err(|source| failed(call, all.to_owned(), source))?;
        listed(message.payload()).ok_or(DmError::Answer {
            call: call.word(),
            device: all.to_owned(),
            what: "a record ends early",
        })
    }

    /// What is known of a device; `None` when there is none.
    pub fn info(&self, address: Address<'_>) -> Result<Option<Info>, DmError> {
        match self.ask(Command::Status, address, 0) {
            Ok(message) => info_of(&message, Command::Status, address).map(Some),
            Err(error) if error.is_no_device() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A device and one of its tables; the table is empty where there is none.
    pub fn table(&self, address: Address<'_>, slot: Slot) -> Result<(Info, Table), DmError> {
        let which = match slot {
            Slot::Live => 0,
            Slot::Pending => flag::QUERY_INACTIVE,
        };
        // NO_FLUSH: a thin volume is not to commit its metadata for this.
        let flags = flag::STATUS_TABLE | flag::SECURE_DATA | flag::NO_FLUSH | which;
        let call = Command::TableStatus;
        let message = self.ask(call, address, flags)?;
        let info = info_of(&message, call, address)?;
        let count = match slot {
            Slot::Pending if !info.pending => 0,
            _ => message.target_count(),
        };
        let table = Table::decode(count, message.payload()).ok_or(DmError::Answer {
            call: call.word(),
            device: describe(address),
            what: "a target ends early",
        })?;
        Ok((info, table))
    }

    /// Loads a table, which takes the live one's place at the next [`Control::swap`]. A table
    /// that was pending already is dropped.
    pub fn load(&self, address: Address<'_>, table: &Table) -> Result<(), DmError> {
        let call = Command::Load;
        let payload = table.encode().ok_or(DmError::Answer {
            call: call.word(),
            device: describe(address),
            what: "the table has a target with too long a name or too many parameters",
        })?;
        let mut message = Message::new(flag::SECURE_DATA);
        message
            .address(address)
            .and_then(|()| message.targets(table.0.len(), &payload.0))
            .and_then(|()| message.send(&self.file, call))
            .map_err(|source| failed(call, describe(address), source))
    }

    /// Drops the pending table, if there is one.
    pub fn clear(&self, address: Address<'_>) -> Result<(), DmError> {
        self.ask(Command::Clear, address, 0).map(drop)
    }

    /// Puts the pending table in the live one's place: requests are held, those in flight end,
    /// the tables change places, requests go on.
    ///
    /// All that is one call, so a death of this process leaves either table but never a device
    /// that is held. File systems are not frozen. Gives the time that the call took, which is an
    /// upper bound of the time for which requests were held. Does nothing but resume the device
    /// when no table is pending.
    ///
    /// On an error, the device may be left suspended with its old table: see
    /// [`Control::release`].
    pub fn swap(&self, address: Address<'_>) -> Result<Duration, DmError> {
        let call = Command::Suspend;
        // NO_FLUSH: what a target cannot do now (a thin pool that is full, a path that is lost)
        // is kept for the new table rather than waited for.
        let mut message = Message::new(flag::SKIP_LOCKFS | flag::NO_FLUSH);
        message
            .address(address)
            .map_err(|source| failed(call, describe(address), source))?;
        let begun = Instant::now();
        let result = message.send(&self.file, call);
        let held = begun.elapsed();
        match result {
            Ok(()) => Ok(held),
            Err(source) => Err(failed(call, describe(address), source)),
        }
    }

    /// Drops the pending table and lets a held device go on with its live one.
    pub fn release(&self, address: Address<'_>) -> Result<(), DmError> {
        self.clear(address)?;
        self.ask(Command::Suspend, address, 0).map(drop)
    }

    /// Makes a device without a table.
    pub fn create(&self, name: &str, uuid: &str) -> Result<Info, DmError> {
        let call = Command::Create;
        let mut message = Message::new(0);
        message
            .name(name)
            .and_then(|()| message.uuid(uuid))
            .and_then(|()| message.send(&self.file, call))
            .map_err(|source| failed(call, name.to_owned(), source))?;
        info_of(&message, call, Address::Name(name))
    }

    fn ask(&self, call: Command, address: Address<'_>, flags: u32) -> Result<Message, DmError> {
        let mut message = Message::new(flags);
        message
            .address(address)
            .and_then(|()| message.call(&self.file, call))
            .map_err(|source| failed(call, describe(address), source))?;
        Ok(message)
    }
}

fn info_of(message: &Message, call: Command, address: Address<'_>) -> Result<Info, DmError> {
    let (name, uuid) = message.names().ok_or_else(|| DmError::Answer {
        call: call.word(),
        device: describe(address),
        what: "its name is not UTF-8: rename it with dmsetup rename",
    })?;
    let flags = message.flags();
    let has = |bit: u32| flags & bit != 0;
    Ok(Info {
        number: message.device(),
        name,
        uuid,
        open_count: u64::try_from(message.open_count()).unwrap_or(0),
        event: message.event(),
        read_only: has(flag::READ_ONLY),
        suspended: has(flag::SUSPEND) || has(flag::INTERNAL_SUSPEND),
        active: has(flag::ACTIVE),
        pending: has(flag::INACTIVE),
        going: has(flag::DEFERRED_REMOVE),
    })
}

/// Reads the kernel's list: number, distance to the next record, name.
#[doc(hidden)]
pub fn listed(payload: &[u8]) -> Option<Vec<(DeviceNumber, String)>> {
    let mut found = Vec::new();
    let mut rest = payload;
    loop {
        let number = u64::from_ne_bytes(rest.get(..8)?.try_into().ok()?);
        let next = u32::from_ne_bytes(rest.get(8..RECORD_LEN)?.try_into().ok()?);
        // A list without devices is one record of zeros.
        if number != 0 {
            // A name that is no text is one that we did not give.
            let name = ioctl::text_of(rest.get(RECORD_LEN..)?).unwrap_or_default();
            found.push((ioctl::decode(number), name));
        }
        match usize::try_from(next).ok()? {
            0 => return Some(found),
            // Records do not lie within each other.
            1..RECORD_LEN => return None,
            next => rest = rest.get(next..)?,
        }
    }
}

fn failed(call: Command, device: String, source: std::io::Error) -> DmError {
    DmError::Call {
        call: call.word(),
        device,
        source,
    }
}

fn describe(address: Address<'_>) -> String {
    match address {
        Address::Number(number) => number.description(),
        Address::Name(text) | Address::Uuid(text) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, next: u32, name: &str) -> Vec<u8> {
        let mut bytes = number.to_ne_bytes().to_vec();
        bytes.extend(next.to_ne_bytes());
        bytes.extend(name.as_bytes());
        bytes.push(0);
        let len = usize::try_from(next).unwrap().max(bytes.len());
        bytes.resize(len, 0);
        bytes
    }

    #[test]
    fn a_list_of_devices_is_read() {
        let mut payload = record(0xfd00, 24, "vg-a");
        payload.extend(record(0xfd01, 0, "vg-b"));
        let names: Vec<_> = listed(&payload).unwrap();
        assert_eq!(names[0].1, "vg-a");
        assert_eq!(names[1].0.to_string(), "253:1");
        assert_eq!(listed(&record(0, 0, "")), Some(Vec::new()));
        assert_eq!(listed(&[]), None);
        assert_eq!(listed(&record(0xfd00, 24, "vg-a")), None);
        let within = [record(0xfd00, 4, "vg-a"), record(0, 0, "")].concat();
        assert_eq!(listed(&within), None);
    }

    #[test]
    fn without_device_mapper_the_error_says_what_to_do() {
        let error = DmError::Control(std::io::Error::from_raw_os_error(libc::ENOENT));
        assert!(error.to_string().contains("modprobe dm-mod"));
        assert_eq!(error.errno(), Some(libc::ENOENT));
    }
}
