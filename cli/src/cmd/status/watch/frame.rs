//! One view as lines: pure, so that it can be shown anywhere.

use std::time::Duration;

use tidemark_proto::v1::{Event, Operation, Trust, Volume, VolumeState};

use super::{
    super::{attention::Attention, overview::Overview, page},
    rates::Samples,
};
use crate::{
    cmd::events,
    json as as_json,
    output::{counted, fill_bar},
    text::plain,
    units,
};

/// Cells of a store's bar.
const STORE_BAR: usize = 24;
const OPERATION_BAR: usize = 16;
/// More stands on the page.
const MAX_ATTENTION: usize = 4;
/// A store fuller than this is shown as what it is, in per cent.
const FULL: u64 = 80;

/// What is shown.
pub(in crate::cmd::status) struct Seen<'a> {
    pub(in crate::cmd::status) overview: &'a Overview,
    pub(in crate::cmd::status) attention: &'a [Attention],
    pub(in crate::cmd::status) samples: &'a Samples,
    pub(in crate::cmd::status) events: &'a [Event],
    pub(in crate::cmd::status) interval: Duration,
}

/// How a line is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::cmd::status) enum Tone {
    Plain,
    Good,
    Bad,
    Aside,
}

/// A line without colours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cmd::status) struct Line {
    pub(in crate::cmd::status) tone: Tone,
    pub(in crate::cmd::status) text: String,
}

impl Line {
    fn new(tone: Tone, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { tone, text }
    }
}

/// The whole view.
pub(in crate::cmd::status) fn lines(seen: &Seen<'_>) -> Vec<Line> {
    let mut lines = head(seen);
    let volumes = seen.overview.told().map_or(&[][..], |told| &told.volumes);
    for volume in volumes {
        lines.push(Line::new(Tone::Plain, ""));
        lines.extend(of_volume(volume, seen.samples));
    }
    if let Some(told) = seen.overview.told()
        && !told.operations.is_empty()
    {
        lines.push(Line::new(Tone::Plain, ""));
        let operations = told.operations.iter();
        lines.extend(operations.map(|one| Line::new(Tone::Plain, of_operation(one))));
    }
    if !seen.events.is_empty() {
        lines.push(Line::new(Tone::Plain, ""));
        let events = seen.events.iter();
        lines.extend(events.map(|event| Line::new(Tone::Aside, plain(&events::line(event)))));
    }
    lines
}

fn head(seen: &Seen<'_>) -> Vec<Line> {
    let tone = match seen.attention {
        [] => Tone::Good,
        _ => Tone::Bad,
    };
    let mut lines = vec![
        Line::new(tone, page::verdict(seen.overview, seen.attention)),
        Line::new(
            Tone::Aside,
            format!(
                "{}, every {} s; Ctrl-C ends it",
                units::moment(seen.overview.now),
                seen.interval.as_secs()
            ),
        ),
    ];
    for one in seen.attention.iter().take(MAX_ATTENTION) {
        lines.push(Line::new(Tone::Bad, format!("  ! {}", one.what)));
        lines.push(Line::new(Tone::Plain, format!("    next: {}", one.next)));
    }
    let more = seen.attention.len().saturating_sub(MAX_ATTENTION);
    if more > 0 {
        let text = format!("  and {more} more: tidemark status");
        lines.push(Line::new(Tone::Bad, text));
    }
    lines
}

fn of_volume(volume: &Volume, samples: &Samples) -> Vec<Line> {
    let report = volume.trust.clone().unwrap_or_default();
    let well = volume.state() == VolumeState::Attached && report.trust() != Trust::Broken;
    let store = volume.store_status.unwrap_or_default();
    let filling = store.used_bytes.saturating_mul(100) >= store.capacity_bytes.saturating_mul(FULL)
        && store.capacity_bytes > 0;
    let tone = |well: bool| if well { Tone::Plain } else { Tone::Bad };
    vec![
        Line::new(
            tone(well),
            format!(
                "{}  {}  {}  {}",
                volume.name,
                as_json::volume_state(volume.state),
                as_json::trust_name(report.trust),
                counted(volume.live_snapshots.into(), "live snapshot"),
            ),
        ),
        Line::new(Tone::Plain, traffic(volume, samples)),
        Line::new(
            tone(!filling),
            format!(
                "  store  {} {} of {} ({}){}",
                fill_bar(store.used_bytes, store.capacity_bytes, STORE_BAR),
                units::bytes(store.used_bytes),
                units::bytes(store.capacity_bytes),
                units::per_cent(store.used_bytes, store.capacity_bytes),
                samples
                    .full_in(&volume.name)
                    .map_or_else(String::new, |span| format!(
                        ", full in {}",
                        units::age(span.as_secs())
                    )),
            ),
        ),
    ]
}

fn traffic(volume: &Volume, samples: &Samples) -> String {
    let Some(rates) = samples.rates(&volume.name) else {
        return "  rates are told from the second view on".to_owned();
    };
    format!(
        "  read {:>6}/s {:>10}/s   write {:>6}/s {:>10}/s   preserved {:>10}/s",
        rates.read_requests,
        units::bytes(rates.read_bytes),
        rates.write_requests,
        units::bytes(rates.write_bytes),
        units::bytes(rates.preserved_bytes),
    )
}

fn of_operation(operation: &Operation) -> String {
    let done = match operation.total_bytes {
        0 => units::bytes(operation.done_bytes),
        total => format!(
            "{} {} of {}",
            fill_bar(operation.done_bytes, total, OPERATION_BAR),
            units::bytes(operation.done_bytes),
            units::bytes(total)
        ),
    };
    let kind = as_json::operation_kind(operation.kind).to_lowercase();
    format!("{kind} {}  {done}", plain(&operation.subject))
}
