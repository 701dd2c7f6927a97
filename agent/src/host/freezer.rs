//! Freezes file systems through a helper process, and thaws them even when that is killed.
//!
//! ```text
//! Freezer::start ── helper says frozen ──> Frozen ── thaw() or drop ──> helper thaws, ends
//!      │                                     │
//!      │ helper says failed: it thawed       │ helper died, or hangs past its deadline:
//!      └──> FreezeError                      └──> we thaw by our own descriptors
//! ```
//!
//! Everything here blocks: call it where blocking is allowed.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{ffi::OsStringExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::freeze::{self, thaw_if_frozen};

/// How long past its deadline the helper is trusted to be about to thaw.
const GRACE: Duration = Duration::from_secs(2);
/// How often a killed helper is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The helper first writes out what is dirty, which holds nobody up: this bounds it.
const SYNC_TIME: Duration = Duration::from_secs(120);

/// File systems could not be frozen; none is frozen by us now.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The mount point cannot be opened.
    #[error("{mount_point} cannot be opened to freeze it: {source}")]
    Open {
        /// Which.
        mount_point: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone else froze it.
    #[error(
        "{mount_point} is frozen already, by someone else; thaw it with fsfreeze -u {mount_point}"
    )]
    AlreadyFrozen {
        /// Which.
        mount_point: PathBuf,
    },
    /// Freezing took longer than the freeze may last.
    #[error("freezing {mount_point} was not done in time")]
    TimedOut {
        /// Which.
        mount_point: PathBuf,
    },
    /// The kernel refused.
    #[error("{mount_point} cannot be frozen: {source}")]
    Refused {
        /// Which.
        mount_point: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The helper could not be started.
    #[error("the freeze helper {exe} cannot be started: {source}")]
    Start {
        /// The program.
        exe: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The helper ended without a word; what it may have frozen was thawed.
    #[error("the freeze helper ended before all was frozen")]
    HelperDied,
    /// It failed, and undoing it failed as well.
    #[error(transparent)]
    Stuck(#[from] ThawError),
}

/// A file system may still be frozen.
#[derive(Debug, thiserror::Error)]
pub enum ThawError {
    /// The kernel refused.
    #[error(
        "{mount_point} cannot be thawed: {source}; run fsfreeze -u {mount_point} at once, \
         every writer there waits"
    )]
    Refused {
        /// Which.
        mount_point: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why file systems were thawed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThawCause {
    /// [`Frozen::thaw`] asked for it: they were frozen until then.
    Requested,
    /// They had been frozen for as long as they may be.
    Deadline,
    /// The helper was told to end, or was killed: when they were thawed is not known.
    Helper,
}

/// How a freeze ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thawed {
    /// From all being frozen to all being thawed.
    pub frozen_for: Duration,
    /// Why it ended.
    pub cause: ThawCause,
}

impl Thawed {
    /// Whether everything was frozen until it was asked to be thawed: what was cut before
    /// that is consistent.
    pub fn held(&self) -> bool {
        self.cause == ThawCause::Requested
    }
}

/// Starts freezes.
#[derive(Debug)]
pub struct Freezer;

impl Freezer {
    /// Freezes the file systems at `mount_points` in their order, by running `exe freeze`. They
    /// are thawed when the guard says so or is dropped, and `deadline` after the first of them
    /// froze at the latest.
    ///
    /// A file system must be named once only: see
    /// [`MountTable::file_systems_on`](super::mounts::MountTable::file_systems_on).
    pub fn start(
        exe: &Path,
        mount_points: &[PathBuf],
        deadline: Duration,
    ) -> Result<Frozen, FreezeError> {
        let deadline = deadline.min(freeze::MAX_DEADLINE);
        let mut files = Vec::with_capacity(mount_points.len());
        for point in mount_points {
            files.push((point.clone(), open(point)?));
        }
        if files.is_empty() {
            return Ok(Frozen::nothing());
        }
        let mut helper = Helper::start(exe, deadline, files)?;
        match helper.await_frozen(deadline) {
            Some(Word::Frozen(took)) => Ok(Frozen {
                helper: Some(helper),
                took,
                since: Instant::now(),
                until: Instant::now() + deadline,
            }),
            Some(Word::Failed(errno, mount_point)) => {
                helper.end();
                Err(failure(errno, mount_point))
            }
            _ => {
                helper.rescue()?;
                Err(FreezeError::HelperDied)
            }
        }
    }
}

/// File systems that are frozen; dropping it thaws them.
#[derive(Debug)]
pub struct Frozen {
    /// None when there was nothing to freeze, or all is thawed.
    helper: Option<Helper>,
    took: Duration,
    since: Instant,
    until: Instant,
}

impl Frozen {
    fn nothing() -> Self {
        Self {
            helper: None,
            took: Duration::ZERO,
            since: Instant::now(),
            until: Instant::now(),
        }
    }

    /// How long it took until all were frozen, from the first on.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Thaws, and tells for how long everything was frozen.
    pub fn thaw(mut self) -> Result<Thawed, ThawError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<Thawed, ThawError> {
        let Some(mut helper) = self.helper.take() else {
            return Ok(Thawed {
                frozen_for: Duration::ZERO,
                cause: ThawCause::Requested,
            });
        };
        helper.order_thaw();
        if let Some(thawed) = helper.await_thawed(self.until + GRACE) {
            helper.end();
            return Ok(thawed);
        }
        helper.rescue()?;
        Ok(Thawed {
            frozen_for: self.since.elapsed(),
            cause: ThawCause::Helper,
        })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!("{error}");
        }
    }
}

/// A line of the helper's.
#[derive(Debug)]
enum Word {
    Freezing(usize),
    Frozen(Duration),
    Thawed(Thawed),
    Failed(i32, PathBuf),
    Stuck,
}

impl Word {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(3, |byte| *byte == b' ');
        let verb = fields.next()?;
        let number = std::str::from_utf8(fields.next()?).ok()?;
        match verb {
            b"freezing" => Some(Self::Freezing(number.parse().ok()?)),
            b"frozen" => Some(Self::Frozen(Duration::from_micros(number.parse().ok()?))),
            b"thawed" => Some(Self::Thawed(Thawed {
                frozen_for: Duration::from_micros(number.parse().ok()?),
                cause: match fields.next()? {
                    b"requested" => ThawCause::Requested,
                    b"deadline" => ThawCause::Deadline,
                    _ => ThawCause::Helper,
                },
            })),
            b"failed" => Some(Self::Failed(
                number.parse().ok()?,
                PathBuf::from(OsString::from_vec(fields.next()?.to_vec())),
            )),
            b"stuck" => Some(Self::Stuck),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Helper {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// What was read and is no whole line yet.
    partial: Vec<u8>,
    /// Our own way to thaw each mount point.
    files: Vec<(PathBuf, File)>,
    /// The helper began to freeze the first so many: no other may be ours to thaw.
    reached: usize,
}

impl Helper {
    fn start(
        exe: &Path,
        deadline: Duration,
        files: Vec<(PathBuf, File)>,
    ) -> Result<Self, FreezeError> {
        let failed = |source| FreezeError::Start {
            exe: exe.to_owned(),
            source,
        };
        let mut child = Command::new(exe)
            .arg("freeze")
            .arg("--deadline-ms")
            .arg(deadline.as_millis().to_string())
            .arg("--")
            .args(files.iter().map(|(point, _)| point))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A log may be on what is frozen.
            .stderr(Stdio::null())
            .current_dir("/")
            // A terminal's interrupt is for us to act upon.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::Error::other("it has no pipes")));
        };
        Ok(Self {
            child,
            stdin: Some(stdin),
            stdout,
            partial: Vec::new(),
            files,
            reached: 0,
        })
    }

    /// The helper's word once it is through with freezing; `None` when it ended or is late.
    fn await_frozen(&mut self, deadline: Duration) -> Option<Word> {
        let mut until = Instant::now() + SYNC_TIME;
        loop {
            match self.next_word(until)? {
                Word::Freezing(index) => {
                    if index == 0 {
                        until = Instant::now() + deadline + GRACE;
                    }
                    self.reached = index.saturating_add(1);
                }
                word => return Some(word),
            }
        }
    }

    fn order_thaw(&mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            // A helper that is gone is noticed by what it does not say.
            let _ = stdin.write_all(b"thaw\n");
        }
    }

    fn await_thawed(&mut self, until: Instant) -> Option<Thawed> {
        match self.next_word(until)? {
            Word::Thawed(thawed) => Some(thawed),
            // When it could not thaw one of them, we try.
            Word::Stuck | Word::Failed(..) | Word::Freezing(_) | Word::Frozen(_) => None,
        }
    }

    /// The next line; `None` when the helper closed its end, or nothing came until `until`.
    fn next_word(&mut self, until: Instant) -> Option<Word> {
        loop {
            if let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                return Word::parse(line.trim_ascii_end());
            }
            let left = until.saturating_duration_since(Instant::now());
            let left = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            let mut fds = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(left)) {
                Err(nix::Error::EINTR) => continue,
                Ok(0) if Instant::now() < until => continue,
                Ok(0) | Err(_) => return None,
                Ok(_) => (),
            }
            let mut bytes = [0; 256];
            match self.stdout.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.partial.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(_) => return None,
            }
        }
    }

    /// Waits for the helper, which said its last word, to end.
    fn end(mut self) {
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Does the helper's work: it ended or hangs with file systems frozen.
    fn rescue(mut self) -> Result<(), ThawError> {
        self.stdin = None;
        let _ = self.child.kill();
        // Thawed before it is waited for: it may hang in one of them. And again after, since a
        // freeze that was under way may have gone through.
        let thawed = self.thaw();
        let until = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= until {
                // It hangs in the kernel. Whenever it comes out of it, someone is there.
                std::thread::spawn(move || {
                    let _ = self.child.wait();
                    self.last_words();
                    let _ = self.thaw();
                });
                return thawed;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        self.last_words();
        self.thaw()
    }

    /// Takes in what a dead helper said before it died.
    fn last_words(&mut self) {
        while let Some(word) = self.next_word(Instant::now()) {
            if let Word::Freezing(index) = word {
                self.reached = index.saturating_add(1);
            }
        }
    }

    fn thaw(&self) -> Result<(), ThawError> {
        let mut answer = Ok(());
        for (mount_point, file) in self.files.iter().take(self.reached).rev() {
            if let Err(source) = thaw_if_frozen(file) {
                answer = Err(ThawError::Refused {
                    mount_point: mount_point.clone(),
                    source,
                });
            }
        }
        answer
    }
}

fn open(mount_point: &Path) -> Result<File, FreezeError> {
    freeze::open_mount(mount_point).map_err(|source| FreezeError::Open {
        mount_point: mount_point.to_owned(),
        source,
    })
}

fn failure(errno: i32, mount_point: PathBuf) -> FreezeError {
    match errno {
        libc::EBUSY => FreezeError::AlreadyFrozen { mount_point },
        libc::ETIMEDOUT => FreezeError::TimedOut { mount_point },
        _ => FreezeError::Refused {
            mount_point,
            source: io::Error::from_raw_os_error(errno),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_helpers_words_are_understood() {
        assert!(matches!(
            Word::parse(b"freezing 3"),
            Some(Word::Freezing(3))
        ));
        let frozen = Word::parse(b"frozen 1500");
        assert!(matches!(frozen, Some(Word::Frozen(took)) if took.as_micros() == 1500));
        let failed = Word::parse(b"failed 16 /mnt/a b");
        assert!(matches!(failed, Some(Word::Failed(16, at)) if at == Path::new("/mnt/a b")));
        let causes = [
            ("requested", ThawCause::Requested),
            ("deadline", ThawCause::Deadline),
            ("eof", ThawCause::Helper),
            ("signal", ThawCause::Helper),
        ];
        for (word, cause) in causes {
            let line = format!("thawed 7 {word}");
            let thawed = Word::parse(line.as_bytes());
            assert!(matches!(thawed, Some(Word::Thawed(t)) if t.cause == cause));
        }
        for line in [
            "",
            "thawed",
            "thawed x eof",
            "frozen -1",
            "failed 16",
            "hello 1",
        ] {
            assert!(Word::parse(line.as_bytes()).is_none(), "{line}");
        }
    }
}
