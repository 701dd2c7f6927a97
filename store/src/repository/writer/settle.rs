//! Putting a point so that no prune takes what it relies on: W2 and W3 of FORMAT.md.

use std::{
    collections::{HashMap, HashSet},
    sync::{PoisonError, RwLock},
};

use super::sink::{Coder, Sink};
use crate::{
    repository::{
        backend::StorageTime,
        error::{Error, Result},
        format::{name, point::Point},
        id::{Blob, Digest},
        index::{Fetcher, Table},
        limits::MIN_GRACE_SECONDS,
        open::Repository,
        tree::{Nodes, Root},
    },
    units::Id,
};

/// A backup that has to store again three times has a prune without grace beside it.
const ATTEMPTS: usize = 3;

/// What packs are to a writer at one moment.
struct Look {
    /// Before the moment, by the storage's clock.
    at: StorageTime,
    there: HashSet<Digest>,
    /// Condemned so long ago, or with so little grace, that a point might come too late.
    doomed: HashSet<Digest>,
}

impl Look {
    fn now(repository: &Repository) -> Result<Self> {
        let at = repository.now()?;
        let mut damaged = Vec::new();
        let condemned = repository.condemnations(&mut damaged)?;
        let there = repository.packs()?.into_keys().collect();
        let mut doomed = HashSet::new();
        for (_, condemned, created) in condemned {
            let grace = condemned.grace_seconds;
            // Whole seconds are rounded down.
            let age = at.seconds_since(created) + 1;
            if grace < MIN_GRACE_SECONDS || age >= grace / 2 {
                doomed.extend(condemned.packs);
            }
        }
        Ok(Self { at, there, doomed })
    }

    fn keeps(&self, pack: Digest) -> bool {
        self.there.contains(&pack) && !self.doomed.contains(&pack)
    }
}

/// Puts the point when all that it relies on is sure to stay, and says its id.
pub(in crate::repository) fn settle(
    repository: &Repository,
    table: &RwLock<Table>,
    sink: &Sink<'_>,
    point: &Point,
) -> Result<Id> {
    for _ in 0..ATTEMPTS {
        let look = Look::now(repository)?;
        if !has_all(repository, sink, point, &look)? && replace(repository, table, point, &look)? {
            continue;
        }
        let id = repository.put_point(point)?;
        // Not its stamp: an object service may take one when a put begins, and show the point later.
        let age = repository.now().map(|now| now.seconds_since(look.at) + 1);
        if matches!(age, Ok(age) if age < MIN_GRACE_SECONDS / 4) {
            return Ok(id);
        }
        // Too late for that look to count, or nobody can tell. Where the next one fails, nobody may rely on
        // the point either.
        let late = Look::now(repository).and_then(|look| {
            let all = has_all(repository, sink, point, &look)?;
            Ok(all || missing(repository, table, point, &look)?.is_empty())
        });
        if matches!(late, Ok(true)) {
            return Ok(id);
        }
        let unsettled = |why| Error::Unsettled {
            point: id,
            why: Box::new(why),
        };
        repository.forget(id).map_err(unsettled)?;
        late?;
    }
    Err(Error::Pruned(ATTEMPTS))
}

/// Whether each pack that the session relies on stays, and its base is there.
fn has_all(repository: &Repository, sink: &Sink<'_>, point: &Point, look: &Look) -> Result<bool> {
    if point.base != Id::NIL {
        match repository.stat(&name::with_id(name::POINTS, point.base)) {
            Err(why) if why.is_not_found() => return Ok(false),
            other => drop(other?),
        }
    }
    Ok(sink.relied().into_iter().all(|pack| look.keeps(pack)))
}

/// The blobs of the point's tree that are in no pack that stays.
fn missing(
    repository: &Repository,
    table: &RwLock<Table>,
    point: &Point,
    look: &Look,
) -> Result<HashMap<Digest, Blob>> {
    let nodes = Nodes::new(repository, table)?;
    let (mut seen, mut missing) = (HashSet::new(), HashMap::new());
    nodes.blobs(Root::of(point), &mut |kind, id| {
        let new = seen.insert(id);
        if new && !stays(table, id, look) {
            missing.insert(id, kind);
        }
        Ok(new)
    })?;
    Ok(missing)
}

fn stays(table: &RwLock<Table>, id: Digest, look: &Look) -> bool {
    let table = table.read().unwrap_or_else(PoisonError::into_inner);
    let mut places = table.find(id);
    places.any(|place| look.keeps(table.pack(place.pack).name))
}

/// Stores again what is in no pack that stays. Says whether there was anything.
fn replace(
    repository: &Repository,
    table: &RwLock<Table>,
    point: &Point,
    look: &Look,
) -> Result<bool> {
    let missing = missing(repository, table, point, look)?;
    if missing.is_empty() {
        return Ok(false);
    }
    let count = missing.len();
    let again = Sink::new(repository, table, look.unreliable(table))?;
    let (mut coder, mut plain) = (Coder::new()?, Vec::new());
    let mut fetcher = Fetcher::new(repository, table)?;
    for (id, kind) in missing {
        match fetcher.fetch(kind, id, &mut plain) {
            Err(why) if why.is_not_found() => return Err(Error::Pruned(count)),
            other => other?,
        }
        again.put(&mut coder, kind, &plain, 0)?;
    }
    again.finish()?;
    Ok(true)
}

impl Look {
    fn unreliable(&self, table: &RwLock<Table>) -> HashSet<Digest> {
        let table = table.read().unwrap_or_else(PoisonError::into_inner);
        let packs = table.packs().iter().map(|pack| pack.name);
        packs.filter(|pack| !self.keeps(*pack)).collect()
    }
}
