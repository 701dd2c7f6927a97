//! What a repository holds, how it grew, and where its images change.

use std::collections::HashMap;

use tidemark_proto::v1::{OperationKind, PointStats, StatsResult, operation};
use tidemark_store::{
    repository::{Point, Progress, Repository, Result},
    units::Id,
};

use super::{Backups, job::Job, told};
use crate::manager::{Error, operations::OperationStatus};

/// Parts of an image that its map of changes tells apart.
const PARTS: u64 = 64;
/// What is compared: 4 MiB.
const LEAF_BYTES: u64 = 4 << 20;

impl Backups {
    /// Starts counting.
    pub async fn stats(&self, name: String) -> std::result::Result<OperationStatus, Error> {
        self.known(&name).await?;
        let subject = name.clone();
        let work = move |backups: Self, mut job: Job| async move {
            let repository = backups.repository(&name).await?;
            let counted = job
                .run(&name, move |progress| count(&repository, progress))
                .await?;
            Ok(operation::Result::Stats(counted))
        };
        self.start(OperationKind::Stats, subject, work)
    }
}

fn count(repository: &Repository, progress: &Progress) -> Result<StatsResult> {
    let stats = repository.stats(progress)?;
    let table = repository.table()?;
    // The last point of each volume, or of each image.
    let mut last: HashMap<(Id, String, String), Point> = HashMap::new();
    let mut points = Vec::new();
    for (id, point) in repository.points()?.points {
        let of = (point.volume, point.host.clone(), point.name.clone());
        let changed_permille = match last.get(&of) {
            None => Vec::new(),
            Some(before) => {
                let leaves = repository.differing_leaves(&table, before, &point)?;
                parts(&leaves, point.capacity)
            }
        };
        points.push(PointStats {
            point: Some(told::point(id, &point)),
            changed_permille,
        });
        last.insert(of, point);
    }
    let packs = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Ok(StatsResult {
        points,
        image_bytes: stats.image_bytes,
        packs: packs(stats.packs),
        stored_bytes: stats.stored_bytes,
        needed_bytes: stats.needed_bytes,
        plain_bytes: stats.plain_bytes,
        condemned_packs: packs(stats.condemned_packs),
    })
}

/// Of each part of an image, how many of its leaves are among these, in thousandths.
fn parts(leaves: &[u64], capacity: u64) -> Vec<u32> {
    let all = capacity.div_ceil(LEAF_BYTES).max(1);
    let parts = all.min(PARTS);
    let first = |part: u64| part * all / parts;
    (0..parts)
        .map(|part| {
            let (start, end) = (first(part), first(part + 1));
            let within = leaves.iter().filter(|leaf| (start..end).contains(leaf));
            let changed = u64::try_from(within.count()).unwrap_or(u64::MAX);
            u32::try_from(changed * 1000 / (end - start)).unwrap_or(1000)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_image() {
        assert_eq!(parts(&[0], 1), [1000]);
        assert_eq!(parts(&[1], 3 * LEAF_BYTES), [0, 1000, 0]);
        let many = parts(&[0, 1, 127], 128 * LEAF_BYTES);
        assert_eq!(many.len(), 64);
        assert_eq!((many[0], many[1], many[63]), (1000, 0, 500));
        // Sizes that do not divide.
        let odd = parts(&(0..65).collect::<Vec<_>>(), 65 * LEAF_BYTES - 5);
        assert_eq!(odd, [1000; 64]);
    }
}
