//! What the configuration says of volumes, and how it becomes what is attached.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use tidemark_config as config;
use tidemark_store::catalog::{Durability, FullPolicy, Transport, VolumeRecord};

use super::{AreaChoice, AttachArgs, Manager};

/// `[volume.NAME]` of the configuration in force.
#[derive(Default)]
pub(super) struct Configured(RwLock<Arc<BTreeMap<String, config::Volume>>>);

impl Manager {
    /// Takes a configuration's volumes for what is said of them from now on; attaches none.
    pub fn configure(&self, volumes: BTreeMap<String, config::Volume>) {
        let said = self.configured.0.write();
        // A pointer, whole at every point.
        *said.unwrap_or_else(PoisonError::into_inner) = Arc::new(volumes);
    }

    /// What the configuration says of a volume.
    pub fn configured(&self, name: &str) -> Option<config::Volume> {
        let said = self.configured.0.read();
        let said = said.unwrap_or_else(PoisonError::into_inner);
        said.get(name).cloned()
    }
}

impl AttachArgs {
    /// What attaches a volume as the configuration has it.
    pub fn configured(name: &str, volume: &config::Volume) -> Self {
        Self {
            name: name.to_owned(),
            origin_path: volume.device.clone(),
            block_bytes: volume.block_size,
            area: match &volume.area {
                config::Area::At(path) => AreaChoice::At(path.clone()),
                config::Area::LogicalVolume(name) => AreaChoice::LogicalVolume(name.clone()),
            },
            area_size_bytes: volume.area_size,
            policy: policy(volume),
            transport: transport(volume),
            durability: durability(volume),
            durable_snapshots: volume.durable_snapshots,
            request_id: String::new(),
        }
    }
}

fn policy(volume: &config::Volume) -> FullPolicy {
    match volume.when_full {
        config::WhenFull::Drop => FullPolicy::Drop,
        config::WhenFull::Slow(delay) => FullPolicy::Slow {
            max_write_delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        },
    }
}

fn transport(volume: &config::Volume) -> Transport {
    match volume.transport {
        config::Transport::Auto => Transport::Auto,
        config::Transport::Ublk => Transport::Ublk,
        config::Transport::Portable => Transport::Portable,
    }
}

fn durability(volume: &config::Volume) -> Durability {
    match volume.durability {
        config::Durability::Auto => Durability::Auto,
        config::Durability::Durable => Durability::Durable,
        config::Durability::Volatile => Durability::Volatile,
    }
}

/// Keys of the configuration that an attached volume is other than.
pub fn differences(attached: &VolumeRecord, volume: &config::Volume) -> Vec<&'static str> {
    let area = match &volume.area {
        config::Area::At(path) => !attached.area_made && same(path, &attached.area_path),
        config::Area::LogicalVolume(name) => {
            let made = attached.area_path.file_name();
            attached.area_made
                && (name.is_empty() || made.is_some_and(|made| made == name.as_str()))
        }
    };
    let size = volume.area_size == 0 || volume.area_size == attached.area_size_bytes;
    [
        ("device", same(&volume.device, &attached.origin_path)),
        ("area", area),
        ("area-size", size),
        ("block-size", volume.block_size == attached.block_bytes),
        ("when-full", policy(volume) == attached.policy),
        ("transport", transport(volume) == attached.transport),
        ("durability", durability(volume) == attached.durability),
        (
            "durable-snapshots",
            volume.durable_snapshots == attached.durable_snapshots,
        ),
    ]
    .into_iter()
    .filter_map(|(key, same)| (!same).then_some(key))
    .collect()
}

/// One place, by whatever links it is named.
fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    one == other || real(one) == real(other)
}
