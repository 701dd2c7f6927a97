//! What is told of the agent itself, of operations, repositories and schedules.

use std::collections::BTreeMap;

use tidemark_config::{
    Backup,
    runs::{Outcome, Record},
};
use tidemark_proto::v1::{OperationKind, OperationState};

use super::text::{Families, Labels, seconds};
use crate::{backup::Made, manager::operations::Tally};

/// What the schedules of the configuration are and how their last runs went; `None` where the records could
/// not be read in time.
pub(super) struct Schedules {
    pub(super) named: BTreeMap<String, Backup>,
    pub(super) records: Option<BTreeMap<String, Record>>,
}

/// The agent's own families. `state_up`: the catalog and the records of schedules were read in time.
pub(super) fn agent(out: &mut Families, started_us: u64, state_up: bool) {
    out.info(
        "tidemark_build",
        "The agent's version",
        [vec![("version", env!("CARGO_PKG_VERSION").to_owned())]],
    );
    out.gauge(
        "process_start_time_seconds",
        "When the agent started, since the UNIX epoch; volume servers may be older",
        [(Labels::new(), seconds(started_us))],
    );
    out.gauge(
        "tidemark_state_up",
        "Whether the agent's catalog and the records of schedules could be read in time",
        [(Labels::new(), f64::from(u8::from(state_up)))],
    );
}

/// Every kind and outcome from the start on, so that the first of them is a rise.
pub(super) fn operations(out: &mut Families, tally: &Tally) {
    const OUTCOMES: [OperationState; 3] = [
        OperationState::Succeeded,
        OperationState::Failed,
        OperationState::Cancelled,
    ];
    let kinds = || (1..).map_while(|number| OperationKind::try_from(number).ok());
    out.gauge(
        "tidemark_operations_running",
        "Operations that run",
        kinds().map(|kind| {
            let running = tally.running.get(&kind).copied().unwrap_or(0);
            (vec![("kind", kind_word(kind))], running as f64)
        }),
    );
    out.counter(
        "tidemark_operations",
        "Operations that ended since the agent started, by how",
        kinds().flat_map(|kind| {
            OUTCOMES.map(|outcome| {
                let ended = tally.ended.get(&(kind, outcome)).copied().unwrap_or(0);
                let outcome = word(outcome.as_str_name(), "OPERATION_STATE_");
                (
                    vec![("kind", kind_word(kind)), ("outcome", outcome)],
                    ended as f64,
                )
            })
        }),
    );
}

fn kind_word(kind: OperationKind) -> String {
    word(kind.as_str_name(), "OPERATION_KIND_")
}

fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

/// When backups were last made: by this process, or by a schedule at any time.
pub(super) fn backups(
    out: &mut Families,
    repositories: &[String],
    schedules: &Schedules,
    made: &Made,
) {
    out.info(
        "tidemark_repository",
        "A repository that the agent knows",
        repositories
            .iter()
            .map(|name| vec![("repository", name.clone())]),
    );
    let mut volumes = in_seconds(&made.of_volumes);
    let mut to = in_seconds(&made.to_repositories);
    for (name, record) in schedules.records.iter().flatten() {
        let Some(backup) = schedules
            .named
            .get(name)
            .filter(|_| record.backed_up_at > 0)
        else {
            continue;
        };
        let at = record.backed_up_at as f64;
        for volume in &backup.volumes {
            newest(&mut volumes, volume, at);
        }
        newest(&mut to, &backup.repository, at);
    }
    let samples = |label, times: BTreeMap<String, f64>| {
        times
            .into_iter()
            .map(move |(name, at)| (vec![(label, name)], at))
    };
    out.gauge(
        "tidemark_repository_last_backup_timestamp_seconds",
        "When a backup to the repository was last made here, since the UNIX epoch; absent while none is known",
        samples("repository", to),
    );
    out.gauge(
        "tidemark_volume_last_backup_timestamp_seconds",
        "When a backup of the volume was last made, since the UNIX epoch; absent while none is known",
        samples("volume", volumes),
    );
}

fn in_seconds(times: &BTreeMap<String, u64>) -> BTreeMap<String, f64> {
    let times = times.iter();
    times
        .map(|(name, us)| (name.clone(), seconds(*us)))
        .collect()
}

fn newest(times: &mut BTreeMap<String, f64>, name: &str, at: f64) {
    let known = times.entry(name.to_owned()).or_insert(at);
    *known = known.max(at);
}

/// One number of a record.
type Figure = (&'static str, &'static str, fn(&Record) -> u64);

/// What is told of a schedule that ran before. A time of 0 is none.
const TIMES: [Figure; 4] = [
    (
        "tidemark_schedule_last_start_timestamp_seconds",
        "When the schedule's last run began, since the UNIX epoch",
        |record| record.started_at,
    ),
    (
        "tidemark_schedule_last_end_timestamp_seconds",
        "When the schedule's last run ended, since the UNIX epoch; absent while it runs",
        |record| {
            if record.has_ended() {
                record.ended_at
            } else {
                0
            }
        },
    ),
    (
        "tidemark_schedule_last_backup_timestamp_seconds",
        "When a run of the schedule last made its recovery points, since the UNIX epoch",
        |record| record.backed_up_at,
    ),
    (
        "tidemark_schedule_last_success_timestamp_seconds",
        "When a run of the schedule last did all it should, since the UNIX epoch",
        |record| record.succeeded_at,
    ),
];

/// The rest.
const FIGURES: [Figure; 4] = [
    (
        "tidemark_schedule_failures_in_a_row",
        "Runs since the last one that did all it should",
        |record| record.failed_in_a_row,
    ),
    (
        "tidemark_schedule_last_read_bytes",
        "Bytes of volumes that the schedule's last run read",
        |record| record.read_bytes,
    ),
    (
        "tidemark_schedule_last_changed_bytes",
        "Bytes of these that had changed",
        |record| record.changed_bytes,
    ),
    (
        "tidemark_schedule_last_stored_bytes",
        "Bytes that the repository grew by in the schedule's last run",
        |record| record.stored_bytes,
    ),
];

/// The families of schedules.
pub(super) fn schedules(out: &mut Families, schedules: &Schedules) {
    out.info(
        "tidemark_schedule",
        "A schedule of the configuration; without a calendar it is run by hand",
        schedules.named.iter().map(|(name, backup)| {
            let calendar = backup.schedule.clone().unwrap_or_default();
            vec![
                ("schedule", name.clone()),
                ("repository", backup.repository.clone()),
                ("calendar", calendar),
            ]
        }),
    );
    let records = || schedules.records.iter().flatten();
    for (name, help, figure) in TIMES {
        let told = records().map(|(schedule, record)| (schedule, figure(record)));
        let told = told.filter(|(_, at)| *at > 0);
        out.gauge(
            name,
            help,
            told.map(|(schedule, at)| (of(schedule), at as f64)),
        );
    }
    for (name, help, figure) in FIGURES {
        out.gauge(
            name,
            help,
            records().map(|(schedule, record)| (of(schedule), figure(record) as f64)),
        );
    }
    out.gauge(
        "tidemark_schedule_last_outcome",
        "1 for how the schedule's last run ended: partial made its backup and failed after it; absent while it runs",
        records().filter(|(_, record)| record.has_ended()).flat_map(|(schedule, record)| {
            Outcome::ALL.map(|outcome| {
                let mut labels = of(schedule);
                labels.push(("outcome", outcome.word().to_owned()));
                (labels, f64::from(u8::from(record.outcome == outcome)))
            })
        }),
    );
}

fn of(schedule: &str) -> Labels {
    vec![("schedule", schedule.to_owned())]
}
