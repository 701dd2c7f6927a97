//! What the host sees of the volume, by whichever transport.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemark_store::units::Id;

use super::{
    VolumeArgs,
    backend::{EngineBackend, VolumeBackend},
    guard::{Guard, VolumeViews},
    origin::{Live, Way},
    served::Engine,
    start_error::StartError,
};
use crate::{
    host::{
        device::DeviceNumber,
        dm::{Address, Control},
        loopdev,
    },
    insertion::{Insertion, InsertionError},
    paths::VolumePaths,
    transport::{
        portable::{self, Portable, UnmountError},
        ublk::{self, Features, Limits, Ublk, UblkError, Views},
    },
    volume::Fate,
};

/// Hardware queues of a live device, at most.
const MAX_QUEUES: usize = 4;

/// What the host sees.
pub(super) enum Presented {
    Portable(Portable),
    Ublk(UblkSide),
}

/// A ublk device with its views, and perhaps the volume over it.
pub(super) struct UblkSide {
    live: Option<Ublk>,
    views: Arc<VolumeViews>,
    guard: Option<Arc<Guard>>,
    /// The device-mapper volume that lies over us, or did.
    over: Option<DeviceNumber>,
    paths: VolumePaths,
}

/// The volume could not be taken away; it serves on.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeAwayError {
    #[error(transparent)]
    Portable(#[from] UnmountError),
    #[error("{device} is in use ({user}): unmount it and close what has it open")]
    InUse { device: PathBuf, user: String },
    #[error(transparent)]
    Insertion(#[from] InsertionError),
    #[error(transparent)]
    Ublk(#[from] UblkError),
}

impl TakeAwayError {
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Portable(error) => error.is_busy(),
            Self::InUse { .. } | Self::Insertion(InsertionError::Stacked { .. }) => true,
            Self::Insertion(_) | Self::Ublk(_) => false,
        }
    }
}

impl Presented {
    /// Presents the volume. What `way` changed on the host is undone by the caller when it fails.
    pub(super) fn start(
        args: &VolumeArgs,
        paths: &VolumePaths,
        volume: &Arc<Engine>,
        discard_zeroes: bool,
        limits: Limits,
        way: &mut Way,
    ) -> Result<Self, StartError> {
        let backend = Arc::new(VolumeBackend::new(Arc::clone(volume), discard_zeroes));
        match way {
            Way::Portable => {
                let options = portable::Options {
                    threads: args.queues,
                };
                let mounted = Portable::mount(&paths.mount_point(), backend, &options)?;
                Ok(Self::Portable(mounted))
            }
            Way::Ublk { features, live } => {
                let side = UblkSide::start(args, paths, volume, &backend, limits, *features, live)?;
                Ok(Self::Ublk(side))
            }
        }
    }

    /// The block device to mount.
    pub(super) fn device_path(&self) -> Option<PathBuf> {
        match self {
            Self::Portable(portable) => portable.device_path().map(Path::to_owned),
            Self::Ublk(side) => side.device_path(),
        }
    }

    /// The interposer's own device, where that is another than what is mounted.
    pub(super) fn interposer_path(&self) -> Option<PathBuf> {
        match self {
            Self::Portable(_) => None,
            Self::Ublk(side) => side.live.as_ref().map(|live| live.device_path().to_owned()),
        }
    }

    /// Whether the host's requests still arrive.
    pub(super) fn is_serving(&self) -> bool {
        match self {
            Self::Portable(portable) => portable.is_serving(),
            Self::Ublk(side) => side.live.as_ref().is_some_and(Ublk::is_serving),
        }
    }

    /// Whether anybody has the volume open, where that does not keep it from being taken away.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Portable(_) => false,
            Self::Ublk(side) => side.over.is_some_and(is_open),
        }
    }

    /// What watches that the volume lies over us.
    pub(super) fn guard(&self) -> Option<Arc<Guard>> {
        match self {
            Self::Portable(_) => None,
            Self::Ublk(side) => side.guard.clone(),
        }
    }

    /// What presents snapshots as devices.
    pub(super) fn views(&self) -> Option<Arc<VolumeViews>> {
        match self {
            Self::Portable(_) => None,
            Self::Ublk(side) => Some(Arc::clone(&side.views)),
        }
    }

    /// Takes everything away, or changes nothing.
    pub(super) fn take_away(&mut self) -> Result<(), TakeAwayError> {
        match self {
            Self::Portable(portable) => Ok(portable.unmount()?),
            Self::Ublk(side) => side.take_away(),
        }
    }
}

impl UblkSide {
    fn start(
        args: &VolumeArgs,
        paths: &VolumePaths,
        volume: &Arc<Engine>,
        backend: &Arc<EngineBackend>,
        limits: Limits,
        features: Features,
        way: &mut Option<Box<Live>>,
    ) -> Result<Self, StartError> {
        let options = ublk::Options {
            volume: args.volume_id,
            queues: queues(args.queues),
            limits,
            zero_copy: features.zero_copy(),
        };
        let folder = paths.views();
        fs::create_dir_all(&folder).map_err(StartError::io("creating", &folder))?;
        let views = Views::new(Arc::clone(backend), &options, &folder);
        views.sweep(ended(volume));
        let views = Arc::new(views);
        let live = Ublk::present(Arc::clone(backend), &options)?;
        let guard = match way.take() {
            None => None,
            Some(found) => match insert(*found, &live) {
                Ok((insertion, over)) => Some(Arc::new(Guard::new(
                    Arc::clone(volume),
                    Arc::clone(&views),
                    over,
                    insertion,
                ))),
                Err((back, error)) => {
                    // A device that was taken up is the volume's: it stays, for the next try.
                    if !live.was_taken_up() {
                        let _ = live.delete();
                    }
                    *way = back;
                    return Err(error);
                }
            },
        };
        let over = guard.as_ref().map(|guard| guard.number());
        let side = Self {
            live: Some(live),
            views,
            guard,
            over,
            paths: paths.clone(),
        };
        side.link_live();
        if let Err(error) = side.views.settle() {
            tracing::error!(%error, "a snapshot has no device");
        }
        Ok(side)
    }

    fn device_path(&self) -> Option<PathBuf> {
        match (&self.guard, &self.live) {
            (Some(guard), _) => Some(guard.node()),
            (None, Some(live)) => Some(live.device_path().to_owned()),
            (None, None) => None,
        }
    }

    fn link_live(&self) {
        let link = self.paths.live();
        remove(&link);
        if let Some(device) = self.device_path()
            && let Err(error) = symlink(device, &link)
        {
            tracing::warn!(link = %link.display(), %error, "the live volume has no name");
        }
    }

    fn take_away(&mut self) -> Result<(), TakeAwayError> {
        if let Some(device) = self.views.used() {
            let user = "a snapshot's view".to_owned();
            return Err(TakeAwayError::InUse { device, user });
        }
        match (&self.guard, &self.live) {
            (Some(guard), _) => {
                let swap = guard.remove()?;
                tracing::info!(
                    held_us = swap.held.as_micros(),
                    "the volume has its own table again"
                );
            }
            (None, Some(live)) => {
                let device = live.device_path().to_owned();
                let number = DeviceNumber::of_block_device(&device).ok().flatten();
                if let Some(user) = number.and_then(loopdev::user_of) {
                    return Err(TakeAwayError::InUse { device, user });
                }
            }
            (None, None) => {}
        }
        // From here on nobody uses the devices: what cannot be deleted is only left over.
        if let Err(error) = self.views.delete() {
            tracing::warn!(%error, "a view is left over");
        }
        if let Some(live) = self.live.take()
            && let Err(error) = live.delete()
        {
            tracing::warn!(%error, "the device is left over");
        }
        self.guard = None;
        remove(&self.paths.live());
        if let Err(error) = fs::remove_dir(self.paths.views()) {
            tracing::debug!(%error, "the folder of views stays");
        }
        Ok(())
    }
}

type Failed = (Option<Box<Live>>, StartError);

/// Puts the volume over the device, unless it lies there already.
fn insert(mut found: Live, live: &Ublk) -> Result<(Insertion, DeviceNumber), Failed> {
    let over = match live.number() {
        Ok(over) => over,
        Err(source) => {
            let error = StartError::io("looking at", live.device_path())(source);
            return Err((Some(Box::new(found)), error));
        }
    };
    if found.removing {
        // Served again, so that what waits in it can end.
        let error = match found.insertion.remove() {
            Ok(_) => StartError::RemovalFinished,
            Err(error) => error.into(),
        };
        return Err((None, error));
    }
    if !found.inserted {
        match found.insertion.insert(over) {
            Ok(swap) => {
                tracing::info!(held_us = swap.held.as_micros(), "the volume lies over us");
            }
            Err(error) => return Err((Some(Box::new(found)), error.into())),
        }
    }
    Ok((found.insertion, over))
}

/// Whether a device-mapper volume is mounted, or open; also when that cannot be told.
fn is_open(volume: DeviceNumber) -> bool {
    let info = Control::open().and_then(|control| control.info(Address::Number(volume)));
    match info {
        Ok(Some(info)) => info.open_count > 0,
        Ok(None) => false,
        Err(_) => true,
    }
}

/// The snapshots that have ended as far as is known.
fn ended(volume: &Engine) -> Vec<Id> {
    let ended = volume
        .snapshots()
        .into_iter()
        .filter(|snapshot| snapshot.fate != Fate::Live);
    ended.map(|snapshot| snapshot.id).collect()
}

fn queues(asked: usize) -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(asked.min(processors).clamp(1, MAX_QUEUES)).unwrap_or(1)
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "could not be removed");
        }
        _ => {}
    }
}
