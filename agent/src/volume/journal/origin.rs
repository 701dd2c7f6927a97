//! What is remembered of the origin, to notice that others wrote to it while nobody tracked it.
//!
//! A file system's superblock lies in a known place and changes when the file system is mounted to
//! be written, or checked and mended. So its place is watched: once it was left alone for a moment,
//! what it holds is remembered, and before it is changed again that is taken back. For ext4 the
//! mounts are counted in it, which is remembered also while it changes.

use tidemark_store::{journal::Record, units::ByteRange};

use super::{
    super::{Clock, Volume},
    Journal, LOOK_US, Queue,
};
use crate::{disk::Disk, request::Errno, volume::preserve::Buffers};

/// What is read to find a superblock: the first page, and the one in which btrfs has it.
const PAGES: [ByteRange; 2] = [ByteRange::new(0, 4096), ByteRange::new(64 << 10, 4096)];
const VERSION: u8 = 1;
const EXT: ByteRange = ByteRange::new(1024, 1024);
const XFS: ByteRange = ByteRange::new(0, 512);

/// What ext2, ext3 and ext4 count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mounts {
    uuid: [u8; 16],
    count: u16,
    last_mount: u32,
    last_check: u32,
}

/// What was seen of an origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::volume) struct Seen {
    /// Where its superblock lies; the first page where none is known.
    place: ByteRange,
    /// CRC32C of that place, while nobody changes it.
    sum: Option<u32>,
    mounts: Option<Mounts>,
}

/// The watch over the origin's superblock; under the journal's lock.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) seen: Option<Seen>,
    /// Changes of the place, and of all pages in which one may be.
    touched: [u64; 2],
    /// Of these, in flight.
    flying: [u64; 2],
    touched_us: u64,
    /// The batch that takes back what was remembered.
    batch: u64,
}

impl Watch {
    /// What was remembered is told nowhere any more.
    pub(super) fn forget(&mut self) {
        self.seen = self.seen.map(Seen::changing);
    }
}

/// A change of the watched pages in flight.
pub(in crate::volume) struct Watched<'a> {
    journal: &'a Journal,
    in_place: bool,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut queue = self.journal.queue();
        queue.watch.flying[0] -= u64::from(self.in_place);
        queue.watch.flying[1] -= 1;
    }
}

impl Journal {
    /// Returns when a change of `bytes` may go on without what is remembered of the origin being
    /// wrong; while it lasts nothing is remembered.
    pub(in crate::volume) async fn watch(
        &self,
        bytes: ByteRange,
        clock: &impl Clock,
    ) -> Option<Watched<'_>> {
        let meets = |other: &ByteRange| bytes.offset < other.end() && other.offset < bytes.end();
        if !self.durable || !PAGES.iter().any(meets) {
            return None;
        }
        let (watched, batch) = {
            let mut queue = self.queue();
            let in_place = queue.watch.seen.is_none_or(|seen| meets(&seen.place));
            let watched = Watched {
                journal: self,
                in_place,
            };
            queue.watch.touched[0] += u64::from(in_place);
            queue.watch.flying[0] += u64::from(in_place);
            queue.watch.touched[1] += 1;
            queue.watch.flying[1] += 1;
            if in_place {
                queue.watch.touched_us = clock.now_us();
                self.take_back(&mut queue);
            }
            (watched, if in_place { queue.watch.batch } else { 0 })
        };
        self.wait_for(batch, clock).await;
        Some(watched)
    }

    fn take_back(&self, queue: &mut Queue) {
        if let Some(seen) = queue.watch.seen.filter(|seen| seen.sum.is_some()) {
            let changing = seen.changing();
            queue.watch.seen = Some(changing);
            self.push(queue, &Record::Origin(changing.encode()));
            queue.watch.batch = queue.batch;
        }
    }

    /// Whether the origin is to be looked at, with what must not change meanwhile.
    fn may_look(&self, now_us: u64) -> Option<[u64; 2]> {
        let queue = self.queue();
        let watch = &queue.watch;
        let rests = watch.flying[0] == 0
            && (watch.touched[0] == 0 || now_us.abs_diff(watch.touched_us) >= LOOK_US);
        let known = watch.seen.is_some_and(|seen| seen.sum.is_some());
        (queue.suspended.is_none() && rests && !known).then_some(watch.touched)
    }

    /// Whether [`Journal::may_look`] became true with time.
    pub(super) fn wants_look(&self, now_us: u64) {
        if self.may_look(now_us).is_some() {
            self.work.notify(usize::MAX);
        }
    }

    /// Remembers what was seen, unless it was changed since.
    fn looked(&self, before: [u64; 2], seen: Seen) {
        let mut queue = self.queue();
        let watch = &mut queue.watch;
        let same_place = watch.seen.is_some_and(|known| known.place == seen.place);
        // Changes of another place than the one that was known counted as changes of any.
        let which = usize::from(!same_place);
        if watch.touched[which] == before[which] && watch.flying[which] == 0 {
            watch.seen = Some(seen);
            self.push(&mut queue, &Record::Origin(seen.encode()));
        } else if !same_place {
            // The new place is watched from now on.
            watch.seen = Some(seen.changing());
        }
    }
}

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Looks at the origin if its superblock was left alone; whether it did.
    pub(super) async fn look_at_origin(&self) -> bool {
        let Some(before) = self.journal.may_look(self.clock.now_us()) else {
            return false;
        };
        // What is read must be what a power cut leaves.
        let seen = match self.origin.flush().await {
            Ok(()) => look(&self.origin, &self.buffers).await,
            Err(errno) => Err(errno),
        };
        match seen {
            Ok(seen) => {
                self.journal.looked(before, seen);
                true
            }
            // An origin that fails has other worries; it is looked at again after the next change.
            Err(_) => false,
        }
    }
}

/// What the origin holds now.
pub(super) async fn look(origin: &impl Disk, buffers: &Buffers) -> Result<Seen, Errno> {
    let mut pages = [const { Vec::new() }; 2];
    for (page, range) in pages.iter_mut().zip(PAGES) {
        let len = origin
            .capacity()
            .saturating_sub(range.offset)
            .min(range.len);
        if len > 0 {
            let mut buffer = buffers.take(usize::try_from(len).unwrap_or(0));
            let read = origin.read(range.offset, &mut buffer).await;
            page.extend_from_slice(&buffer);
            buffers.put(buffer);
            read?;
        }
        page.resize(4096, 0);
    }
    Ok(Seen::of(&pages[0], &pages[1]))
}

/// Whether the origin is as it was when tracking stopped, as far as that is known; else why not.
pub(in crate::volume) async fn compare(
    stored: &[u8],
    origin: &impl Disk,
    buffers: &Buffers,
) -> Result<(), String> {
    let Some(seen) = Seen::decode(stored) else {
        return Ok(());
    };
    let now = look(origin, buffers).await;
    let now = now.map_err(|errno| format!("the volume's superblock cannot be read: {errno}"))?;
    let other = "it was changed meanwhile, or is another one";
    if seen.sum.is_some() && (seen.place, seen.sum) != (now.place, now.sum) {
        return Err(format!(
            "the superblock of the volume is not what it was when tracking stopped: {other}"
        ));
    }
    if seen.mounts.is_some() && seen.mounts != now.mounts {
        return Err(format!(
            "the file system of the volume was mounted or checked since tracking stopped: {other}"
        ));
    }
    Ok(())
}

impl Seen {
    /// What is left to be known while the place changes.
    fn changing(self) -> Self {
        Self { sum: None, ..self }
    }

    fn of(first: &[u8], second: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| first[1024 + at + i]));
        let half = |at: usize| u16::from_le_bytes([first[1024 + at], first[1024 + at + 1]]);
        let is_ext = half(0x38) == 0xef53;
        let mounts = is_ext.then(|| Mounts {
            uuid: std::array::from_fn(|i| first[1024 + 0x68 + i]),
            count: half(0x34),
            last_mount: word(0x2c),
            last_check: word(0x40),
        });
        let (place, bytes) = if is_ext {
            (EXT, &first[1024..2048])
        } else if first.starts_with(b"XFSB") {
            (XFS, &first[..512])
        } else if second[0x40..].starts_with(b"_BHRfS_M") {
            (PAGES[1], second)
        } else {
            (PAGES[0], first)
        };
        Self {
            place,
            sum: Some(crc32c::crc32c(bytes)),
            mounts,
        }
    }

    /// The form in which the journal keeps it; see FORMAT.md, "Journal".
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.place.offset.to_le_bytes());
        bytes.extend(self.place.len.to_le_bytes());
        bytes.push(u8::from(self.sum.is_some()));
        bytes.extend(self.sum.unwrap_or(0).to_le_bytes());
        if let Some(mounts) = &self.mounts {
            bytes.extend(mounts.uuid);
            bytes.extend(mounts.count.to_le_bytes());
            bytes.extend(mounts.last_mount.to_le_bytes());
            bytes.extend(mounts.last_check.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut take = |len: usize| {
            let (head, tail) = rest.split_at_checked(len)?;
            rest = tail;
            Some(head)
        };
        let offset = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let len = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let known = take(1)? == [1];
        let sum = u32::from_le_bytes(take(4)?.try_into().ok()?);
        let mut mounts = || {
            Some(Mounts {
                uuid: take(16)?.try_into().ok()?,
                count: u16::from_le_bytes(take(2)?.try_into().ok()?),
                last_mount: u32::from_le_bytes(take(4)?.try_into().ok()?),
                last_check: u32::from_le_bytes(take(4)?.try_into().ok()?),
            })
        };
        let mounts = mounts();
        Some(Self {
            place: ByteRange::new(offset, len),
            sum: known.then_some(sum),
            mounts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ext4() -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
        page[1024 + 0x34] = 7;
        page
    }

    #[test]
    fn superblocks_are_found_where_they_are() {
        let empty = vec![0; 4096];
        let mut xfs = empty.clone();
        xfs[..4].copy_from_slice(b"XFSB");
        let mut btrfs = empty.clone();
        btrfs[0x40..0x48].copy_from_slice(b"_BHRfS_M");
        for (first, second, place) in [
            (&ext4(), &empty, EXT),
            (&xfs, &empty, XFS),
            (&empty, &btrfs, PAGES[1]),
            (&empty, &empty, PAGES[0]),
        ] {
            assert_eq!(Seen::of(first, second).place, place);
        }
        // What is beside an xfs superblock is another structure.
        let seen = Seen::of(&xfs, &empty);
        xfs[600] = 1;
        assert_eq!(Seen::of(&xfs, &empty), seen);
        xfs[300] = 1;
        assert_ne!(Seen::of(&xfs, &empty), seen);
    }

    #[test]
    fn what_was_seen_reads_back() {
        let seen = Seen::of(&ext4(), &vec![0; 4096]);
        assert_eq!(seen.mounts.unwrap().count, 7);
        for seen in [
            seen,
            seen.changing(),
            Seen {
                mounts: None,
                ..seen
            },
        ] {
            assert_eq!(Seen::decode(&seen.encode()), Some(seen));
        }
        assert_eq!(Seen::decode(&[]), None);
        assert_eq!(Seen::decode(&seen.encode()[..9]), None);
    }
}
