//! What is remembered of the origin, to notice that others wrote to it.
//!
//! File systems keep their superblock in one of two places, and change it when they are mounted to
//! be written, or checked and mended. While region 0 is not active nobody changes it through us, so
//! it must look as it did when it was last seen.

use super::super::{Clock, Volume};
use crate::{disk::Disk, request::Errno, volume::preserve::Buffers};

/// Where ext4 and xfs, and where btrfs keep their superblock.
const PLACES: [u64; 2] = [0, 64 << 10];
const PLACE_BYTES: u64 = 4096;
const VERSION: u8 = 1;

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Looks at the origin if its first region rests; whether it did.
    pub(super) async fn look_at_origin(&self) -> bool {
        let Some(starts) = self.journal.may_look() else {
            return false;
        };
        // What is read must be what a power cut leaves.
        let seen = match self.origin.flush().await {
            Ok(()) => look(&self.origin, &self.buffers).await,
            Err(errno) => Err(errno),
        };
        // An origin that cannot be read has other worries: then nothing is compared.
        self.journal.looked(starts, seen.unwrap_or_default());
        true
    }
}

/// What the origin looks like now.
pub(in crate::volume) async fn look(
    origin: &impl Disk,
    buffers: &Buffers,
) -> Result<Vec<u8>, Errno> {
    let mut seen = vec![VERSION];
    seen.extend(origin.capacity().to_le_bytes());
    for place in PLACES {
        let len = origin.capacity().saturating_sub(place).min(PLACE_BYTES);
        let mut buffer = buffers.take(usize::try_from(len).unwrap_or(0));
        let read = origin.read(place.min(origin.capacity()), &mut buffer).await;
        seen.extend(crc32c::crc32c(&buffer).to_le_bytes());
        buffers.put(buffer);
        read?;
    }
    Ok(seen)
}
