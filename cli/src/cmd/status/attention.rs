//! What needs the operator: decided here, and nowhere else.

use serde_json::{Value, json};
use tidemark_proto::v1::{TrackingDurability, Trust, Volume, VolumeState};

use super::overview::{Daemon, Overview, Told};
use crate::{
    cmd::schedule::{Schedule, record::Outcome},
    host::served,
    text::plain,
    units,
};

/// A store fuller than this is worth a word.
const STORE_WARN_PER_CENT: u128 = 80;

/// One thing that needs the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Attention {
    /// What is wrong, and what that means.
    pub(crate) what: String,
    /// Since when, in seconds since the UNIX epoch, where that is known.
    pub(crate) since: Option<u64>,
    /// The command to run next.
    pub(crate) next: String,
}

impl Attention {
    fn new(what: String, since: Option<u64>, next: impl Into<String>) -> Self {
        Self {
            what: plain(&what),
            since,
            next: next.into(),
        }
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "what": self.what,
            "since": self.since.map(units::moment),
            "next": self.next,
        })
    }
}

/// What needs the operator, worst first.
pub(crate) fn of(overview: &Overview) -> Vec<Attention> {
    let mut all = Vec::new();
    match &overview.daemon {
        Daemon::Silent(report) => {
            all.push(silence(overview, report));
            let unserved = overview.local.iter().filter(|volume| !volume.served);
            all.extend(unserved.map(|volume| unserved_volume(overview, volume)));
        }
        Daemon::Told(told) => {
            for volume in &told.volumes {
                all.extend(of_volume(overview, volume));
            }
            all.extend(of_configuration(told));
        }
    }
    for schedule in overview.schedules.iter().flatten() {
        all.extend(late(overview, schedule));
        all.extend(of_schedule(schedule));
    }
    all
}

/// The daemon does not answer. Whether volumes are served is told beside.
fn silence(overview: &Overview, report: &crate::exit::Report) -> Attention {
    let denied = report.exit == crate::exit::Exit::Denied;
    let (what, next) = match (denied, overview.systemd) {
        (true, _) => (
            "you may not call the daemon",
            "sudo tidemark status, or join the group that owns the socket",
        ),
        (false, true) => (
            "the daemon does not answer: no snapshots, no backups; reads and writes of the volumes go on",
            "systemctl status tidemarkd.socket tidemarkd.service; journalctl -u tidemarkd -b",
        ),
        (false, false) => (
            "the daemon does not answer: no snapshots, no backups; reads and writes of the volumes go on",
            "tidemarkd serve, and read what it says",
        ),
    };
    Attention::new(format!("{what} ({})", report.message), None, next)
}

/// Told without the daemon: nobody serves a volume that somebody should.
fn unserved_volume(overview: &Overview, volume: &served::Volume) -> Attention {
    let name = &volume.name;
    let next = log_of(overview, name);
    let failure = volume
        .outcome
        .as_ref()
        .and_then(|outcome| Some((outcome.at, outcome.failure.as_ref()?)));
    match failure {
        Some((at, (reason, message))) => Attention::new(
            format!(
                "{name}: its server did not start ({reason}: {message}); writes since then are not tracked, \
                 tracking is BROKEN, and the next backup is a full one"
            ),
            Some(at),
            next,
        ),
        None => Attention::new(
            format!("{name}: nobody serves it; a device over it waits, or is not tracked"),
            None,
            next,
        ),
    }
}

/// Where a server tells what is wrong.
fn log_of(overview: &Overview, name: &str) -> String {
    let by_unit = overview
        .local
        .iter()
        .any(|one| one.name == name && one.unit.is_some());
    match by_unit {
        true => format!("journalctl -b -u tidemark-volume@{name}"),
        false => format!("tail {}", overview.places.log(name).display()),
    }
}

/// What a volume needs.
pub(crate) fn of_volume(overview: &Overview, volume: &Volume) -> Vec<Attention> {
    let mut all = Vec::new();
    all.extend(of_state(overview, volume));
    let trust = volume.trust.clone().unwrap_or_default();
    let fallen = volume.state() == VolumeState::FellBack;
    if trust.trust() == Trust::Broken && !fallen {
        all.push(Attention::new(
            format!(
                "{}: tracking is BROKEN ({}); the next backup is a full one, and mends this",
                volume.name, trust.reason
            ),
            trust.since.as_ref().map(units::seconds),
            backup_of(overview, &volume.name),
        ));
    }
    let store = volume.store_status.unwrap_or_default();
    let used = u128::from(store.used_bytes) * 100;
    if store.capacity_bytes > 0 && used >= u128::from(store.capacity_bytes) * STORE_WARN_PER_CENT {
        all.push(Attention::new(
            format!(
                "{}: its store is {} full; when it is full, snapshots are dropped",
                volume.name,
                units::per_cent(store.used_bytes, store.capacity_bytes)
            ),
            None,
            "tidemark snapshot list, then: tidemark snapshot release ID",
        ));
    }
    if volume.durability() == TrackingDurability::Suspended {
        all.push(Attention::new(
            format!(
                "{}: its area fails ({}); tracking goes on, but would end with a restart of the host",
                volume.name, volume.durability_reason
            ),
            None,
            format!("tidemark events --volume {}", volume.name),
        ));
    }
    all
}

fn of_state(overview: &Overview, volume: &Volume) -> Option<Attention> {
    let name = &volume.name;
    let since = last_warning(overview.told()?, name);
    let trust = volume.trust.clone().unwrap_or_default();
    Some(match volume.state() {
        VolumeState::Attached => return None,
        VolumeState::Bypassed => Attention::new(
            format!(
                "{name}: requests go around us ({}); tracking starts anew when it is put back",
                trust.reason
            ),
            since,
            format!("tidemark events --volume {name}"),
        ),
        VolumeState::FellBack => Attention::new(
            format!(
                "{name}: its servers died again and again, so that it was given back to the host, untracked ({})",
                trust.reason
            ),
            since,
            format!("tidemark volume detach {name}, then attach it again"),
        ),
        VolumeState::Unavailable | VolumeState::Unspecified => {
            let local = overview.local.iter().find(|one| one.name == *name);
            let failure = local
                .filter(|one| !one.served)
                .and_then(|one| one.outcome.as_ref()?.failure.as_ref());
            let why = failure.map_or_else(String::new, |(reason, message)| {
                format!(" ({reason}: {message})")
            });
            Attention::new(
                format!("{name}: its server does not answer{why}; it is started again and again"),
                since,
                log_of(overview, name),
            )
        }
    })
}

/// When this volume last gave reason to warn.
fn last_warning(told: &Told, volume: &str) -> Option<u64> {
    let mut events = told.warnings.iter().rev();
    let event = events.find(|event| event.volume == volume)?;
    event.at.as_ref().map(units::seconds)
}

/// How a volume is backed up on this host.
fn backup_of(overview: &Overview, volume: &str) -> String {
    let mut schedules = overview.schedules.iter().flatten();
    let ours = schedules.find(|one| one.volumes.iter().any(|name| name == volume));
    let repositories = overview.told().map_or(&[][..], |told| &told.repositories);
    match (ours, repositories) {
        (Some(schedule), _) => format!("tidemark schedule run {}", schedule.name),
        (None, [repository, ..]) => {
            format!("tidemark backup --to {} {volume}", repository.name)
        }
        (None, []) => format!("tidemark pull {volume} IMAGE"),
    }
}

/// A configuration that is not in force, or not in full.
pub(crate) fn of_configuration(told: &Told) -> Vec<Attention> {
    let Some(status) = &told.info.configuration else {
        return Vec::new();
    };
    let since = status.loaded_at.as_ref().map(units::seconds);
    let problems = status.problems.iter();
    problems
        .map(|problem| {
            Attention::new(
                format!("configuration: {problem}"),
                since,
                format!("tidemark config check {}", status.path),
            )
        })
        .collect()
}

/// A schedule that did not begin when it should have.
fn late(overview: &Overview, schedule: &Schedule) -> Option<Attention> {
    let name = &schedule.name;
    let by = schedule.due_by?;
    if schedule.running || overview.now <= by {
        return None;
    }
    let next = match overview.systemd {
        true => format!("systemctl status tidemark-backup@{name}.timer"),
        false => format!("tidemark schedule run {name}"),
    };
    let what = format!("schedule {name} should have run, and did not");
    Some(Attention::new(what, Some(by), next))
}

/// A schedule whose last run did not do all it should.
fn of_schedule(schedule: &Schedule) -> Option<Attention> {
    let name = &schedule.name;
    let last = schedule.last.as_ref().filter(|_| !schedule.running)?;
    let first = last.failures.first().map_or("", String::as_str);
    let what = match (last.ended_at < last.started_at, last.outcome) {
        (true, _) => format!("schedule {name} was ended before it was done"),
        (false, Outcome::Succeeded) => return None,
        (false, Outcome::Partial) => {
            format!("schedule {name} made its backup, and then failed: {first}")
        }
        (false, Outcome::Failed) => format!("schedule {name} failed: {first}"),
    };
    let good = match last.backed_up_at {
        0 => "; it has never made a backup".to_owned(),
        at => format!("; its last backup is of {}", units::moment(at)),
    };
    let since = last.ended_at.max(last.started_at);
    let next = format!("tidemark schedule run {name}");
    Some(Attention::new(what + &good, Some(since), next))
}
