//! Why a path cannot be a volume, and what can be done about it.

use std::{io, path::PathBuf};

use crate::host::dm::DmError;

/// Why an interposer cannot go over a path. Every sentence says what can be done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not there, or a call on it failed.
    #[error("{path}: {source}")]
    Io {
        /// What was asked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Device-mapper did not answer.
    #[error(transparent)]
    Dm(#[from] DmError),
    /// It is no file that holds a volume.
    #[error(
        "{path} is neither a regular file nor a block device; only these can hold a volume. For \
         a directory, name the device that its file system is on (findmnt --target {path})"
    )]
    WrongType {
        /// What was asked for.
        path: PathBuf,
    },
    /// Only device-mapper can change what a mounted device is.
    #[error(
        "{path} is mounted at {mount_point} and is no device-mapper device: the kernel offers no \
         way to put anything under it while it is mounted. Unmount it and attach it, let it be \
         attached before it is mounted at the next boot, or keep the file system on a logical \
         volume (LVM)"
    )]
    MountedPlain {
        /// What was asked for.
        path: PathBuf,
        /// Where.
        mount_point: PathBuf,
    },
    /// Its requests are not bios.
    #[error(
        "{path} is a request-based device-mapper device ({kind}), which the kernel never turns \
         into a bio-based one. Attach what is built on it instead: a logical volume or another \
         device-mapper device"
    )]
    RequestBased {
        /// What was asked for.
        path: PathBuf,
        /// Its target.
        kind: String,
    },
    /// The kernel never replaces its target by another kind.
    #[error(
        "{path} has a target of the kind {kind}, which the kernel never replaces. Attach what is \
         built on it instead"
    )]
    Immutable {
        /// What was asked for.
        path: PathBuf,
        /// The target's kind.
        kind: String,
    },
    /// A second instance of its target would work on the same state.
    #[error(
        "{path} has a target of the kind {kind}, which may keep state of its own: its table \
         cannot be made a second device, as live insertion needs. Attach a device-mapper device \
         that is built on it (linear, striped, crypt or thin), or unmount it and attach it as a \
         plain device"
    )]
    KeepsState {
        /// What was asked for.
        path: PathBuf,
        /// The target's kind.
        kind: String,
    },
    /// Its key cannot be read back.
    #[error(
        "{path} is encrypted, and its key is only in the kernel's keyring, from where it cannot \
         be loaded a second time. Run cryptsetup refresh --disable-keyring {name} (it stays \
         mounted), then attach it again; or attach the device below it"
    )]
    KeyInKeyring {
        /// What was asked for.
        path: PathBuf,
        /// The device's name, for cryptsetup.
        name: String,
    },
    /// File systems map it past the block layer.
    #[error(
        "{path} is memory that file systems may write past the block layer (DAX); that cannot be \
         tracked. Set it up in sector mode (ndctl create-namespace --mode=sector)"
    )]
    Dax {
        /// What was asked for.
        path: PathBuf,
    },
    /// The kernel swaps to it.
    #[error(
        "{path} carries the swap space {swap}: the kernel would wait for us for the very memory \
         that we need. Run swapoff {swap} and move it elsewhere"
    )]
    Swap {
        /// What was asked for.
        path: PathBuf,
        /// The swap file or device.
        swap: PathBuf,
    },
    /// The kernel resumes from it.
    #[error(
        "{path} is the device that hibernation resumes from (/sys/power/resume). Clear the \
         resume= parameter, or choose another device for it"
    )]
    Hibernation {
        /// What was asked for.
        path: PathBuf,
    },
    /// Our own files are on it.
    #[error(
        "{path} holds our own {protected}: {chain}. Writing there while the volume waits for us \
         would stop both for ever; move it to another volume"
    )]
    HoldsOurs {
        /// What was asked for.
        path: PathBuf,
        /// The file that lies on it.
        protected: PathBuf,
        /// How it comes to lie there.
        chain: String,
    },
    /// Zones must be written in order.
    #[error(
        "{path} is a zoned device; requests would be reordered. Attach a device above it that \
         hides the zones (dm-zoned with a linear device on it)"
    )]
    Zoned {
        /// What was asked for.
        path: PathBuf,
    },
    /// Nothing can change on it.
    #[error("{path} is read-only, so nothing can change on it; make it writable first")]
    ReadOnly {
        /// What was asked for.
        path: PathBuf,
    },
    /// Somebody holds its requests.
    #[error(
        "{path} is suspended by another program. Wait for that to end, or run dmsetup resume \
         {name} when it is dead"
    )]
    Suspended {
        /// What was asked for.
        path: PathBuf,
        /// The device's name.
        name: String,
    },
    /// Somebody is about to change its table.
    #[error(
        "{path} has another table loaded, which the next resume puts in use. Wait for the \
         program that does this to end, or run dmsetup clear {name} when it is dead"
    )]
    PendingTable {
        /// What was asked for.
        path: PathBuf,
        /// The device's name.
        name: String,
    },
    /// It has no table, hence no size.
    #[error("{path} has no table; it is not set up, or its set-up failed (dmsetup table {name})")]
    NoTable {
        /// What was asked for.
        path: PathBuf,
        /// The device's name.
        name: String,
    },
    /// An interposer is there.
    #[error(
        "{path} has an interposer of Tidemark already, through {over}; detach that first (its \
         private origin can be attached as a volume of its own)"
    )]
    AlreadyInterposed {
        /// What was asked for.
        path: PathBuf,
        /// The interposer's device.
        over: PathBuf,
    },
}
