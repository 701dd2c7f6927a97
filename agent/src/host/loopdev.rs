//! Loop devices: a file as a block device.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, SFlag, mknod};

use super::{
    device::{Anchor, DeviceNumber, FileIdentity, block_devices},
    ioctl,
    mounts::MountTable,
    patience::patiently,
};

/// Logical block size: what every file system and tool copes with.
const BLOCK_BYTES: u32 = 512;
/// How often another process may be faster to take the free device that the kernel named.
const ATTEMPTS: u32 = 64;
/// The loop driver's major number (Documentation/admin-guide/devices.txt).
const LOOP_MAJOR: u32 = 7;

/// How to attach a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoopOptions {
    /// The device refuses writes.
    pub read_only: bool,
    /// Bypass the page cache of the file where its file system allows; buffered otherwise.
    pub direct_io: bool,
    /// The device lets go of its file when it is closed for the last time.
    pub autoclear: bool,
}

/// A loop device could not be set up or taken down.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The driver is not there.
    #[error("/dev/loop-control cannot be opened: {0}; load the loop module (modprobe loop)")]
    NoDriver(#[source] io::Error),
    /// The file cannot be opened.
    #[error("{path} cannot be opened: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Other processes took each free device first.
    #[error("no loop device could be taken in {ATTEMPTS} attempts: others were faster each time")]
    Contended,
    /// A call failed.
    #[error("{what} {path}: {source}")]
    Device {
        /// What was tried.
        what: &'static str,
        /// The loop device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The device is in use.
    #[error("{path} is in use: {user}")]
    Busy {
        /// The loop device.
        path: PathBuf,
        /// By what.
        user: String,
    },
}

/// A loop device with a file. Detaches when dropped, or when whoever has it mounted or open by
/// then lets go.
#[derive(Debug)]
pub struct LoopDevice {
    file: File,
    path: PathBuf,
    number: DeviceNumber,
    direct_io: bool,
    detach_on_drop: bool,
}

impl LoopDevice {
    /// Attaches the file at `path` to a free loop device. The last bytes of a file whose size
    /// is no multiple of 512 are out of the device's reach.
    pub fn attach(path: &Path, options: LoopOptions) -> Result<Self, LoopError> {
        let mut open = OpenOptions::new();
        open.read(true).write(!options.read_only);
        if options.direct_io {
            // The file system may refuse it; the loop driver then finds out as well.
            let direct = open.clone().custom_flags(libc::O_DIRECT).open(path);
            if let Ok(backing) = direct
                && let Ok(device) = Self::attach_file(&backing, options)
            {
                return Ok(device);
            }
        }
        let backing = open.open(path).map_err(|source| LoopError::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::attach_file(&backing, options)
    }

    /// Attaches an open file to a free loop device.
    pub fn attach_file(backing: &File, options: LoopOptions) -> Result<Self, LoopError> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .map_err(LoopError::NoDriver)?;
        for _ in 0..ATTEMPTS {
            let index = ioctl::loop_free_number(&control).map_err(LoopError::NoDriver)?;
            if let Some(device) = Self::configure(index, backing, options)? {
                return Ok(device);
            }
        }
        Err(LoopError::Contended)
    }

    /// Gives loop device `index` its file; `None` when another process was faster.
    fn configure(
        index: u32,
        backing: &File,
        options: LoopOptions,
    ) -> Result<Option<Self>, LoopError> {
        let number = number_of(index);
        let path = PathBuf::from(format!("/dev/loop{index}"));
        let failed = |what| {
            let path = path.clone();
            move |source| LoopError::Device { what, path, source }
        };
        let file = match open_node(number, true) {
            Ok(file) => file,
            // Another process took it, and is letting go of it.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
            Err(error) => return Err(failed("opening")(error)),
        };
        let mut flags = 0;
        for (wanted, flag) in [
            (options.read_only, ioctl::LO_FLAGS_READ_ONLY),
            (options.direct_io, ioctl::LO_FLAGS_DIRECT_IO),
            (options.autoclear, ioctl::LO_FLAGS_AUTOCLEAR),
        ] {
            flags |= if wanted { flag } else { 0 };
        }
        match configure_with_fallback(&file, backing, flags) {
            Ok(()) => (),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(None),
            Err(error) => return Err(failed("configuring")(error)),
        }
        let status = ioctl::loop_status(&file).map_err(failed("reading the status of"))?;
        Ok(Some(Self {
            file,
            path,
            number,
            direct_io: status.flags & ioctl::LO_FLAGS_DIRECT_IO != 0,
            detach_on_drop: true,
        }))
    }

    /// Takes charge of a loop device that has a file already, as after a restart.
    pub fn adopt(path: &Path) -> Result<Self, LoopError> {
        let failed = |source| LoopError::Device {
            what: "adopting",
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new().read(true).open(path).map_err(failed)?;
        let status = ioctl::loop_status(&file).map_err(failed)?;
        let number = DeviceNumber::from_raw(file.metadata().map_err(failed)?.rdev());
        Ok(Self {
            file,
            path: path.to_owned(),
            number,
            direct_io: status.flags & ioctl::LO_FLAGS_DIRECT_IO != 0,
            detach_on_drop: true,
        })
    }

    /// The device's node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device's number.
    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Whether the page cache of the file is bypassed.
    pub fn is_direct_io(&self) -> bool {
        self.direct_io
    }

    /// Sets or clears the option that detaches the device when it is closed for the last time.
    pub fn set_autoclear(&self, on: bool) -> Result<(), LoopError> {
        let failed = |source| LoopError::Device {
            what: "setting autoclear of",
            path: self.path.clone(),
            source,
        };
        let mut info = ioctl::loop_status(&self.file).map_err(failed)?;
        info.flags &= !ioctl::LO_FLAGS_AUTOCLEAR;
        info.flags |= if on { ioctl::LO_FLAGS_AUTOCLEAR } else { 0 };
        ioctl::loop_set_status(&self.file, &info).map_err(failed)
    }

    /// Detaches, unless the device is mounted or held.
    pub fn detach(mut self) -> Result<(), LoopError> {
        if let Some(user) = user_of(self.number) {
            return Err(LoopError::Busy {
                path: self.path.clone(),
                user,
            });
        }
        self.detach_on_drop = false;
        ioctl::loop_clear(&self.file).map_err(|source| LoopError::Device {
            what: "detaching",
            path: self.path.clone(),
            source,
        })
    }

    /// Lets the device live on after the process.
    pub fn leak(mut self) -> PathBuf {
        self.detach_on_drop = false;
        self.path.clone()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if self.detach_on_drop
            && let Err(error) = ioctl::loop_clear(&self.file)
        {
            tracing::warn!("{} could not be detached: {error}", self.path.display());
        }
    }
}

/// Who uses a block device exclusively: where it is mounted, or what is built on it. `None`
/// when nobody does; a process that merely has it open is not told.
pub fn user_of(number: DeviceNumber) -> Option<String> {
    let mounts = MountTable::read().unwrap_or_default();
    if let Some(mount) = mounts.on_device(number).next() {
        return Some(format!("mounted at {}", mount.mount_point.display()));
    }
    if let Some(holder) = number.holders().first() {
        return Some(format!("held by {}", holder.description()));
    }
    let is_busy = |error: &io::Error| error.raw_os_error() == Some(libc::EBUSY);
    let exclusive = patiently(is_busy, || {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_EXCL);
        options.open(number.node())
    });
    match exclusive {
        Err(error) if is_busy(&error) => {
            Some("held exclusively, or mounted in another mount namespace".to_owned())
        }
        _ => None,
    }
}

/// What a loop device is backed by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backing {
    /// The loop device.
    pub number: DeviceNumber,
    /// The file's name when the loop device was set up.
    pub path: PathBuf,
}

impl Backing {
    /// The file or device behind a loop device; `None` when it is no loop device or has none.
    pub fn of(number: DeviceNumber) -> Option<Self> {
        let path = PathBuf::from(number.attribute("loop/backing_file")?);
        Some(Self { number, path })
    }

    /// Which file or device it is. Asks the loop device itself, since the name may since lead
    /// elsewhere; falls back to the name.
    pub fn anchor(&self) -> Option<Anchor> {
        match open_node(self.number, false).and_then(|file| ioctl::loop_status(&file)) {
            Ok(info) if info.rdevice != 0 => {
                Some(Anchor::Device(DeviceNumber::from_raw(info.rdevice)))
            }
            Ok(info) => Some(Anchor::File(FileIdentity {
                device: info.device,
                inode: info.inode,
            })),
            Err(_) => Anchor::of_path(&self.path).ok(),
        }
    }
}

/// The loop devices that are backed by `wanted`, which was opened as `path`.
///
/// Asking about a backing file asks its file system, and that may be a FUSE one whose server
/// hangs; so only files of the same name, and devices, are asked about.
pub fn backed_by(path: &Path, wanted: Anchor) -> io::Result<Vec<DeviceNumber>> {
    let name = fs::canonicalize(path)?;
    let name = name.file_name();
    Ok(block_devices()?
        .into_iter()
        .filter_map(Backing::of)
        .filter(|b| b.path.starts_with("/dev") || b.path.file_name() == name)
        .filter(|b| b.anchor() == Some(wanted))
        .map(|b| b.number)
        .collect())
}

/// Direct I/O may be refused outright by a kernel that does not fall back by itself.
fn configure_with_fallback(device: &File, backing: &File, flags: u32) -> io::Result<()> {
    let buffered = flags & !ioctl::LO_FLAGS_DIRECT_IO;
    match ioctl::loop_configure(device, backing, BLOCK_BYTES, flags) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && buffered != flags => {
            ioctl::loop_configure(device, backing, BLOCK_BYTES, buffered)
        }
        answer => answer,
    }
}

/// The device number of loop device `index`, which is shifted when the driver reserves numbers
/// for partitions.
fn number_of(index: u32) -> DeviceNumber {
    fs::read_to_string(format!("/sys/block/loop{index}/dev"))
        .ok()
        .and_then(|text| DeviceNumber::parse(&text))
        .unwrap_or(DeviceNumber {
            major: LOOP_MAJOR,
            minor: index,
        })
}

/// Opens a block device's node, which is made when it is missing: containers often lack those
/// of devices that came later.
fn open_node(number: DeviceNumber, write: bool) -> io::Result<File> {
    let path = number.node();
    let open = || OpenOptions::new().read(true).write(write).open(&path);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP;
            match mknod(&path, SFlag::S_IFBLK, mode, number.to_raw()) {
                Ok(()) | Err(nix::Error::EEXIST) => open()?,
                Err(error) => return Err(error.into()),
            }
        }
        answer => answer?,
    };
    let metadata = file.metadata()?;
    let is_it = metadata.file_type().is_block_device() && metadata.rdev() == number.to_raw();
    if is_it {
        Ok(file)
    } else {
        Err(io::Error::other(format!(
            "{} is not device {number}",
            path.display()
        )))
    }
}

#[cfg(test)]
mod tests;
