//! What the control plane asks of the host: a seam, so that tests need no mounts and no disks.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::task::spawn_blocking;

use crate::host::{
    device::DeviceNumber,
    freezer,
    hook::{Hook, HookEnded},
    lvm::{Found, Group, Lvm, LvmError, Name, Wanted},
    mounts::MountTable,
};

/// A future behind a trait object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Mounts, freezing and logical volumes.
pub trait HostOps: Send + Sync {
    /// Where a block device is mounted, also by its partitions and by what is built on it.
    fn mounts(&self, device: &Path) -> io::Result<Mounts>;

    /// Freezes these file systems, all or none. Whatever becomes of the caller, they thaw after
    /// `deadline`.
    fn freeze(
        &self,
        file_systems: Vec<PathBuf>,
        deadline: Duration,
    ) -> Pending<'_, Result<Box<dyn Frozen>, FreezeFailed>>;

    /// Runs a program of the administrator's within its bound.
    fn hook(&self, hook: Hook) -> Pending<'_, HookEnded>;

    /// Logical volumes.
    fn logical_volumes(&self) -> Arc<dyn LogicalVolumes>;
}

/// Logical volumes that are made for areas. Every call waits for LVM, within a bound.
pub trait LogicalVolumes: Send + Sync {
    /// The group that a logical volume is in, by the volume's device.
    fn group_of(&self, device: &Path) -> Result<Group, LvmError>;

    /// The volume of a group that has a tag, active or not.
    fn find(&self, group: &str, tag: &str) -> Result<Option<Found>, LvmError>;

    /// Makes a volume, empty and active. When it fails, it may be there or not.
    fn create(&self, wanted: &Wanted) -> Result<(), LvmError>;

    /// Activates one volume.
    fn activate(&self, name: &Name) -> Result<(), LvmError>;

    /// Removes what has a tag, if anything has.
    fn remove(&self, group: &str, tag: &str) -> Result<(), LvmError>;
}

impl LogicalVolumes for Lvm {
    fn group_of(&self, device: &Path) -> Result<Group, LvmError> {
        Self::group_of(*self, device)
    }

    fn find(&self, group: &str, tag: &str) -> Result<Option<Found>, LvmError> {
        Self::find(*self, group, tag)
    }

    fn create(&self, wanted: &Wanted) -> Result<(), LvmError> {
        Self::create(*self, wanted)
    }

    fn activate(&self, name: &Name) -> Result<(), LvmError> {
        Self::activate(*self, name)
    }

    fn remove(&self, group: &str, tag: &str) -> Result<(), LvmError> {
        Self::remove(*self, group, tag)
    }
}

/// Where a device is mounted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mounts {
    /// Every mount point.
    pub points: Vec<PathBuf>,
    /// One mount point for each file system.
    pub file_systems: Vec<PathBuf>,
}

/// File systems that are frozen. Dropping it thaws them too, without telling how that went.
pub trait Frozen: Send {
    /// Thaws them.
    fn thaw(self: Box<Self>) -> Pending<'static, Thawed>;
}

/// How a freeze went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thawed {
    /// For how long they were frozen, the sync before it not counted.
    pub frozen: Duration,
    /// They stayed frozen until the thaw: nothing thawed them earlier.
    pub held: bool,
    /// They may be frozen still, and what the operator has to do.
    pub trouble: Option<String>,
}

/// File systems could not be frozen; none is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct FreezeFailed(pub String);

/// The kernel itself.
#[derive(Debug)]
pub struct HostKernel {
    program: PathBuf,
    hooks_in_units: bool,
}

impl HostKernel {
    /// Freezes by a helper that is a role of `program`.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            hooks_in_units: false,
        }
    }

    /// Has systemd run hooks, so that they are outside of the sandbox that it keeps the agent in.
    #[must_use]
    pub fn with_hooks_in_units(mut self, in_units: bool) -> Self {
        self.hooks_in_units = in_units;
        self
    }
}

impl HostOps for HostKernel {
    fn mounts(&self, device: &Path) -> io::Result<Mounts> {
        let Some(device) = DeviceNumber::of_block_device(device)? else {
            return Ok(Mounts::default());
        };
        let table = MountTable::read()?;
        let mut mounts = Mounts::default();
        for device in with_all_above(device) {
            for mount in table.on_device(device) {
                add(&mut mounts.points, mount.mount_point.clone());
            }
            for point in table.file_systems_on(device) {
                add(&mut mounts.file_systems, point);
            }
        }
        Ok(mounts)
    }

    fn freeze(
        &self,
        file_systems: Vec<PathBuf>,
        deadline: Duration,
    ) -> Pending<'_, Result<Box<dyn Frozen>, FreezeFailed>> {
        let program = self.program.clone();
        Box::pin(async move {
            let started =
                spawn_blocking(move || freezer::Freezer::start(&program, &file_systems, deadline));
            match started.await {
                Ok(Ok(frozen)) => Ok(Box::new(KernelFrozen(frozen)) as Box<dyn Frozen>),
                Ok(Err(error)) => Err(FreezeFailed(error.to_string())),
                Err(ended) => Err(FreezeFailed(format!("the freeze did not run: {ended}"))),
            }
        })
    }

    fn hook(&self, hook: Hook) -> Pending<'_, HookEnded> {
        let in_unit = self.hooks_in_units;
        Box::pin(async move {
            let ended = spawn_blocking(move || hook.run(in_unit)).await;
            ended.unwrap_or_else(|ended| HookEnded {
                failure: Some(format!("it did not run: {ended}")),
                output: String::new(),
            })
        })
    }

    fn logical_volumes(&self) -> Arc<dyn LogicalVolumes> {
        Arc::new(Lvm)
    }
}

struct KernelFrozen(freezer::Frozen);

impl Frozen for KernelFrozen {
    fn thaw(self: Box<Self>) -> Pending<'static, Thawed> {
        Box::pin(async move {
            let thawed = spawn_blocking(move || self.0.thaw()).await;
            let trouble = |why: String| Thawed {
                frozen: Duration::ZERO,
                held: false,
                trouble: Some(why),
            };
            match thawed {
                Ok(Ok(thawed)) => Thawed {
                    frozen: thawed.frozen_for,
                    held: thawed.held(),
                    trouble: None,
                },
                Ok(Err(error)) => trouble(error.to_string()),
                Err(ended) => trouble(format!("the thaw did not run: {ended}")),
            }
        })
    }
}

/// A device, its partitions, and what is built on any of them.
fn with_all_above(device: DeviceNumber) -> Vec<DeviceNumber> {
    let mut found = vec![device];
    let mut next = 0;
    while let Some(device) = found.get(next).copied() {
        for above in device.partitions().into_iter().chain(device.holders()) {
            add(&mut found, above);
        }
        next += 1;
    }
    found
}

fn add<T: PartialEq>(all: &mut Vec<T>, one: T) {
    if !all.contains(&one) {
        all.push(one);
    }
}
