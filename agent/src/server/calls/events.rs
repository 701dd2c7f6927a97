//! Long-polled events.

use std::time::Duration;

use tidemark_proto::private::{EventPage, VolumeEvent, VolumeEventKind, WaitEvents};
use tidemark_store::units::Id;

use crate::{
    server::served::Served,
    volume::{Event, EventKind},
};

/// Longest wait: a client that went away is noticed after it, at the latest.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Most events of one page; each is a sentence of a few hundred bytes, so that they fit.
const MAX_EVENTS: usize = 512;

pub(super) fn wait(served: &Served, asked: &WaitEvents) -> EventPage {
    let wait = Duration::from_micros(asked.wait_us).min(MAX_WAIT);
    let (events, gap) = served.volume.wait_events(asked.after_sequence, wait);
    EventPage {
        events: events.into_iter().take(MAX_EVENTS).map(event).collect(),
        gap,
    }
}

fn event(event: Event) -> VolumeEvent {
    let kind = match event.kind {
        EventKind::StoreFilling => VolumeEventKind::StoreFilling,
        EventKind::StoreFull => VolumeEventKind::StoreFull,
        EventKind::SnapshotOverflowed => VolumeEventKind::SnapshotOverflowed,
        EventKind::SnapshotLost => VolumeEventKind::SnapshotLost,
        EventKind::TrackingReset => VolumeEventKind::TrackingReset,
        EventKind::CheckpointForgotten => VolumeEventKind::CheckpointForgotten,
        EventKind::DurabilitySuspended => VolumeEventKind::DurabilitySuspended,
        EventKind::TrackingRecovered => VolumeEventKind::TrackingRecovered,
    };
    let snapshot_id = match event.snapshot {
        Id::NIL => Vec::new(),
        Id(bytes) => bytes.to_vec(),
    };
    VolumeEvent {
        sequence: event.sequence,
        at_us: event.at_us,
        kind: kind.into(),
        snapshot_id: snapshot_id.into(),
        message: event.message,
    }
}
