//! Inputs taken apart.

/// A number from the front of the input; 0 where it ends.
pub(crate) fn number<const N: usize>(input: &mut &[u8]) -> u64 {
    let (front, rest) = input.split_at(N.min(input.len()));
    *input = rest;
    front
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The bytes with the checksum of all from `body` on put at `sum`: damage must not end at it.
pub(crate) fn with_crc32c(bytes: &[u8], sum: usize, body: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(crc) = bytes.get(body..).map(crc32c::crc32c) {
        bytes[sum..sum + 4].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}
