//! Starting: everything that can be refused is refused before the host sees a device.
//!
//! The order: the volume's lock and socket, the origin's claim, where area and sockets lie, the
//! area, the engine with what a dead server left, the mount, the link.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Sender, SyncSender},
    },
};

use futures_lite::future::block_on;
use tidemark_store::units::Geometry;

use super::{
    DurabilityArg, VolumeArgs,
    area::AreaFile,
    listen,
    origin::{self, Origin, Way},
    presented::{Presented, TakeAwayError},
    served::{Engine, Served, StopRequest},
    start_error::StartError,
};
use crate::{
    disk::{Disk, cached::CachedDisk, file::FileDisk, ring::RingDisk},
    host::{claim::Claimed, device::Anchor, memory_dir, patience, stack},
    paths::{Paths, VolumePaths},
    transport::ublk::Limits,
    volume::{Continuity, Options, SystemClock},
};

/// A volume that is served.
pub(super) struct Running {
    // Dropped in this order: the host's way in goes first, the claims last.
    presented: Presented,
    served: Arc<Served>,
    listener: UnixListener,
    state_dir: PathBuf,
    origin_identity: Option<String>,
    _area: AreaFile,
    _lock: File,
}

/// Starts serving. A start that fails leaves nothing behind that was not there before, except
/// the volume's empty directory.
pub(super) fn start(
    args: &VolumeArgs,
    stop: Sender<StopRequest>,
    wake: SyncSender<()>,
) -> Result<Running, StartError> {
    let paths = volume_paths(args)?;
    let lock = lock(args, &paths)?;
    let socket = paths.control_socket();
    let listener = listen::bind(&socket).map_err(StartError::io("listening on", &socket))?;
    let state_dir = memory_dir::create(&agent_paths(args), &args.name)?;
    let fresh = is_empty(&state_dir);
    let protected = [
        args.area.clone(),
        args.runtime_dir.clone(),
        state_dir.clone(),
    ];
    let origin = origin::find(args, &state_dir, &protected).inspect_err(|_| {
        if fresh {
            log_unless_gone(&state_dir, fs::remove_dir_all(&state_dir));
        }
    })?;
    let origin_identity = origin.identity.clone();
    let (area, opened, presented) = serve(args, &paths, origin, state_dir, fresh)?;
    let served = Arc::new(Served::new(
        args.name.clone(),
        args.volume_id,
        args.origin.clone(),
        area.path().to_owned(),
        paths,
        opened.volume,
        stop,
        wake,
        &presented,
    ));
    let running = Running {
        presented,
        served,
        listener,
        state_dir: opened.state_dir,
        origin_identity,
        _area: area,
        _lock: lock,
    };
    running.publish_device();
    Ok(running)
}

/// Opens area and engine and presents the volume, or undoes what was done.
fn serve(
    args: &VolumeArgs,
    paths: &VolumePaths,
    origin: Origin,
    state_dir: PathBuf,
    fresh: bool,
) -> Result<(AreaFile, Opened, Presented), StartError> {
    let limits = limits_of(&origin.claimed);
    let checked = refuse_on_volume("area", &args.area, &origin.claimed)
        .and_then(|()| refuse_on_volume("runtime directory", &args.runtime_dir, &origin.claimed))
        .and_then(|()| limits.map_err(StartError::io("looking at", &args.origin)))
        .and_then(|limits| Ok((limits, AreaFile::open(&args.area, args.area_size)?)));
    let (limits, area) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            origin.give_up();
            if fresh {
                log_unless_gone(&state_dir, fs::remove_dir_all(&state_dir));
            }
            return Err(error);
        }
    };
    let mut way = origin.way;
    // What comes from a FUSE thread is not aligned as direct I/O needs it.
    let direct = matches!(way, Way::Ublk { .. });
    let origin = (origin.claimed, origin.continuity);
    let opened = open_volume(args, origin, direct, &area, state_dir, fresh);
    let started = opened.and_then(|opened| {
        let (volume, zeroes) = (&opened.volume, opened.discard_zeroes);
        let presented = Presented::start(args, paths, volume, zeroes, limits, &mut way);
        let presented = presented.inspect_err(|_| opened.undo())?;
        Ok((opened, presented))
    });
    match started {
        Ok((opened, presented)) => Ok((area, opened, presented)),
        Err(error) => {
            area.discard_new();
            // The engine, and with it the private origin, is closed by now.
            origin::abandon(way);
            Err(error)
        }
    }
}

pub(super) fn limits_of(origin: &Claimed) -> io::Result<Limits> {
    match origin.anchor {
        Anchor::Device(device) => Limits::of_device(device),
        Anchor::File(_) => Ok(Limits::of_file()),
    }
}

/// A data plane has no business with the catalog.
pub(super) fn agent_paths(args: &VolumeArgs) -> Paths {
    Paths {
        runtime_dir: args.runtime_dir.clone(),
        state_dir: PathBuf::new(),
    }
}

pub(super) fn volume_paths(args: &VolumeArgs) -> Result<VolumePaths, StartError> {
    let paths = agent_paths(args).volume(&args.name);
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(paths.dir());
    made.map_err(StartError::io("creating", paths.dir()))?;
    Ok(paths)
}

/// One server a volume; the kernel gives the lock back however the process ends.
pub(super) fn lock(args: &VolumeArgs, paths: &VolumePaths) -> Result<File, StartError> {
    let path = paths.lock();
    let file = File::create(&path).map_err(StartError::io("creating", &path))?;
    match patience::lock(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Running {
            name: args.name.clone(),
        }),
        Err(TryLockError::Error(source)) => Err(StartError::io("locking", &path)(source)),
    }
}

/// A store or a log on the volume that it serves is a deadlock at the first write under a
/// snapshot.
fn refuse_on_volume(what: &'static str, path: &Path, origin: &Claimed) -> Result<(), StartError> {
    let chain = stack::lies_on(path, &[origin.anchor])
        .map_err(StartError::io("looking where this lies:", path))?;
    chain.map_or(Ok(()), |chain| {
        Err(StartError::OnVolume {
            what,
            chain: stack::explain(&chain),
        })
    })
}

struct Opened {
    volume: Arc<Engine>,
    discard_zeroes: bool,
    state_dir: PathBuf,
    /// No server had this volume before.
    fresh: bool,
}

impl Opened {
    /// Gives up what opening a new volume took; what a predecessor left stays for the next try.
    fn undo(&self) {
        if self.fresh
            && let Err(error) = block_on(self.volume.retire(&self.state_dir))
        {
            tracing::warn!(%error, "the area could not be given up again");
        }
    }
}

fn open_volume(
    args: &VolumeArgs,
    origin: (Claimed, Continuity),
    direct: bool,
    area: &AreaFile,
    state_dir: PathBuf,
    fresh: bool,
) -> Result<Opened, StartError> {
    let (origin, continuity) = origin;
    let geometry =
        Geometry::new(origin.capacity, args.block_bytes).ok_or_else(|| StartError::Geometry {
            path: args.origin.clone(),
            capacity: origin.capacity,
            block_bytes: args.block_bytes,
        });
    let opened = geometry.and_then(|geometry| {
        let origin = origin.into_disk().and_then(|disk| match direct {
            true => RingDisk::direct(disk),
            false => Ok(RingDisk::new(disk)),
        });
        let origin = origin.map_err(StartError::io("opening", &args.origin))?;
        open_engine(args, origin, continuity, area, geometry, &state_dir)
    });
    let (volume, discard_zeroes) = opened.inspect_err(|_| {
        if fresh {
            log_unless_gone(&state_dir, fs::remove_dir_all(&state_dir));
        }
    })?;
    Ok(Opened {
        volume: Arc::new(volume),
        discard_zeroes,
        state_dir,
        fresh,
    })
}

/// The engine, and whether its origin reads zeros after a discard.
fn open_engine(
    args: &VolumeArgs,
    origin: RingDisk,
    continuity: Continuity,
    area: &AreaFile,
    geometry: Geometry,
    state_dir: &Path,
) -> Result<(Engine, bool), StartError> {
    let area_disk = area.file().and_then(FileDisk::from_file);
    let area_disk = area_disk.map_err(StartError::io("opening", area.path()))?;
    let discard_zeroes = origin.discard_zeroes();
    let volume = block_on(Engine::open(Options {
        origin,
        area: CachedDisk::new(area_disk),
        geometry,
        state_dir: state_dir.to_owned(),
        volume_id: args.volume_id,
        policy: args.full_policy(),
        clock: SystemClock,
        continuity,
        durable: is_durable(args, area)?,
        durable_snapshots: args.durable_snapshots,
        distrust: args.distrust.clone(),
        max_active_regions: None,
    }))?;
    Ok((volume, discard_zeroes))
}

/// Whether tracking is to outlive the host, which an area in memory does not.
fn is_durable(args: &VolumeArgs, area: &AreaFile) -> Result<bool, StartError> {
    let in_memory = area.is_in_memory();
    let in_memory = in_memory.map_err(StartError::io("looking at", area.path()))?;
    match args.durability {
        DurabilityArg::Volatile => Ok(false),
        DurabilityArg::Auto if !args.durable_snapshots => Ok(!in_memory),
        DurabilityArg::Auto | DurabilityArg::Durable if in_memory => {
            Err(StartError::AreaInMemory {
                path: area.path().to_owned(),
            })
        }
        DurabilityArg::Auto | DurabilityArg::Durable => Ok(true),
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

impl Running {
    /// What connections see.
    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// Which device or file the origin is, where that can be told.
    pub(super) fn origin_identity(&self) -> Option<String> {
        self.origin_identity.clone()
    }

    /// The engine.
    pub(super) fn volume(&self) -> Arc<Engine> {
        Arc::clone(&self.served.volume)
    }

    /// Whether the host's requests still arrive.
    pub(super) fn is_serving(&self) -> bool {
        self.presented.is_serving()
    }

    /// Whether anybody has the volume open that is given back under its users.
    pub(super) fn is_open(&self) -> bool {
        self.presented.is_open()
    }

    /// Where the state lies that outlives this process.
    pub(super) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Whether the host's requests wait for the next server when this one ends.
    pub(super) fn outlives_its_server(&self) -> bool {
        matches!(self.presented, Presented::Ublk(_))
    }

    /// What it takes to answer connections.
    pub(super) fn door(&self) -> io::Result<(UnixListener, Arc<Served>)> {
        Ok((self.listener.try_clone()?, Arc::clone(&self.served)))
    }

    /// Takes the volume away from the host, or changes nothing.
    pub(super) fn take_away(&mut self) -> Result<(), TakeAwayError> {
        let done = self.presented.take_away();
        self.publish_device();
        done
    }

    /// Gives up what the volume had; the host no longer sees it. What cannot be removed is
    /// logged: nobody can be asked any more.
    pub(super) fn retire(&self) {
        if let Err(error) = block_on(self.served.volume.retire(&self.state_dir)) {
            tracing::error!(%error, "the area still names this volume: remove the file before it is used for another");
        }
        let paths = &self.served.paths;
        log_unless_gone(
            &paths.control_socket(),
            fs::remove_file(paths.control_socket()),
        );
        log_unless_gone(&paths.mount_point(), fs::remove_dir(paths.mount_point()));
    }

    /// Points the link at the device there is.
    fn publish_device(&self) {
        let link = self.served.paths.device_link();
        let device = self.presented.device_path();
        self.served.set_device(device.as_deref());
        log_unless_gone(&link, fs::remove_file(&link));
        if let Some(device) = device {
            log_unless_gone(&link, symlink(device, &link));
        }
    }
}

pub(super) fn log_unless_gone(path: &Path, done: io::Result<()>) {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "could not be changed");
        }
        _ => {}
    }
}
