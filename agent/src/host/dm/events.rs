//! Waiting until any device-mapper device changes: made, removed, given another table.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    DmError,
    ioctl::{Command, Message},
};

/// Becomes readable when something changes in device-mapper, whoever does it.
///
/// A hint to look, and not what happened: other volumes' changes wake it too.
#[derive(Debug)]
pub struct Watch {
    file: File,
}

impl Watch {
    /// Watches from now on.
    pub fn new() -> Result<Self, DmError> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/mapper/control")
            .map_err(DmError::Control)?;
        let watch = Self { file };
        watch.arm()?;
        Ok(watch)
    }

    /// Forgets what has happened; to be called before each look, so that what changes after the
    /// look wakes us again.
    pub fn arm(&self) -> Result<(), DmError> {
        let mut message = Message::new(0);
        message
            .send(&self.file, Command::ArmPoll)
            .map_err(|source| DmError::Call {
                call: Command::ArmPoll.word(),
                device: "all devices".to_owned(),
                source,
            })
    }

    /// Waits for a change, but no longer than `limit`. Gives whether there was one.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
