//! The portable transport: a FUSE mount with the live volume and its views as files, and a loop
//! device over the live file for mounting.
//!
//! ```text
//! host fs -> /dev/loopN -> MOUNT/live -> FUSE threads -> Backend
//!            readers    -> MOUNT/snapshots/ID ----^
//! ```
//!
//! Its limits: a dead server is not recovered (the host sees I/O errors until the volume is
//! assembled anew), and each request pays for two more layers than ublk. The loop device ends at
//! the last whole 512-byte sector; the live file has every byte.
//!
//! Order matters. FUSE threads run before the loop device is attached, for attaching reads the
//! file; they run until it is detached, for detaching flushes it. No FUSE thread touches the
//! mount.

mod device;
mod filesystem;
mod nodes;
mod stale;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use fuser::{BackgroundSession, Config, MountOption, Session};
use nix::errno::Errno;

use crate::{
    host::loopdev::{self, Backing, LoopDevice, LoopError, LoopOptions},
    transport::Backend,
};
use filesystem::Files;

/// Source name of our mounts in the mount table.
const FS_NAME: &str = "tidemark";

/// Most threads that one mount may have: each keeps up to 2 MiB of buffers.
pub const MAX_THREADS: usize = 64;

/// How a mount serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that serve requests, 1 to [`MAX_THREADS`]; as many requests are in the backend at
    /// once. Values outside are brought to the nearest bound.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 8 }
    }
}

/// A mount could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point could not be made, or what a dead server left there not be cleared.
    #[error("mount point {path}: {source}")]
    MountPoint {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host has no FUSE.
    #[error("this host has no /dev/fuse: load the fuse module (modprobe fuse)")]
    NoFuse,
    /// FUSE refused.
    #[error("FUSE at {path}: {source}")]
    Fuse {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A mount could not be taken away; it serves on.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// The loop device is mounted or opened.
    #[error("{device} is in use ({user}): unmount it and close what has it open")]
    DeviceInUse {
        /// The loop device.
        device: PathBuf,
        /// By what.
        user: String,
    },
    /// The live file or a view is open, or a process works in the mount.
    #[error("files under {path} are in use: close them (fuser -vm lists who has them open)")]
    FilesInUse {
        /// The mount point.
        path: PathBuf,
    },
    /// The loop device could not be detached.
    #[error(transparent)]
    Device(LoopError),
    /// The mount could not be taken away.
    #[error("unmounting {path}: {source}")]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl UnmountError {
    /// Whether somebody still uses the volume, as against a failure.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::DeviceInUse { .. } | Self::FilesInUse { .. })
    }
}

/// A backend presented to the host. Dropped without [`Portable::unmount`] it leaves what is in
/// use to the kernel, which detaches it with the last user.
#[derive(Debug)]
pub struct Portable {
    mount_point: PathBuf,
    // Declared before the session, so dropped before it.
    device: Option<LoopDevice>,
    session: Option<BackgroundSession>,
    open_files: Arc<AtomicUsize>,
}

impl Portable {
    /// Mounts `backend` at `mount_point`, which is made when missing, and attaches a loop device.
    /// Clears first what a dead server left there: the caller makes sure that no live one serves
    /// this mount point.
    pub fn mount<B: Backend>(
        mount_point: &Path,
        backend: Arc<B>,
        options: &Options,
    ) -> Result<Self, MountError> {
        let mount_point = &prepare(mount_point).map_err(|source| MountError::MountPoint {
            path: mount_point.to_owned(),
            source,
        })?;
        let open_files = Arc::new(AtomicUsize::new(0));
        let files = Files::new(backend, Arc::clone(&open_files));
        let session = Session::new(files, mount_point, &config(options))
            .and_then(Session::spawn)
            .map_err(|source| fuse_error(mount_point, source))?;
        let mut mounted = Self {
            mount_point: mount_point.to_owned(),
            device: None,
            session: Some(session),
            open_files,
        };
        mounted.attach_device();
        Ok(mounted)
    }

    /// The block device to mount; `None` where the host gives no loop device.
    pub fn device_path(&self) -> Option<&Path> {
        self.device.as_ref().map(LoopDevice::path)
    }

    /// The live volume as a file.
    pub fn live_path(&self) -> PathBuf {
        self.mount_point.join(nodes::LIVE_NAME)
    }

    /// Whether FUSE still serves: `false` when an operator aborted the connection.
    pub fn is_serving(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| !session.guard.is_finished())
    }

    /// Takes the device and the mount away, unless somebody uses them: then everything stays as
    /// it was and serves on.
    pub fn unmount(&mut self) -> Result<(), UnmountError> {
        // One of the files is the loop device's own.
        let own_files = usize::from(self.device.is_some());
        if !settles(|| self.open_files.load(Ordering::Acquire) <= own_files) {
            return Err(self.files_in_use());
        }
        let detached = self.detach_device()?;
        if let Err(error) = self.unmount_files() {
            if let Some(path) = detached {
                self.keep_device(&path);
            }
            return Err(error);
        }
        if let Some(session) = self.session.take()
            && let Err(error) = session.join()
        {
            tracing::warn!(%error, "a FUSE thread ended with an error");
        }
        Ok(())
    }

    /// A host without loop devices still has the files.
    fn attach_device(&mut self) {
        let options = LoopOptions {
            // Without it the loop driver sends one request at a time, and caches.
            direct_io: true,
            ..LoopOptions::default()
        };
        match LoopDevice::attach(&self.live_path(), options) {
            Ok(device) => self.device = Some(device),
            Err(error) => {
                tracing::warn!(%error, "no loop device: the volume is a file and cannot be mounted");
            }
        }
    }

    fn detach_device(&mut self) -> Result<Option<PathBuf>, UnmountError> {
        let Some(device) = &self.device else {
            return Ok(None);
        };
        let path = device.path().to_owned();
        // Asked first: a detach that is refused would still be made up for by the last user.
        if let Some(user) = loopdev::user_of(device.number()) {
            return Err(UnmountError::DeviceInUse { device: path, user });
        }
        match self.device.take().map_or(Ok(()), LoopDevice::detach) {
            Ok(()) => Ok(Some(path)),
            Err(error) => {
                self.keep_device(&path);
                Err(match error {
                    LoopError::Busy { path, user } => {
                        UnmountError::DeviceInUse { device: path, user }
                    }
                    error => UnmountError::Device(error),
                })
            }
        }
    }

    /// Makes up for a detach: the device stays what it was if somebody still has it open, and
    /// is attached anew otherwise.
    fn keep_device(&mut self, path: &Path) {
        let same = LoopDevice::adopt(path).ok().filter(|device| {
            Backing::of(device.number()).is_some_and(|backing| backing.path == self.live_path())
        });
        match same {
            Some(device) => {
                if let Err(error) = device.set_autoclear(false) {
                    tracing::warn!(%error, "the loop device will go with its last user");
                }
                self.device = Some(device);
            }
            None => self.attach_device(),
        }
    }

    fn unmount_files(&self) -> Result<(), UnmountError> {
        let mut done = Ok(());
        settles(|| {
            done = nix::mount::umount(&self.mount_point);
            done != Err(Errno::EBUSY)
        });
        match done {
            // EINVAL: an operator has unmounted it already.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(Errno::EBUSY) => Err(self.files_in_use()),
            Err(errno) => Err(UnmountError::Refused {
                path: self.mount_point.clone(),
                source: errno.into(),
            }),
        }
    }

    fn files_in_use(&self) -> UnmountError {
        UnmountError::FilesInUse {
            path: self.mount_point.clone(),
        }
    }
}

/// Whether something comes true within a moment. The kernel closes files behind the caller's
/// back: ours hears of it later than the caller.
fn settles(mut is_so: impl FnMut() -> bool) -> bool {
    const ATTEMPTS: u32 = 50;
    const PAUSE: Duration = Duration::from_millis(10);
    (0..ATTEMPTS).any(|attempt| {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        is_so()
    })
}

/// Makes the mount point, free of what a dead server left, and gives its one true name.
fn prepare(mount_point: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (mount_point.parent(), mount_point.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(parent)?;
    // The mount point itself cannot be asked while a dead mount lies on it.
    let mount_point = fs::canonicalize(parent)?.join(name);
    stale::clear(&mount_point)?;
    fs::create_dir_all(&mount_point)?;
    Ok(mount_point)
}

fn config(options: &Options) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(FS_NAME.to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoExec,
        MountOption::NoAtime,
    ];
    config.n_threads = Some(options.threads.clamp(1, MAX_THREADS));
    // A channel of its own for each thread: they do not wait for one another.
    config.clone_fd = true;
    config
}

fn fuse_error(mount_point: &Path, source: io::Error) -> MountError {
    if source.kind() == io::ErrorKind::NotFound && !Path::new("/dev/fuse").exists() {
        return MountError::NoFuse;
    }
    MountError::Fuse {
        path: mount_point.to_owned(),
        source,
    }
}
