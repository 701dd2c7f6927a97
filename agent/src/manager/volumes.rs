//! Attaching, detaching and listing volumes.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemark_proto::{
    private::{self, Description, SnapshotFate},
    v1::{self, EventKind, Severity},
};
use tidemark_store::{
    catalog::{FullPolicy, VolumeRecord},
    units::{Epoch, Id},
};
use tokio::sync::OwnedMutexGuard;

use super::{
    AreaChoice, Arguments, AttachArgs, Begun, Counters, Error, ErrorReason, Happening, LiveVolume,
    Manager, Mounts, NotServed, Ticket, Volume,
    areas::Site,
    detach::clean_up,
    link::Link,
    places::{Place, Places, no_area, origin_place},
    refresh::lineage_of,
    registry::{Entry, Health},
    spawn, validate,
};

impl Manager {
    /// Puts an interposer over an origin.
    pub async fn attach(self: &Arc<Self>, args: AttachArgs) -> Result<Volume, Error> {
        validate_attach(&args)?;
        let manager = Arc::clone(self);
        self.to_its_end(async move { manager.attach_once(args).await })
            .await
    }

    /// Takes the interposer away; tracking of the volume ends.
    pub async fn detach(self: &Arc<Self>, name: &str, force: bool) -> Result<(), Error> {
        validate::name("name", name)?;
        let (manager, name) = (Arc::clone(self), name.to_owned());
        self.to_its_end(async move { manager.detach_now(&name, force).await })
            .await
    }

    /// Every volume, by name.
    pub async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        let mut volumes = Vec::new();
        for entry in self.registry.all() {
            volumes.push(self.merged(&entry).await);
        }
        Ok(volumes)
    }

    /// One volume.
    pub async fn volume(&self, name: &str) -> Result<Volume, Error> {
        validate::name("name", name)?;
        let entry = self.registry.get(name)?;
        Ok(self.merged(&entry).await)
    }

    /// Starts a new lineage: every older checkpoint answers TRACKING_RESET.
    pub async fn reset_tracking(self: &Arc<Self>, name: &str, why: &str) -> Result<Volume, Error> {
        const MAX_REASON: usize = 512;
        validate::name("name", name)?;
        if why.len() > MAX_REASON {
            return Err(Error::invalid(
                "reason",
                format!("longer than {MAX_REASON} bytes"),
            ));
        }
        let cause = if why.trim().is_empty() {
            "reset on request"
        } else {
            why.trim()
        };
        let (manager, name, cause) = (Arc::clone(self), name.to_owned(), cause.to_owned());
        self.to_its_end(async move {
            let (entry, _work) = manager.claim(&name).await?;
            let reset = entry.link.reset_tracking(&cause).await;
            reset.map_err(|error| error.on_volume(&name))?;
            manager.refresh(&entry).await?;
            Ok(manager.merged(&entry).await)
        })
        .await
    }

    /// A volume and the right to change it. Waits for other work on it.
    pub(super) async fn claim(
        &self,
        name: &str,
    ) -> Result<(Arc<Entry>, OwnedMutexGuard<()>), Error> {
        loop {
            let entry = self.registry.get(name)?;
            let work = Arc::clone(&entry.work).lock_owned().await;
            // It may have been detached, and attached again, meanwhile.
            if Arc::ptr_eq(&entry, &self.registry.get(name)?) {
                return Ok((entry, work));
            }
        }
    }

    pub(super) async fn merged(&self, entry: &Entry) -> Volume {
        let live = match self.refresh(entry).await {
            Ok(description) => self.live(entry, &description),
            Err(error) => Err(error),
        };
        Volume {
            record: entry.record.clone(),
            live: live.map_err(|error| match entry.health() {
                Health::FellBack(why) => NotServed {
                    why,
                    fell_back: true,
                    untracked: true,
                },
                _ => NotServed {
                    why: error.message,
                    fell_back: false,
                    untracked: !entry.paths.is_presented(),
                },
            }),
        }
    }

    fn live(&self, entry: &Entry, told: &Description) -> Result<LiveVolume, Error> {
        let device_path = PathBuf::from(&told.device_path);
        Ok(LiveVolume {
            capacity_bytes: told.capacity_bytes,
            block_bytes: told.block_bytes,
            mount_points: self.mounts(&device_path)?.points,
            device_path,
            live_path: PathBuf::from(&told.live_path),
            lineage: lineage_of(entry.name(), told)?,
            lineage_cause: told.lineage_cause.clone(),
            lineage_since_us: told.lineage_since_us,
            epoch: Epoch(told.epoch),
            store_capacity_bytes: told.store_capacity_bytes,
            store_used_bytes: told.store_used_bytes,
            live_snapshots: count(live_snapshots(told)),
            checkpoints: count(told.checkpoints.len()),
            counters: counters(told),
            changed_bytes_in_epoch: told.changed_bytes_in_epoch,
            server_pid: told.pid,
            ublk: told.ublk,
            interposer_path: PathBuf::from(&told.interposer_path),
            bypassed: told.bypassed.clone(),
            durability: durability(told.durability()),
            durability_reason: told.durability_reason.clone(),
        })
    }

    /// Where a volume's device is mounted.
    pub(super) fn mounts(&self, device: &Path) -> Result<Mounts, Error> {
        if device.as_os_str().is_empty() {
            return Ok(Mounts::default());
        }
        match self.config.host.mounts(device) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let device = device.display();
                Err(Error::internal(format!(
                    "looking for mounts of {device}: {error}"
                )))
            }
            // A device that is gone is mounted nowhere.
            found => Ok(found.unwrap_or_default()),
        }
    }

    async fn attach_once(self: &Arc<Self>, args: AttachArgs) -> Result<Volume, Error> {
        let begun = self
            .begin_request(&args.request_id, "AttachVolume", attach_arguments(&args))
            .await?;
        let ticket = match begun {
            Begun::Replayed(_) => return self.volume(&args.name).await,
            Begun::New(ticket) => ticket,
        };
        let _attaching = self.attaching.lock().await;
        if self.registry.get(&args.name).is_ok() {
            return Err(exists(&args.name));
        }
        self.remove_unwanted_areas().await;
        let running = self.running_server(&args.name).await?;
        let site = self.area_site(&args, running.as_ref()).await?;
        let places = self.check_places(&args, &site).await?;
        let entry = self.adopt_or_make(&args, site, running.as_ref(), places)?;
        self.record_and_start(&entry, &ticket).await?;
        self.registry.insert(Arc::clone(&entry));
        self.look_after(&entry);
        let message = format!(
            "volume \"{}\" was attached over {}",
            args.name,
            args.origin_path.display()
        );
        let happening = Happening::new(EventKind::VolumeAttached, Severity::Info, message);
        self.events.record(happening.on_volume(&args.name)).await;
        Ok(self.merged(&entry).await)
    }

    /// The catalog first: a server that runs is then always one that the catalog knows.
    async fn record_and_start(&self, entry: &Entry, ticket: &Ticket) -> Result<(), Error> {
        let record = entry.record.clone();
        let request = ticket.made(vec![record.name.clone()]);
        self.ledger
            .run(move |catalog| {
                let request = request.as_ref().map(|(id, request)| (id.as_str(), request));
                catalog.insert_volume(&record, request)
            })
            .await?;
        if let Err(error) = self.bring_up(entry, false).await {
            let (name, request_id) = (entry.record.name.clone(), ticket.request_id());
            self.ledger
                .run(move |catalog| catalog.take_back_volume(&name, request_id.as_deref()))
                .await?;
            if let Some(units) = &self.config.units {
                units.forget(entry)?;
            }
            clean_up(entry);
            self.remove_unwanted_areas().await;
            return Err(error);
        }
        Ok(())
    }

    /// What the server of a volume tells that the catalog does not know: the catalog was lost.
    async fn running_server(&self, name: &str) -> Result<Option<Description>, Error> {
        let paths = self.config.paths.volume(name);
        if !spawn::is_running(&paths) {
            return Ok(None);
        }
        let told = Link::new(&paths.control_socket()).describe().await;
        told.map(Some).map_err(|error| error.on_volume(name))
    }

    /// An entry for a new volume. A server that runs already is taken over when it serves the same
    /// origin and area.
    fn adopt_or_make(
        &self,
        args: &AttachArgs,
        site: Site,
        running: Option<&Description>,
        places: Places,
    ) -> Result<Arc<Entry>, Error> {
        let mut record = VolumeRecord {
            name: args.name.clone(),
            id: super::new_id(),
            origin_path: args.origin_path.clone(),
            area_path: site.path,
            area_size_bytes: site.size_bytes,
            area_made: site.made,
            block_bytes: validate::block_bytes(args.block_bytes)?,
            policy: args.policy,
            transport: args.transport,
            durability: args.durability,
            durable_snapshots: args.durable_snapshots,
            distrust: None,
            origin_identity: None,
            attached_us: self.config.clock.now_us(),
        };
        if let Some(told) = running {
            let same = Place::of(Path::new(&told.origin_path)).ok() == Some(places.origin)
                && (record.area_made || Place::of(Path::new(&told.area_path)).ok() == places.area)
                && told.block_bytes == record.block_bytes;
            let id = Id::from_slice(&told.volume_id).filter(|_| same);
            record.id = id.ok_or_else(|| runs_already(&args.name, told))?;
        }
        let paths = self.config.paths.volume(&record.name);
        Ok(Arc::new(Entry::new(record, paths)))
    }

    /// No volume's origin or area may be another's.
    async fn check_places(&self, args: &AttachArgs, site: &Site) -> Result<Places, Error> {
        let origin = args.origin_path.clone();
        let area = (!site.made).then(|| site.path.clone());
        let others: Vec<VolumeRecord> = self
            .registry
            .all()
            .iter()
            .map(|entry| entry.record.clone())
            .collect();
        // Off the runtime: a path may lie on a file system that does not answer.
        tokio::task::spawn_blocking(move || {
            let area_place =
                |path: PathBuf| Place::of(&path).map_err(|error| no_area(&path, &error));
            let places = Places {
                origin: origin_place(&origin)?,
                area: area.map(area_place).transpose()?,
            };
            if Some(places.origin) == places.area {
                let why = format!("{} cannot be the area of itself", origin.display());
                return Err(Error::new(ErrorReason::AreaOnVolume, why));
            }
            for other in &others {
                places.check_against(other)?;
            }
            Ok(places)
        })
        .await
        .map_err(super::ended)?
    }
}

pub(super) fn durability(told: private::Durability) -> v1::TrackingDurability {
    match told {
        private::Durability::Unspecified => v1::TrackingDurability::Unspecified,
        private::Durability::Volatile => v1::TrackingDurability::Volatile,
        private::Durability::Durable => v1::TrackingDurability::Durable,
        private::Durability::Suspended => v1::TrackingDurability::Suspended,
    }
}

fn validate_attach(args: &AttachArgs) -> Result<(), Error> {
    /// A writer that waits longer is taken for hung by its host.
    const MAX_DELAY_MS: u64 = 60_000;
    validate::name("name", &args.name)?;
    validate::path("origin_path", &args.origin_path)?;
    match &args.area {
        AreaChoice::At(path) => validate::path("store.area_path", path)?,
        AreaChoice::LogicalVolume(name) => validate::volume_name(name)?,
    }
    validate::block_bytes(args.block_bytes)?;
    validate::area_size(args.area_size_bytes)?;
    match args.policy {
        FullPolicy::Slow { max_write_delay_ms } if max_write_delay_ms > MAX_DELAY_MS => Err(
            Error::invalid("store.max_write_delay", "longer than a minute"),
        ),
        FullPolicy::Slow {
            max_write_delay_ms: 0,
        } => Err(Error::invalid(
            "store.max_write_delay",
            "the policy SLOW needs a bound greater than zero",
        )),
        FullPolicy::Slow { .. } | FullPolicy::Drop => Ok(()),
    }
}

fn attach_arguments(args: &AttachArgs) -> Arguments {
    let policy = match args.policy {
        FullPolicy::Drop => None,
        FullPolicy::Slow { max_write_delay_ms } => Some(max_write_delay_ms),
    };
    let area = match &args.area {
        AreaChoice::At(path) => path.as_os_str().as_encoded_bytes().to_vec(),
        // No path begins so: they are absolute.
        AreaChoice::LogicalVolume(name) => format!("logical volume {name}").into_bytes(),
    };
    Arguments::of("AttachVolume")
        .and(&args.name)
        .and(args.origin_path.as_os_str().as_encoded_bytes())
        .and(area)
        .and(args.area_size_bytes.to_le_bytes())
        .and(args.block_bytes.to_le_bytes())
        .and(format!("{policy:?}"))
        .and(args.transport.name())
        .and(args.durability.name())
        .and([u8::from(args.durable_snapshots)])
}

pub(super) fn runs_already(name: &str, told: &Description) -> Error {
    let why = format!(
        "a volume server named \"{name}\" runs already (process {}, origin {}); stop it, or attach \
         with its own settings to take it over",
        told.pid, told.origin_path
    );
    Error::new(ErrorReason::VolumeBusy, why).on_volume(name)
}

fn exists(name: &str) -> Error {
    let why = format!("a volume named \"{name}\" is attached already");
    Error::new(ErrorReason::VolumeExists, why).on_volume(name)
}

pub(super) fn live_snapshots(told: &Description) -> usize {
    let live = told
        .snapshots
        .iter()
        .filter(|one| one.fate() == SnapshotFate::Live);
    live.count()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn counters(told: &Description) -> Counters {
    let told = told.counters.unwrap_or_default();
    Counters {
        read_requests: told.read_requests,
        read_bytes: told.read_bytes,
        write_requests: told.write_requests,
        write_bytes: told.write_bytes,
        flush_requests: told.flush_requests,
        discard_bytes: told.discard_bytes,
        zeroed_bytes: told.zeroed_bytes,
        preserved_bytes: told.preserved_bytes,
        delayed_us: told.delayed_us,
    }
}
