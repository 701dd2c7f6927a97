//! Taking an origin or a restore target for ourselves, or saying who has it.
//!
//! Two writers below one volume destroy it, so every check errs on the side of refusing:
//! - a block device is opened with O_EXCL, which mounts, swap, device-mapper and md honour; a
//!   loop device over it and processes that merely write to it are looked for;
//! - an image file must let us take a write lease, which the kernel grants only when nobody
//!   else, itself included, has it open. A lock on it then keeps other agents away.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    device::{Anchor, FileIdentity},
    ioctl, loopdev,
    mounts::{MountTable, unescape},
    openers::{Opener, openers},
    patience::patiently,
};
use crate::disk::{file::FileDisk, sys};

/// What a file or device is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To be the origin of a volume: it must hold something.
    Origin,
    /// To be restored to: an empty file will grow.
    Target,
}

/// A file or block device that nobody else has, for as long as `file` is open.
#[derive(Debug)]
pub struct Claimed {
    /// Open for reading and writing, with the claim on it.
    pub file: File,
    /// As it was asked for.
    pub path: PathBuf,
    /// Size in bytes.
    pub capacity: u64,
    /// What it is, whatever its name.
    pub anchor: Anchor,
}

impl Claimed {
    /// Whether it is a block device and not a file.
    pub fn is_block_device(&self) -> bool {
        matches!(self.anchor, Anchor::Device(_))
    }

    /// Makes a disk of it, which carries the claim on.
    pub fn into_disk(self) -> io::Result<FileDisk> {
        FileDisk::from_file(self.file)
    }
}

/// Why a file or block device cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is not there, or a call on it failed.
    #[error("{path}: {source}")]
    Io {
        /// What was asked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no file that holds a volume.
    #[error("{path} is {kind}; only a regular file or a block device can hold a volume")]
    WrongType {
        /// What was asked for.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It holds nothing.
    #[error("{path} is empty")]
    Empty {
        /// What was asked for.
        path: PathBuf,
    },
    /// Nobody can write to it.
    #[error("{path} is read-only ({reason})")]
    ReadOnly {
        /// What was asked for.
        path: PathBuf,
        /// How this shows.
        reason: String,
    },
    /// A file system on it is mounted.
    #[error("{path} is mounted at {mount_point}; unmount it first")]
    Mounted {
        /// What was asked for.
        path: PathBuf,
        /// Where.
        mount_point: PathBuf,
    },
    /// The kernel swaps to it.
    #[error("{path} is swap space in use; run swapoff first")]
    Swap {
        /// What was asked for.
        path: PathBuf,
    },
    /// Another device is built on it.
    #[error("{path} is part of {holder}; use that device, or take it apart first")]
    Held {
        /// What was asked for.
        path: PathBuf,
        /// The device.
        holder: String,
    },
    /// It is behind a loop device.
    #[error("{path} is the backing file of {device}; run losetup -d {device} first")]
    LoopBacking {
        /// What was asked for.
        path: PathBuf,
        /// The loop device.
        device: PathBuf,
    },
    /// A process has it open.
    #[error("{path} is open in {opener}; stop that process first")]
    Open {
        /// What was asked for.
        path: PathBuf,
        /// The process.
        opener: Opener,
    },
    /// Something has it; nothing visible from here says what.
    #[error("{path} is in use by {user}")]
    Busy {
        /// What was asked for.
        path: PathBuf,
        /// What is known of the user.
        user: &'static str,
    },
}

/// Takes `path` exclusively for reading and writing.
pub fn claim(path: &Path, purpose: Purpose) -> Result<Claimed, ClaimError> {
    let is_taken =
        |error: &ClaimError| matches!(error, ClaimError::Open { .. } | ClaimError::Busy { .. });
    patiently(is_taken, || claim_now(path, purpose))
}

fn claim_now(path: &Path, purpose: Purpose) -> Result<Claimed, ClaimError> {
    let failed = |source| io_error(path, source);
    let before = fs::metadata(path).map_err(failed)?;
    let kind = before.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(ClaimError::WrongType {
            path: path.to_owned(),
            kind: name_of_type(&before),
        });
    }
    let anchor = Anchor::of(&before);
    refuse_loop_backing(path, anchor)?;
    let file = open(path, anchor)?;
    let metadata = file.metadata().map_err(failed)?;
    if Anchor::of(&metadata) != anchor {
        return Err(failed(io::Error::other(
            "another file took this name while it was being opened; try again",
        )));
    }
    let capacity = match anchor {
        Anchor::Device(_) => own_device(path, anchor, &file)?,
        Anchor::File(identity) => own_file(path, identity, &file, &metadata)?,
    };
    if capacity == 0 && (purpose == Purpose::Origin || matches!(anchor, Anchor::Device(_))) {
        return Err(ClaimError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(Claimed {
        file,
        path: path.to_owned(),
        capacity,
        anchor,
    })
}

fn open(path: &Path, anchor: Anchor) -> Result<File, ClaimError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        // O_NONBLOCK: another's lease answers at once. O_EXCL concerns block devices only.
        .custom_flags(libc::O_EXCL | libc::O_NONBLOCK)
        .open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => busy(path, anchor),
        Some(libc::ETXTBSY) => swap_or_busy(path, anchor),
        Some(libc::EAGAIN) => open_elsewhere(path, anchor),
        Some(libc::EROFS | libc::EACCES | libc::EPERM) => ClaimError::ReadOnly {
            path: path.to_owned(),
            reason: error.to_string(),
        },
        _ => io_error(path, error),
    })
}

/// Checks what O_EXCL does not, and gives the size.
fn own_device(path: &Path, anchor: Anchor, file: &File) -> Result<u64, ClaimError> {
    let failed = |source| io_error(path, source);
    if sys::block_device_is_read_only(file).map_err(failed)? {
        return Err(ClaimError::ReadOnly {
            path: path.to_owned(),
            reason: "the device says so: blockdev --getro".to_owned(),
        });
    }
    // Readers do no harm, and udev reads every device after a change of it.
    if let Some(opener) = openers(path, anchor).into_iter().find(|o| o.writes) {
        return Err(ClaimError::Open {
            path: path.to_owned(),
            opener,
        });
    }
    sys::block_device_size(file).map_err(failed)
}

/// Makes sure that nobody has the file, locks it, and gives its size.
fn own_file(
    path: &Path,
    identity: FileIdentity,
    file: &File,
    metadata: &Metadata,
) -> Result<u64, ClaimError> {
    let anchor = Anchor::File(identity);
    match ioctl::try_write_lease(file) {
        Ok(()) => (),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
            return Err(if is_swap(anchor) {
                swap_or_busy(path, anchor)
            } else {
                open_elsewhere(path, anchor)
            });
        }
        // The file system has no leases: what /proc tells must do.
        Err(_) => {
            if let Some(opener) = openers(path, anchor).into_iter().next() {
                return Err(ClaimError::Open {
                    path: path.to_owned(),
                    opener,
                });
            }
        }
    }
    match file.try_lock() {
        Ok(()) => Ok(metadata.len()),
        Err(TryLockError::WouldBlock) => Err(open_elsewhere(path, anchor)),
        Err(TryLockError::Error(error)) => Err(io_error(path, error)),
    }
}

fn refuse_loop_backing(path: &Path, anchor: Anchor) -> Result<(), ClaimError> {
    let loops = loopdev::backed_by(path, anchor).map_err(|source| io_error(path, source))?;
    match loops.first() {
        None => Ok(()),
        Some(device) => Err(ClaimError::LoopBacking {
            path: path.to_owned(),
            device: device.node(),
        }),
    }
}

/// Says why O_EXCL answered EBUSY.
fn busy(path: &Path, anchor: Anchor) -> ClaimError {
    let Anchor::Device(device) = anchor else {
        return open_elsewhere(path, anchor);
    };
    // A claim on a partition is one on its disk, and the other way round.
    let mut related = vec![device];
    related.extend(device.whole_disk());
    related.extend(device.partitions());
    let mounts = MountTable::read().unwrap_or_default();
    for device in related {
        if let Some(mount) = mounts.on_device(device).next() {
            return ClaimError::Mounted {
                path: path.to_owned(),
                mount_point: mount.mount_point.clone(),
            };
        }
        if let Some(holder) = device.holders().first() {
            return ClaimError::Held {
                path: path.to_owned(),
                holder: holder.description(),
            };
        }
        if is_swap(Anchor::Device(device)) {
            return swap_or_busy(path, Anchor::Device(device));
        }
    }
    open_elsewhere(path, anchor)
}

fn swap_or_busy(path: &Path, anchor: Anchor) -> ClaimError {
    if is_swap(anchor) {
        return ClaimError::Swap {
            path: path.to_owned(),
        };
    }
    open_elsewhere(path, anchor)
}

/// The process that has it open, where one is to be seen.
fn open_elsewhere(path: &Path, anchor: Anchor) -> ClaimError {
    let path = path.to_owned();
    match openers(&path, anchor).into_iter().next() {
        Some(opener) => ClaimError::Open { path, opener },
        None => ClaimError::Busy {
            path,
            user: "this agent, the kernel, or a process or mount that cannot be seen from here",
        },
    }
}

/// Whether the kernel swaps to a file or device.
pub(super) fn is_swap(anchor: Anchor) -> bool {
    let found = |name: PathBuf| Anchor::of_path(&name).is_ok_and(|found| found == anchor);
    swaps().into_iter().any(found)
}

/// The files and devices that the kernel swaps to.
pub fn swaps() -> Vec<PathBuf> {
    let table = fs::read("/proc/swaps").unwrap_or_default();
    table
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| line.split(|byte| matches!(byte, b' ' | b'\t')).next())
        .filter(|name| name.starts_with(b"/"))
        .map(|name| PathBuf::from(String::from_utf8_lossy(&unescape(name)).into_owned()))
        .collect()
}

fn name_of_type(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "something else"
    }
}

fn io_error(path: &Path, source: io::Error) -> ClaimError {
    ClaimError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
