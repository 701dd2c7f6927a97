//! What a backup is made from: the recovery point of the same lineage that tracking can tell the
//! difference to, or everything, and then why.

use tidemark_proto::v1;
use tidemark_store::{
    repository::{Made, Point, Trust},
    units::Id,
};

use super::Backups;
use crate::manager::{Checkpoint, Error, ErrorReason, Snapshot};

/// Points of the lineage that are tried, the newest first: the checkpoints of older ones are forgotten
/// first.
const TRIES: usize = 8;

/// What a backup is made from.
pub(super) struct Base {
    /// The point whose image it shares as much of as it can.
    pub(super) point: Option<Id>,
    /// Where the changes are asked from; `None`: everything is read.
    pub(super) since: Option<Checkpoint>,
    pub(super) made: Made,
    pub(super) trust: Trust,
}

impl Base {
    fn full(point: Option<Id>, why: impl Into<String>) -> Self {
        Self {
            point,
            since: None,
            made: Made::Full(why.into()),
            trust: Trust::Exact,
        }
    }
}

impl Backups {
    /// Chooses among a repository's points, the oldest first.
    pub(super) async fn base_for(
        &self,
        snapshot: &Snapshot,
        points: &[(Id, Point)],
        full: bool,
    ) -> Result<Base, Error> {
        let record = &snapshot.record;
        let ours = |(_, point): &&(Id, Point)| {
            point.volume == record.volume_id && point.capacity <= record.capacity_bytes
        };
        let known: Vec<_> = points.iter().rev().filter(ours).collect();
        let newest = known.first().map(|(id, _)| *id);
        if full {
            return Ok(Base::full(newest, "it was asked for"));
        }
        let Some((_, latest)) = known.first() else {
            return Ok(Base::full(
                None,
                "it is the volume's first in this repository",
            ));
        };
        let usable = |(_, point): &&&(Id, Point)| {
            point.lineage == record.lineage && point.epoch <= record.epoch
        };
        let mut why = None;
        for (id, point) in known.iter().filter(usable).take(TRIES) {
            match self.since(snapshot, *id, point).await? {
                Ok(base) => return Ok(base),
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        let why = match why {
            Some(why) => why,
            // Says what ended the lineage.
            None => match self.since(snapshot, Id::NIL, latest).await? {
                Ok(_) => "its last recovery point is of a later moment".to_owned(),
                Err(why) => why,
            },
        };
        Ok(Base::full(newest, why))
    }

    /// The base that a point is, or why it is none.
    async fn since(
        &self,
        snapshot: &Snapshot,
        id: Id,
        point: &Point,
    ) -> Result<Result<Base, String>, Error> {
        let since = Checkpoint {
            lineage: point.lineage,
            epoch: point.epoch,
        };
        match self.streams.check_since(snapshot, since).await {
            Ok(()) => {}
            Err(error) => return refusal(error).map(Err),
        }
        let until = snapshot.checkpoint();
        let span = Some((&since, Some(&until)));
        let trust = match self.manager.trust(&snapshot.record.volume, span).await {
            Ok(trust) => trust,
            Err(error) => return refusal(error).map(Err),
        };
        let trust = match trust.level {
            v1::Trust::Continuous => Trust::Exact,
            v1::Trust::Superset => Trust::Superset,
            v1::Trust::Broken | v1::Trust::Unspecified => return Ok(Err(trust.reason)),
        };
        Ok(Ok(Base {
            point: Some(id),
            since: Some(since),
            made: Made::Incremental,
            trust,
        }))
    }
}

/// Why everything has to be read; any other failure fails the backup.
fn refusal(error: Error) -> Result<String, Error> {
    match error.reason {
        ErrorReason::TrackingReset => Ok(match error.metadata.get("cause") {
            Some(cause) => format!("tracking started anew: {cause}"),
            None => error.message,
        }),
        ErrorReason::CheckpointGone => {
            Ok("the checkpoint of its last recovery point was forgotten".to_owned())
        }
        // The epoch is after the snapshot's.
        ErrorReason::InvalidField => Ok(error.message),
        _ => Err(error),
    }
}
