//! Recovery points of a repository.

use super::{
    crypto::secret,
    error::{Damage, Error, Result},
    format::{envelope::Kind, name, point::Point},
    limits::MAX_RECORD_BYTES,
    open::Repository,
};
use crate::units::Id;

/// All points that can be read, and what is wrong with the others.
#[derive(Debug, Default)]
pub struct Points {
    /// By time, the oldest first.
    pub points: Vec<(Id, Point)>,
    /// Damaged ones.
    pub damaged: Vec<Error>,
}

impl Repository {
    /// All recovery points.
    pub fn points(&self) -> Result<Points> {
        let mut found = Points::default();
        for object in self.list(name::POINTS)? {
            let Some(id) = name::parse_id(name::POINTS, &object.name) else {
                continue;
            };
            match self.point(id) {
                Ok(point) => found.points.push((id, point)),
                // Forgotten since the listing.
                Err(Error::NoPoint(_)) => {}
                Err(why) if why.is_integrity() => found.damaged.push(why),
                Err(why) => return Err(why),
            }
        }
        found
            .points
            .sort_by_key(|(id, point)| (point.created_us, *id));
        Ok(found)
    }

    /// A recovery point.
    pub fn point(&self, id: Id) -> Result<Point> {
        let name = name::with_id(name::POINTS, id);
        let bytes = match self.read(&name, MAX_RECORD_BYTES) {
            Err(why) if why.is_not_found() => return Err(Error::NoPoint(id.to_string())),
            other => other?,
        };
        let body = self.vault.unwrap(Kind::Point, Some(id), &name, &bytes)?;
        Point::decode(&body).ok_or_else(|| Error::damaged(name, Damage::Malformed))
    }

    /// Forgets a recovery point; what only it needs goes with a later prune.
    pub fn forget(&self, id: Id) -> Result<()> {
        self.delete(&name::with_id(name::POINTS, id))
    }

    pub(super) fn put_point(&self, point: &Point) -> Result<Id> {
        let id = Id(secret::random()?);
        let bytes = self.vault.wrap(Kind::Point, Some(id), &point.encode())?;
        self.create(&name::with_id(name::POINTS, id), &bytes)?;
        Ok(id)
    }
}
