//! The private socket: a thread for each connection, and not too many of them.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tidemark_proto::private::{FailureKind, Reply, Request, reply::Result as Answer};

use super::{
    calls::{Answered, Session},
    served::{Served, failure},
    wire::{self, WireError},
};

/// Most connections at once: the control plane needs three (calls, waits, a group's cut), its
/// successor during an upgrade as many, an operator's tool one.
const MAX_CONNECTIONS: usize = 16;

/// How long to wait when the process has no descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Counts a connection for as long as it lives.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(taken));
        (taken.fetch_add(1, Ordering::AcqRel) < MAX_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Binds the socket, in place of one that a dead server left. Only the owner may connect.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The process's umask keeps others out before the mode does.
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts connections for as long as the process lives.
pub(super) fn accept(listener: &UnixListener, served: &Arc<Served>) {
    let taken = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let Some(place) = Place::take(&taken) else {
            turn_away(
                stream,
                "this server has as many connections as it takes: close one",
            );
            continue;
        };
        let served = Arc::clone(served);
        let spawned = thread::Builder::new()
            .name("connection".to_owned())
            .spawn(move || {
                let _place = place;
                if let Err(error) = converse(stream, served) {
                    tracing::warn!(%error, "a connection of the private protocol ended");
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a connection");
        }
    }
}

fn turn_away(mut stream: UnixStream, message: &str) {
    let reply = Reply {
        result: Some(Answer::Failure(failure(FailureKind::Limit, message))),
    };
    // Whoever is turned away may be gone already.
    drop(wire::write(&mut stream, &reply));
}

/// Answers requests in order until the other side closes, or breaks the protocol.
fn converse(mut stream: UnixStream, served: Arc<Served>) -> Result<(), WireError> {
    let peer = getsockopt(&stream, PeerCredentials).map_err(io::Error::from)?;
    if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied).into());
    }
    let mut session = Session::new(served);
    while let Some(request) = wire::read::<Request>(&mut stream)? {
        let Answered { reply, last, told } = session.answer(request);
        send(&mut stream, &reply)?;
        drop(told);
        if last {
            break;
        }
    }
    Ok(())
}

/// An answer that outgrows a message becomes the failure that says so.
fn send(stream: &mut UnixStream, reply: &Reply) -> Result<(), WireError> {
    match wire::write(stream, reply) {
        Err(WireError::TooLong) => {
            let message = "the answer is longer than a message: ask for less at once";
            let result = Some(Answer::Failure(failure(FailureKind::Limit, message)));
            wire::write(stream, &Reply { result })
        }
        sent => sent,
    }
}
