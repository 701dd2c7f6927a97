//! The page: the verdict first, then what needs the operator, then how everything stands. Pure.

use tidemark_proto::v1::{TrackingDurability, TransportKind, Trust, Volume, VolumeState};

use super::{
    attention::Attention,
    overview::{Daemon, Overview, Told},
};
use crate::{
    cmd::{
        events, job, repo,
        schedule::{self, Schedule},
        snapshot,
    },
    host::served,
    output::{counted, fill_bar, layout},
    text::plain,
    units,
};

/// Cells of a store's bar.
const BAR: usize = 24;

/// All lines of it.
pub(crate) fn lines(overview: &Overview, attention: &[Attention]) -> Vec<String> {
    let mut lines = vec![verdict(overview, attention)];
    for (number, one) in attention.iter().enumerate() {
        lines.extend(item(number + 1, one, overview.now));
    }
    match &overview.daemon {
        Daemon::Silent(_) => lines.extend(overview.local.iter().flat_map(local)),
        Daemon::Told(told) => lines.extend(of_told(overview, told)),
    }
    lines.extend(of_schedules(overview));
    lines.extend(of_configuration(overview));
    lines
}

/// The first line, which is all that some read.
pub(crate) fn verdict(overview: &Overview, attention: &[Attention]) -> String {
    match (attention, overview.told()) {
        ([], Some(told)) => {
            let up = told.info.started_at.as_ref().map_or(0, units::seconds);
            format!(
                "All is well: {}, {} (tidemarkd {}, up {})",
                counted(told.volumes.len() as u64, "volume"),
                counted(told.snapshots.len() as u64, "live snapshot"),
                told.info.version,
                units::age(overview.now.saturating_sub(up)),
            )
        }
        (some, _) => match some.len() {
            1 => "1 thing needs you:".to_owned(),
            count => format!("{count} things need you:"),
        },
    }
}

fn item(number: usize, one: &Attention, now: u64) -> Vec<String> {
    let mut lines = vec![format!("  {number}. {}", one.what)];
    if let Some(since) = one.since {
        let ago = units::age(now.saturating_sub(since));
        lines.push(format!("     since {} ({ago} ago)", units::moment(since)));
    }
    lines.push(format!("     next: {}", one.next));
    lines
}

/// A volume as the host itself tells of it.
fn local(volume: &served::Volume) -> Vec<String> {
    let served = match volume.served {
        true => "its server runs: reads and writes go on, and changes are tracked",
        false => "no server runs",
    };
    vec![String::new(), format!("{}  {served}", volume.name)]
}

fn of_told(overview: &Overview, told: &Told) -> Vec<String> {
    let mut lines = Vec::new();
    for volume in &told.volumes {
        lines.push(String::new());
        lines.extend(of_volume(overview, volume));
    }
    let snapshots: Vec<_> = told.snapshots.iter().map(snapshot::row).collect();
    lines.extend(section(&snapshot::HEADING, &snapshots));
    let kept = told
        .snapshots
        .iter()
        .filter(|snapshot| snapshot.lease_expires_at.is_none())
        .count();
    if kept > 0 {
        let kept = counted(kept as u64, "snapshot");
        lines.push(format!("{kept} without a lease: kept until released"));
    }
    if !told.repositories.is_empty() {
        lines.push(String::new());
        lines.extend(told.repositories.iter().map(repo::describe));
    }
    let operations: Vec<_> = told.operations.iter().map(job::row).collect();
    lines.extend(section(&job::HEADING, &operations));
    if !told.warnings.is_empty() {
        lines.extend([String::new(), "latest warnings:".to_owned()]);
        lines.extend(told.warnings.iter().map(events::line));
    }
    lines
}

fn of_volume(overview: &Overview, volume: &Volume) -> Vec<String> {
    let store = volume.store_status.unwrap_or_default();
    let facts = [
        ("tracking", trust(volume)),
        (
            "store",
            format!(
                "{} {} of {} ({}), {}",
                fill_bar(store.used_bytes, store.capacity_bytes, BAR),
                units::bytes(store.used_bytes),
                units::bytes(store.capacity_bytes),
                units::per_cent(store.used_bytes, store.capacity_bytes),
                counted(volume.live_snapshots.into(), "live snapshot"),
            ),
        ),
        ("backup", last_backup(overview, &volume.name)),
    ];
    let facts = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
    std::iter::once(head(volume))
        .chain(facts.map(|(label, fact)| format!("  {label:<9} {fact}")))
        .collect()
}

fn head(volume: &Volume) -> String {
    let transport = match volume.transport() {
        TransportKind::Ublk => " by ublk",
        TransportKind::Portable => " by the portable transport",
        TransportKind::Unspecified => "",
    };
    let state = match volume.state() {
        VolumeState::Attached => "attached",
        VolumeState::Unavailable => "SERVER DOES NOT ANSWER",
        VolumeState::Bypassed => "BYPASSED",
        VolumeState::FellBack => "FELL BACK, NOT TRACKED",
        VolumeState::Unspecified => "state unknown",
    };
    let device = match volume.device_path.as_str() {
        "" => &volume.live_path,
        device => device,
    };
    let mounted = match volume.mount_points.as_slice() {
        [] => "not mounted".to_owned(),
        points => format!("mounted on {}", points.join(", ")),
    };
    format!(
        "{}  {state}{transport}, {}, {device} {mounted}",
        volume.name,
        units::bytes(volume.capacity_bytes)
    )
}

/// How far a diff can be relied on, in words.
pub(crate) fn trust(volume: &Volume) -> String {
    let Some(report) = &volume.trust else {
        return String::new();
    };
    let since = report.since.as_ref().map(units::seconds);
    let since = since.map_or_else(String::new, |since| {
        format!(" since {}", units::moment(since))
    });
    let known = match report.trust() {
        Trust::Continuous => format!("every change is known{since}"),
        Trust::Superset => format!(
            "every change is known{since}, and up to {} more would be read ({})",
            units::bytes(report.over_report_bound_bytes),
            plain(&report.reason)
        ),
        Trust::Broken => format!(
            "BROKEN{since}: changes may be missing ({}); the next backup is a full one",
            plain(&report.reason)
        ),
        Trust::Unspecified => "unknown".to_owned(),
    };
    let survives = match volume.durability() {
        TrackingDurability::Durable => "; survives a restart",
        TrackingDurability::Volatile => "; ends with the host",
        TrackingDurability::Suspended => "; WOULD NOT SURVIVE a restart now",
        TrackingDurability::Unspecified => "",
    };
    known + survives
}

/// How the schedules that have the volume went last.
fn last_backup(overview: &Overview, volume: &str) -> String {
    let Ok(schedules) = &overview.schedules else {
        return String::new();
    };
    let ours = schedules
        .iter()
        .filter(|one| one.volumes.iter().any(|name| name == volume));
    let told: Vec<_> = ours.map(|one| run(one, overview.now)).collect();
    match told.as_slice() {
        [] => "by no schedule of the configuration".to_owned(),
        told => told.join("; "),
    }
}

fn run(schedule: &Schedule, now: u64) -> String {
    let name = &schedule.name;
    let Some(last) = &schedule.last else {
        return format!("{name} has never run");
    };
    if schedule.running {
        return format!("{name} runs now");
    }
    let ago = units::age(now.saturating_sub(last.ended_at.max(last.started_at)));
    let how = match last.ended_at < last.started_at {
        true => "was ended before it was done",
        false => last.outcome.word(),
    };
    format!("{name} {how} {ago} ago")
}

fn of_schedules(overview: &Overview) -> Vec<String> {
    match &overview.schedules {
        Ok(all) => {
            let rows: Vec<_> = all.iter().map(Schedule::row).collect();
            section(&schedule::HEADING, &rows)
        }
        Err(why) => vec![
            String::new(),
            format!("schedules are not known: {}", plain(why)),
        ],
    }
}

fn of_configuration(overview: &Overview) -> Vec<String> {
    let Some(status) = overview
        .told()
        .and_then(|told| told.info.configuration.as_ref())
    else {
        return Vec::new();
    };
    let file = plain(&status.path);
    let line = match (&status.loaded_at, status.problems.is_empty()) {
        (Some(at), true) => format!(
            "configuration {file} in force since {}",
            units::moment(units::seconds(at))
        ),
        (Some(_), false) => format!("configuration {file} IN FORCE IN PART"),
        (None, true) => format!("configuration {file} is not there: none is needed"),
        (None, false) => format!("configuration {file} NOT IN FORCE"),
    };
    vec![String::new(), line]
}

fn section(heading: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    match rows {
        [] => Vec::new(),
        rows => std::iter::once(String::new())
            .chain(layout(heading, rows))
            .collect(),
    }
}
