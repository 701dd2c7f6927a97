//! What the data plane asks of the kernel for itself: to live on its own, to be killed last, never
//! to wait for memory that only it can free.

use std::{fs, io};

use nix::{
    errno::Errno,
    sys::{
        mman::{MlockAllFlags, mlockall},
        signal::{SigSet, SigmaskHow, Signal, pthread_sigmask},
        stat::{Mode, umask},
    },
    unistd::setsid,
};

/// Killed last: without this process the host's file systems on the volume fail.
const OOM_SCORE: &str = "-999";

/// From linux/prctl.h, since Linux 5.6.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Detaches from the parent, so that the control plane may die or be upgraded, and hardens what
/// can be hardened; what the host refuses is logged and done without. Called before any other
/// thread exists, which inherit all of it.
pub(super) fn settle() {
    die_whole();
    umask(Mode::from_bits_truncate(0o077));
    match setsid() {
        // EPERM: a session of its own already.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => {
            tracing::warn!(%error, "no session of its own; a signal to the parent's group ends this server")
        }
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        tracing::warn!(%error, "the kernel may kill this server when memory runs out");
    }
    if let Err(error) = become_io_flusher() {
        tracing::warn!(%error, "not an I/O flusher: freeing memory may wait for this server and it for memory");
    }
}

/// A panic ends the process and not only its thread, however this was built: a server that lost
/// a queue would leave the host's requests waiting, and a dead one is taken up by the next.
fn die_whole() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

/// Keeps what is in memory there: paging it in could need the very volume served here. Called
/// when everything is open, so that a failure to lock fails no allocation.
///
/// Programs and libraries are read whole first: an error's path, run for the first time when
/// memory is short, must not be fetched from the volume that waits for it. The change maps are
/// not: they are large, empty for the most part, and in memory anyway.
pub(super) fn lock_memory() {
    if let Err(error) = lock_code() {
        tracing::warn!(%error, "the program is not locked in memory: raise the memlock limit, or keep it off the volume");
    }
    let flags = MlockAllFlags::MCL_CURRENT
        | MlockAllFlags::MCL_FUTURE
        | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    if let Err(error) = mlockall(flags) {
        tracing::warn!(%error, "memory is not locked: raise the memlock limit, or keep swap off the volume");
    }
}

/// Reads and locks every private mapping of a file.
fn lock_code() -> io::Result<()> {
    for (start, end) in code(&fs::read_to_string("/proc/self/maps")?) {
        // SAFETY: locking changes no byte and no mapping; a range that is gone meanwhile is an error.
        let locked = unsafe { libc::mlock(start as *const libc::c_void, end - start) };
        Errno::result(locked)?;
    }
    Ok(())
}

/// The ranges of private mappings of files, from the kernel's table (proc_pid_maps(5)). A library's
/// reserved gaps, without any right, hold nothing.
fn code(maps: &str) -> Vec<(usize, usize)> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let rights = words.next()?;
        let path = words.nth(3)?;
        let wanted = path.starts_with('/') && rights.starts_with('r') && rights.ends_with('p');
        let number = |text| usize::from_str_radix(text, 16).ok();
        wanted.then_some((number(start)?, number(end)?))
    };
    maps.lines().filter_map(parse).collect()
}

fn become_io_flusher() -> io::Result<()> {
    // SAFETY: a plain setting of the calling thread; the three unused arguments must be zero.
    let done = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    Errno::result(done).map(drop).map_err(io::Error::from)
}

/// Signals that ask the server to stop.
#[derive(Clone, Copy)]
pub(super) struct StopSignals(SigSet);

impl StopSignals {
    /// Keeps SIGTERM and SIGINT for [`StopSignals::wait`], in this thread and all that it starts.
    pub(super) fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        Ok(Self(set))
    }

    /// Waits for one.
    pub(super) fn wait(&self) -> io::Result<Signal> {
        Ok(self.0.wait()?)
    }
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn only_private_mappings_of_files_are_code() {
        let maps = "\
5500-5600 r-xp 00001000 fe:00 12 /usr/bin/tidemarkd
5600-5700 ---p 00002000 fe:00 12 /usr/lib/libc.so.6
5700-5800 rw-p 00002000 fe:00 12 /usr/lib/libc.so.6
5800-5900 rw-s 00000000 00:19 13 /run/tidemark/volumes/a/state
5900-5a00 rw-p 00000000 00:00 0
5a00-5b00 rw-p 00000000 00:00 0 [heap]
";
        assert_eq!(code(maps), [(0x5500, 0x5600), (0x5700, 0x5800)]);
        let ours = std::fs::read_to_string("/proc/self/maps").unwrap();
        let here = only_private_mappings_of_files_are_code as *const () as usize;
        let mut code = code(&ours).into_iter();
        assert!(code.any(|(start, end)| (start..end).contains(&here)));
    }
}
