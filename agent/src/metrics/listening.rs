//! Where metrics are served: always at a UNIX socket, and at a loopback address when the configuration says
//! so. What cannot be listened on is told, and the agent goes on without it.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};

use super::{Metrics, http};
use crate::host::socket;

/// What is listened on.
#[derive(Default)]
pub(super) struct Listening {
    socket: Option<Served>,
    address: Option<(SocketAddr, Served)>,
}

/// A listener's task, which ends with this.
struct Served(JoinHandle<()>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Served {
    /// Returns when nobody listens any more.
    async fn end(mut self) {
        self.0.abort();
        // It ends cancelled, or had ended.
        let _ = (&mut self.0).await;
    }
}

/// What became of listening: a sentence for each thing.
#[derive(Default, Debug)]
pub struct Listened {
    /// Done now.
    pub done: Vec<String>,
    /// Not done, and why.
    pub failed: Vec<String>,
}

impl Metrics {
    /// Listens at the socket, and at `address` or at none; what is listened on stays.
    pub async fn listen(self: &Arc<Self>, address: Option<SocketAddr>) -> Listened {
        let mut listening = self.listening.lock().await;
        let mut listened = Listened::default();
        if listening.socket.is_none() {
            self.listen_at_socket(&mut listening, &mut listened);
        }
        let stale = |(served, _): &mut (SocketAddr, Served)| Some(*served) != address;
        if let Some((at, served)) = listening.address.take_if(stale) {
            served.end().await;
            listened
                .done
                .push(format!("metrics are no longer served at {at}"));
        }
        if let Some(address) = address.filter(|_| listening.address.is_none()) {
            self.listen_at(address, &mut listening, &mut listened).await;
        }
        listened
    }

    fn listen_at_socket(self: &Arc<Self>, listening: &mut Listening, listened: &mut Listened) {
        let path = self.manager.paths().metrics_socket();
        match socket::listen(&path, self.group).and_then(UnixListener::from_std) {
            Ok(listener) => listening.socket = Some(self.served(listener)),
            Err(error) => listened.failed.push(format!(
                "metrics are not served at {}: {error}; remove what is in the way, then `tidemark config reload`",
                path.display()
            )),
        }
    }

    async fn listen_at(
        self: &Arc<Self>,
        address: SocketAddr,
        listening: &mut Listening,
        listened: &mut Listened,
    ) {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                listening.address = Some((address, self.served(listener)));
                listened.done.push(format!("metrics are served at {address} now"));
            }
            Err(error) => listened.failed.push(format!(
                "metrics are not served at {address}: {error}; free the port or choose another in [daemon], then \
                 `tidemark config reload`"
            )),
        }
    }

    fn served(self: &Arc<Self>, listener: impl http::Listen) -> Served {
        Served(tokio::spawn(http::serve(listener, Arc::clone(self))))
    }
}
