//! One device of the driver's: made or taken up, started, and deleted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use libublk::{
    UblkFlags,
    ctrl::{UblkCtrl, UblkCtrlBuilder},
    io::UblkDev,
    sys,
};
use rustix::thread::CapabilitySet;

use super::{
    Features, Options, Role, features, identity, limits::MAX_REQUEST_BYTES, mark, mend, queue,
    requests::Answerer,
};
use crate::transport::Backend;

/// Requests that one queue of the live device serves at once.
const DEPTH: u16 = 64;
/// A view is read by few.
const VIEW_DEPTH: u16 = 16;
/// Submissions that a request may have in its ring at once, with room for the queue's own.
const ENTRIES_PER_REQUEST: u16 = 4;

/// A device could not be made, taken up or deleted.
#[derive(Debug, thiserror::Error)]
pub enum UblkError {
    /// The host has no ublk driver, or one that will not do.
    #[error("{0}")]
    NoDriver(String),
    /// The driver refused.
    #[error("ublk: {what}: {source}")]
    Driver {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The device that a dead server left is of another size.
    #[error(
        "ublk: {path} was left by a dead server with {has} bytes, but the origin has {wanted}: \
         unmount the volume, detach it and attach it again"
    )]
    Size {
        /// The device.
        path: PathBuf,
        /// Its size.
        has: u64,
        /// The origin's.
        wanted: u64,
    },
}

impl UblkError {
    fn driver(what: &'static str) -> impl FnOnce(libublk::UblkError) -> Self {
        move |error| Self::Driver {
            what,
            source: to_io(error),
        }
    }
}

/// The errno in an error of the library's.
pub(super) fn to_io(error: libublk::UblkError) -> io::Error {
    match error {
        libublk::UblkError::UringIOError(number) | libublk::UblkError::OtherError(number) => {
            io::Error::from_raw_os_error(number.abs())
        }
        libublk::UblkError::IOError(error) => error,
        libublk::UblkError::InvalidVal => io::Error::from_raw_os_error(libc::EINVAL),
        other => io::Error::other(other.to_string()),
    }
}

/// The block device of this number of the driver's.
pub(super) fn block_path(id: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkb{id}"))
}

/// The device with this identity.
pub(super) fn find(identity: u64) -> Option<u32> {
    let entries = fs::read_dir("/sys/class/ublk-char").ok()?;
    let ids = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.strip_prefix("ublkc")?.parse::<u32>().ok()
    });
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    // One that goes away meanwhile is not ours.
    ids.into_iter()
        .find(|id| info(*id).is_ok_and(|info| info.ublksrv_flags == identity))
}

fn info(id: u32) -> Result<sys::ublksrv_ctrl_dev_info, UblkError> {
    let control = handle(id)?;
    Ok(control.dev_info())
}

fn handle(id: u32) -> Result<UblkCtrl, UblkError> {
    let id = i32::try_from(id).unwrap_or(i32::MAX);
    UblkCtrl::new_simple(id).map_err(UblkError::driver("looking at a device"))
}

/// Deletes a device that no server of this process serves.
pub(super) fn delete(id: u32) -> Result<(), UblkError> {
    let control = handle(id)?;
    control
        .kill_dev()
        .map_err(UblkError::driver("stopping a device"))?;
    forget(&control)
}

/// Deletes a stopped device without waiting for its number to be free, which is what the driver
/// means by waiting for its end: when another server takes the number for a new device before we
/// look, we would wait for as long as that one lives.
fn forget(control: &UblkCtrl) -> Result<(), UblkError> {
    let deleted = match control.del_dev_async().map_err(to_io) {
        // Drivers before 6.9 only know how to wait.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            control.del_dev().map_err(to_io)
        }
        answer => answer,
    };
    let what = "deleting a device";
    deleted
        .map(|_| mark::clear(control.dev_info().dev_id))
        .map_err(|source| UblkError::Driver { what, source })
}

/// Ends a device that no server serves, whoever uses it: his reads fail from now on.
pub(super) fn abandon(id: u32) -> Result<(), UblkError> {
    let control = handle(id)?;
    control
        .kill_dev()
        .map_err(UblkError::driver("stopping a device"))?;
    // Gone when its last user is.
    control
        .del_dev_async()
        .map_err(UblkError::driver("deleting a device"))?;
    mark::clear(id);
    Ok(())
}

/// A device that this process serves. Dropped, it goes on being served.
#[derive(Debug)]
pub(super) struct Served {
    id: u32,
    path: PathBuf,
    taken_up: bool,
    queues: Vec<JoinHandle<()>>,
    serving: Arc<AtomicU32>,
}

impl Served {
    pub(super) fn start<B: Backend>(
        backend: Arc<B>,
        role: Role,
        options: &Options,
    ) -> Result<Self, UblkError> {
        let features = features::probe().map_err(UblkError::NoDriver)?;
        let identity = identity::of(options.volume, role);
        let left = find(identity).and_then(|id| Some((id, info(id).ok()?)));
        let capacity = backend.capacity();
        let (control, taken_up) = match left {
            Some((id, info)) if u32::from(info.state) != sys::UBLK_S_DEV_DEAD => {
                (take_up(id, &info, capacity, features)?, true)
            }
            left => {
                if let Some((id, _)) = left {
                    // Its server died before the device was started: nobody ever used it.
                    delete(id)?;
                }
                let flags = features.to_ask_for(options.zero_copy && role == Role::Live);
                (add(role, options, identity, flags)?, false)
            }
        };
        // A device ends when it is deleted, and not with this handle.
        control.disown();
        mark::set(control.dev_info().dev_id);
        let started = Self::start_queues(&control, backend, role, options, taken_up);
        let info = control.dev_info();
        if started.is_err() && !taken_up {
            let _ = delete(info.dev_id);
        }
        if !features.forgets_the_dead()
            && !taken_up
            && let Err(error) = mend::spare_a_slot(info.dev_id, info.queue_depth)
        {
            tracing::warn!(%error, "after a death of this server the host may wait for 30 s");
        }
        started
    }

    fn start_queues<B: Backend>(
        control: &UblkCtrl,
        backend: Arc<B>,
        role: Role,
        options: &Options,
        taken_up: bool,
    ) -> Result<Self, UblkError> {
        let info = control.dev_info();
        let params = options
            .limits
            .params(backend.capacity(), role != Role::Live);
        let device = UblkDev::new(
            "tidemark".to_owned(),
            |device| {
                let entries = info.queue_depth.saturating_mul(ENTRIES_PER_REQUEST);
                device.tgt.sq_depth = entries;
                device.tgt.cq_depth = entries.saturating_mul(2);
                device.tgt.dev_size = params.basic.dev_sectors << 9;
                device.tgt.params = params;
                Ok(())
            },
            control,
        );
        let device = Arc::new(device.map_err(UblkError::driver("opening a device"))?);
        let serving = Arc::new(AtomicU32::new(info.nr_hw_queues.into()));
        let mut queues = Vec::new();
        for number in 0..info.nr_hw_queues {
            let answerer = Answerer::new(Arc::clone(&backend), role);
            let thread = spawn_queue(control, &device, number, answerer, Arc::clone(&serving));
            queues.push(thread.map_err(|source| UblkError::Driver {
                what: "starting a queue's thread",
                source,
            })?);
        }
        control
            .start_dev(&device)
            .map_err(UblkError::driver("starting a device"))?;
        Ok(Self {
            id: info.dev_id,
            path: block_path(info.dev_id),
            taken_up,
            queues,
            serving,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn was_taken_up(&self) -> bool {
        self.taken_up
    }

    pub(super) fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire) > 0
    }

    pub(super) fn delete(self) -> Result<(), UblkError> {
        let control = handle(self.id)?;
        control
            .kill_dev()
            .map_err(UblkError::driver("stopping a device"))?;
        // They hold the device open, and it is deleted when nobody does.
        for queue in self.queues {
            let _ = queue.join();
        }
        forget(&control)
    }
}

fn add(role: Role, options: &Options, identity: u64, flags: u64) -> Result<UblkCtrl, UblkError> {
    let live = role == Role::Live;
    let copying = flags & u64::from(sys::UBLK_F_AUTO_BUF_REG) == 0;
    let mut ours = UblkFlags::UBLK_DEV_F_ADD_DEV;
    if live && copying {
        ours |= UblkFlags::UBLK_DEV_F_MLOCK_IO_BUFFER;
    }
    UblkCtrlBuilder::default()
        .name("tidemark")
        .id(-1)
        .nr_queues(if live { options.queues.max(1) } else { 1 })
        .depth(if live { DEPTH } else { VIEW_DEPTH })
        .io_buf_bytes(MAX_REQUEST_BYTES)
        .ctrl_flags(flags)
        .ctrl_target_flags(identity)
        .dev_flags(ours)
        .build()
        .map_err(UblkError::driver("adding a device"))
}

fn take_up(
    id: u32,
    info: &sys::ublksrv_ctrl_dev_info,
    capacity: u64,
    features: Features,
) -> Result<UblkCtrl, UblkError> {
    let mut params = sys::ublk_params::default();
    params.len = u32::try_from(size_of_val(&params)).unwrap_or(0);
    handle(id)?
        .get_params(&mut params)
        .map_err(UblkError::driver("reading a device's parameters"))?;
    let has = params.basic.dev_sectors << 9;
    if has != capacity >> 9 << 9 {
        return Err(UblkError::Size {
            path: block_path(id),
            has,
            wanted: capacity,
        });
    }
    let copying = info.flags & u64::from(sys::UBLK_F_AUTO_BUF_REG) == 0;
    let mut ours = UblkFlags::UBLK_DEV_F_RECOVER_DEV;
    if copying && info.queue_depth > VIEW_DEPTH {
        ours |= UblkFlags::UBLK_DEV_F_MLOCK_IO_BUFFER;
    }
    let control = UblkCtrlBuilder::default()
        .name("tidemark")
        .id(i32::try_from(id).unwrap_or(i32::MAX))
        .nr_queues(info.nr_hw_queues)
        .depth(info.queue_depth)
        .io_buf_bytes(info.max_io_buf_bytes)
        // The device's own are read back; the library refuses some that a driver sets by itself.
        .ctrl_flags(0)
        .ctrl_target_flags(info.ublksrv_flags)
        .dev_flags(ours)
        .build()
        .map_err(UblkError::driver("opening a device to take it up"))?;
    let failed = |source| UblkError::Driver {
        what: "taking up a device",
        source,
    };
    if !features.forgets_the_dead() {
        mend::make_ready(id, info.nr_hw_queues, info.queue_depth).map_err(failed)?;
    }
    let started = control.start_user_recover();
    match started.map_err(UblkError::driver("taking up a device"))? {
        0.. => Ok(control),
        // After half a minute of trying.
        error => Err(failed(io::Error::from_raw_os_error(-error))),
    }
}

/// A thread for a queue, on the processors that submit to it. Counts itself out of `serving`
/// when it ends.
fn spawn_queue<B: Backend>(
    control: &UblkCtrl,
    device: &Arc<UblkDev>,
    number: u16,
    answerer: Answerer<B>,
    serving: Arc<AtomicU32>,
) -> io::Result<JoinHandle<()>> {
    let device = Arc::clone(device);
    let (tell, told) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(format!("ublk-{}-{number}", device.dev_info.dev_id))
        .spawn(move || {
            let _ = tell.send(UblkCtrl::init_queue_thread());
            if let Err(error) = give_up_administration() {
                tracing::warn!(%error, "the kernel looks for partitions while this device starts");
            }
            if let Err(error) = queue::serve(&device, number, answerer) {
                tracing::error!(number, %error, "a ublk queue ended");
            }
            serving.fetch_sub(1, Ordering::AcqRel);
        })?;
    if let Ok(thread) = told.recv() {
        control.set_thread_affinity(number, thread);
    }
    Ok(thread)
}

/// A driver whose queue is served without this capability does not let the kernel look for
/// partitions. That look is a read by the very call that starts the device: were this process
/// killed then, the call could never end, and with it no device of this process could be taken up.
fn give_up_administration() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_ADMIN);
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}
