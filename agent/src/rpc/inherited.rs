//! Socket activation (sd_listen_fds(3)). Here for its `unsafe`: a number in the environment becomes
//! a descriptor that is owned.

use std::os::unix::{io::FromRawFd, net::UnixListener as StdUnixListener};

use anyhow::{Context, bail};
use tokio::net::UnixListener;

/// The socket that systemd listens on for us, if it does; its mode and group are the unit's.
pub(super) fn socket() -> anyhow::Result<Option<UnixListener>> {
    let mut sockets = sd_notify::listen_fds().context("what systemd passed on")?;
    let Some(socket) = sockets.next() else {
        return Ok(None);
    };
    if sockets.next().is_some() {
        bail!("systemd passed more than one socket: tidemarkd.socket has one ListenStream=");
    }
    // SAFETY: the descriptor was passed to this process to be owned by it, and is taken here alone.
    let listener = unsafe { StdUnixListener::from_raw_fd(socket) };
    let ours = || {
        listener.local_addr()?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    };
    ours().map(Some).context("the socket that systemd passed")
}
