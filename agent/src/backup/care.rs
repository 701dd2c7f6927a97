//! Keeping a repository in order: prune, check, repair, copy.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tidemark_proto::v1::{CopyResult, OperationKind, copy_result::Copied, operation};
use tidemark_store::{
    repository::care::{PruneOptions, ReadData},
    units::Id,
};

use super::{Backups, Filter, job::Job, points::select, told, volumes::host};
use crate::manager::{Error, operations::OperationStatus};

/// A grace shorter than this is only for repositories that nobody else uses.
const MIN_GRACE: Duration = Duration::from_secs(3600);

/// A prune that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PruneArgs {
    /// The repository's name.
    pub repository: String,
    /// `None` is a day.
    pub grace: Option<Duration>,
    /// `None` is half.
    pub max_waste_percent: Option<u32>,
    /// Only say.
    pub dry_run: bool,
}

/// A check that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckArgs {
    /// The repository's name.
    pub repository: String,
    /// Of the packs, how many are read whole.
    pub read_data_percent: u32,
}

/// A copy that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyArgs {
    /// From this repository,
    pub from: String,
    /// to this one.
    pub to: String,
    /// These points, by id or prefix; none: all that the filter has.
    pub points: Vec<String>,
    /// Of which points.
    pub filter: Filter,
}

impl Backups {
    /// Starts a prune.
    pub async fn prune(&self, args: PruneArgs) -> Result<OperationStatus, Error> {
        let options = prune_options(&args)?;
        let dry_run = args.dry_run;
        let name = args.repository;
        self.may_delete(&name).await?;
        let subject = name.clone();
        let work = move |backups: Self, mut job: Job| async move {
            let repository = backups.repository(&name).await?;
            let pruned = job
                .run(&name, move |progress| repository.prune(&options, progress))
                .await?;
            Ok(operation::Result::Prune(told::pruned(&pruned, dry_run)))
        };
        self.start(OperationKind::Prune, subject, work)
    }

    /// Starts a check.
    pub async fn check(&self, args: CheckArgs) -> Result<OperationStatus, Error> {
        let data = match u8::try_from(args.read_data_percent) {
            Ok(0) => ReadData::None,
            Ok(100) => ReadData::All,
            Ok(percent) if percent < 100 => ReadData::Sample {
                percent,
                seed: seed(),
            },
            _ => return Err(Error::invalid("read_data_percent", "it is more than 100")),
        };
        let name = args.repository;
        self.known(&name).await?;
        let subject = name.clone();
        let work = move |backups: Self, mut job: Job| async move {
            let repository = backups.repository(&name).await?;
            let checked = job
                .run(&name, move |progress| {
                    let mut checked = repository.check(data, progress)?;
                    // What a point lacks that was forgotten meanwhile, a prune may have taken.
                    let left: HashSet<Id> = repository
                        .points()?
                        .points
                        .into_iter()
                        .map(|(id, _)| id)
                        .collect();
                    checked.findings.retain(|finding| {
                        finding.points.is_empty()
                            || finding.points.iter().any(|id| left.contains(id))
                    });
                    Ok(checked)
                })
                .await?;
            Ok(operation::Result::Check(told::checked(&checked)))
        };
        self.start(OperationKind::Check, subject, work)
    }

    /// Starts a repair, from another copy where there is one.
    pub async fn repair(&self, name: String, second: String) -> Result<OperationStatus, Error> {
        self.may_delete(&name).await?;
        let second = Some(second).filter(|second| !second.is_empty());
        if let Some(second) = &second {
            self.known(second).await?;
        }
        let subject = name.clone();
        let work = move |backups: Self, mut job: Job| async move {
            let repository = backups.repository(&name).await?;
            let second = match second {
                Some(second) => Some(backups.repository(&second).await?),
                None => None,
            };
            let repaired = job
                .run(&name, move |progress| {
                    repository.repair(second.as_ref(), progress)
                })
                .await?;
            Ok(operation::Result::Repair(told::repaired(&repaired)))
        };
        self.start(OperationKind::Repair, subject, work)
    }

    /// Starts a copy of recovery points to another repository.
    pub async fn copy(&self, args: CopyArgs) -> Result<OperationStatus, Error> {
        if args.from == args.to {
            return Err(Error::invalid("to_repository", "it is the same repository"));
        }
        self.known(&args.to).await?;
        let found = self
            .ask(&args.from, |repository| repository.points())
            .await?;
        let points = select(&found, &args.points, &args.filter)?;
        let ids: Vec<Id> = points.iter().map(|(id, _)| *id).collect();
        let subject = format!("{} to {}", args.from, args.to);
        let work = move |backups: Self, mut job: Job| async move {
            let from = backups.repository(&args.from).await?;
            let to = backups.repository(&args.to).await?;
            let wanted = ids.clone();
            let copies = job
                .run(&args.from, move |progress| {
                    from.copy(&wanted, &to, progress)
                })
                .await?;
            let copied = ids.iter().zip(copies).map(|(id, copy)| Copied {
                point_id: id.to_string(),
                copy_id: copy.to_string(),
            });
            Ok(operation::Result::Copy(CopyResult {
                copied: copied.collect(),
            }))
        };
        self.start(OperationKind::CopyPoints, subject, work)
    }
}

fn prune_options(args: &PruneArgs) -> Result<PruneOptions, Error> {
    let usual = PruneOptions::default();
    if args.grace.is_some_and(|grace| grace < MIN_GRACE) {
        let why = "it is less than an hour: a backup that runs would lose what it relies on";
        return Err(Error::invalid("grace", why));
    }
    let max_waste_percent = match args.max_waste_percent.map(u8::try_from) {
        None => usual.max_waste_percent,
        Some(Ok(percent)) if percent <= 100 => percent,
        Some(_) => return Err(Error::invalid("max_waste_percent", "it is more than 100")),
    };
    let grace_seconds = args
        .grace
        .map_or(usual.grace_seconds, |grace| grace.as_secs());
    Ok(PruneOptions {
        grace_seconds,
        min_age_seconds: usual.min_age_seconds.min(grace_seconds),
        max_waste_percent,
        dry_run: args.dry_run,
        by: host(),
    })
}

/// Another sample each time.
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
