//! An area's superblock: whose it is and how it is laid out.
//!
//! Two slots; a new generation goes to the slot that does not hold the newest one, so that a torn
//! write leaves the older one.

use crate::units::{Geometry, Id};

/// Size of one superblock slot.
pub const SUPERBLOCK_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"TIDEAREA";
const VERSION: u32 = 2;
/// The area has a slot table.
const WITH_TABLE: u32 = 3;
/// The checksum covers the rest of the slot from here on.
const BODY: usize = 16;
const USED: usize = 88;

const _: () = assert!(USED <= SUPERBLOCK_BYTES);

/// An area's identity and layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Counts writes of the superblock.
    pub generation: u64,
    /// The volume that the area belongs to.
    pub volume: Id,
    /// Random, new each time the area is made.
    pub area: Id,
    /// Size and block size of the volume.
    pub geometry: Geometry,
    /// Where slot 0 begins, in bytes.
    pub first_slot_bytes: u64,
    /// Number of slots.
    pub slots: u32,
    /// A table behind the slots tells of them, so that snapshots outlive the host.
    pub table: bool,
}

/// A superblock slot holds no superblock that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuperblockError {
    /// Zeros: never written.
    #[error("empty")]
    Empty,
    /// Something else than an area.
    #[error("no area superblock")]
    NotAnArea,
    /// A version that this program does not know.
    #[error("format version {0}; this program knows versions 2 and 3")]
    Version(u32),
    /// Damaged.
    #[error("checksum mismatch")]
    Checksum,
    /// The checksum matches but a field makes no sense.
    #[error("field {0} makes no sense")]
    Malformed(&'static str),
}

impl Superblock {
    /// The stored form.
    pub fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        let version = if self.table { WITH_TABLE } else { VERSION };
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let mut at = BODY;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.generation.to_le_bytes());
        put(&self.volume.0);
        put(&self.area.0);
        put(&self.geometry.capacity().to_le_bytes());
        put(&self.geometry.block_bytes().to_le_bytes());
        put(&self.first_slot_bytes.to_le_bytes());
        put(&u64::from(self.slots).to_le_bytes());
        debug_assert_eq!(at, USED);
        let sum = checksum(&bytes);
        bytes[12..BODY].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the stored form; nothing in it is trusted before it was checked.
    pub fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, SuperblockError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(SuperblockError::Empty);
        }
        if bytes[..8] != MAGIC {
            return Err(SuperblockError::NotAnArea);
        }
        let version = u32::from_le_bytes(field(bytes, 8));
        if ![VERSION, WITH_TABLE].contains(&version) {
            return Err(SuperblockError::Version(version));
        }
        if u32::from_le_bytes(field(bytes, 12)) != checksum(bytes) {
            return Err(SuperblockError::Checksum);
        }
        let word = |at| u64::from_le_bytes(field(bytes, at));
        let block_bytes =
            u32::try_from(word(64)).map_err(|_| SuperblockError::Malformed("block_bytes"))?;
        Ok(Self {
            generation: word(16),
            volume: Id(field(bytes, 24)),
            area: Id(field(bytes, 40)),
            geometry: Geometry::new(word(56), block_bytes)
                .ok_or(SuperblockError::Malformed("geometry"))?,
            first_slot_bytes: word(72),
            slots: u32::try_from(word(80)).map_err(|_| SuperblockError::Malformed("slots"))?,
            table: version == WITH_TABLE,
        })
    }
}

/// Covers the version too where there is more than one way to read the rest.
fn checksum(bytes: &[u8; SUPERBLOCK_BYTES]) -> u32 {
    let version = &bytes[8..12];
    let begun = if version == VERSION.to_le_bytes() {
        0
    } else {
        crc32c::crc32c(version)
    };
    crc32c::crc32c_append(begun, &bytes[BODY..])
}

/// `N` bytes from `at` on.
fn field<const N: usize>(bytes: &[u8; SUPERBLOCK_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            generation: 3,
            volume: Id([1; 16]),
            area: Id([2; 16]),
            geometry: Geometry::new(123_456_789, 8192).unwrap(),
            first_slot_bytes: 1 << 20,
            slots: 1000,
            table: false,
        }
    }

    #[test]
    fn the_layout_does_not_change_by_accident() {
        let bytes = superblock().encode();
        let shown: String = bytes[..USED]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let expected = concat!(
            "5449444541524541",
            "02000000",
            "CRC",
            "0300000000000000",
            "01010101010101010101010101010101",
            "02020202020202020202020202020202",
            "15cd5b0700000000",
            "0020000000000000",
            "0000100000000000",
            "e803000000000000",
        );
        assert_eq!(shown.replace(&shown[24..32], "CRC"), expected);
        assert_eq!(Superblock::decode(&bytes), Ok(superblock()));
        let with_table = Superblock {
            table: true,
            ..superblock()
        };
        let bytes = with_table.encode();
        assert_eq!(bytes[8], 3);
        assert_eq!(Superblock::decode(&bytes), Ok(with_table));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_seen(at in 0..SUPERBLOCK_BYTES, bit in 0..8) {
            let mut bytes = superblock().encode();
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(Superblock::decode(&bytes).is_err());
        }
    }

    #[test]
    fn an_empty_slot_and_a_later_version_are_told_apart() {
        assert_eq!(
            Superblock::decode(&[0; SUPERBLOCK_BYTES]),
            Err(SuperblockError::Empty)
        );
        let mut bytes = superblock().encode();
        bytes[8] = 4;
        assert_eq!(Superblock::decode(&bytes), Err(SuperblockError::Version(4)));
        bytes[0] = 0;
        assert_eq!(Superblock::decode(&bytes), Err(SuperblockError::NotAnArea));
    }
}
