//! Backups of volumes: snapshot, what changed since the last recovery point, a new one.

use std::{collections::BTreeMap, io, path::PathBuf, sync::PoisonError, time::Duration};

use tidemark_proto::v1::{BackupResult, FreezeMode, OperationKind, RecoveryPoint, operation};
use tidemark_store::{
    repository::{self, About, Backup, Change, Source},
    units::{Geometry, Id},
};

use super::{Backups, MAX_REQUESTS, Request, error::of_repository, job::Job, job::blocking, told};
use crate::manager::{
    CreateArgs, Error, ErrorReason, Kind,
    operations::OperationStatus,
    streams::{Extents, SnapshotReader},
};

/// A snapshot that this process leaves behind when it dies frees its store after this time; while the
/// backup runs it does not end.
const LEASE: Duration = Duration::from_secs(3600);
/// Marks the snapshots of backups.
const LABEL: &str = "backup";
/// Most tags of a recovery point, and their length in bytes.
const MAX_TAGS: usize = 64;
const MAX_TAG_BYTES: usize = 128;

/// What to back up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Volumes, cut at one moment.
    Volumes(Vec<String>),
    /// A group of them.
    Group(String),
    /// Snapshots that are there.
    Snapshots(Vec<String>),
    /// An image file that nobody writes to.
    Image {
        /// Where it is.
        path: PathBuf,
        /// Its name in the repository; empty: the path's last part.
        name: String,
    },
}

/// A backup that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupArgs {
    /// The repository's name.
    pub repository: String,
    /// What to back up.
    pub subject: Subject,
    /// Words for its points.
    pub tags: Vec<String>,
    /// Whatever is known of changes.
    pub full: bool,
    /// Idempotency key; empty is none.
    pub request_id: String,
}

impl Subject {
    fn names(&self) -> String {
        match self {
            Self::Volumes(names) | Self::Snapshots(names) => names.join(", "),
            Self::Group(name) => name.clone(),
            Self::Image { path, .. } => path.display().to_string(),
        }
    }
}

impl Backups {
    /// Starts a backup.
    pub async fn back_up(&self, args: BackupArgs) -> Result<OperationStatus, Error> {
        check(&args)?;
        self.known(&args.repository).await?;
        if let Some(running) = self.repeated(&args)? {
            return Ok(running);
        }
        let subject = format!("{} to {}", args.subject.names(), args.repository);
        let asked = args.clone();
        let work = |backups: Self, job| async move { backups.run(job, asked).await };
        let started = self.start(OperationKind::Backup, subject, work)?;
        if !args.request_id.is_empty() {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.push_back(Request {
                id: args.request_id.clone(),
                arguments: args,
                operation: started.id.clone(),
            });
            if requests.len() > MAX_REQUESTS {
                requests.pop_front();
            }
        }
        Ok(started)
    }

    fn repeated(&self, args: &BackupArgs) -> Result<Option<OperationStatus>, Error> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            |request: &&Request| !args.request_id.is_empty() && request.id == args.request_id;
        match requests.iter().rfind(same) {
            None => Ok(None),
            Some(known) if known.arguments == *args => Ok(self.operations.get(&known.operation)),
            Some(_) => Err(Error::new(
                ErrorReason::RequestIdReused,
                format!(
                    "request id \"{}\" was used for another backup: choose a new one",
                    args.request_id
                ),
            )),
        }
    }

    async fn run(self, mut job: Job, args: BackupArgs) -> Result<operation::Result, Error> {
        let points = match &args.subject {
            Subject::Image { path, name } => {
                vec![self.image(&mut job, &args, path, name).await?]
            }
            Subject::Snapshots(ids) => self.snapshots(&mut job, &args, ids).await?,
            Subject::Volumes(_) | Subject::Group(_) => self.volumes(&mut job, &args).await?,
        };
        self.note_made(&args.repository, &points);
        Ok(operation::Result::Backup(BackupResult { points }))
    }

    fn note_made(&self, repository: &str, points: &[RecoveryPoint]) {
        let now_us = self.manager.clock().now_us();
        let mut made = self.lock_made();
        made.to_repositories.insert(repository.to_owned(), now_us);
        // An image may have any name.
        for volume in points.iter().filter(|point| !point.volume_id.is_empty()) {
            made.of_volumes.insert(volume.name.clone(), now_us);
        }
    }

    /// Snapshots that go when their backup is done, or is not.
    async fn volumes(&self, job: &mut Job, args: &BackupArgs) -> Result<Vec<RecoveryPoint>, Error> {
        let (volumes, group) = match &args.subject {
            Subject::Volumes(volumes) => (volumes.clone(), String::new()),
            Subject::Group(group) => (Vec::new(), group.clone()),
            Subject::Snapshots(_) | Subject::Image { .. } => return Ok(Vec::new()),
        };
        job.cancel.check()?;
        let made = self.manager.create_snapshots(CreateArgs {
            volumes,
            group,
            freeze: FreezeMode::Auto,
            lease: Some(LEASE),
            labels: BTreeMap::from([(LABEL.to_owned(), args.repository.clone())]),
            request_id: String::new(),
            max_freeze: None,
        });
        let ids: Vec<String> = made
            .await?
            .iter()
            .map(|snapshot| snapshot.record.id.to_string())
            .collect();
        let outcome = self.snapshots(job, args, &ids).await;
        for id in &ids {
            if let Err(error) = self.manager.release_snapshot(id).await {
                tracing::warn!(%error, snapshot = id, "a backup's snapshot stays until its lease ends");
            }
        }
        outcome
    }

    async fn snapshots(
        &self,
        job: &mut Job,
        args: &BackupArgs,
        ids: &[String],
    ) -> Result<Vec<RecoveryPoint>, Error> {
        let mut readers = Vec::new();
        for id in ids {
            readers.push(self.streams.reader(id, job.cancel.clone()).await?);
        }
        let sizes = readers
            .iter()
            .map(|reader| reader.snapshot().record.capacity_bytes);
        job.progress.set_total(sizes.sum());
        let mut points = Vec::new();
        for reader in readers {
            let capacity = reader.snapshot().record.capacity_bytes;
            points.push(self.snapshot(job, args, reader).await?);
            job.part_done(capacity);
        }
        Ok(points)
    }

    async fn snapshot(
        &self,
        job: &mut Job,
        args: &BackupArgs,
        reader: SnapshotReader,
    ) -> Result<RecoveryPoint, Error> {
        let name = args.repository.clone();
        let repository = self.repository(&name).await?;
        let listing = repository.clone();
        let listed = blocking({
            let name = name.clone();
            move || {
                listing
                    .points()
                    .map_err(|error| of_repository(&name, error))
            }
        });
        let base = self
            .base_for(reader.snapshot(), &listed.await?.points, args.full)
            .await?;
        let record = reader.snapshot().record.clone();
        let about = About {
            geometry: geometry(record.capacity_bytes, record.block_bytes)?,
            created_us: record.created_us,
            volume: record.volume_id,
            lineage: record.lineage,
            epoch: record.epoch,
            snapshot: record.id,
            trust: base.trust,
            host: host(),
            name: record.volume,
            tags: args.tags.clone(),
        };
        let mut changes = Changes::of(reader.extents(base.since)?);
        let work = move |progress: &repository::Progress| {
            let backup = Backup {
                repository: &repository,
                about,
                base: base.point,
                made: base.made,
                progress,
            };
            let made = backup.run(&Reader(reader), &mut changes);
            Ok((made, changes.failed))
        };
        let (made, failed) = job.run(&name, work).await?;
        finished(job, &name, made, failed)
    }
}

/// A point, or the reason that the source gave for there being none.
pub(super) fn finished(
    job: &Job,
    name: &str,
    made: repository::Result<(Id, repository::Point)>,
    failed: Option<Error>,
) -> Result<RecoveryPoint, Error> {
    let (id, point) = job.outcome(name, made, failed)?;
    Ok(told::point(id, &point))
}

fn check(args: &BackupArgs) -> Result<(), Error> {
    let empty = match &args.subject {
        Subject::Volumes(names) | Subject::Snapshots(names) => names.is_empty(),
        Subject::Group(name) => name.is_empty(),
        Subject::Image { path, .. } => !path.is_absolute(),
    };
    if empty {
        let why = "name volumes, a group, snapshots, or the absolute path of an image";
        return Err(Error::invalid("subject", why));
    }
    let bad = |tag: &String| {
        tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.contains(char::is_control)
    };
    if args.tags.len() > MAX_TAGS || args.tags.iter().any(bad) {
        let why = format!("at most {MAX_TAGS} words of 1 to {MAX_TAG_BYTES} bytes");
        return Err(Error::invalid("tags", why));
    }
    Ok(())
}

pub(super) fn geometry(capacity: u64, block_bytes: u32) -> Result<Geometry, Error> {
    Geometry::new(capacity, block_bytes).ok_or_else(|| {
        Error::invalid(
            "subject",
            format!("{capacity} bytes cannot be tracked in blocks of {block_bytes}"),
        )
    })
}

/// The host's name, as `uname -n` shows it.
pub(super) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

struct Reader(SnapshotReader);

impl Source for Reader {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }
}

/// Extents as a backup wants them. The typed reason for their end is kept: what the repository makes of it
/// has none.
struct Changes {
    extents: Extents,
    failed: Option<Error>,
}

impl Changes {
    fn of(extents: Extents) -> Self {
        Self {
            extents,
            failed: None,
        }
    }
}

impl Iterator for Changes {
    type Item = repository::Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.extents.next()? {
            Ok(extent) => Some(Ok(Change {
                range: extent.range,
                zeros: matches!(extent.kind, Kind::Zero | Kind::Discarded),
            })),
            Err(error) => {
                let why = io::Error::other(error.to_string());
                self.failed = Some(error);
                Some(Err(repository::Error::Source {
                    offset: 0,
                    len: 0,
                    why,
                }))
            }
        }
    }
}
