//! Flipped bits and lost objects: each is found, nothing wrong is restored, a second copy mends.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::world::{BLOCK, Dice, all, back_up, blocks, full, repositories, restored};
use crate::{
    repository::{
        Made, Progress, Repository,
        backend::{Backend, Memory},
        care::ReadData,
        crypto::{Credential, KdfCost, Secret},
    },
    units::Id,
};

/// Two points of an image, a password, and a mirror of their repository.
fn filled(storage: &Memory, repository: &Repository) -> (Vec<(Id, Vec<u8>)>, Arc<Memory>) {
    let mut dice = Dice(21);
    let mut image: Vec<u8> = (0..60).flat_map(|_| dice.block()).collect();
    let (first, _) = back_up(repository, &image, all(image.len()), None, full()).unwrap();
    let mut points = vec![(first, image.clone())];
    image[7 * BLOCK..8 * BLOCK].copy_from_slice(&dice.block());
    // A condemnation is among the objects, of a pack that is no more.
    let gone = crate::repository::Digest([9; 32]);
    repository.condemn(vec![gone], 7200, "test").unwrap();
    let made = Made::Incremental;
    let (second, _) = back_up(repository, &image, blocks(&[7]), Some(first), made).unwrap();
    points.push((second, image));
    if repository.config().encrypted {
        let file = Credential::KeyFile(Zeroizing::new(vec![1; 32]));
        repository.add_key(&file, KdfCost::default()).unwrap();
    }
    let mirror = Arc::new(Memory::new());
    for name in storage.names() {
        let bytes = storage.read(&name, u64::MAX).unwrap();
        mirror.create(&name, &bytes).unwrap();
    }
    (points, mirror)
}

fn open(storage: Arc<Memory>, sealed: bool) -> crate::repository::Result<Repository> {
    let master = Credential::Master(Secret::new([7; 32]));
    Repository::open(storage, sealed.then_some(&master))
}

fn findings(repository: &Repository, data: ReadData) -> usize {
    let checked = repository.check(data, &Progress::default()).unwrap();
    checked.findings.len()
}

#[test]
fn any_flipped_bit_is_found_and_never_restored_and_mended_from_a_copy() {
    for (sealed, (storage, repository)) in [false, true].into_iter().zip(repositories()) {
        let (points, mirror) = filled(&storage, &repository);
        assert_eq!(findings(&repository, ReadData::All), 0);
        let second = open(mirror.clone(), sealed).unwrap();
        let mut dice = Dice(22);
        for name in storage.names() {
            for round in 0..6 {
                // Each round has its own storage, damaged in one bit.
                let damaged = Arc::new(Memory::new());
                for name in storage.names() {
                    let bytes = storage.read(&name, u64::MAX).unwrap();
                    damaged.create(&name, &bytes).unwrap();
                }
                damaged.damage(&name, |bytes| {
                    let at = match round {
                        0 => dice.below(48.min(bytes.len())),
                        1 => bytes.len() - 1 - dice.below(60.min(bytes.len())),
                        _ => dice.below(bytes.len()),
                    };
                    bytes[at] ^= 1 << dice.below(8);
                });
                let Ok(repository) = open(damaged, sealed) else {
                    assert_eq!(name, "config");
                    continue;
                };
                assert!(
                    findings(&repository, ReadData::All) > 0,
                    "{name}, round {round}"
                );
                for (id, image) in &points {
                    if let Ok(read) = restored(&repository, *id) {
                        assert!(read == *image, "{name}, round {round}");
                    }
                }
                if name.starts_with("keys/") {
                    // A damaged key is made anew by whoever knows the password.
                    continue;
                }
                repository
                    .repair(Some(&second), &Progress::default())
                    .unwrap();
                for (id, image) in &points {
                    assert!(restored(&repository, *id).unwrap() == *image);
                }
                assert_eq!(
                    findings(&repository, ReadData::All),
                    0,
                    "{name}, round {round}"
                );
            }
        }
    }
}

#[test]
fn what_is_lost_is_named_with_the_points_that_need_it() {
    let (storage, repository) = repositories().remove(0);
    let (points, mirror) = filled(&storage, &repository);
    let second = open(mirror, false).unwrap();
    let packs: Vec<_> = storage.names();
    for pack in packs.iter().filter(|name| name.starts_with("packs/")) {
        storage.lose(pack);
    }
    let checked = repository
        .check(ReadData::None, &Progress::default())
        .unwrap();
    let mut needed: Vec<_> = checked
        .findings
        .iter()
        .flat_map(|found| &found.points)
        .collect();
    needed.sort();
    needed.dedup();
    assert_eq!(needed.len(), 2);
    assert!(restored(&repository, points[0].0).is_err());
    let alone = repository.repair(None, &Progress::default()).unwrap();
    assert!(alone.lost_blobs > 0);
    let mended = repository
        .repair(Some(&second), &Progress::default())
        .unwrap();
    // Two leaves, which are the roots, and a chunk for each.
    assert_eq!((mended.lost_blobs, mended.fetched_blobs), (0, 4));
    for (id, image) in &points {
        assert!(restored(&repository, *id).unwrap() == *image);
    }
}

#[test]
fn without_indexes_footers_tell() {
    for (storage, repository) in repositories() {
        let (points, _) = filled(&storage, &repository);
        for name in storage.names() {
            if name.starts_with("index/") {
                storage.lose(&name);
            }
        }
        for (id, image) in &points {
            assert!(restored(&repository, *id).unwrap() == *image);
        }
        // The next backup brings an index.
        let (_, image) = &points[1];
        back_up(&repository, image, all(image.len()), None, full()).unwrap();
        assert!(
            storage
                .names()
                .iter()
                .any(|name| name.starts_with("index/"))
        );
        assert_eq!(findings(&repository, ReadData::All), 0);
    }
}

#[test]
fn what_a_point_needs_of_a_condemned_pack_is_checked_and_mended_too() {
    for (sealed, (storage, repository)) in [false, true].into_iter().zip(repositories()) {
        let (points, mirror) = filled(&storage, &repository);
        // As a prune does beside a backup that has stored packs and no point yet.
        let mut packs: Vec<_> = repository.packs().unwrap().into_keys().collect();
        packs.sort();
        repository.condemn(packs.clone(), 7200, "test").unwrap();
        assert_eq!(findings(&repository, ReadData::All), 0);
        let biggest = |name: &&String| storage.stat(name).unwrap().bytes;
        let names = storage.names();
        let names = names.iter().filter(|name| name.starts_with("packs/"));
        let pack = names.max_by_key(biggest).unwrap();
        storage.damage(pack, |bytes| bytes[100] ^= 1);

        let named = || {
            let checked = repository.check(ReadData::All, &Progress::default());
            let findings = checked.unwrap().findings.into_iter();
            findings
                .flat_map(|found| found.points)
                .collect::<Vec<_>>()
                .contains(&points[0].0)
        };
        assert!(restored(&repository, points[0].0).is_err());
        assert!(named());
        // Nobody has it: it stays news.
        repository.repair(None, &Progress::default()).unwrap();
        assert!(named());
        let second = open(mirror, sealed).unwrap();
        let mended = repository.repair(Some(&second), &Progress::default());
        assert_eq!(mended.unwrap().lost_blobs, 0);
        assert_eq!(findings(&repository, ReadData::All), 0);
        for (id, image) in &points {
            assert!(restored(&repository, *id).unwrap() == *image);
        }
    }
}
