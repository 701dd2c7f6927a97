//! Backups, full, incremental and compared, and what they cost.

use super::world::{
    BLOCK, Bytes, Dice, about, all, back_up, blocks, full, repositories, restored, restored_onto,
};
use crate::{
    repository::{Backup, Change, Error, Image, Made, Progress, id::Digest},
    units::{ByteRange, Id},
};

const MIB: usize = 1 << 20;

/// Data here and there, with zeros between, and an end that is no whole block.
fn image(dice: &mut Dice) -> Vec<u8> {
    let mut image = vec![0; 9 * MIB + 512];
    for block in 0..image.len() / BLOCK {
        let dense = (256..1500).contains(&block);
        if dense || dice.below(9) == 0 {
            image[block * BLOCK..(block + 1) * BLOCK].copy_from_slice(&dice.block());
        }
    }
    *image.last_mut().unwrap() = 9;
    image
}

#[test]
fn full_and_incremental_points_are_whole_images() {
    for (storage, repository) in repositories() {
        let mut dice = Dice(1);
        let mut image = image(&mut dice);
        let (first, point) = back_up(&repository, &image, all(image.len()), None, full()).unwrap();
        assert!(restored(&repository, first).unwrap() == image);
        assert_eq!(point.tags, ["a", "b"]);
        assert_eq!(repository.point(first).unwrap(), point);
        let before = image.clone();

        let mut changed: Vec<_> = (0..150).map(|_| dice.below(image.len() / BLOCK)).collect();
        changed.sort_unstable();
        changed.dedup();
        for block in &changed {
            let new = if block % 7 == 0 {
                vec![0; BLOCK]
            } else {
                dice.block()
            };
            image[block * BLOCK..(block + 1) * BLOCK].copy_from_slice(&new);
        }
        let base = Some(first);
        let made = Made::Incremental;
        let (second, point) = back_up(&repository, &image, blocks(&changed), base, made).unwrap();
        assert!(restored(&repository, second).unwrap() == image);
        assert!(restored(&repository, first).unwrap() == before);
        // The changed blocks, of which each has under 4 KiB, and little more.
        assert!(point.work.stored_bytes < (changed.len() * BLOCK) as u64);
        assert_eq!(point.work.read_bytes, (changed.len() * BLOCK) as u64);
        assert_eq!(point.base, first);

        let done = restored_onto(&repository, first, image.clone());
        assert!(done.written_bytes <= (changed.len() * BLOCK) as u64);
        assert!(
            storage
                .names()
                .iter()
                .any(|name| name.starts_with("index/"))
        );
    }
}

#[test]
fn what_is_stored_is_not_stored_again() {
    for (_, repository) in repositories() {
        let mut dice = Dice(2);
        let mut image = image(&mut dice);
        let all_of_it = all(image.len());
        let (first, _) = back_up(&repository, &image, all_of_it.clone(), None, full()).unwrap();
        let (_, again) = back_up(&repository, &image, all_of_it.clone(), None, full()).unwrap();
        assert_eq!((again.work.new_bytes, again.work.stored_bytes), (0, 0));

        // A full read against a base stores the one block that differs and the nodes above it.
        image[600 * BLOCK..601 * BLOCK].copy_from_slice(&dice.block());
        let base = Some(first);
        let (id, compared) = back_up(&repository, &image, all_of_it, base, full()).unwrap();
        assert_eq!(compared.work.changed_bytes, BLOCK as u64);
        assert!(compared.work.stored_bytes < 3 * BLOCK as u64);
        assert!(restored(&repository, id).unwrap() == image);
    }
}

#[test]
fn zeros_cost_nothing_and_need_not_be_read() {
    for (_, repository) in repositories() {
        let image = vec![0; 64 * MIB];
        let zeros = vec![Change {
            range: ByteRange::new(0, image.len() as u64),
            zeros: true,
        }];
        for changes in [all(image.len()), zeros, Vec::new()] {
            let (id, point) = back_up(&repository, &image, changes, None, full()).unwrap();
            assert_eq!((point.root, point.work.stored_bytes), (Digest::ZEROS, 0));
            assert!(restored(&repository, id).unwrap() == image);
        }
    }
}

#[test]
fn a_volume_grows() {
    for (_, repository) in repositories() {
        let mut dice = Dice(3);
        let mut image = image(&mut dice);
        let (mut base, _) = back_up(&repository, &image, all(image.len()), None, full()).unwrap();
        for size in [9 * MIB + 4096, 70 * MIB, 1100 * MIB] {
            let old = image.len();
            image.resize(size, 0);
            image[size - BLOCK..].copy_from_slice(&dice.block());
            let grown = vec![
                Change {
                    range: ByteRange::new((old / BLOCK * BLOCK) as u64, BLOCK as u64),
                    zeros: false,
                },
                Change {
                    range: ByteRange::new((size - BLOCK) as u64, BLOCK as u64),
                    zeros: false,
                },
            ];
            let changed = if old + BLOCK > size {
                &grown[1..]
            } else {
                &grown
            };
            let made = Made::Incremental;
            let (id, _) = back_up(&repository, &image, changed.to_vec(), Some(base), made).unwrap();
            let table = repository.table().unwrap();
            let read = Image::open(&repository, &table, id).unwrap();
            for at in [0, 5 * MIB, (old - 5000).min(size - 9000)] {
                let mut piece = vec![1; 9000];
                read.read_at(at as u64, &mut piece).unwrap();
                assert!(piece[..] == image[at..at + 9000], "at {at} of {size}");
            }
            base = id;
        }
        let small = back_up(&repository, &image[..MIB], Vec::new(), Some(base), full());
        assert!(matches!(small, Err(Error::BadImage(_))));
    }
}

#[test]
fn many_small_increments_do_not_shatter_a_leaf() {
    let (_, repository) = repositories().remove(0);
    let mut dice = Dice(4);
    let mut image: Vec<u8> = (0..1024).flat_map(|_| dice.block()).collect();
    let (mut base, _) = back_up(&repository, &image, all(image.len()), None, full()).unwrap();
    let mut stored = 0;
    for _ in 0..150 {
        let block = dice.below(1024);
        image[block * BLOCK..(block + 1) * BLOCK].copy_from_slice(&dice.block());
        let changed = blocks(&[block]);
        let made = Made::Incremental;
        let (id, point) = back_up(&repository, &image, changed, Some(base), made).unwrap();
        (base, stored) = (id, stored + point.work.new_bytes);
        let table = repository.table().unwrap();
        let nodes = crate::repository::tree::Nodes::new(&repository, &table).unwrap();
        let root = crate::repository::tree::Root::of(&point);
        let leaf = nodes.leaf(root, 0).unwrap().unwrap();
        assert!(leaf.chunks.len() <= 65);
    }
    assert!(restored(&repository, base).unwrap() == image);
    // 150 blocks, their leaves of up to 4 KiB, and about as much again for tidying.
    assert!(stored < 3 * 150 * 4096, "{stored}");
}

#[test]
fn a_cancelled_or_failed_backup_leaves_no_point() {
    let (_, repository) = repositories().remove(0);
    let image = image(&mut Dice(5));
    let source = Bytes::new(image.clone());
    let progress = Progress::default();
    progress.cancel();
    let backup = |base| Backup {
        repository: &repository,
        about: about(image.len()),
        base,
        made: full(),
        progress: &progress,
    };
    let changes = || all(image.len()).into_iter().map(Ok);
    let cancelled = backup(None).run(&source, &mut changes());
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    let outside = all(image.len() + 1);
    let outside = back_up(&repository, &image, outside, None, full());
    assert!(matches!(outside, Err(Error::BadImage(_))));
    let stranger = back_up(&repository, &image, all(512), Some(Id([9; 16])), full());
    assert!(matches!(stranger, Err(Error::NoPoint(_))));
    assert!(repository.points().unwrap().points.is_empty());
}
