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
    thread,
    time::{Duration, UNIX_EPOCH},
};

use futures_lite::future::block_on;
use tidemark_store::units::Geometry;

use super::{
    VolumeArgs,
    area::AreaFile,
    backend::VolumeBackend,
    listen,
    served::{Engine, Served, StopRequest},
    start_error::StartError,
};
use crate::{
    disk::{Disk, file::FileDisk},
    host::{
        claim::{Claimed, Purpose, claim},
        memory_dir, stack,
    },
    paths::{Paths, VolumePaths},
    transport::portable::{self, Portable, UnmountError},
    volume::{Options, SystemClock},
};

const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A volume that is served.
pub(super) struct Running {
    // Dropped in this order: the host's way in goes first, the claims last.
    portable: Portable,
    served: Arc<Served>,
    listener: UnixListener,
    state_dir: PathBuf,
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
    let origin = claim(&args.origin, Purpose::Origin)?;
    refuse_on_volume("area", &args.area, &origin)?;
    refuse_on_volume("runtime directory", &args.runtime_dir, &origin)?;
    let area = AreaFile::open(&args.area, args.area_size)?;
    let opened = open_volume(args, origin, &area).inspect_err(|_| area.discard_new())?;
    let portable = mount(args, &paths, &opened).inspect_err(|_| {
        opened.undo();
        area.discard_new();
    })?;
    let served = Arc::new(Served::new(
        args.name.clone(),
        args.volume_id,
        args.origin.clone(),
        area.path().to_owned(),
        paths,
        opened.volume,
        stop,
        wake,
    ));
    let running = Running {
        portable,
        served,
        listener,
        state_dir: opened.state_dir,
        _area: area,
        _lock: lock,
    };
    running.publish_device();
    Ok(running)
}

/// A data plane has no business with the catalog.
fn agent_paths(args: &VolumeArgs) -> Paths {
    Paths {
        runtime_dir: args.runtime_dir.clone(),
        state_dir: PathBuf::new(),
    }
}

fn volume_paths(args: &VolumeArgs) -> Result<VolumePaths, StartError> {
    let paths = agent_paths(args).volume(&args.name);
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(paths.dir());
    made.map_err(StartError::io("creating", paths.dir()))?;
    Ok(paths)
}

/// One server a volume; the kernel gives the lock back however the process ends.
fn lock(args: &VolumeArgs, paths: &VolumePaths) -> Result<File, StartError> {
    let path = paths.lock();
    let file = File::create(&path).map_err(StartError::io("creating", &path))?;
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            // The control plane takes it for a moment to see whether a server lives.
            Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::Running {
                    name: args.name.clone(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(StartError::io("locking", &path)(source));
            }
        }
    }
    Ok(file)
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

fn open_volume(args: &VolumeArgs, origin: Claimed, area: &AreaFile) -> Result<Opened, StartError> {
    let geometry =
        Geometry::new(origin.capacity, args.block_bytes).ok_or_else(|| StartError::Geometry {
            path: args.origin.clone(),
            capacity: origin.capacity,
            block_bytes: args.block_bytes,
        })?;
    let state_dir = memory_dir::create(&agent_paths(args), &args.name)?;
    let fresh = is_empty(&state_dir);
    let opened = open_engine(args, origin, area, geometry, state_dir.clone());
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
    origin: Claimed,
    area: &AreaFile,
    geometry: Geometry,
    state_dir: PathBuf,
) -> Result<(Engine, bool), StartError> {
    let origin_modified_us = modified_us(&origin);
    let area_disk = area.file().and_then(FileDisk::from_file);
    let area = area_disk.map_err(StartError::io("opening", area.path()))?;
    let origin = origin
        .into_disk()
        .map_err(StartError::io("opening", &args.origin))?;
    let discard_zeroes = origin.discard_zeroes();
    let volume = block_on(Engine::open(Options {
        origin,
        area,
        geometry,
        state_dir,
        volume_id: args.volume_id,
        policy: args.full_policy(),
        clock: SystemClock,
        origin_modified_us,
    }))?;
    Ok((volume, discard_zeroes))
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

/// When an image was last written to. A block device tells no such time.
fn modified_us(origin: &Claimed) -> Option<u64> {
    if origin.is_block_device() {
        return None;
    }
    let modified = origin
        .file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .ok()?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).ok()
}

fn mount(args: &VolumeArgs, paths: &VolumePaths, opened: &Opened) -> Result<Portable, StartError> {
    let backend = VolumeBackend::new(Arc::clone(&opened.volume), opened.discard_zeroes);
    let options = portable::Options {
        threads: args.queues,
    };
    Ok(Portable::mount(
        &paths.mount_point(),
        Arc::new(backend),
        &options,
    )?)
}

impl Running {
    /// What connections see.
    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// The engine.
    pub(super) fn volume(&self) -> Arc<Engine> {
        Arc::clone(&self.served.volume)
    }

    /// Whether the host's requests still arrive.
    pub(super) fn is_serving(&self) -> bool {
        self.portable.is_serving()
    }

    /// What it takes to answer connections.
    pub(super) fn door(&self) -> io::Result<(UnixListener, Arc<Served>)> {
        Ok((self.listener.try_clone()?, Arc::clone(&self.served)))
    }

    /// Takes device and mount away, or changes nothing.
    pub(super) fn unmount(&mut self) -> Result<(), UnmountError> {
        let done = self.portable.unmount();
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
        let device = self.portable.device_path();
        self.served.set_device(device);
        log_unless_gone(&link, fs::remove_file(&link));
        if let Some(device) = device {
            log_unless_gone(&link, symlink(device, &link));
        }
    }
}

fn log_unless_gone(path: &Path, done: io::Result<()>) {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "could not be changed");
        }
        _ => {}
    }
}
