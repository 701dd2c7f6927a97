//! The control plane's side of the private protocol: one volume server, asked over its socket.
//!
//! Requests on one connection are answered in order, so each call takes a connection of its own:
//! an idle one, or a new one that says Hello first. A connection that failed or timed out is
//! dropped, because its next reply could be an old one. Reconnecting is therefore nothing special.

mod convert;
mod error;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prost::Message;
use tidemark_proto::private::{
    Allocated, Changes, Cut, CutReply, Describe, Description, EventPage, ForgetCheckpoint,
    HandOver, Hello, HelloReply, Hold, Measure, Measurements, PresentViews, ReleaseSnapshot, Reply,
    Request, ResetTracking, Stop, Unhold, WaitEvents, reply::Result as Answer, request::Call,
};
use tidemark_store::units::{Epoch, Id};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

pub use convert::checked_page;
pub(super) use error::LinkError;

use super::clock::micros;
use crate::{server::wire, volume::ExtentPage};

/// Within this a server that is well answers anything but a wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Stopping writes tracking out and takes devices away.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// A page of a diff may be read from a cold area.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections kept for the next call: one that waits for events, and a few pages at once.
const MAX_IDLE: usize = 4;

/// A volume server's socket, and connections to it.
#[derive(Debug)]
pub(super) struct Link {
    socket: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
struct Connection {
    stream: BufReader<UnixStream>,
    greeting: HelloReply,
}

/// Changes that are held. The hold belongs to its connection: dropping it lets them go on.
#[derive(Debug)]
pub(super) struct Held {
    connection: Connection,
    token: u64,
}

impl Link {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            idle: Mutex::default(),
        }
    }

    /// Asks who is there, on a new connection: an old one might be to a dead server.
    pub(super) async fn hello(&self) -> Result<HelloReply, LinkError> {
        self.idle().clear();
        let connection = self.connect().await?;
        let greeting = connection.greeting.clone();
        self.give_back(connection);
        Ok(greeting)
    }

    pub(super) async fn describe(&self) -> Result<Description, LinkError> {
        match self.call(Call::Describe(Describe {}), CALL_TIMEOUT).await? {
            Answer::Description(description) => Ok(description),
            other => Err(LinkError::unexpected("Describe", &other)),
        }
    }

    /// Asks how long things took. A server that is older than the question refuses it.
    pub(super) async fn measure(&self) -> Result<Measurements, LinkError> {
        match self.call(Call::Measure(Measure {}), CALL_TIMEOUT).await? {
            Answer::Measurements(measured) => Ok(measured),
            other => Err(LinkError::unexpected("Measure", &other)),
        }
    }

    /// Stops changes, for `max` at most, and waits for those in flight.
    pub(super) async fn hold(&self, max: Duration) -> Result<Held, LinkError> {
        let call = Call::Hold(Hold {
            max_hold_us: micros(max),
        });
        let bytes = wire::encode(&Request { call: Some(call) })?;
        let within = max + CALL_TIMEOUT;
        let (answer, connection) = timeout(within, self.exchange(&bytes))
            .await
            .map_err(|_| LinkError::TimedOut(within))??;
        match answer {
            Answer::Held(held) => Ok(Held {
                connection,
                token: held.token,
            }),
            Answer::Failure(failure) => Err(LinkError::Refused(failure)),
            other => Err(LinkError::unexpected("Hold", &other)),
        }
    }

    pub(super) async fn release(&self, snapshot: Id) -> Result<(), LinkError> {
        let call = Call::ReleaseSnapshot(ReleaseSnapshot {
            snapshot_id: convert::id_bytes(snapshot),
        });
        self.done("ReleaseSnapshot", call, CALL_TIMEOUT).await
    }

    pub(super) async fn forget(&self, epoch: Epoch) -> Result<(), LinkError> {
        let call = Call::ForgetCheckpoint(ForgetCheckpoint { epoch: epoch.0 });
        self.done("ForgetCheckpoint", call, CALL_TIMEOUT).await
    }

    /// What changed after `since` and up to `until` (`None`: now).
    pub(super) async fn changes(
        &self,
        lineage: Id,
        since: Epoch,
        until: Option<Epoch>,
        start: u64,
        max: u32,
    ) -> Result<ExtentPage, LinkError> {
        let call = Call::Changes(Changes {
            lineage: convert::id_bytes(lineage),
            since_epoch: since.0,
            until_epoch: until.map_or(0, |epoch| epoch.0),
            start_bytes: start,
            max_ranges: max,
        });
        match self.call(call, PAGE_TIMEOUT).await? {
            Answer::Extents(page) => convert::extent_page(&page, start),
            other => Err(LinkError::unexpected("Changes", &other)),
        }
    }

    /// What a snapshot holds from `start` on.
    pub(super) async fn allocated(
        &self,
        snapshot: Id,
        start: u64,
        max: u32,
    ) -> Result<ExtentPage, LinkError> {
        let call = Call::Allocated(Allocated {
            snapshot_id: convert::id_bytes(snapshot),
            start_bytes: start,
            max_ranges: max,
        });
        match self.call(call, PAGE_TIMEOUT).await? {
            Answer::Extents(page) => convert::extent_page(&page, start),
            other => Err(LinkError::unexpected("Allocated", &other)),
        }
    }

    pub(super) async fn reset_tracking(&self, reason: &str) -> Result<(), LinkError> {
        let call = Call::ResetTracking(ResetTracking {
            reason: reason.to_owned(),
        });
        self.done("ResetTracking", call, CALL_TIMEOUT).await
    }

    /// Events after a number; waits up to `wait` when there are none.
    pub(super) async fn wait_events(
        &self,
        after: u64,
        wait: Duration,
    ) -> Result<EventPage, LinkError> {
        let call = Call::WaitEvents(WaitEvents {
            after_sequence: after,
            wait_us: micros(wait),
        });
        match self.call(call, wait + CALL_TIMEOUT).await? {
            Answer::Events(page) => Ok(page),
            other => Err(LinkError::unexpected("WaitEvents", &other)),
        }
    }

    /// Returns when every live snapshot can be read.
    pub(super) async fn present_views(&self) -> Result<(), LinkError> {
        self.done(
            "PresentViews",
            Call::PresentViews(PresentViews {}),
            STOP_TIMEOUT,
        )
        .await
    }

    /// Asks the server to take its device away and end.
    pub(super) async fn stop(&self, force: bool) -> Result<(), LinkError> {
        self.done("Stop", Call::Stop(Stop { force }), STOP_TIMEOUT)
            .await
    }

    /// Asks the server to end and to leave everything to the next.
    pub(super) async fn hand_over(&self) -> Result<(), LinkError> {
        self.done("HandOver", Call::HandOver(HandOver {}), STOP_TIMEOUT)
            .await
    }

    async fn done(&self, name: &str, call: Call, within: Duration) -> Result<(), LinkError> {
        match self.call(call, within).await? {
            Answer::Done(_) => Ok(()),
            other => Err(LinkError::unexpected(name, &other)),
        }
    }

    /// One request and its answer. A connection that was idle may have died with an earlier
    /// server: a request that could not even be sent on it is sent again on a new one.
    async fn call(&self, call: Call, within: Duration) -> Result<Answer, LinkError> {
        let bytes = wire::encode(&Request { call: Some(call) })?;
        let (answer, connection) = timeout(within, self.exchange(&bytes))
            .await
            .map_err(|_| LinkError::TimedOut(within))??;
        self.give_back(connection);
        match answer {
            Answer::Failure(failure) => Err(LinkError::Refused(failure)),
            answer => Ok(answer),
        }
    }

    async fn exchange(&self, bytes: &[u8]) -> Result<(Answer, Connection), LinkError> {
        let mut connection = self.sent(bytes).await?;
        let answer = connection.read().await?;
        Ok((answer, connection))
    }

    async fn sent(&self, bytes: &[u8]) -> Result<Connection, LinkError> {
        while let Some(mut connection) = self.take_idle() {
            if connection.write(bytes).await.is_ok() {
                return Ok(connection);
            }
        }
        let mut connection = self.connect().await?;
        connection.write(bytes).await?;
        Ok(connection)
    }

    async fn connect(&self) -> Result<Connection, LinkError> {
        timeout(CALL_TIMEOUT, Connection::open(&self.socket))
            .await
            .map_err(|_| LinkError::TimedOut(CALL_TIMEOUT))?
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle().pop()
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

impl Held {
    /// Ends the epoch and makes the snapshot; changes go on.
    pub(super) async fn cut(mut self, snapshot: Id) -> Result<CutReply, LinkError> {
        let call = Call::Cut(Cut {
            token: self.token,
            snapshot_id: convert::id_bytes(snapshot),
        });
        match self.ask(call).await? {
            Answer::Cut(reply) => Ok(reply),
            Answer::Failure(failure) => Err(LinkError::Refused(failure)),
            other => Err(LinkError::unexpected("Cut", &other)),
        }
    }

    /// Lets changes go on without a cut.
    pub(super) async fn unhold(mut self) -> Result<(), LinkError> {
        let call = Call::Unhold(Unhold { token: self.token });
        match self.ask(call).await? {
            Answer::Done(_) => Ok(()),
            Answer::Failure(failure) => Err(LinkError::Refused(failure)),
            other => Err(LinkError::unexpected("Unhold", &other)),
        }
    }

    async fn ask(&mut self, call: Call) -> Result<Answer, LinkError> {
        let bytes = wire::encode(&Request { call: Some(call) })?;
        let asked = async {
            self.connection.write(&bytes).await?;
            self.connection.read().await
        };
        timeout(CALL_TIMEOUT, asked)
            .await
            .map_err(|_| LinkError::TimedOut(CALL_TIMEOUT))?
    }
}

impl Connection {
    async fn open(socket: &Path) -> Result<Self, LinkError> {
        let stream = UnixStream::connect(socket).await?;
        let mut connection = Self {
            stream: BufReader::new(stream),
            greeting: HelloReply::default(),
        };
        let hello = Call::Hello(Hello {
            version: wire::VERSION,
        });
        connection
            .write(&wire::encode(&Request { call: Some(hello) })?)
            .await?;
        match connection.read().await? {
            Answer::Hello(greeting) if greeting.version == wire::VERSION => {
                connection.greeting = greeting;
                Ok(connection)
            }
            Answer::Hello(greeting) => Err(LinkError::Version(greeting.version)),
            Answer::Failure(failure) => Err(LinkError::Refused(failure)),
            other => Err(LinkError::unexpected("Hello", &other)),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes).await?;
        stream.flush().await?;
        Ok(())
    }

    async fn read(&mut self) -> Result<Answer, LinkError> {
        let len = self.read_length().await?;
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).await?;
        let reply = Reply::decode(bytes.as_slice()).map_err(wire::WireError::from)?;
        reply
            .result
            .ok_or_else(|| LinkError::Protocol("a reply without a result".to_owned()))
    }

    async fn read_length(&mut self) -> Result<usize, LinkError> {
        let mut prefix = Vec::with_capacity(wire::MAX_PREFIX_BYTES);
        loop {
            prefix.push(self.stream.read_u8().await?);
            if let Some((len, _)) = wire::decode_length(&prefix)? {
                return Ok(len);
            }
        }
    }
}
