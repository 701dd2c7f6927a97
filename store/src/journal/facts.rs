//! What is remembered of a volume's origin, to notice that others wrote to it meanwhile.
//!
//! A file system's superblock lies in a known place. Its bytes are remembered while nobody changes
//! them. For ext2 to ext4, which count their mounts in it, the counts are remembered also while it
//! changes: those that it may have when the host stops now. Contract: FORMAT.md, "Journal".

use crate::{bytes::Fields, units::ByteRange};

const VERSION: u8 = 1;
/// What is read to find a superblock: the first page, and the one in which btrfs has it.
pub const PAGES: [ByteRange; 2] = [ByteRange::new(0, 4096), ByteRange::new(64 << 10, 4096)];
const EXT: ByteRange = ByteRange::new(1024, 1024);
const XFS: ByteRange = ByteRange::new(0, 512);
/// The fields of [`EXT`] that [`Mounts`] is made of.
const EXT_FIELDS: ByteRange = ByteRange::new(EXT.offset + 0x2c, 0x78 - 0x2c);
/// States that a superblock may be in at a time; more changes than these without a flush of the
/// origin in between do not happen.
const MAX_MOUNTS: usize = 4;

/// What ext2, ext3 and ext4 count, as it is in the superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mounts {
    /// Of the file system.
    pub uuid: [u8; 16],
    /// Mounts since the last check.
    pub count: u16,
    /// When it was mounted last.
    pub last_mount: u32,
    /// When it was checked last.
    pub last_check: u32,
}

/// What was seen of an origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Where its superblock lies; the first page where none is known.
    pub place: ByteRange,
    /// CRC32C of that place, while nobody changes it.
    pub sum: Option<u32>,
    /// What an ext's superblock may count, the latest last; none where there is no such.
    pub mounts: Vec<Mounts>,
}

impl Mounts {
    /// Whether a write of `range` brings all of it.
    pub fn lie_in(range: ByteRange) -> bool {
        range.offset <= EXT_FIELDS.offset && EXT_FIELDS.end() <= range.end()
    }

    /// What a write of `bytes` at `offset` makes an ext's superblock count; `None` if it does not
    /// bring all of that, or is of something else.
    pub fn written(offset: u64, bytes: &[u8]) -> Option<Self> {
        let start = usize::try_from(EXT_FIELDS.offset.checked_sub(offset)?).ok()?;
        let fields = bytes.get(start..)?;
        let at = |field: usize| field - 0x2c;
        let half = |field: usize| Some(u16::from_le_bytes(array(fields, at(field))?));
        let word = |field: usize| Some(u32::from_le_bytes(array(fields, at(field))?));
        let mounts = Self {
            uuid: array(fields, at(0x68))?,
            count: half(0x34)?,
            last_mount: word(0x2c)?,
            last_check: word(0x40)?,
        };
        (half(0x38)? == 0xef53).then_some(mounts)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl Facts {
    /// What is to be seen in the [`PAGES`] of an origin, of 4 KiB each.
    pub fn of(first: &[u8], second: &[u8]) -> Self {
        let mounts = Mounts::written(0, first);
        let (place, bytes) = if mounts.is_some() {
            (EXT, first.get(1024..2048))
        } else if first.starts_with(b"XFSB") {
            (XFS, first.get(..512))
        } else if second.get(0x40..0x48) == Some(b"_BHRfS_M") {
            (PAGES[1], Some(second))
        } else {
            (PAGES[0], Some(first))
        };
        Self {
            place,
            sum: bytes.map(crc32c::crc32c),
            mounts: mounts.into_iter().collect(),
        }
    }

    /// Whether a change of `range` may change what is seen: the place, and where neither ext's nor
    /// xfs's superblock is there, whatever would show that one has come.
    pub fn may_change_with(&self, range: ByteRange) -> bool {
        let meets = |other: &ByteRange| range.offset < other.end() && other.offset < range.end();
        meets(&self.place) || PAGES.contains(&self.place) && PAGES.iter().any(meets)
    }

    /// What is left to be known while the place changes.
    pub fn changing(&self) -> Self {
        Self {
            sum: None,
            ..self.clone()
        }
    }

    /// The superblock, where it is one that counts, may be in one more state from here on; whether
    /// that is news.
    pub fn may_become(&mut self, mounts: Mounts) -> bool {
        let news = !self.mounts.is_empty() && !self.mounts.contains(&mounts);
        if news {
            self.mounts.push(mounts);
            let surplus = self.mounts.len().saturating_sub(MAX_MOUNTS);
            self.mounts.drain(..surplus);
        }
        news
    }

    /// Whether an origin that looks like `now` is as it was left, as far as that is known; else
    /// why not.
    pub fn compare(&self, now: &Self) -> Result<(), Difference> {
        if self.sum.is_some() && (self.place, self.sum) != (now.place, now.sum) {
            return Err(Difference::Superblock);
        }
        let known = |mounts: &Mounts| self.mounts.contains(mounts);
        if !self.mounts.is_empty() && !now.mounts.last().is_some_and(known) {
            return Err(Difference::Mounts);
        }
        Ok(())
    }

    /// The form in which the journal keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.place.offset.to_le_bytes());
        bytes.extend(self.place.len.to_le_bytes());
        bytes.push(u8::from(self.sum.is_some()));
        bytes.extend(self.sum.unwrap_or(0).to_le_bytes());
        for mounts in &self.mounts {
            bytes.extend(mounts.uuid);
            bytes.extend(mounts.count.to_le_bytes());
            bytes.extend(mounts.last_mount.to_le_bytes());
            bytes.extend(mounts.last_check.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Facts::encode`] made; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u8()? != VERSION {
            return None;
        }
        let (offset, len) = (fields.u64()?, fields.u64()?);
        offset.checked_add(len)?;
        let known = fields.u8()?;
        let sum = fields.u32()?;
        let sum = match (known, sum) {
            (1, sum) => Some(sum),
            (0, 0) => None,
            _ => return None,
        };
        let mut mounts = Vec::new();
        while !fields.0.is_empty() {
            if mounts.len() == MAX_MOUNTS {
                return None;
            }
            mounts.push(Mounts {
                uuid: fields.id()?.0,
                count: fields.u16()?,
                last_mount: fields.u32()?,
                last_check: fields.u32()?,
            });
        }
        Some(Self {
            place: ByteRange::new(offset, len),
            sum,
            mounts,
        })
    }
}

/// How an origin differs from what was seen of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Difference {
    /// The bytes of the place.
    #[error(
        "the superblock of the volume is not what it was when tracking stopped: it was changed \
         meanwhile, or is another one"
    )]
    Superblock,
    /// What an ext counts.
    #[error(
        "the file system of the volume was mounted or checked since tracking stopped: it was \
         changed meanwhile, or is another one"
    )]
    Mounts,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with these bytes somewhere.
    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[at..at + bytes.len()].copy_from_slice(bytes);
        page
    }

    fn ext4(count: u8) -> Vec<u8> {
        let mut page = with(1024 + 0x38, &[0x53, 0xef]);
        page[1024 + 0x34] = count;
        page
    }

    #[test]
    fn superblocks_are_found_where_they_are() {
        let empty = vec![0; 4096];
        let [mut xfs, btrfs] = [with(0, b"XFSB"), with(0x40, b"_BHRfS_M")];
        for (first, second, place) in [
            (&ext4(7), &empty, EXT),
            (&xfs, &empty, XFS),
            (&empty, &btrfs, PAGES[1]),
            (&empty, &empty, PAGES[0]),
        ] {
            assert_eq!(Facts::of(first, second).place, place);
        }
        // What is beside an xfs superblock is another structure.
        let seen = Facts::of(&xfs, &empty);
        xfs[600] = 1;
        assert_eq!(Facts::of(&xfs, &empty), seen);
        xfs[300] = 1;
        assert_eq!(
            seen.compare(&Facts::of(&xfs, &empty)),
            Err(Difference::Superblock)
        );
    }

    #[test]
    fn a_superblock_that_comes_elsewhere_changes_what_is_seen() {
        let empty = vec![0; 4096];
        let [xfs, btrfs] = [with(0, b"XFSB"), with(0x40, b"_BHRfS_M")];
        for (first, second, changed) in [
            (&ext4(7), &empty, [false, true, false]),
            (&xfs, &empty, [true, false, false]),
            (&empty, &btrfs, [true, true, true]),
            (&empty, &empty, [true, true, true]),
        ] {
            let seen = Facts::of(first, second);
            let places = [0, 1024, 64 << 10].map(|offset| ByteRange::new(offset, 512));
            assert_eq!(places.map(|range| seen.may_change_with(range)), changed);
            assert!(!seen.may_change_with(ByteRange::new(4096, 60 << 10)));
        }
    }

    #[test]
    fn a_write_tells_what_it_makes_the_superblock_count() {
        let page = ext4(7);
        for (offset, bytes, told) in [
            (0, &page[..], true),
            (1024, &page[1024..2048], true),
            (1024, &page[1024..1536], true),
            (512, &page[512..1024 + 0x78], true),
            (512, &page[512..1024 + 0x77], false),
            (1024 + 0x2d, &page[1024 + 0x2d..], false),
            (2048, &page[..], false),
            (0, &page[..600], false),
            (1024, &page[..1024], false),
        ] {
            let count = Mounts::written(offset, bytes).map(|mounts| mounts.count);
            assert_eq!(count, told.then_some(7), "{offset} {}", bytes.len());
            let range = ByteRange::new(offset, bytes.len() as u64);
            assert!(Mounts::lie_in(range) || !told);
        }
    }

    #[test]
    fn any_state_that_the_superblock_may_be_in_is_as_it_was_left() {
        let of = |count| Facts::of(&ext4(count), &[]);
        let mut seen = of(1).changing();
        assert!(!seen.may_become(of(1).mounts[0]));
        assert!(seen.may_become(of(2).mounts[0]));
        assert_eq!(seen.compare(&of(1)), Ok(()));
        assert_eq!(seen.compare(&of(2)), Ok(()));
        assert_eq!(seen.compare(&of(3)), Err(Difference::Mounts));
        let other = Facts::of(&vec![0; 4096], &[]);
        assert_eq!(seen.compare(&other), Err(Difference::Mounts));
        let mut other = other.changing();
        assert!(!other.may_become(of(2).mounts[0]));
        assert_eq!(other.compare(&of(3)), Ok(()));
        for count in 3..10 {
            seen.may_become(of(count).mounts[0]);
        }
        assert_eq!(seen.compare(&of(1)), Err(Difference::Mounts));
        assert_eq!(seen.compare(&of(9)), Ok(()));
    }

    #[test]
    fn what_was_seen_reads_back() {
        let mut seen = Facts::of(&ext4(7), &[]);
        let mut forms = vec![seen.clone(), seen.changing()];
        for count in 0..9 {
            seen.may_become(Facts::of(&ext4(count), &[]).mounts[0]);
            forms.push(seen.clone());
        }
        seen.mounts.clear();
        forms.push(seen.clone());
        for seen in forms {
            assert_eq!(Facts::decode(&seen.encode()), Some(seen));
        }
        assert_eq!(Facts::decode(&[]), None);
        assert_eq!(Facts::decode(&seen.encode()[..9]), None);
    }
}
