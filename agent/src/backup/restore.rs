//! Restores: a recovery point onto a volume, a device or a file, by what differs.

use std::{io, sync::PoisonError};

use tidemark_proto::v1::{OperationKind, operation};
use tidemark_store::repository::{Image, Onto, Target};

use super::{Backups, Filter, job::Job, job::blocking, points::resolve, told};
use crate::manager::{
    Error,
    operations::OperationStatus,
    restores::{Destination, WholeTarget},
};

/// A restore that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoreArgs {
    /// The repository's name.
    pub repository: String,
    /// A recovery point's id or prefix, or `latest`.
    pub point: String,
    /// Of which the latest is meant.
    pub filter: Filter,
    /// Where to.
    pub destination: Destination,
    /// Make the file when there is none.
    pub create: bool,
}

impl Backups {
    /// Starts a restore.
    pub async fn restore(&self, args: RestoreArgs) -> Result<OperationStatus, Error> {
        // What cannot be found is said at once.
        let found = self
            .ask(&args.repository, |repository| repository.points())
            .await?;
        let (id, _) = resolve(&found, &args.point, &args.filter)?;
        let to = match &args.destination {
            Destination::Volume(name) => name.clone(),
            Destination::Path(path) => path.display().to_string(),
        };
        let (id, subject) = (*id, format!("{id} to {to}"));
        let work =
            move |backups: Self, job| async move { backups.run_restore(job, args, id).await };
        self.start(OperationKind::RestorePoint, subject, work)
    }

    async fn run_restore(
        self,
        mut job: Job,
        args: RestoreArgs,
        id: tidemark_store::units::Id,
    ) -> Result<operation::Result, Error> {
        let name = args.repository.clone();
        let repository = self.repository(&name).await?;
        let (table, point) = self
            .ask(&name, move |repository| {
                Ok((repository.table()?, repository.point(id)?))
            })
            .await?;
        let capacity = point.capacity;
        job.progress.set_total(capacity);
        let target = WholeTarget::open(&self.manager, args.destination, capacity, args.create);
        let target = target.await?;
        let work = move |progress: &tidemark_store::repository::Progress| {
            let image = Image::of(&repository, &table, point)?;
            let onto = match target.is_empty() {
                true => Onto::Zeros,
                false => Onto::Difference,
            };
            let target = Guarded {
                target,
                failed: std::sync::Mutex::default(),
            };
            let restored = image.restore(&target, onto, progress);
            Ok((restored, target))
        };
        let (restored, target) = job.run(&name, work).await?;
        let Guarded { target, failed } = target;
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let restored = job.outcome(&name, restored, failed)?;
        // Before anybody is told that it is done.
        blocking(move || target.finish()).await?;
        job.part_done(capacity);
        Ok(operation::Result::RestorePoint(told::restored(restored)))
    }
}

/// A target whose own words for a failure are kept.
struct Guarded {
    target: WholeTarget,
    failed: std::sync::Mutex<Option<Error>>,
}

impl Guarded {
    fn keep(&self, done: Result<(), Error>) -> io::Result<()> {
        done.map_err(|error| {
            let why = io::Error::other(error.to_string());
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
            why
        })
    }
}

impl Target for Guarded {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.keep(self.target.write(offset, bytes))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.keep(self.target.read(offset, into))
    }
}
