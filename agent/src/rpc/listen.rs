//! The public socket: one control plane a runtime directory, and who is at the other end.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt, chown},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
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

/// Listens. A socket that is left over is replaced, one that is answered is not.
///
/// It is made under another name and moved into place when its mode is right, so nobody ever
/// finds it open to all.
pub(super) fn bind(path: &Path, group: Option<Gid>) -> anyhow::Result<UnixListener> {
    if StdUnixStream::connect(path).is_ok() {
        bail!("somebody else listens at {}", path.display());
    }
    let new = with_suffix(path, ".new");
    let make = || -> io::Result<UnixListener> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        if let Some(group) = group {
            chown(&new, None, Some(group.as_raw()))?;
        }
        fs::rename(&new, path)?;
        Ok(listener)
    };
    make().with_context(|| format!("socket {}", path.display()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
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
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn a_leftover_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = bind(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(bind(&path, None).is_err());
        drop(listener);
        bind(&path, Some(Gid::current())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    }

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
