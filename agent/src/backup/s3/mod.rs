//! Repositories in the bucket of an object service that speaks S3.
//!
//! An object is put in one request with `If-None-Match: *`. The service takes it whole or not at all, by
//! the hash in its signature, and refuses it where the name is taken; [`S3::open`] sees whether it does.
//! When the answer to a put is lost it is put again, and if then the name is taken, what is there is read
//! and compared: FORMAT.md gives each object a random part or its own hash as its name, so the same bytes
//! are ours.
//!
//! Not in parts: packs have 16 MiB and several are under way at a time, which fills a line as well; a put
//! that is cut costs one pack; what was put in parts is stamped with the time when it was begun, which the
//! rules for many hosts must not rely on; and nothing half done stays that is paid for.
//!
//! Each request is tried again by one policy ([`Patience`]), signed anew; an object that was cut is read
//! on from where it was. The library's own retries are off: they keep a signature until it is too old, and
//! take a put whose answer was lost for somebody else's.
//!
//! The clock is the service's: an object is put, its time is read, and it is deleted. Where it may not be
//! deleted it stays under `tmp/`; whoever prunes clears that away.

mod client;
mod credentials;
mod error;
mod fault;
mod place;
mod settings;
#[cfg(test)]
mod tests;
mod tries;
mod wire;

use std::{
    future::Future,
    io::{self, ErrorKind},
    sync::{Arc, mpsc},
};

use tidemark_store::repository::backend::{Backend, Listed, StorageTime};
use tokio::runtime::{Builder, Runtime};

use client::{Client, Want};
pub use credentials::{AccessKey, Credentials};
pub use error::SettingsError;
use fault::Fault;
pub use place::Place;
pub use settings::Settings;
pub use tries::Patience;

/// Requests wait far more than they work: hashing and encrypting what is sent is all that they do.
const WORKERS: usize = 2;

/// A repository's storage in a bucket.
///
/// Requests run on threads of its own, so that a call only ever waits: it may come from anywhere, a
/// runtime's worker too, and is not in the way of what it waits for.
pub struct S3 {
    client: Arc<Client>,
    location: String,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3({})", self.location)
    }
}

impl S3 {
    /// Reaches the storage. Says what is wrong with the settings, the endpoint, the credentials, the bucket
    /// or its region, and refuses a service that does not keep to "only create". The repository need not
    /// be there yet.
    pub fn open(settings: &Settings) -> io::Result<Self> {
        let client =
            Client::new(settings).map_err(|why| io::Error::new(ErrorKind::InvalidInput, why))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("s3")
            .enable_all()
            .build()?;
        let storage = Self {
            client: Arc::new(client),
            location: settings.place.to_string(),
            runtime: Some(runtime),
        };
        storage.ask("", |client| async move { client.probe().await })?;
        Ok(storage)
    }

    /// Lets the runtime do something with one object, or with all where there is no name, and waits for it.
    fn ask<T, F>(&self, name: &str, what: impl FnOnce(Arc<Client>) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let ended = || io::Error::other("the request ended without an answer");
        let runtime = self.runtime.as_ref().ok_or_else(ended)?;
        let request = what(self.client.clone());
        let (done, wait) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            // The caller is there until it has this.
            let _ = done.send(request.await);
        });
        let answer = wait.recv().map_err(|_| ended())?;
        answer.map_err(|fault| match name {
            "" => fault.told(&self.location),
            name => fault.told(&self.client.shown(name)),
        })
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed to a runtime's worker, and nothing is under way.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Backend for S3 {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (object, bytes) = (name.to_owned(), bytes.to_vec());
        self.ask(
            name,
            |client| async move { client.create(&object, bytes).await },
        )
    }

    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>> {
        self.get(name, Want::All { max })
    }

    fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if into.is_empty() {
            return self.stat(name).map(drop);
        }
        let len = into.len() as u64;
        let bytes = self.get(name, Want::Range { offset, len })?;
        into.copy_from_slice(&bytes);
        Ok(())
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        let names = prefix.to_owned();
        self.ask(prefix, |client| async move { client.list(&names).await })
    }

    fn stat(&self, name: &str) -> io::Result<Listed> {
        let object = name.to_owned();
        self.ask(name, |client| async move { client.stat(&object).await })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let object = name.to_owned();
        self.ask(name, |client| async move { client.delete(&object).await })
    }

    fn now(&self) -> io::Result<StorageTime> {
        self.ask("", |client| async move { client.now().await })
    }

    fn sweep(&self) -> io::Result<()> {
        self.ask("", |client| async move { client.sweep().await })
    }
}

impl S3 {
    fn get(&self, name: &str, want: Want) -> io::Result<Vec<u8>> {
        let object = name.to_owned();
        self.ask(
            name,
            |client| async move { client.get(&object, want).await },
        )
    }
}
