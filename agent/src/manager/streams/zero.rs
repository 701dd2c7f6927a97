//! Telling blocks of zeros from data.

use std::ops::Range;

/// How many bytes are looked at before asking whether to go on: a few vector registers.
const STRIDE: usize = 256;

/// Whether every byte is zero. Stops at the first stride that is not, which for data is
/// nearly always the first of all.
pub(in crate::manager) fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(STRIDE)
        .all(|chunk| chunk.iter().fold(0, |seen, byte| seen | byte) == 0)
}

/// Cuts `bytes`, which lie at `offset` of the volume, into runs of zero blocks and runs of
/// others, in order. Blocks lie on the volume's grid: the first and the last may be partial.
pub(super) fn runs(bytes: &[u8], offset: u64, block_bytes: u64) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let position = offset + at as u64;
        let to_boundary = block_bytes - position % block_bytes;
        let len = usize::try_from(to_boundary)
            .unwrap_or(usize::MAX)
            .min(bytes.len() - at);
        let zero = is_zero(&bytes[at..at + len]);
        match runs.last_mut() {
            Some((range, same)) if *same == zero => range.end = at + len,
            _ => runs.push((at..at + len, zero)),
        }
        at += len;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_makes_it_data() {
        for len in [1, 255, 256, 257, 4096, 5000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in [0, len / 2, len - 1] {
                bytes[at] = 1;
                assert!(!is_zero(&bytes));
                bytes[at] = 0;
            }
        }
        assert!(is_zero(&[]));
    }

    #[test]
    fn runs_follow_the_volumes_grid() {
        let mut bytes = vec![0; 10_000];
        bytes[3000] = 7;
        // At offset 2048 the grid lies at 2048, 6144 and 10240 of these bytes.
        let expected = vec![(0..2048, true), (2048..6144, false), (6144..10_000, true)];
        assert_eq!(runs(&bytes, 2048, 4096), expected);
        assert!(runs(&[], 0, 4096).is_empty());
    }
}
