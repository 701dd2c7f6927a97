//! Request ids: a repeated call answers as the first did.
//!
//! A call that failed leaves no trace, so it can be repeated. Two calls with one id at once: the
//! second waits for the first, and then answers as it did.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tidemark_store::catalog::RequestRecord;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{Error, ErrorReason, Manager};

/// Longest request id in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The calls under way that have a request id.
#[derive(Default)]
pub(super) struct Requests(Mutex<HashMap<String, Weak<AsyncMutex<()>>>>);

impl Requests {
    fn lock_of(&self, request_id: &str) -> Arc<AsyncMutex<()>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = running.get(request_id).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        running.insert(request_id.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

/// A digest of a call's arguments; each is told from its neighbours by its length.
pub struct Arguments(blake3::Hasher);

impl Arguments {
    /// The arguments of this call, none yet.
    pub fn of(call: &str) -> Self {
        Self(blake3::Hasher::new()).and(call)
    }

    /// Adds an argument.
    #[must_use]
    pub fn and(mut self, argument: impl AsRef<[u8]>) -> Self {
        let bytes = argument.as_ref();
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }
}

/// Whether a call with a request id is new.
pub enum Begun {
    /// It was answered before, and made this.
    Replayed(Vec<String>),
    /// It is new: do it, then record what it made.
    New(Ticket),
}

/// The right to do a call; others with its request id wait until it is dropped.
pub struct Ticket {
    record: Option<(String, RequestRecord)>,
    _running: Option<OwnedMutexGuard<()>>,
}

impl Ticket {
    /// What is to be recorded, in the commit that records the work: these ids or names were made.
    pub(super) fn made(&self, results: Vec<String>) -> Option<(String, RequestRecord)> {
        let (request_id, record) = self.record.clone()?;
        Some((request_id, RequestRecord { results, ..record }))
    }

    pub(super) fn request_id(&self) -> Option<String> {
        self.record.as_ref().map(|(id, _)| id.clone())
    }
}

impl Manager {
    /// Begins a call that has an idempotency key; an empty one is none.
    pub async fn begin_request(
        &self,
        request_id: &str,
        call: &str,
        arguments: Arguments,
    ) -> Result<Begun, Error> {
        if request_id.is_empty() {
            return Ok(Begun::New(Ticket {
                record: None,
                _running: None,
            }));
        }
        if request_id.len() > MAX_REQUEST_ID_BYTES {
            let why = format!("longer than {MAX_REQUEST_ID_BYTES} bytes");
            return Err(Error::invalid("request_id", why));
        }
        let running = self.requests.lock_of(request_id).lock_owned().await;
        let arguments = arguments.0.finalize().as_bytes().to_vec();
        let key = request_id.to_owned();
        let earlier = self
            .ledger
            .run(move |catalog| catalog.request(&key))
            .await?;
        match earlier {
            None => Ok(Begun::New(Ticket {
                record: Some((
                    request_id.to_owned(),
                    RequestRecord {
                        call: call.to_owned(),
                        arguments,
                        results: Vec::new(),
                    },
                )),
                _running: Some(running),
            })),
            Some(record) if record.call == call && record.arguments == arguments => {
                Ok(Begun::Replayed(record.results))
            }
            Some(_) => Err(reused(request_id)),
        }
    }

    /// Records what a call made, where no other commit does.
    pub async fn finish_request(&self, ticket: Ticket, results: Vec<String>) -> Result<(), Error> {
        let Some((request_id, record)) = ticket.made(results) else {
            return Ok(());
        };
        self.ledger
            .run(move |catalog| catalog.insert_request(&request_id, &record))
            .await
    }
}

fn reused(request_id: &str) -> Error {
    Error::new(
        ErrorReason::RequestIdReused,
        format!(
            "request id \"{request_id}\" was used before with other arguments: take a new one for \
             a new request"
        ),
    )
    .with("request_id", request_id)
}
