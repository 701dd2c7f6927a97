//! What every command is given: where the daemon is, how to talk, when to stop.

use std::path::PathBuf;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{client::Client, exit::Fault, output::Output};

/// Tells how often SIGINT or SIGTERM came. Clones share the news.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    seen: watch::Receiver<u32>,
}

impl Interrupt {
    /// Listens for signals from now on.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let (tell, seen) = watch::channel(0);
        let mut int = signal(SignalKind::interrupt())?;
        let mut term = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            loop {
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                tell.send_modify(|times: &mut u32| *times = times.saturating_add(1));
            }
        });
        Ok(Self { seen })
    }

    /// One that never comes, and the means to make it come.
    #[cfg(test)]
    pub(crate) fn manual() -> (watch::Sender<u32>, Self) {
        let (tell, seen) = watch::channel(0);
        (tell, Self { seen })
    }

    /// Whether the signal came.
    pub(crate) fn is_set(&self) -> bool {
        *self.seen.borrow() > 0
    }

    /// Returns when the signal comes.
    pub(crate) async fn wait(&self) {
        self.wait_for(1).await;
    }

    /// Returns when it has come so many times.
    pub(crate) async fn wait_for(&self, times: u32) {
        let mut seen = self.seen.clone();
        if seen.wait_for(|seen| *seen >= times).await.is_err() {
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
