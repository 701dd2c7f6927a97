//! What every command is given: where the daemon is, how to talk, when to stop.

use std::path::PathBuf;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{client::Client, exit::Fault, output::Output};

/// Tells that SIGINT or SIGTERM came. Clones share the news.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    seen: watch::Receiver<bool>,
}

impl Interrupt {
    /// Listens for signals from now on; a second one ends the process at once.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (tell, seen) = watch::channel(false);
        let mut int = signal(SignalKind::interrupt())?;
        let mut term = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            loop {
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                tell.send_replace(true);
            }
        });
        Ok(Self { seen })
    }

    /// One that never comes, and the means to make it come.
    #[cfg(test)]
    pub(crate) fn manual() -> (watch::Sender<bool>, Self) {
        let (tell, seen) = watch::channel(false);
        (tell, Self { seen })
    }

    /// Whether the signal came.
    pub(crate) fn is_set(&self) -> bool {
        *self.seen.borrow()
    }

    /// Returns when the signal comes.
    pub(crate) async fn wait(&self) {
        let mut seen = self.seen.clone();
        if seen.wait_for(|set| *set).await.is_err() {
            // Nobody is left to tell: it will never come.
            std::future::pending::<()>().await;
        }
    }

    /// Runs `work` unless the signal comes first; `work` is dropped then.
    pub(crate) async fn guard<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            () = self.wait() => Err(Fault::interrupted().into()),
            result = work => result,
        }
    }
}

/// The surroundings of a command.
#[derive(Debug)]
pub(crate) struct Context {
    /// The daemon's socket.
    pub(crate) socket: PathBuf,
    /// How to talk.
    pub(crate) out: Output,
    /// When to stop.
    pub(crate) interrupt: Interrupt,
}

impl Context {
    /// Connects to the daemon.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.socket).await
    }
}
