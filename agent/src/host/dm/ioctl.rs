//! One call of device-mapper's control device: the only `unsafe` of this folder.
//!
//! A message is `struct dm_ioctl` of linux/dm-ioctl.h (version 4), written and read by offset,
//! with a payload behind it. Payloads may hold keys (dm-crypt), so messages are wiped when they
//! go, and the kernel is told to wipe its copies.

use std::{fs::File, hint, io, os::fd::AsRawFd};

use crate::host::device::DeviceNumber;

/// `sizeof(struct dm_ioctl)`; the payload starts here.
const HEADER_LEN: usize = 312;
/// What answers may take at first; more is asked for when the kernel says that it needs it.
const FIRST_LEN: usize = 16 << 10;
/// No table or list is longer; the kernel's own limit is far above it.
const MAX_LEN: usize = 64 << 20;
/// `DM_NAME_LEN` and `DM_UUID_LEN`, with their closing zero.
const NAME_LEN: usize = 128;
const UUID_LEN: usize = 129;

const VERSION: usize = 0;
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const OPEN_COUNT: usize = 24;
const FLAGS: usize = 28;
const EVENT: usize = 32;
const DEVICE: usize = 40;
const NAME: usize = 48;
const UUID: usize = NAME + NAME_LEN;
const _: () = assert!(UUID + UUID_LEN + 7 == HEADER_LEN);

/// What is asked of device-mapper: the request's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Command {
    ListDevices = 2,
    Create = 3,
    Suspend = 6,
    Status = 7,
    Load = 9,
    Clear = 10,
    TableStatus = 12,
    ArmPoll = 16,
}

impl Command {
    /// The word for it in errors.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::ListDevices => "list devices",
            Self::Create => "create",
            Self::Suspend => "suspend or resume",
            Self::Status => "status",
            Self::Load => "load a table",
            Self::Clear => "clear the pending table",
            Self::TableStatus => "read the table",
            Self::ArmPoll => "arm events",
        }
    }

    /// `_IOWR(0xfd, number, struct dm_ioctl)`.
    fn request(self) -> libc::Ioctl {
        nix::request_code_readwrite!(0xfd, self as u8, HEADER_LEN)
    }
}

/// Bits of the message's flags (linux/dm-ioctl.h).
pub(super) mod flag {
    pub(in super::super) const READ_ONLY: u32 = 1;
    pub(in super::super) const SUSPEND: u32 = 1 << 1;
    pub(in super::super) const STATUS_TABLE: u32 = 1 << 4;
    pub(in super::super) const ACTIVE: u32 = 1 << 5;
    pub(in super::super) const INACTIVE: u32 = 1 << 6;
    pub(in super::super) const BUFFER_FULL: u32 = 1 << 8;
    pub(in super::super) const SKIP_LOCKFS: u32 = 1 << 10;
    pub(in super::super) const NO_FLUSH: u32 = 1 << 11;
    pub(in super::super) const QUERY_INACTIVE: u32 = 1 << 12;
    pub(in super::super) const SECURE_DATA: u32 = 1 << 15;
    pub(in super::super) const DEFERRED_REMOVE: u32 = 1 << 17;
    pub(in super::super) const INTERNAL_SUSPEND: u32 = 1 << 18;
}

/// How a message says which device it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address<'a> {
    /// By its number, which another device may get once this one is gone.
    Number(DeviceNumber),
    /// By the name in /dev/mapper.
    Name(&'a str),
    /// By the identity that it was given when it was made.
    Uuid(&'a str),
}

/// One request and, after the call, its answer.
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request without a payload; `wanted` is the room for the answer's.
    pub(super) fn new(flags: u32) -> Self {
        let mut message = Self {
            bytes: vec![0; FIRST_LEN],
        };
        message.put(VERSION, &4u32.to_ne_bytes());
        message.put(FLAGS, &flags.to_ne_bytes());
        message
    }

    /// Names the device; EINVAL when the text does not fit.
    pub(super) fn address(&mut self, address: Address<'_>) -> io::Result<()> {
        match address {
            Address::Number(number) => {
                self.put(DEVICE, &encode(number).to_ne_bytes());
                Ok(())
            }
            Address::Name(name) => self.name(name),
            Address::Uuid(uuid) => self.text(UUID, UUID_LEN, uuid),
        }
    }

    /// Sets the name alone: that of a device which is to be made.
    pub(super) fn name(&mut self, name: &str) -> io::Result<()> {
        self.text(NAME, NAME_LEN, name)
    }

    /// Sets the identity alone.
    pub(super) fn uuid(&mut self, uuid: &str) -> io::Result<()> {
        self.text(UUID, UUID_LEN, uuid)
    }

    fn text(&mut self, at: usize, room: usize, text: &str) -> io::Result<()> {
        if text.is_empty() || text.len() >= room || text.bytes().any(|byte| byte == 0) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.put(at, text.as_bytes());
        Ok(())
    }

    /// Puts a table's targets behind the header; E2BIG when they do not fit.
    pub(super) fn targets(&mut self, count: usize, payload: &[u8]) -> io::Result<()> {
        let too_big = || io::Error::from_raw_os_error(libc::E2BIG);
        let count = u32::try_from(count).map_err(|_| too_big())?;
        let len = HEADER_LEN + payload.len();
        if len > MAX_LEN {
            return Err(too_big());
        }
        if len > self.bytes.len() {
            self.grow(len);
        }
        self.put(TARGET_COUNT, &count.to_ne_bytes());
        self.put(HEADER_LEN, payload);
        Ok(())
    }

    /// Makes the call. When the kernel needs more room for its answer, it is asked again.
    pub(super) fn call(&mut self, control: &File, command: Command) -> io::Result<()> {
        loop {
            let header: [u8; HEADER_LEN] = self.at(0);
            self.send(control, command)?;
            if self.flags() & flag::BUFFER_FULL == 0 {
                return Ok(());
            }
            let len = self.bytes.len() * 2;
            if len > MAX_LEN {
                return Err(io::Error::from_raw_os_error(libc::E2BIG));
            }
            // Only requests without a payload have long answers, so the header is all there is.
            self.grow(len);
            self.put(0, &header);
        }
    }

    /// Makes the call once, with nothing allocated.
    pub(super) fn send(&mut self, control: &File, command: Command) -> io::Result<()> {
        let len = u32::try_from(self.bytes.len()).map_err(io::Error::other)?;
        self.put(DATA_SIZE, &len.to_ne_bytes());
        let start = u32::try_from(HEADER_LEN).map_err(io::Error::other)?;
        self.put(DATA_START, &start.to_ne_bytes());
        let bytes = self.bytes.as_mut_ptr();
        // SAFETY: the kernel reads and writes at most the `data_size` bytes that the message
        // says it has, which is the length of the buffer.
        match unsafe { libc::ioctl(control.as_raw_fd(), command.request(), bytes) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// What was found: bits of [`flag`].
    pub(super) fn flags(&self) -> u32 {
        u32::from_ne_bytes(self.at(FLAGS))
    }

    pub(super) fn target_count(&self) -> u32 {
        u32::from_ne_bytes(self.at(TARGET_COUNT))
    }

    pub(super) fn open_count(&self) -> i32 {
        i32::from_ne_bytes(self.at(OPEN_COUNT))
    }

    pub(super) fn event(&self) -> u32 {
        u32::from_ne_bytes(self.at(EVENT))
    }

    pub(super) fn device(&self) -> DeviceNumber {
        decode(u64::from_ne_bytes(self.at(DEVICE)))
    }

    /// The name and the identity that the answer has; `None` for what is no UTF-8.
    pub(super) fn names(&self) -> Option<(String, String)> {
        Some((
            text_of(self.bytes.get(NAME..UUID)?)?,
            text_of(self.bytes.get(UUID..UUID + UUID_LEN)?)?,
        ))
    }

    /// The answer's payload.
    pub(super) fn payload(&self) -> &[u8] {
        let size = usize::try_from(u32::from_ne_bytes(self.at(DATA_SIZE))).unwrap_or(0);
        let start = usize::try_from(u32::from_ne_bytes(self.at(DATA_START))).unwrap_or(0);
        self.bytes.get(start..size).unwrap_or_default()
    }

    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        let field = self.bytes.get(offset..offset + N);
        field
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0; N])
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes the buffer longer without leaving a copy of the old one behind.
    fn grow(&mut self, len: usize) {
        let mut longer = vec![0; len];
        longer[..HEADER_LEN].copy_from_slice(&self.bytes[..HEADER_LEN]);
        wipe(&mut self.bytes);
        self.bytes = longer;
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// Overwrites what may be a key, and keeps the compiler from finding that pointless.
pub(super) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    hint::black_box(bytes);
}

/// The text up to the closing zero.
pub(super) fn text_of(field: &[u8]) -> Option<String> {
    let text = field.split(|byte| *byte == 0).next()?;
    String::from_utf8(text.to_owned()).ok()
}

/// The kernel's `huge_encode_dev`.
fn encode(number: DeviceNumber) -> u64 {
    let minor = u64::from(number.minor);
    (minor & 0xff) | u64::from(number.major) << 8 | (minor & !0xff) << 12
}

/// The kernel's `huge_decode_dev`.
pub(super) fn decode(encoded: u64) -> DeviceNumber {
    let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    DeviceNumber {
        major: part(encoded >> 8 & 0xfff),
        minor: part(encoded & 0xff | encoded >> 12 & 0xf_ffff_ff00),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_encoded_as_the_kernel_does() {
        for (major, minor) in [(253, 0), (254, 255), (259, 256), (4095, (1 << 20) - 1)] {
            let number = DeviceNumber { major, minor };
            assert_eq!(decode(encode(number)), number);
        }
        let number = DeviceNumber {
            major: 253,
            minor: 0x12345,
        };
        assert_eq!(encode(number), 0x1230_fd45);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let mut message = Message::new(0);
        assert!(message.name("a").is_ok());
        assert_eq!(message.names().unwrap().0, "a");
        for name in [String::new(), "x".repeat(NAME_LEN), "a\0b".to_owned()] {
            assert!(message.name(&name).is_err());
        }
        assert!(message.uuid(&"x".repeat(UUID_LEN - 1)).is_ok());
    }

    #[test]
    fn growing_keeps_the_header() {
        let mut message = Message::new(flag::SECURE_DATA);
        let payload = vec![7; FIRST_LEN];
        message.targets(3, &payload).unwrap();
        assert_eq!(message.target_count(), 3);
        assert_eq!(message.flags(), flag::SECURE_DATA);
        assert_eq!(message.bytes[HEADER_LEN..], payload);
        assert!(message.targets(1, &vec![0; MAX_LEN]).is_err());
    }

    #[test]
    fn requests_have_the_headers_numbers() {
        assert_eq!(Command::Suspend.request(), 0xc138_fd06);
        assert_eq!(Command::TableStatus.request(), 0xc138_fd0c);
    }
}
