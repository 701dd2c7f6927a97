//! Running a program within a bound: what it prints is read, and it is ended when it takes too long.

use std::{
    io::{self, Read},
    process::{Child, ExitStatus},
    sync::mpsc::{self, Receiver},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// How long one that is told to end may take to put things right, and a pipe may stay open after
/// its program's end.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(10);

/// Reads a pipe beside the program, so that it never waits for a reader.
pub(crate) fn collect<P: Read + Send + 'static, T: Send + 'static>(
    pipe: P,
    read: impl FnOnce(P) -> T + Send + 'static,
) -> Receiver<T> {
    let (done, collected) = mpsc::sync_channel(1);
    thread::spawn(move || done.send(read(pipe)));
    collected
}

/// What a program printed that has ended. A process that it left behind may have the pipe still:
/// then nothing.
pub(crate) fn collected<T>(collected: Option<Receiver<T>>) -> Option<T> {
    collected.and_then(|collected| collected.recv_timeout(GRACE).ok())
}

/// Waits for its end. Nothing: it has not ended in time, and [`end`] is the next to be called.
pub(crate) fn wait(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    let until = Instant::now() + within;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() >= until => return Ok(None),
            None => sleep(STEP),
        }
    }
}

/// Asks it to end, with all that it started, since it may be in the middle of a change; then makes
/// them. It must be in a process group of its own.
pub(crate) fn end(mut child: Child) {
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    let tell = |signal| {
        // They may have ended just now.
        let _ = group.map(|group| killpg(group, signal));
    };
    tell(Signal::SIGTERM);
    let ended = wait(&mut child, GRACE);
    tell(Signal::SIGKILL);
    if !matches!(ended, Ok(Some(_))) {
        // One that hangs in the kernel is left to a thread that waits for it.
        thread::spawn(move || child.wait());
    }
}
