//! The public socket: one control plane a runtime directory, and who is at the other end.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::Gid,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

use super::auth::{self, PeerStream};
use crate::host::socket;

/// Connections that were accepted and not yet taken up.
const ACCEPTED: usize = 16;

/// The right to be the control plane of a runtime directory; the kernel gives it up with us.
#[derive(Debug)]
pub(super) struct Claim(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

/// Refuses a second control plane on the same runtime directory.
pub(super) fn claim(runtime_dir: &Path) -> anyhow::Result<Claim> {
    fs::create_dir_all(runtime_dir)
        .with_context(|| format!("directory {}", runtime_dir.display()))?;
    let path = runtime_dir.join("serve.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("lock file {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Claim(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!(
            "another tidemarkd serves {}; stop it first, or take another runtime directory",
            runtime_dir.display()
        ),
        Err((_, errno)) => Err(errno).with_context(|| format!("lock file {}", path.display())),
    }
}

/// Listens at the public socket.
pub(super) fn bind(path: &Path, group: Option<Gid>) -> anyhow::Result<UnixListener> {
    socket::listen(path, group)
        .and_then(UnixListener::from_std)
        .with_context(|| format!("socket {}", path.display()))
}

/// Accepts connections and finds out whose they are, each in its own time.
pub(super) fn incoming(
    listener: UnixListener,
    group: Option<Gid>,
) -> ReceiverStream<io::Result<PeerStream>> {
    let (sender, receiver) = mpsc::channel(ACCEPTED);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(introduce(stream, group, sender.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: the next attempt would fail at once.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn introduce(
    stream: UnixStream,
    group: Option<Gid>,
    to: mpsc::Sender<io::Result<PeerStream>>,
) {
    let Ok(credentials) = stream.peer_cred() else {
        return;
    };
    let (uid, gid) = (credentials.uid(), credentials.gid());
    let found = tokio::task::spawn_blocking(move || auth::peer(uid, gid, group)).await;
    if let Ok(peer) = found {
        // The server is stopping when nobody receives.
        let _ = to.send(Ok(PeerStream { stream, peer })).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_directory_has_one_control_plane() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path()).unwrap();
        let error = claim(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another tidemarkd"), "{error}");
        drop(first);
        claim(dir.path()).unwrap();
    }
}
