//! The fake daemon's repositories and jobs: what it knows of them, and what goes wrong on order.

use std::collections::{BTreeMap, VecDeque};

use tidemark_proto::v1::{
    ErrorReason, Operation, OperationKind, OperationState, PointFilter, RecoveryPoint, Repository,
    RepositoryKey, operation::Result as JobResult,
};
use tonic::Status;

use super::model::refuse;

/// What the next job does.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// It gives this instead of its own result.
    Gives(JobResult),
    /// It fails.
    Fails(ErrorReason, &'static str),
    /// It runs until it is cancelled.
    Hangs,
    /// It runs, and neither ends nor can be cancelled.
    Stuck,
    /// The first connection that watches it is cut.
    Cut,
    /// That too, and the daemon does not know it any more.
    Gone,
}

/// A job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// How it ends.
    pub(crate) ended: Operation,
    pub(crate) fate: Option<Fate>,
    pub(crate) watched: u32,
    pub(crate) cancelled: bool,
}

/// All repositories hold the same points, and all jobs end at once unless told otherwise.
#[derive(Default, Debug)]
pub(crate) struct Vault {
    /// Like a daemon that is too old to know of repositories.
    pub(crate) unknown: bool,
    pub(crate) repositories: BTreeMap<String, Repository>,
    pub(crate) keys: Vec<RepositoryKey>,
    pub(crate) points: Vec<RecoveryPoint>,
    pub(crate) damaged: Vec<String>,
    pub(crate) jobs: BTreeMap<String, Job>,
    /// For the next jobs.
    pub(crate) fates: VecDeque<Fate>,
    /// Requests that began jobs or forgot points, as text.
    pub(crate) asked: Vec<String>,
    /// Where streams of points were asked to start.
    pub(crate) starts: Vec<(String, u64)>,
}

impl Vault {
    /// The repository of that name.
    pub(super) fn repository(&self, name: &str) -> Result<&Repository, Status> {
        self.repositories
            .get(name)
            .ok_or_else(|| refuse(ErrorReason::RepositoryNotFound, "no such repository"))
    }

    /// Points that a filter leaves.
    pub(super) fn filtered(&self, filter: Option<&PointFilter>) -> Vec<RecoveryPoint> {
        let fits = |point: &&RecoveryPoint| {
            let Some(filter) = filter else { return true };
            (filter.name.is_empty() || filter.name == point.name)
                && (filter.host.is_empty() || filter.host == point.host)
                && (filter.tags.is_empty()
                    || filter.tags.iter().any(|tag| point.tags.contains(tag)))
        };
        self.points.iter().filter(fits).cloned().collect()
    }

    /// The point that a request names.
    pub(super) fn point(
        &self,
        id: &str,
        filter: Option<&PointFilter>,
    ) -> Result<RecoveryPoint, Status> {
        let found = if id == "latest" {
            self.filtered(filter).pop()
        } else {
            let fits = |point: &&RecoveryPoint| !id.is_empty() && point.id.starts_with(id);
            self.points.iter().find(fits).cloned()
        };
        found.ok_or_else(|| refuse(ErrorReason::PointNotFound, "no such point"))
    }

    /// Begins a job that will give `result`, or what is ordered.
    pub(super) fn begin(
        &mut self,
        kind: OperationKind,
        subject: &str,
        result: JobResult,
    ) -> Option<Operation> {
        let id = format!("job{}", self.jobs.len() + 1);
        let fate = self.fates.pop_front();
        let mut ended = Operation {
            id: id.clone(),
            kind: kind.into(),
            state: OperationState::Succeeded.into(),
            subject: subject.to_owned(),
            done_bytes: 100,
            total_bytes: 100,
            ..Default::default()
        };
        match &fate {
            Some(Fate::Fails(reason, message)) => {
                ended.state = OperationState::Failed.into();
                ended.error_reason = (*reason).into();
                ended.error_message = (*message).to_owned();
            }
            Some(Fate::Hangs | Fate::Stuck) => ended.state = OperationState::Cancelled.into(),
            Some(Fate::Gives(other)) => ended.result = Some(other.clone()),
            Some(Fate::Cut | Fate::Gone) | None => ended.result = Some(result),
        }
        let running = Self::running(&ended, 0);
        let job = Job {
            ended,
            fate,
            watched: 0,
            cancelled: false,
        };
        self.jobs.insert(id, job);
        Some(running)
    }

    /// The job of that id.
    pub(super) fn job(&mut self, id: &str) -> Result<&mut Job, Status> {
        self.jobs
            .get_mut(id)
            .ok_or_else(|| refuse(ErrorReason::OperationNotFound, "no such operation"))
    }

    /// A job on its way to that end.
    pub(super) fn running(ended: &Operation, done_bytes: u64) -> Operation {
        Operation {
            state: OperationState::Running.into(),
            done_bytes,
            result: None,
            error_reason: 0,
            error_message: String::new(),
            ..ended.clone()
        }
    }
}
