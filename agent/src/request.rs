//! One operation of the host on a volume.

use std::fmt;

use tidemark_store::units::ByteRange;

/// What the host asks for. Transports build it from their kernel's descriptor and answer with
/// the result of [`crate::volume::Volume::serve`].
///
/// Ranges need no alignment: 512-byte and odd requests are served as they are.
#[derive(Debug)]
pub enum Request<'a> {
    /// Fill `into` from `offset` on.
    Read {
        /// First byte of the volume to read.
        offset: u64,
        /// Where the bytes go; its length is the request's.
        into: &'a mut [u8],
    },
    /// Put `from` at `offset`.
    Write {
        /// First byte of the volume to overwrite.
        offset: u64,
        /// The new bytes.
        from: &'a [u8],
        /// Answer only when the bytes are on the medium.
        fua: bool,
    },
    /// As `Read`, into memory that only the kernel and the thread's ring see.
    ReadRegistered {
        /// First byte of the volume to read.
        offset: u64,
        /// Where the bytes go.
        into: Registered,
    },
    /// As `Write`, from such memory.
    WriteRegistered {
        /// First byte of the volume to overwrite.
        offset: u64,
        /// The new bytes.
        from: Registered,
        /// Answer only when the bytes are on the medium.
        fua: bool,
    },
    /// Make every write that was answered before durable.
    Flush,
    /// The host no longer needs these bytes.
    Discard {
        /// What is discarded.
        range: ByteRange,
    },
    /// These bytes become zeros.
    WriteZeroes {
        /// What is zeroed.
        range: ByteRange,
        /// Answer only when the zeros are on the medium.
        fua: bool,
        /// The origin may give the space back.
        may_unmap: bool,
    },
}

/// A request's pages, registered with the ring of the thread that serves it: they go between the
/// host and the origin without being copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registered {
    /// Their place in the ring's table.
    pub index: u16,
    /// How many bytes they hold.
    pub len: u32,
}

/// An error number of the kernel's, passed through as the origin gave it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// Input/output error.
    pub const EIO: Self = Self(libc::EIO);
    /// Invalid argument.
    pub const EINVAL: Self = Self(libc::EINVAL);
    /// No space left on device.
    pub const ENOSPC: Self = Self(libc::ENOSPC);

    /// The number in an I/O error; EIO when it carries none.
    pub fn of(error: &std::io::Error) -> Self {
        error.raw_os_error().map_or(Self::EIO, Self)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

impl std::error::Error for Errno {}
