//! What this host can do and which devices it has.

use tidemark_store::state::{MAX_CHECKPOINTS, MAX_SNAPSHOTS};
use tokio::task::spawn_blocking;

use super::{Error, Manager};
use crate::host::{candidates, device::DeviceNumber, probe};

pub use candidates::Candidate;
pub use probe::Feature;

/// What this host can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostInfo {
    /// As `uname -r` shows it.
    pub kernel_release: String,
    /// What can be done, and why not the rest.
    pub features: Vec<Feature>,
    /// Snapshots of one volume, at most.
    pub max_snapshots_per_volume: u32,
    /// Checkpoints of one volume, at most.
    pub max_checkpoints_per_volume: u32,
}

impl Manager {
    /// Probes the host.
    pub async fn host_info(&self) -> Result<HostInfo, Error> {
        let runtime_dir = self.config.paths.runtime_dir.clone();
        let probed = spawn_blocking(move || HostInfo {
            kernel_release: probe::kernel_release().unwrap_or_else(|_| "unknown".to_owned()),
            features: probe::features(&runtime_dir),
            max_snapshots_per_volume: limit(MAX_SNAPSHOTS),
            max_checkpoints_per_volume: limit(MAX_CHECKPOINTS),
        });
        probed.await.map_err(super::ended)
    }

    /// Block devices of this host, and why each can or cannot be attached.
    pub async fn candidates(&self) -> Result<Vec<Candidate>, Error> {
        let links: Vec<_> = self
            .registry
            .all()
            .iter()
            .map(|entry| entry.paths.device_link())
            .collect();
        let listed = spawn_blocking(move || {
            let own: Vec<DeviceNumber> = links
                .iter()
                .filter_map(|link| DeviceNumber::of_block_device(link).ok().flatten())
                .collect();
            candidates::list(&own)
        });
        let listed = listed.await.map_err(super::ended)?;
        listed.map_err(|error| Error::internal(format!("listing block devices: {error}")))
    }
}

fn limit(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
