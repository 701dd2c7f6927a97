//! A socket before the daemon's whose first connections are cut.

use std::{
    io::{self, Read},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Passes on what both sides say, until the test's process ends.
pub(crate) struct Proxy {
    socket: PathBuf,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    /// At `socket`, before `behind`. The first connections end after so many bytes of answers each.
    pub(crate) fn start(socket: PathBuf, behind: &Path, cuts: &'static [u64]) -> Self {
        let listener = UnixListener::bind(&socket).expect("a socket can be made");
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, behind) = (connections.clone(), behind.to_owned());
        thread::spawn(move || {
            for front in listener.incoming() {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let most = cuts.get(number).copied().unwrap_or(u64::MAX);
                let front = front.expect("a connection");
                let back = UnixStream::connect(&behind).expect("the daemon listens");
                thread::spawn(move || pass_on(&front, &back, most));
            }
        });
        Self {
            socket,
            connections,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// What cannot be passed on has nobody who waits for it.
fn pass_on(front: &UnixStream, back: &UnixStream, most: u64) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*front, &mut &*back);
            let _ = back.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut back.take(most), &mut &*front);
        let _ = front.shutdown(Shutdown::Both);
        let _ = back.shutdown(Shutdown::Both);
    });
}
