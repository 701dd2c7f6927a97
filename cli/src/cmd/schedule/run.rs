//! One run of a schedule.
//!
//! ```text
//! lock, note that it began
//! back up ──failed──────────────────────┐
//! forget, prune when due, check a sample │  each tried whatever became of the one before
//! note how it went <────────────────────┘
//! after-backup, or on-failure
//! one line of summary, exit code
//! ```

use std::time::Duration;

use serde_json::json;
use tidemark_config::{Backup, Keep, Prune};
use tidemark_proto::v1::{
    BackupRequest, CheckRequest, ForgetPointsRequest, PointFilter, PruneRequest, RecoveryPoint,
    RetentionPolicy, operation::Result as JobResult,
};
use uuid::Uuid;

use super::{
    RunArgs, hook,
    record::{Outcome, Record},
};
use crate::{
    client::Client,
    cmd::{backup, check, prune},
    context::Context,
    exit::{Exit, Fault, Report},
    output::counted,
    select::malformed,
    text::plain,
    units::{self, now},
};

/// A weekly prune is due half a day before the week is over: runs come at about the same time of day.
const PRUNE_DUE_S: u64 = 7 * 86_400 - 43_200;

/// What a run did, and what of it failed.
#[derive(Default)]
struct Told {
    points: Vec<RecoveryPoint>,
    done: Vec<String>,
    failures: Vec<Report>,
}

impl Told {
    /// Takes a step's outcome in.
    fn step(&mut self, what: &str, step: anyhow::Result<String>) -> bool {
        match step {
            Ok(done) => self.done.push(done),
            Err(error) => {
                self.failures
                    .push(Report::of(&error.context(what.to_owned())));
                return false;
            }
        }
        true
    }

    fn outcome(&self) -> Outcome {
        match (self.points.is_empty(), self.failures.is_empty()) {
            (true, _) => Outcome::Failed,
            (false, true) => Outcome::Succeeded,
            (false, false) => Outcome::Partial,
        }
    }

    fn sum(&self, bytes: impl Fn(&tidemark_proto::v1::PointWork) -> u64) -> u64 {
        let works = self.points.iter().filter_map(|point| point.work.as_ref());
        works.map(bytes).fold(0, u64::saturating_add)
    }
}

/// Runs a schedule, and says in one line how that went.
pub(super) async fn run(args: RunArgs, context: &Context) -> anyhow::Result<()> {
    let name = args.name.as_str();
    let read = args.place.read()?;
    let Some(backup) = read.backups.get(name) else {
        let known: Vec<_> = read.backups.keys().map(String::as_str).collect();
        let message = format!("there is no [backup.{}]", name.escape_debug());
        return Err(Fault::new(Exit::Usage, message)
            .advise(format!("the schedules are: {}", known.join(", ")))
            .into());
    };
    let append_only = read
        .repositories
        .get(&backup.repository)
        .is_some_and(|repository| repository.append_only);
    let records = args.place.records();
    let _lock = records.lock(name)?;
    let last = records.read(name)?.unwrap_or_default();
    let mut record = Record::begin(&last, now());
    let failed_before = record.failed_in_a_row;
    records.write(name, &record)?;
    let mut told = Told::default();
    match context.client().await {
        Err(error) => {
            told.step("no backup", Err(error));
        }
        Ok(client) => {
            let run = Run {
                name,
                backup,
                append_only,
                client: &client,
                context,
            };
            run.all(&mut told, &mut record).await;
        }
    }
    note(&told, &mut record, failed_before);
    let environment = environment(name, backup, &record);
    hooks(backup, &mut told, &environment).await;
    note(&told, &mut record, failed_before);
    records.write(name, &record)?;
    finish(name, &told, &record, context)
}

struct Run<'a> {
    name: &'a str,
    backup: &'a Backup,
    append_only: bool,
    client: &'a Client,
    context: &'a Context,
}

impl Run<'_> {
    async fn all(&self, told: &mut Told, record: &mut Record) {
        let made = self.back_up(told).await;
        if !told.step("no backup", made) {
            return;
        }
        record.backed_up_at = now();
        if let Some(keep) = self.backup.keep.filter(|_| !self.append_only) {
            let forgotten = self.forget(&keep, &told.points).await;
            told.step("forgetting", forgotten);
        }
        let due = match self.backup.prune {
            Prune::Always => true,
            Prune::Weekly => now().saturating_sub(record.pruned_at) >= PRUNE_DUE_S,
            Prune::Never => false,
        };
        if due && !self.append_only && told.step("pruning", self.prune().await) {
            record.pruned_at = now();
        }
        if self.backup.check_data_percent > 0 {
            told.step("checking", self.check().await);
        }
    }

    async fn back_up(&self, told: &mut Told) -> anyhow::Result<String> {
        let mut tags = vec![Backup::own_tag(self.name)];
        tags.extend(self.backup.tags.iter().cloned());
        let request = BackupRequest {
            repository: self.backup.repository.clone(),
            volumes: self.backup.volumes.clone(),
            tags,
            request_id: Uuid::new_v4().to_string(),
            ..BackupRequest::default()
        };
        let ended = backup::whole(request, self.client, self.context).await?;
        let Some(JobResult::Backup(result)) = ended.result else {
            return Err(malformed("Backup", "result"));
        };
        told.points = result.points;
        Ok(format!(
            "{} in {}, {} read, {} changed, {} stored",
            counted(told.points.len() as u64, "point"),
            self.backup.repository,
            units::bytes(told.sum(|work| work.read_bytes)),
            units::bytes(told.sum(|work| work.changed_bytes)),
            units::bytes(told.sum(|work| work.stored_bytes)),
        ))
    }

    /// Only of points that this schedule made, and made here: others may share the repository, and even
    /// the schedule's name.
    async fn forget(&self, keep: &Keep, made: &[RecoveryPoint]) -> anyhow::Result<String> {
        let host = made.first().map(|point| point.host.clone());
        let request = ForgetPointsRequest {
            repository: self.backup.repository.clone(),
            policy: Some(policy(keep)),
            filter: Some(PointFilter {
                name: String::new(),
                host: host.unwrap_or_default(),
                tags: vec![Backup::own_tag(self.name)],
            }),
            ..ForgetPointsRequest::default()
        };
        let call = async { Ok(self.client.repositories().forget_points(request).await?) };
        let verdicts = self
            .context
            .interrupt
            .guard(call)
            .await?
            .into_inner()
            .verdicts;
        let kept = verdicts.iter().filter(|one| !one.kept_because.is_empty());
        let kept = kept.count();
        Ok(format!("{} forgotten, {kept} kept", verdicts.len() - kept))
    }

    async fn prune(&self) -> anyhow::Result<String> {
        let request = PruneRequest {
            repository: self.backup.repository.clone(),
            ..PruneRequest::default()
        };
        let ended = prune::whole(request, self.client, self.context).await?;
        let Some(JobResult::Prune(result)) = ended.result else {
            return Err(malformed("Prune", "result"));
        };
        let freed = units::bytes(result.deleted_bytes);
        Ok(format!("pruned, {freed} deleted"))
    }

    async fn check(&self) -> anyhow::Result<String> {
        let percent = self.backup.check_data_percent;
        let request = CheckRequest {
            repository: self.backup.repository.clone(),
            read_data_percent: percent,
        };
        let ended = check::whole(request, self.client, self.context).await?;
        check::ensure_sound(&ended, &self.backup.repository)?;
        Ok(format!("checked with {percent} % of the data"))
    }
}

fn policy(keep: &Keep) -> RetentionPolicy {
    RetentionPolicy {
        last: keep.last,
        hourly: keep.hourly,
        daily: keep.daily,
        weekly: keep.weekly,
        monthly: keep.monthly,
        yearly: keep.yearly,
        within: (keep.within > Duration::ZERO).then(|| units::to_proto(keep.within)),
        tags: Vec::new(),
    }
}

fn note(told: &Told, record: &mut Record, failed_before: u64) {
    record.ended_at = now().max(record.started_at);
    record.outcome = told.outcome();
    let failures = told.failures.iter();
    record.failures = failures.clone().map(|one| plain(&one.message)).collect();
    let reason = failures.filter_map(|one| one.reason.clone()).next();
    record.reason = reason.unwrap_or_default();
    record.points = told.points.iter().map(|point| point.id.clone()).collect();
    record.read_bytes = told.sum(|work| work.read_bytes);
    record.changed_bytes = told.sum(|work| work.changed_bytes);
    record.stored_bytes = told.sum(|work| work.stored_bytes);
    record.failed_in_a_row = failed_before + 1;
    if record.outcome == Outcome::Succeeded {
        record.succeeded_at = record.ended_at;
        record.failed_in_a_row = 0;
    }
}

fn environment(name: &str, backup: &Backup, record: &Record) -> Vec<(&'static str, String)> {
    vec![
        ("TIDEMARK_SCHEDULE", name.to_owned()),
        ("TIDEMARK_REPOSITORY", backup.repository.clone()),
        ("TIDEMARK_VOLUMES", backup.volumes.join(" ")),
        ("TIDEMARK_OUTCOME", record.outcome.word().to_owned()),
        ("TIDEMARK_REASON", record.reason.clone()),
        ("TIDEMARK_MESSAGE", record.failures.join("; ")),
        ("TIDEMARK_POINTS", record.points.join(" ")),
        ("TIDEMARK_READ_BYTES", record.read_bytes.to_string()),
        ("TIDEMARK_CHANGED_BYTES", record.changed_bytes.to_string()),
        ("TIDEMARK_STORED_BYTES", record.stored_bytes.to_string()),
    ]
}

async fn hooks(backup: &Backup, told: &mut Told, environment: &[(&str, String)]) {
    let hooks = &backup.hooks;
    let (key, words) = match told.outcome() {
        Outcome::Succeeded => ("after-backup", &hooks.after_backup),
        Outcome::Partial | Outcome::Failed => ("on-failure", &hooks.on_failure),
    };
    if let Err(why) = hook::run(key, words, hooks.timeout, environment).await {
        let fault = Fault::new(Exit::Failed, why);
        told.failures.push(Report::of(&fault.into()));
    }
}

fn finish(name: &str, told: &Told, record: &Record, context: &Context) -> anyhow::Result<()> {
    let took = Duration::from_secs(record.ended_at.saturating_sub(record.started_at));
    let mut line = format!(
        "schedule {name}: {} in {}",
        record.outcome.word(),
        units::span(took)
    );
    for done in &told.done {
        line.push_str("; ");
        line.push_str(done);
    }
    context
        .out
        .document(&json!({ "schedule": name, "run": record, "done": told.done }));
    context.out.line(plain(&line));
    let Some(first) = told.failures.first() else {
        return Ok(());
    };
    // The backup is there, so that the code of what came after it would tell something else.
    let exit = match (record.outcome, first.exit) {
        (Outcome::Failed, exit) => exit,
        (_, Exit::Integrity | Exit::Interrupted) => first.exit,
        _ => Exit::Partial,
    };
    let message = format!("schedule {name}: {}", record.failures.join("; "));
    let fault = Fault::new(exit, message);
    Err(match first.advice() {
        Some(advice) => fault.advise(advice).into(),
        None => fault.into(),
    })
}
