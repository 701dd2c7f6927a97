//! `tidemarkd freeze`: freezes mounted file systems, and thaws them whatever becomes of its
//! parent. [`super::freezer`] is the other side.
//!
//! A freeze outlives the process that asked for it, so it must not depend on a control plane
//! that may die or wait for the very file system that it froze. This process opens what it
//! needs, locks itself into memory, and then touches no file system until all are thawed.
//!
//! ```text
//! stdout                                       stdin
//! freezing 0                                   before the first mount point is frozen
//! freezing 1                                   before the second
//! frozen <us>                                  all are; it took so long
//!                                              thaw
//! thawed <us> requested|deadline|eof|signal    held for so long from `frozen` on; exit 0
//! failed <errno> <mount point>                 could not be frozen; none is any more; exit 1
//! stuck <errno> <mount point>                  could not be thawed; exit 1
//! ```
//!
//! Freezing runs in a thread of its own: it may wait for a slow device, while the deadline must
//! be kept for those that are frozen already. The deadline counts from the first of them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        mman::{MlockAllFlags, mlockall},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{pipe, syncfs},
};

use super::ioctl;

/// Longest freeze that may be asked for: past it, hosts start to report hung tasks (120 s).
pub const MAX_DEADLINE: Duration = Duration::from_secs(100);

/// Arguments of `tidemarkd freeze`.
#[derive(Debug, clap::Args)]
pub struct FreezeArgs {
    /// Thaw after this time, whatever happens
    #[arg(long)]
    deadline_ms: u64,
    /// What to freeze, in this order; thawed in reverse
    #[arg(required = true)]
    mount_points: Vec<PathBuf>,
}

/// Why the file systems were thawed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    Requested,
    Deadline,
    Eof,
    Signal,
}

impl Cause {
    fn word(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Deadline => "deadline",
            Self::Eof => "eof",
            Self::Signal => "signal",
        }
    }
}

/// What the freezing thread and the watching one share.
#[derive(Default)]
struct Progress {
    /// The first so many are frozen.
    frozen: usize,
    /// When the first of them was about to be.
    since: Option<Instant>,
    /// The watcher thaws: the freezer freezes no more and thaws what it had under way.
    stopped: bool,
    /// Which one could not be frozen, and why.
    failed: Option<Failure>,
}

/// Runs the role. It says itself how it ended, on stdout and by its exit code.
pub fn run(args: FreezeArgs) -> anyhow::Result<()> {
    let deadline = Duration::from_millis(args.deadline_ms).min(MAX_DEADLINE);
    // Blocked before there is a second thread, which inherits it.
    let signals = block_signals()?;
    let mut files = Vec::with_capacity(args.mount_points.len());
    for point in &args.mount_points {
        match open_mount(point) {
            Ok(file) => files.push(file),
            Err(error) => fail("failed", &error, point),
        }
    }
    protect();
    // Most of a freeze is writing out what is dirty: done first, while nothing is held.
    for file in &files {
        let _ = syncfs(file);
    }
    let mut orders = Orders::open()?;
    let freezing = Freezing::start(files)?;
    match freezing.watch(&mut orders, &signals, deadline) {
        Ok((held, cause)) => say(&format!("thawed {} {}\n", held.as_micros(), cause.word())),
        Err(failure) => {
            let point = args.mount_points.get(failure.index);
            let point = point.map_or(Path::new("?"), PathBuf::as_path);
            fail(failure.verb, &failure.error, point);
        }
    }
    Ok(())
}

/// What went wrong with a file system.
struct Failure {
    /// How it is told.
    verb: &'static str,
    /// The mount point's place among the arguments.
    index: usize,
    error: io::Error,
}

impl Failure {
    fn to_freeze(index: usize, error: io::Error) -> Self {
        let verb = "failed";
        Self { verb, index, error }
    }

    fn to_thaw(index: usize, error: io::Error) -> Self {
        let verb = "stuck";
        Self { verb, index, error }
    }
}

/// The freezing thread, as the watching one sees it.
struct Freezing {
    files: Arc<Vec<File>>,
    progress: Arc<Mutex<Progress>>,
    thread: thread::JoinHandle<()>,
    /// Closed by the thread when it is done.
    done: OwnedFd,
}

impl Freezing {
    fn start(files: Vec<File>) -> io::Result<Self> {
        let files = Arc::new(files);
        let progress = Arc::new(Mutex::new(Progress::default()));
        let (done, sign) = pipe()?;
        let (its_files, its_progress) = (Arc::clone(&files), Arc::clone(&progress));
        let thread = thread::Builder::new().spawn(move || {
            freeze_all(&its_files, &its_progress);
            drop(sign);
        })?;
        Ok(Self {
            files,
            progress,
            thread,
            done,
        })
    }

    /// Waits until all are frozen and then for a reason to thaw; thaws. Gives the time from all
    /// being frozen on.
    fn watch(
        self,
        orders: &mut Orders,
        signals: &SignalFd,
        deadline: Duration,
    ) -> Result<(Duration, Cause), Failure> {
        let started = Instant::now();
        let interrupted = orders.wait(signals, Some(&self.done), started, deadline);
        let frozen_at = Instant::now();
        let (since, next, failed) = {
            let progress = lock(&self.progress);
            let since = progress.since.unwrap_or(started);
            let last = self.files.len().saturating_sub(1);
            (since, progress.frozen.min(last), progress.failed.is_some())
        };
        if interrupted.is_some() || failed {
            self.thaw()?;
            let late = io::Error::from_raw_os_error(libc::ETIMEDOUT);
            return Err(Failure::to_freeze(next, late));
        }
        let took = frozen_at.duration_since(since);
        say(&format!("frozen {}\n", took.as_micros()));
        // Without a second descriptor to wait for, there is always a cause.
        let cause = orders.wait(signals, None, since, deadline);
        self.thaw()?;
        Ok((frozen_at.elapsed(), cause.unwrap_or(Cause::Eof)))
    }

    /// Thaws what is frozen, last one first, and waits for the thread, which thaws what it had
    /// under way. An error is the first that either met with.
    fn thaw(self) -> Result<(), Failure> {
        let frozen = {
            let mut progress = lock(&self.progress);
            progress.stopped = true;
            progress.frozen
        };
        let mut failed = None;
        for (index, file) in self.files.iter().enumerate().take(frozen).rev() {
            if let Err(error) = thaw_if_frozen(file) {
                failed.get_or_insert(Failure::to_thaw(index, error));
            }
        }
        let _ = self.thread.join();
        let failed = failed.or_else(|| lock(&self.progress).failed.take());
        failed.map_or(Ok(()), Err)
    }
}

/// EINVAL says that it is not frozen: someone was before us, which is as well.
pub(super) fn thaw_if_frozen(file: &File) -> io::Result<()> {
    match ioctl::thaw(file) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        answer => answer,
    }
}

/// Freezes one after the other until one fails or the watcher stops it.
fn freeze_all(files: &[File], progress: &Mutex<Progress>) {
    for (index, file) in files.iter().enumerate() {
        {
            let mut progress = lock(progress);
            if progress.stopped {
                return;
            }
            progress.since.get_or_insert_with(Instant::now);
            say(&format!("freezing {index}\n"));
        }
        let answer = ioctl::freeze(file);
        let mut progress = lock(progress);
        match answer {
            Ok(()) if progress.stopped => {
                if let Err(error) = thaw_if_frozen(file) {
                    progress.failed = Some(Failure::to_thaw(index, error));
                }
                return;
            }
            Ok(()) => progress.frozen = index + 1,
            Err(error) => {
                progress.failed = Some(Failure::to_freeze(index, error));
                return;
            }
        }
    }
}

/// What comes in on stdin.
struct Orders {
    /// Without the buffer of std's, which may hold what `poll` then does not see.
    input: File,
    line: Vec<u8>,
}

impl Orders {
    fn open() -> io::Result<Self> {
        Ok(Self {
            input: File::from(io::stdin().as_fd().try_clone_to_owned()?),
            line: Vec::new(),
        })
    }

    /// Waits for a reason to thaw; `None` when `done` was closed first.
    fn wait(
        &mut self,
        signals: &SignalFd,
        done: Option<&OwnedFd>,
        since: Instant,
        deadline: Duration,
    ) -> Option<Cause> {
        loop {
            let Some(left) = deadline.checked_sub(since.elapsed()) else {
                return Some(Cause::Deadline);
            };
            // One more, lest the last fraction of a millisecond be spent spinning.
            let left = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            let mut fds = vec![
                PollFd::new(self.input.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(done.map(|done| PollFd::new(done.as_fd(), PollFlags::POLLIN)));
            if poll(&mut fds, PollTimeout::from(left)).is_err() {
                continue;
            }
            let mut ready = [false; 3];
            for (ready, fd) in ready.iter_mut().zip(&fds) {
                *ready = fd.any().unwrap_or(true);
            }
            let [input, signal, done] = ready;
            if input && let Some(cause) = self.read() {
                return Some(cause);
            }
            if signal {
                return Some(Cause::Signal);
            }
            if done {
                return None;
            }
        }
    }

    /// Takes in what is there.
    fn read(&mut self) -> Option<Cause> {
        let mut bytes = [0; 64];
        match self.input.read(&mut bytes) {
            Ok(0) => Some(Cause::Eof),
            Ok(count) => {
                self.line.extend(bytes.iter().take(count));
                let mut lines = self.line.split(|byte| *byte == b'\n');
                let rest = lines.next_back().unwrap_or_default().to_vec();
                let thaw = lines.any(|line| line == b"thaw");
                self.line = rest;
                // No order is longer.
                self.line.truncate(bytes.len());
                thaw.then_some(Cause::Requested)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_) => Some(Cause::Eof),
        }
    }
}

/// Opens something on the file system to be frozen; a FIFO there would not hold us up.
pub(super) fn open_mount(point: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(point)
}

/// The signals that would end us are read from a descriptor instead.
fn block_signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        mask.add(signal);
    }
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Best effort: no page of ours is fetched from a frozen file system or dropped, and others are
/// killed first when memory runs out.
fn protect() {
    let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line at once; a parent that is gone is found out elsewhere.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(line.as_bytes());
    let _ = stdout.flush();
}

/// The last word of a freeze that failed.
fn fail(verb: &str, error: &io::Error, point: &Path) -> ! {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    let mut line = format!("{verb} {errno} ").into_bytes();
    line.extend_from_slice(point.as_os_str().as_bytes());
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(&line);
    let _ = stdout.flush();
    std::process::exit(1);
}
