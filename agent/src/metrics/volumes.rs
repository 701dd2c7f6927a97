//! What is told of volumes.

use std::{collections::BTreeMap, time::Duration};

use tidemark_proto::{
    private::RequestKind,
    v1::{TrackingDurability, Trust},
};

use super::text::{Families, Labels, seconds};
use crate::manager::{Measured, MeasuredServer, Took, TookRequests};

/// All families of volumes. `to_full` has those whose store grows.
pub(super) fn tell(out: &mut Families, volumes: &[Measured], to_full: &BTreeMap<String, Duration>) {
    standing(out, volumes);
    tracking(out, volumes);
    store(out, volumes);
    out.gauge(
        "tidemark_volume_store_time_to_full_seconds",
        "For how long the store lasts at the rate of its growth since it last shrank, half an hour at most; absent while it does not grow or was not scraped for a minute",
        to_full.iter().map(|(name, time)| (volume(name), time.as_secs_f64())),
    );
    requests(out, volumes);
}

fn standing(out: &mut Families, volumes: &[Measured]) {
    out.info(
        "tidemark_volume",
        "An attached volume and what it lies on",
        volumes.iter().map(|one| {
            let transport = match one.server.as_ref().map(|server| server.ublk) {
                Some(true) => "ublk",
                Some(false) => "portable",
                None => "unknown",
            };
            let mut labels = volume(&one.name);
            labels.push(("origin", one.origin_path.display().to_string()));
            labels.push(("transport", transport.to_owned()));
            labels
        }),
    );
    out.gauge(
        "tidemark_volume_up",
        "Whether the volume's server answered this scrape in time",
        volumes
            .iter()
            .map(|one| (volume(&one.name), flag(one.server.is_some()))),
    );
    out.gauge(
        "tidemark_volume_fell_back",
        "Whether the volume was taken from its servers, which had died again and again: it is used, and not tracked",
        volumes.iter().map(|one| (volume(&one.name), flag(one.fell_back))),
    );
    out.counter(
        "tidemark_volume_server_restarts",
        "Servers of the volume that took the place of one before",
        volumes
            .iter()
            .map(|one| (volume(&one.name), one.server_restarts as f64)),
    );
    out.gauge(
        "tidemark_volume_size_bytes",
        "Size of the volume",
        of(volumes, |server| server.capacity_bytes as f64),
    );
    out.gauge(
        "tidemark_volume_inserted",
        "Whether a device-mapper volume lies over the interposer",
        of(volumes, |server| flag(server.inserted)),
    );
    out.gauge(
        "tidemark_volume_bypassed",
        "Whether the host's requests go around the interposer: changes are missed",
        of(volumes, |server| flag(server.bypassed)),
    );
}

fn tracking(out: &mut Families, volumes: &[Measured]) {
    const TRUST: [(Trust, &str); 3] = [
        (Trust::Continuous, "continuous"),
        (Trust::Superset, "superset"),
        (Trust::Broken, "broken"),
    ];
    const DURABILITY: [(TrackingDurability, &str); 3] = [
        (TrackingDurability::Volatile, "volatile"),
        (TrackingDurability::Durable, "durable"),
        (TrackingDurability::Suspended, "suspended"),
    ];
    out.gauge(
        "tidemark_volume_trust",
        "1 for how far the list of changes can be relied on: continuous is exact, superset has more since the host stopped without warning, broken misses changes",
        volumes.iter().flat_map(|one| {
            let now = one.trust();
            let states = TRUST.iter().filter(move |_| now.is_some());
            states.map(move |(trust, word)| (state(&one.name, "trust", word), flag(now == Some(*trust))))
        }),
    );
    out.gauge(
        "tidemark_volume_durability",
        "1 for what becomes of tracking when the host stops without warning: it is lost (volatile, suspended) or outlives it (durable)",
        volumes.iter().flat_map(|one| {
            let now = one.server.as_ref().map(|server| server.durability);
            let states = DURABILITY.iter().filter(move |_| now.is_some());
            states.map(move |(kept, word)| (state(&one.name, "durability", word), flag(now == Some(*kept))))
        }),
    );
    out.gauge(
        "tidemark_volume_tracking_start_time_seconds",
        "When tracking last started anew, since the UNIX epoch: the backup after it reads everything",
        of(volumes, |server| seconds(server.lineage_since_us)),
    );
    out.counter(
        "tidemark_volume_tracking_resets",
        "Times that tracking started anew",
        volumes
            .iter()
            .map(|one| (volume(&one.name), one.tracking_resets as f64)),
    );
    out.gauge(
        "tidemark_volume_changed_bytes",
        "Bytes that changed since the last cut, in whole blocks",
        of(volumes, |server| server.changed_bytes_in_epoch as f64),
    );
    out.gauge(
        "tidemark_volume_checkpoints",
        "Points that a difference can be asked against",
        of(volumes, |server| server.checkpoints as f64),
    );
}

fn store(out: &mut Families, volumes: &[Measured]) {
    out.gauge(
        "tidemark_volume_snapshots",
        "Snapshots that can be read",
        of(volumes, |server| server.live_snapshots as f64),
    );
    out.gauge(
        "tidemark_volume_store_capacity_bytes",
        "Size of the store of old data",
        of(volumes, |server| server.store_capacity_bytes as f64),
    );
    out.gauge(
        "tidemark_volume_store_used_bytes",
        "Bytes of the store that snapshots hold",
        of(volumes, |server| server.store_used_bytes as f64),
    );
    out.gauge(
        "tidemark_volume_store_free_bytes",
        "Bytes of the store that are free",
        of(volumes, |server| {
            server
                .store_capacity_bytes
                .saturating_sub(server.store_used_bytes) as f64
        }),
    );
    out.counter(
        "tidemark_volume_preserved_bytes",
        "Old data that was copied to the store before it was overwritten",
        of(volumes, |server| server.counters.preserved_bytes as f64),
    );
    out.counter(
        "tidemark_volume_write_delay_seconds",
        "Time for which writers were slowed because the store was filling",
        of(volumes, |server| seconds(server.counters.delayed_us)),
    );
}

fn requests(out: &mut Families, volumes: &[Measured]) {
    out.histogram(
        "tidemark_volume_request_duration_seconds",
        "From when a request of the host reached the volume's server to its answer",
        by_kind(volumes, |one| one.duration.clone()),
    );
    out.counter(
        "tidemark_volume_request_bytes",
        "Bytes of requests that did not fail",
        by_kind(volumes, |one| one.bytes as f64),
    );
    out.counter(
        "tidemark_volume_request_failures",
        "Requests that were answered with an error of the origin",
        by_kind(volumes, |one| one.failures as f64),
    );
    out.histogram(
        "tidemark_volume_hold_duration_seconds",
        "For how long changes were stopped, for a cut or a reset of tracking",
        took(volumes).map(|(name, took)| (volume(name), took.holds.clone())),
    );
}

/// A sample for each volume whose server answered.
fn of(
    volumes: &[Measured],
    value: impl Fn(&MeasuredServer) -> f64,
) -> impl Iterator<Item = (Labels, f64)> {
    volumes.iter().filter_map(move |one| {
        let server = one.server.as_ref()?;
        Some((volume(&one.name), value(server)))
    })
}

fn took(volumes: &[Measured]) -> impl Iterator<Item = (&str, &Took)> {
    volumes
        .iter()
        .filter_map(|one| Some((one.name.as_str(), one.server.as_ref()?.took.as_ref()?)))
}

/// A sample for each kind of request of each volume that measures them.
fn by_kind<T>(
    volumes: &[Measured],
    value: impl Fn(&TookRequests) -> T,
) -> impl Iterator<Item = (Labels, T)> {
    took(volumes).flat_map(move |(name, took)| {
        let samples = took
            .requests
            .iter()
            .map(|one| (state(name, "kind", word(one.kind)), value(one)));
        samples.collect::<Vec<_>>()
    })
}

fn word(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Unspecified => "unknown",
        RequestKind::Read => "read",
        RequestKind::Write => "write",
        RequestKind::Flush => "flush",
        RequestKind::Discard => "discard",
        RequestKind::WriteZeroes => "write_zeroes",
    }
}

pub(super) fn volume(name: &str) -> Labels {
    vec![("volume", name.to_owned())]
}

fn state(name: &str, label: &'static str, value: &str) -> Labels {
    vec![("volume", name.to_owned()), (label, value.to_owned())]
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}
