//! What happened: kept in the catalog, and told to whoever watches.
//!
//! An event is kept and told in one turn of the ledger, so numbers are told in order and none is
//! kept but not told. A reader subscribes first and then reads what is kept: an event is in one or in both, and its
//! number tells which were seen. One that cannot keep up reads from the catalog again.

use std::{collections::VecDeque, sync::Arc};

use tidemark_proto::v1::{EventKind, Severity};
use tidemark_store::{
    catalog::{EventRecord, NewEvent},
    units::Id,
};
use tokio::sync::broadcast;

use super::{Clock, Error, ledger::Ledger};

/// Events that a slow watcher may be behind before it reads the catalog again.
const LIVE_EVENTS: usize = 256;
/// Kept events read at once.
const PAGE: u32 = 256;

/// The log of events.
#[derive(Clone)]
pub struct Events {
    ledger: Ledger,
    clock: Clock,
    live: broadcast::Sender<Arc<EventRecord>>,
}

/// An event to record.
#[derive(Clone, Debug)]
pub struct Happening {
    kind: EventKind,
    severity: Severity,
    volume: String,
    snapshot: Option<Id>,
    message: String,
    at_us: Option<u64>,
}

impl Happening {
    /// Something that happened, in one sentence: what, and what to do.
    pub fn new(kind: EventKind, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            kind,
            severity,
            volume: String::new(),
            snapshot: None,
            message: message.into(),
            at_us: None,
        }
    }

    /// Names the volume.
    #[must_use]
    pub fn on_volume(mut self, volume: &str) -> Self {
        volume.clone_into(&mut self.volume);
        self
    }

    /// Names the snapshot.
    #[must_use]
    pub fn on_snapshot(mut self, id: Id) -> Self {
        self.snapshot = Some(id);
        self
    }

    /// Says when, if it was not now.
    #[must_use]
    pub fn at(mut self, at_us: u64) -> Self {
        self.at_us = Some(at_us);
        self
    }

    fn record(self, now_us: u64) -> NewEvent {
        NewEvent {
            at_us: self.at_us.unwrap_or(now_us),
            kind: self.kind.as_str_name().to_owned(),
            severity: self.severity.as_str_name().to_owned(),
            volume: self.volume,
            snapshot: self.snapshot,
            message: self.message,
        }
    }
}

/// Into the log as well, with the fields that it is looked for by.
fn log(event: &NewEvent) {
    let kind = event.kind.trim_start_matches("EVENT_KIND_");
    let (volume, message) = (event.volume.as_str(), event.message.as_str());
    let volume = Some(volume).filter(|volume| !volume.is_empty());
    let snapshot = event.snapshot.map(tracing::field::display);
    match event.severity.as_str() {
        "SEVERITY_ERROR" => tracing::error!(volume, snapshot, event = kind, "{message}"),
        "SEVERITY_WARNING" => tracing::warn!(volume, snapshot, event = kind, "{message}"),
        _ => tracing::info!(volume, snapshot, event = kind, "{message}"),
    }
}

impl Events {
    pub(super) fn new(ledger: Ledger, clock: Clock) -> Self {
        Self {
            ledger,
            clock,
            live: broadcast::Sender::new(LIVE_EVENTS),
        }
    }

    /// Keeps and tells an event. What happened has happened: when it cannot be kept, that is
    /// logged, and the caller goes on.
    pub async fn record(&self, happening: Happening) {
        self.keep(happening, None).await;
    }

    /// Like [`Events::record`]; remembers in the same commit that the volume server's event with
    /// this number was taken, so that it is not taken twice.
    pub(super) async fn record_from(&self, happening: Happening, cursor: Cursor) {
        self.keep(happening, Some(cursor)).await;
    }

    async fn keep(&self, happening: Happening, cursor: Option<Cursor>) {
        let event = happening.record(self.clock.now_us());
        let live = self.live.clone();
        let message = event.message.clone();
        log(&event);
        let kept = self.ledger.run(move |catalog| {
            let cursor = cursor.as_ref().map(Cursor::parts);
            let sequence = catalog.insert_event(&event, cursor)?;
            // Nobody watching is no failure.
            let _ = live.send(Arc::new(EventRecord { sequence, event }));
            Ok(())
        });
        if let Err(error) = kept.await {
            tracing::error!(%error, lost = message, "an event was not kept");
        }
    }

    /// Reads kept events after a number, and with `follow` then those that happen.
    pub fn read(&self, after: u64, volume: Option<String>, follow: bool) -> EventReader {
        EventReader {
            ledger: self.ledger.clone(),
            live: self.live.subscribe(),
            pending: VecDeque::new(),
            after,
            volume,
            follow,
            behind: true,
        }
    }
}

/// Which event of which volume server process was taken.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    pub(super) volume: String,
    pub(super) server: String,
    pub(super) sequence: u64,
}

impl Cursor {
    pub(super) fn parts(&self) -> (&str, &str, u64) {
        (&self.volume, &self.server, self.sequence)
    }
}

/// Reads events in order, each once.
pub struct EventReader {
    ledger: Ledger,
    live: broadcast::Receiver<Arc<EventRecord>>,
    pending: VecDeque<EventRecord>,
    after: u64,
    volume: Option<String>,
    follow: bool,
    /// There may be kept events that were not read.
    behind: bool,
}

impl EventReader {
    /// The next event; `None` after the last kept one unless following. Dropping the future
    /// loses nothing.
    pub async fn next(&mut self) -> Result<Option<EventRecord>, Error> {
        loop {
            if let Some(record) = self.pending.pop_front() {
                self.after = record.sequence;
                if self.wants(&record) {
                    return Ok(Some(record));
                }
            } else if self.behind {
                self.read_kept().await?;
            } else if !self.follow {
                return Ok(None);
            } else if let Some(record) = self.wait().await {
                self.pending.push_back(record);
            }
        }
    }

    async fn read_kept(&mut self) -> Result<(), Error> {
        let after = self.after;
        let page = self.ledger.run(move |catalog| catalog.events(after, PAGE));
        self.pending = page.await?.into();
        self.behind = !self.pending.is_empty();
        Ok(())
    }

    async fn wait(&mut self) -> Option<EventRecord> {
        match self.live.recv().await {
            Ok(record) if record.sequence > self.after => Some((*record).clone()),
            Ok(_) => None,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                self.behind = true;
                None
            }
            Err(broadcast::error::RecvError::Closed) => {
                self.follow = false;
                None
            }
        }
    }

    fn wants(&self, record: &EventRecord) -> bool {
        self.volume
            .as_ref()
            .is_none_or(|volume| *volume == record.event.volume)
    }
}
