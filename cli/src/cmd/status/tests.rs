//! What the page and the view say, word for word.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use prost_types::Timestamp;
use tidemark_proto::v1::{
    ConfigurationStatus, Event, EventKind, GetServerInfoResponse, Operation, OperationKind,
    Severity, StoreStatus, TrackingDurability, TransportKind, Trust, TrustReport, Volume,
    VolumeState, VolumeStats,
};

use super::{
    attention,
    overview::{Daemon, Overview, Told},
    page,
    watch::{frame, rates::Samples},
};
use crate::{
    cmd::schedule::{
        Schedule,
        record::{Outcome, Record},
    },
    exit::{Exit, Fault, Report},
    host::served::{self, Places, Unit},
};

const NOW: u64 = 1_000_010_000;

fn at(seconds: u64) -> Option<Timestamp> {
    let seconds = i64::try_from(seconds).unwrap();
    Some(Timestamp { seconds, nanos: 0 })
}

fn volume(name: &str, trust: Trust, used_bytes: u64) -> Volume {
    Volume {
        name: name.to_owned(),
        capacity_bytes: 10 << 30,
        transport: TransportKind::Ublk.into(),
        state: VolumeState::Attached.into(),
        device_path: format!("/dev/mapper/vg-{name}"),
        mount_points: vec![format!("/{name}")],
        durability: TrackingDurability::Durable.into(),
        live_snapshots: 1,
        trust: Some(TrustReport {
            trust: trust.into(),
            reason: match trust {
                Trust::Broken => "the host wrote to it before we did".to_owned(),
                _ => String::new(),
            },
            since: at(NOW - 3600),
            ..TrustReport::default()
        }),
        store_status: Some(StoreStatus {
            capacity_bytes: 1 << 30,
            used_bytes,
        }),
        ..Volume::default()
    }
}

fn schedule(outcome: Outcome, failure: &str) -> Schedule {
    let failures = [failure].into_iter().filter(|text| !text.is_empty());
    Schedule {
        name: "nightly".to_owned(),
        volumes: vec!["home".to_owned()],
        repository: "vault".to_owned(),
        calendar: Some("daily".to_owned()),
        next: Some("Sun 2001-09-10 00:00:00 UTC".to_owned()),
        due_by: None,
        running: false,
        last: Some(Record {
            started_at: NOW - 7300,
            ended_at: NOW - 7200,
            backed_up_at: NOW - 7200,
            outcome,
            failures: failures.map(ToOwned::to_owned).collect(),
            ..Record::default()
        }),
    }
}

fn told(volumes: Vec<Volume>) -> Overview {
    let told = Told {
        info: GetServerInfoResponse {
            version: "0.1.0".to_owned(),
            started_at: at(NOW - 200_000),
            configuration: Some(ConfigurationStatus {
                path: "/etc/tidemark/tidemark.toml".to_owned(),
                loaded_at: at(NOW - 200_000),
                problems: Vec::new(),
            }),
            ..GetServerInfoResponse::default()
        },
        volumes,
        ..Told::default()
    };
    overview(Daemon::Told(Box::new(told)))
}

fn overview(daemon: Daemon) -> Overview {
    let config = PathBuf::from("/etc/tidemark/tidemark.toml");
    Overview {
        now: NOW,
        daemon,
        local: Vec::new(),
        places: Places::of(Path::new("/run/tidemark/tidemark.sock"), &config),
        config,
        schedules: Ok(vec![schedule(Outcome::Succeeded, "")]),
        systemd: true,
    }
}

fn silent() -> Overview {
    let fault = Fault::new(
        Exit::NoDaemon,
        "no connection to /run/tidemark/tidemark.sock",
    );
    overview(Daemon::Silent(Report::of(&fault.into())))
}

fn shown(overview: &Overview) -> String {
    page::lines(overview, &attention::of(overview)).join("\n")
}

#[test]
fn a_page_where_all_is_well() {
    let well = told(vec![volume("home", Trust::Continuous, 256 << 20)]);
    assert_eq!(
        shown(&well),
        "\
All is well: 1 volume, 0 live snapshots (tidemarkd 0.1.0, up 2 d 7 h)

home  attached by ublk, 10.0 GiB, /dev/mapper/vg-home mounted on /home
  tracking  every change is known since 2001-09-09T03:33:20Z; survives a restart
  store     [######------------------] 256.0 MiB of 1.0 GiB (25.0 %), 1 live snapshot
  backup    nightly succeeded 2 h 0 min ago

SCHEDULE  VOLUMES  TO     WHEN   NEXT                         LAST RUN
nightly   home     vault  daily  Sun 2001-09-10 00:00:00 UTC  succeeded 1 min ago

configuration /etc/tidemark/tidemark.toml in force since 2001-09-06T21:00:00Z"
            .replace("succeeded 1 min ago", &table_cell(&well))
    );
}

/// The table tells the age by the real clock.
fn table_cell(overview: &Overview) -> String {
    let schedules = overview.schedules.as_ref().unwrap();
    schedules[0].row()[5].clone()
}

#[test]
fn what_is_wrong_comes_first_with_since_when_and_what_to_run() {
    let mut overview = told(vec![
        volume("home", Trust::Broken, 0),
        volume("var", Trust::Continuous, 900 << 20),
    ]);
    overview.schedules = Ok(vec![schedule(Outcome::Failed, "no backup: no space")]);
    let Daemon::Told(told) = &mut overview.daemon else {
        unreachable!("it answered");
    };
    let configuration = told.info.configuration.as_mut().unwrap();
    configuration.problems = vec!["tidemark.toml:4:1: \"x\" means nothing".to_owned()];
    let page = shown(&overview);
    let head: Vec<_> = page.lines().take(12).collect();
    assert_eq!(
        head.join("\n"),
        "\
4 things need you:
  1. home: tracking is BROKEN (the host wrote to it before we did); the next backup is a full one, and mends this
     since 2001-09-09T03:33:20Z (1 h 0 min ago)
     next: tidemark schedule run nightly
  2. var: its store is 87.8 % full; when it is full, snapshots are dropped
     next: tidemark snapshot list, then: tidemark snapshot release ID
  3. configuration: tidemark.toml:4:1: \"x\" means nothing
     since 2001-09-06T21:00:00Z (2 d 7 h ago)
     next: tidemark config check /etc/tidemark/tidemark.toml
  4. schedule nightly failed: no backup: no space; its last backup is of 2001-09-09T02:33:20Z
     since 2001-09-09T02:33:20Z (2 h 0 min ago)
     next: tidemark schedule run nightly"
    );
}

#[test]
fn a_schedule_that_does_not_begin_is_told_of() {
    let mut overview = told(Vec::new());
    let mut of = |due_by, running, systemd| {
        overview.systemd = systemd;
        let schedule = schedule(Outcome::Succeeded, "");
        overview.schedules = Ok(vec![Schedule {
            due_by: Some(due_by),
            running,
            ..schedule
        }]);
        attention::of(&overview)
    };
    assert_eq!(of(NOW, false, true), []);
    assert_eq!(of(NOW - 60, true, true), []);
    let late = of(NOW - 60, false, true);
    assert_eq!(late.len(), 1);
    assert_eq!(
        late[0].what,
        "schedule nightly should have run, and did not"
    );
    assert_eq!(late[0].since, Some(NOW - 60));
    assert_eq!(
        late[0].next,
        "systemctl status tidemark-backup@nightly.timer"
    );
    let by_hand = of(NOW - 60, false, false);
    assert_eq!(by_hand[0].next, "tidemark schedule run nightly");
}

#[test]
fn states_of_volumes_have_their_commands() {
    for (state, by_unit, what, next) in [
        (
            VolumeState::Unavailable,
            true,
            "home: its server does not answer (NO: because)",
            "journalctl -b -u tidemark-volume@home",
        ),
        (
            VolumeState::Unavailable,
            false,
            "home: its server does not answer (NO: because)",
            "tail /run/tidemark/volumes/home/log",
        ),
        (
            VolumeState::Bypassed,
            true,
            "home: requests go around us",
            "tidemark events --volume home",
        ),
        (
            VolumeState::FellBack,
            true,
            "home: its servers died again and again",
            "tidemark volume detach home, then attach it again",
        ),
    ] {
        let mut volume = volume("home", Trust::Continuous, 0);
        volume.state = state.into();
        let mut overview = told(vec![volume]);
        overview.local = vec![failed("home", by_unit)];
        let found = attention::of(&overview);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.starts_with(what), "{found:?}");
        assert_eq!(found[0].next, next);
    }
}

fn failed(name: &str, by_unit: bool) -> served::Volume {
    served::Volume {
        name: name.to_owned(),
        served: false,
        unit: by_unit.then_some(Unit { early: true }),
        outcome: Some(served::Outcome {
            at: NOW - 60,
            failure: Some(("NO".to_owned(), "because".to_owned())),
        }),
    }
}

#[test]
fn without_the_daemon_the_host_tells_what_it_can() {
    let mut overview = silent();
    overview.local = vec![
        served::Volume {
            name: "home".to_owned(),
            served: true,
            ..served::Volume::default()
        },
        failed("var", true),
    ];
    overview.schedules = Ok(Vec::new());
    assert_eq!(
        shown(&overview),
        "\
2 things need you:
  1. the daemon does not answer: no snapshots, no backups; reads and writes of the volumes go on (no connection to /run/tidemark/tidemark.sock)
     next: systemctl status tidemarkd.socket tidemarkd.service; journalctl -u tidemarkd -b
  2. var: its server did not start (NO: because); writes since then are not tracked, tracking is BROKEN, and the next backup is a full one
     since 2001-09-09T04:32:20Z (1 min ago)
     next: journalctl -b -u tidemark-volume@var

home  its server runs: reads and writes go on, and changes are tracked

var  no server runs"
    );
    let json = overview.json();
    assert_eq!(json["daemon_answers"], false);
    assert_eq!(json["attention"][1]["since"], "2001-09-09T04:32:20Z");
    assert_eq!(json["local"][1]["outcome"]["reason"], "NO");
}

#[test]
fn a_view_has_rates_time_to_full_operations_and_events() {
    let stats = |factor: u64| VolumeStats {
        read_requests: 100 * factor,
        read_bytes: 409_600 * factor,
        write_requests: 50 * factor,
        write_bytes: 204_800 * factor,
        preserved_bytes: 102_400 * factor,
        ..VolumeStats::default()
    };
    let mut first = volume("home", Trust::Continuous, 100 << 20);
    first.stats = Some(stats(0));
    let mut second = volume("home", Trust::Continuous, 110 << 20);
    second.stats = Some(stats(2));
    let start = Instant::now();
    let mut samples = Samples::default();
    samples.take(start, &[first]);
    samples.take(
        start + Duration::from_secs(2),
        std::slice::from_ref(&second),
    );
    let mut overview = told(vec![second]);
    let Daemon::Told(told) = &mut overview.daemon else {
        unreachable!("it answered");
    };
    told.operations = vec![Operation {
        kind: OperationKind::Backup.into(),
        subject: "home".to_owned(),
        done_bytes: 1 << 30,
        total_bytes: 4 << 30,
        ..Operation::default()
    }];
    let events = [Event {
        sequence: 7,
        at: at(NOW),
        kind: EventKind::SnapshotCreated.into(),
        severity: Severity::Info.into(),
        volume: "home".to_owned(),
        message: "snapshot\u{1b}[2J made".to_owned(),
        ..Event::default()
    }];
    let seen = frame::Seen {
        attention: &attention::of(&overview),
        overview: &overview,
        samples: &samples,
        events: &events,
        interval: Duration::from_secs(2),
    };
    let lines: Vec<_> = frame::lines(&seen)
        .into_iter()
        .map(|line| line.text)
        .collect();
    assert_eq!(
        lines.join("\n"),
        "\
All is well: 1 volume, 0 live snapshots (tidemarkd 0.1.0, up 2 d 7 h)
2001-09-09T04:33:20Z, every 2 s; Ctrl-C ends it

home  ATTACHED  CONTINUOUS  1 live snapshot
  read    100/s  400.0 KiB/s   write     50/s  200.0 KiB/s   preserved  100.0 KiB/s
  store  [###---------------------] 110.0 MiB of 1.0 GiB (10.7 %), full in 3 min

backup home  [####------------] 1.0 GiB of 4.0 GiB

     7 2001-09-09T04:33:20Z SNAPSHOT_CREATED home: snapshot\u{fffd}[2J made"
    );
}
