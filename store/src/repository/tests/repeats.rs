//! Images that have the same blocks more than once.

use super::world::{BLOCK, Dice, all, back_up, blocks, full, repositories, restored};
use crate::repository::Made;

const MIB: usize = 1 << 20;

fn random(dice: &mut Dice, blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK)
        .map(|_| u8::try_from(dice.below(256)).unwrap())
        .collect()
}

#[test]
fn what_an_image_has_twice_is_stored_once() {
    for (_, repository) in repositories() {
        let mut dice = Dice(11);
        let mut image = random(&mut dice, 1024);
        let unique = image.len();
        image.resize(12 * MIB, 0);
        // Not where chunks begin, across leaves, and once more.
        let copies = [1027, 2040];
        for copy in copies {
            image.copy_within(100 * BLOCK..612 * BLOCK, copy * BLOCK);
        }
        let (first, point) = back_up(&repository, &image, all(image.len()), None, full()).unwrap();
        assert!(restored(&repository, first).unwrap() == image);
        // What lies at the ends of cells and of chunks is too short to be worth it: 3 blocks and 8; and
        // there is the tree.
        let again = usize::try_from(point.work.new_bytes).unwrap() - unique;
        assert!((11 * BLOCK..12 * BLOCK).contains(&again), "{again}");

        // The copies outlive what they were copies of.
        let mut changed: Vec<usize> = (100..612).collect();
        image[100 * BLOCK..612 * BLOCK].copy_from_slice(&random(&mut dice, 512));
        changed.push(1030);
        image[1030 * BLOCK..1031 * BLOCK].fill(1);
        let made = Made::Incremental;
        let changes = blocks(&changed);
        let (second, _) = back_up(&repository, &image, changes, Some(first), made).unwrap();
        assert!(restored(&repository, second).unwrap() == image);
    }
}

#[test]
fn scattered_repeats_do_not_scatter_a_leaf() {
    for (_, repository) in repositories() {
        let mut dice = Dice(12);
        let mut image = random(&mut dice, 40 * 256);
        // A leaf of pieces of as many chunks as there are.
        let before = image.len();
        for piece in 0..40 {
            let from = (piece * 256 + 7) * BLOCK;
            let stretch = image[from..from + 20 * BLOCK].to_vec();
            image.extend(stretch);
        }
        let (id, point) = back_up(&repository, &image, all(image.len()), None, full()).unwrap();
        assert!(restored(&repository, id).unwrap() == image);
        let new = usize::try_from(point.work.new_bytes).unwrap();
        let chunks = before + (40 - 8) * 20 * BLOCK;
        // One of them may be cut by a cell's end.
        assert!((chunks..chunks + 20 * BLOCK).contains(&new), "{new}");
    }
}

#[test]
fn equal_checksums_are_not_equal_blocks() {
    for (_, repository) in repositories() {
        let mut image = random(&mut Dice(13), 64);
        let mut forged = image.clone();
        // The polynomial itself, which no checksum by it sees.
        let polynomial = (0x82f6_3b78_u64 << 1 | 1).to_le_bytes();
        for block in forged.chunks_mut(BLOCK) {
            let sum = crc32c::crc32c(block);
            for (byte, bits) in block[99..].iter_mut().zip(polynomial) {
                *byte ^= bits;
            }
            assert_eq!(crc32c::crc32c(block), sum);
        }
        image.extend(forged);
        let (id, point) = back_up(&repository, &image, all(image.len()), None, full()).unwrap();
        assert!(point.work.new_bytes >= image.len() as u64);
        assert!(restored(&repository, id).unwrap() == image);
    }
}
