//! The requests, each tried until it is certain.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicBool, Ordering},
};

use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    aws::AmazonS3,
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};
use tidemark_store::repository::backend::{Listed, StorageTime};
use tokio_stream::StreamExt;

use super::{
    error::SettingsError,
    fault::Fault,
    place::Place,
    settings::Settings,
    tries::{Patience, Tries, within},
};

/// Before the names of what is no part of the repository: what asks the time, and what probes the service.
const TEMPORARY: &str = "tmp/";
/// What is there for longer than this has nobody who still wants it.
const STALE_SECONDS: u64 = 24 * 3600;

/// How an attempt to create ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Put {
    Created,
    Taken,
    /// The name was taken at the last attempt, and an earlier one may have been it that took it.
    Perhaps,
}

/// What is wanted of an object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    /// All of it, if it has no more bytes than this.
    All { max: u64 },
    /// Exactly so many bytes from `offset`.
    Range { offset: u64, len: u64 },
}

pub(super) struct Client {
    store: AmazonS3,
    place: Place,
    patience: Patience,
    /// The service was seen to refuse an object whose name is taken.
    proven: AtomicBool,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            store: settings.client()?,
            place: settings.place.clone(),
            patience: settings.patience,
            proven: AtomicBool::new(false),
        })
    }

    /// Where an object is, for people.
    pub(super) fn shown(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }

    fn path(&self, name: &str) -> Result<Path, Fault> {
        let odd = |part: &str| part.is_empty() || part.starts_with('.');
        if name.split('/').any(odd) {
            return Err(Fault::of(ErrorKind::InvalidInput, "not an object's name"));
        }
        Path::parse(self.place.key(name))
            .map_err(|why| Fault::of(ErrorKind::InvalidInput, why.to_string()))
    }

    /// Sees whether the service can be reached, knows us, and refuses to replace what is there. Whoever
    /// may not create anything is let in to read.
    pub(super) async fn probe(&self) -> Result<(), Fault> {
        match self.prove(self.patience.at_first()).await {
            Err(why) if why.kind == ErrorKind::PermissionDenied => {
                let config = self.head("config", self.patience.at_first()).await;
                match config {
                    // A HEAD's refusal has no words: what the PUT was told says more.
                    Err(denied) if denied.kind == ErrorKind::PermissionDenied => Err(why),
                    _ => Ok(()),
                }
            }
            other => other,
        }
    }

    /// Creates an object twice, which must not go well the second time.
    async fn prove(&self, patience: Patience) -> Result<(), Fault> {
        let name = temporary_name();
        let path = self.path(&name)?;
        let mut put = Put::Created;
        for bytes in [b"one", b"two"] {
            put = self.put(&path, bytes.to_vec().into(), patience).await?;
            // The name is a random one. If it is taken, then by our own lost attempt, which proves it.
            if put != Put::Created {
                break;
            }
        }
        self.discard(&path).await;
        if put == Put::Created {
            return Err(Fault::of(
                ErrorKind::Unsupported,
                "the service replaces an object that it was told only to create (it ignores \
                 If-None-Match), so agents could destroy each other's backups: use a service that \
                 honours it, or a directory",
            ));
        }
        self.proven.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// One that nothing depends on: what stays is swept later.
    async fn discard(&self, path: &Path) {
        if let Err(why) = within(0, self.store.delete(path)).await {
            tracing::debug!(why = why.why, "a temporary object stays for now");
        }
    }

    /// Puts an object unless its name is taken. In one request, so that it is there whole or not at all
    /// and nothing half done stays; see the module for why not in parts.
    async fn put(&self, path: &Path, bytes: PutPayload, patience: Patience) -> Result<Put, Fault> {
        let len = bytes.content_length() as u64;
        let mut tries = Tries::new(patience);
        let mut unsure = false;
        loop {
            let only_create = PutOptions::from(PutMode::Create);
            let attempt = self.store.put_opts(path, bytes.clone(), only_create);
            match within(len, attempt).await {
                Ok(_) => return Ok(Put::Created),
                Err(fault) if fault.is_taken() && unsure => return Ok(Put::Perhaps),
                Err(fault) if fault.is_taken() => return Ok(Put::Taken),
                Err(fault) => {
                    unsure |= fault.unsure;
                    tries.after(fault).await?;
                }
            }
        }
    }

    pub(super) async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        if !self.proven.load(Ordering::Relaxed) {
            self.prove(self.patience).await?;
        }
        let taken = || Fault::of(ErrorKind::AlreadyExists, "the name is taken");
        let payload = PutPayload::from(bytes);
        let path = self.path(name)?;
        match self.put(&path, payload.clone(), self.patience).await? {
            Put::Created => return Ok(()),
            Put::Taken => return Err(taken()),
            Put::Perhaps => {}
        }
        // An object's bytes have a random part, or its name is their hash: with the same bytes it is the
        // one that we put, or as good.
        let max = payload.content_length() as u64;
        match self.get(name, Want::All { max }).await {
            Ok(there) if payload.iter().flatten().eq(there.iter()) => Ok(()),
            Err(fault) if fault.is_not_found() => Err(Fault::of(
                ErrorKind::Other,
                "it came to be and was deleted while its creation was in doubt",
            )),
            Err(fault) if fault.kind != ErrorKind::InvalidData => Err(fault),
            _ => Err(taken()),
        }
    }

    /// Reads; goes on where an answer was cut.
    pub(super) async fn get(&self, name: &str, want: Want) -> Result<Vec<u8>, Fault> {
        let path = self.path(name)?;
        let mut tries = Tries::new(self.patience);
        let mut have = Vec::new();
        loop {
            let before = have.len();
            match self.get_on(&path, want, &mut have).await {
                Ok(()) => return Ok(have),
                Err(fault) => {
                    if have.len() > before {
                        tries.moved();
                    }
                    tries.after(fault).await?;
                }
            }
        }
    }

    /// One attempt at what is missing behind `have`.
    async fn get_on(&self, path: &Path, want: Want, have: &mut Vec<u8>) -> Result<(), Fault> {
        let done = have.len() as u64;
        let range = match want {
            Want::All { .. } if done == 0 => None,
            Want::All { .. } => Some(GetRange::Offset(done)),
            Want::Range { offset, len } => Some(GetRange::Bounded(
                offset.saturating_add(done)..offset.saturating_add(len),
            )),
        };
        let options = GetOptions {
            range,
            ..GetOptions::default()
        };
        let answer = within(0, self.store.get_opts(path, options)).await?;
        let size = answer.meta.size;
        let whole = match want {
            Want::All { max } if size > max => {
                return Err(Fault::of(
                    ErrorKind::InvalidData,
                    format!("{size} bytes, and at most {max} are expected"),
                ));
            }
            Want::All { .. } => size,
            Want::Range { offset, len } if size < offset.saturating_add(len) => {
                return Err(Fault::of(
                    ErrorKind::UnexpectedEof,
                    format!("it has {size} bytes, and {len} from {offset} are wanted"),
                ));
            }
            Want::Range { len, .. } => len,
        };
        let mut stream = answer.into_stream();
        while (have.len() as u64) < whole {
            let bytes = within(0, next(&mut stream)).await?.ok_or_else(|| {
                Fault::lost(ErrorKind::ConnectionAborted, "the answer ended early")
            })?;
            have.extend_from_slice(&bytes);
        }
        if have.len() as u64 > whole {
            return Err(Fault::of(
                ErrorKind::InvalidData,
                "the service sends more than there is",
            ));
        }
        Ok(())
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Fault> {
        let keys = self.place.key(prefix);
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let page = self.page(&keys, token.as_ref()).await?;
            let named = page.result.objects.iter().filter_map(|object| {
                let name = self.place.name(object.location.as_ref())?;
                name.starts_with(prefix).then(|| listed(name, object))
            });
            found.extend(named);
            if page.page_token.is_none() {
                return Ok(found);
            }
            if page.page_token == token {
                return Err(Fault::of(
                    ErrorKind::InvalidData,
                    "the service's listing has no end",
                ));
            }
            token = page.page_token;
        }
    }

    async fn page(
        &self,
        keys: &str,
        token: Option<&String>,
    ) -> Result<object_store::list::PaginatedListResult, Fault> {
        let mut tries = Tries::new(self.patience);
        loop {
            let options = PaginatedListOptions {
                page_token: token.cloned(),
                ..PaginatedListOptions::default()
            };
            match within(0, self.store.list_paginated(Some(keys), options)).await {
                Ok(page) => return Ok(page),
                Err(fault) => tries.after(fault).await?,
            }
        }
    }

    pub(super) async fn stat(&self, name: &str) -> Result<Listed, Fault> {
        self.head(name, self.patience).await
    }

    async fn head(&self, name: &str, patience: Patience) -> Result<Listed, Fault> {
        let path = self.path(name)?;
        let mut tries = Tries::new(patience);
        loop {
            match within(0, self.store.head(&path)).await {
                Ok(object) => return Ok(listed(name, &object)),
                Err(fault) => tries.after(fault).await?,
            }
        }
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), Fault> {
        let path = self.path(name)?;
        let mut tries = Tries::new(self.patience);
        loop {
            match within(0, self.store.delete(&path)).await {
                Ok(()) => return Ok(()),
                Err(fault) if fault.is_not_found() => return Ok(()),
                Err(fault) => tries.after(fault).await?,
            }
        }
    }

    /// The time that the service stamps on an object which it is given now.
    pub(super) async fn now(&self) -> Result<StorageTime, Fault> {
        let name = temporary_name();
        let path = self.path(&name)?;
        self.put(&path, b"now".to_vec().into(), self.patience)
            .await?;
        let stamped = self.stat(&name).await;
        self.discard(&path).await;
        Ok(stamped?.created)
    }

    pub(super) async fn sweep(&self) -> Result<(), Fault> {
        let now = self.now().await?;
        for object in self.list(TEMPORARY).await? {
            if now.seconds_since(object.created) > STALE_SECONDS {
                self.delete(&object.name).await?;
            }
        }
        Ok(())
    }
}

async fn next<T>(
    stream: &mut (impl tokio_stream::Stream<Item = object_store::Result<T>> + Unpin),
) -> object_store::Result<Option<T>> {
    stream.next().await.transpose()
}

fn temporary_name() -> String {
    format!("{TEMPORARY}{}", uuid::Uuid::new_v4().simple())
}

/// Whole seconds: some services tell more of them in a listing than of one object.
fn listed(name: &str, object: &ObjectMeta) -> Listed {
    let seconds = u64::try_from(object.last_modified.timestamp()).unwrap_or(0);
    Listed {
        name: name.to_owned(),
        bytes: object.size,
        created: StorageTime(seconds.saturating_mul(1_000_000)),
    }
}
