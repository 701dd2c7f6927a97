//! What the control plane asks of the host's kernel: a seam, so that tests need no mounts.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

/// A future behind a trait object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Mounts and freezing.
pub trait HostOps: Send + Sync {
    /// Where a block device is mounted.
    fn mount_points(&self, device: &Path) -> io::Result<Vec<PathBuf>>;

    /// Freezes these file systems, all or none. Whatever becomes of the caller, they thaw after
    /// `deadline`.
    fn freeze(
        &self,
        mount_points: Vec<PathBuf>,
        deadline: Duration,
    ) -> Pending<'_, Result<Box<dyn Frozen>, FreezeFailed>>;
}

/// File systems that are frozen. Dropping it thaws them too, without telling how that went.
pub trait Frozen: Send {
    /// Thaws them.
    fn thaw(self: Box<Self>) -> Pending<'static, Thawed>;
}

/// How a freeze went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thawed {
    /// For how long they were frozen, the sync before it not counted.
    pub frozen: Duration,
    /// They stayed frozen until the thaw: nothing thawed them earlier.
    pub held: bool,
}

/// File systems could not be frozen; none is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct FreezeFailed(pub String);
