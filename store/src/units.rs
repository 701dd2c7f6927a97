//! Units: bytes, blocks and epochs do not mix.

use std::fmt;

/// The smallest unit that tracking may use, in bytes.
pub const MIN_BLOCK_BYTES: u32 = 4096;
/// The largest unit that tracking may use, in bytes: above it, diffs grow many times too big.
pub const MAX_BLOCK_BYTES: u32 = 65536;
/// The largest volume, in bytes: 1 EiB, so that a block's number has at most 48 bits.
pub const MAX_CAPACITY_BYTES: u64 = 1 << 60;

/// The unit of a durable intent, in bytes: what is reported whole when the host stops while blocks of
/// it change.
pub const REGION_BYTES: u64 = 1 << 20;

/// A range of a volume, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl ByteRange {
    /// A range of `len` bytes that starts at `offset`.
    pub const fn new(offset: u64, len: u64) -> Self {
        Self { offset, len }
    }

    /// The first byte after the range; saturates rather than wrap.
    pub const fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// Whether the range holds no byte.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.len)
    }
}

/// The number of a block within its volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Block(pub u64);

/// Consecutive blocks, `start` to `end` without it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockRange {
    /// First block.
    pub start: u64,
    /// First block after the range.
    pub end: u64,
}

impl BlockRange {
    /// The range from `start` to `end` without it.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    /// Number of blocks.
    pub const fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the range holds no block.
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// Whether the two have a block in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Each block in order.
    pub fn blocks(self) -> impl Iterator<Item = Block> {
        (self.start..self.end).map(Block)
    }
}

/// The time between two cuts. Counts from 1 within a lineage and never repeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The first epoch of a lineage.
    pub const FIRST: Self = Self(1);

    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A random 16-byte identity: of a volume, a lineage or a snapshot. Shown as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// The identity that nothing has.
    pub const NIL: Self = Self([0; 16]);

    /// Reads 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        // Rust's integers also take a sign.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }

    /// Takes an identity out of a message; `None` unless it has 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A volume's size and its unit of tracking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    capacity: u64,
    shift: u32,
}

impl Geometry {
    /// A volume of `capacity` bytes tracked in blocks of `block_bytes`; `None` unless that is a
    /// power of two from [`MIN_BLOCK_BYTES`] to [`MAX_BLOCK_BYTES`] and the capacity is from 1 to
    /// [`MAX_CAPACITY_BYTES`].
    pub const fn new(capacity: u64, block_bytes: u32) -> Option<Self> {
        if capacity == 0
            || capacity > MAX_CAPACITY_BYTES
            || !block_bytes.is_power_of_two()
            || block_bytes < MIN_BLOCK_BYTES
            || block_bytes > MAX_BLOCK_BYTES
        {
            return None;
        }
        Some(Self {
            capacity,
            shift: block_bytes.trailing_zeros(),
        })
    }

    /// Size of the volume in bytes.
    pub const fn capacity(self) -> u64 {
        self.capacity
    }

    /// Size of a block in bytes.
    pub const fn block_bytes(self) -> u64 {
        1 << self.shift
    }

    /// Number of blocks; the last one may be cut short by the capacity.
    pub const fn blocks(self) -> u64 {
        self.capacity.div_ceil(1 << self.shift)
    }

    /// Blocks of a region: from 16 to 256.
    pub const fn region_blocks(self) -> u64 {
        REGION_BYTES >> self.shift
    }

    /// Number of regions; the last one may be cut short by the capacity.
    pub const fn regions(self) -> u64 {
        self.capacity.div_ceil(REGION_BYTES)
    }

    /// The blocks of the regions from `first` up to `end` without it, cut at the capacity.
    pub const fn blocks_of_regions(self, first: u64, end: u64) -> BlockRange {
        let blocks = self.blocks();
        let (from, to) = (first * self.region_blocks(), end * self.region_blocks());
        let to = if to > blocks { blocks } else { to };
        BlockRange::new(if from > to { to } else { from }, to)
    }

    /// Whether every byte of `range` lies within the volume.
    pub const fn contains(self, range: ByteRange) -> bool {
        range.offset <= self.capacity && range.len <= self.capacity - range.offset
    }

    /// The blocks that `range` touches, if only by a byte.
    pub const fn touched(self, range: ByteRange) -> BlockRange {
        if range.is_empty() {
            return BlockRange::new(0, 0);
        }
        BlockRange::new(
            range.offset >> self.shift,
            range.end().div_ceil(1 << self.shift),
        )
    }

    /// The blocks that `range` covers whole. The volume's last block counts as covered up to
    /// the capacity.
    pub const fn covered(self, range: ByteRange) -> BlockRange {
        let start = range.offset.div_ceil(1 << self.shift);
        let end = if range.end() == self.capacity {
            self.blocks()
        } else {
            range.end() >> self.shift
        };
        BlockRange::new(start, if end < start { start } else { end })
    }

    /// The bytes of `blocks`, cut at the capacity.
    pub const fn bytes_of(self, blocks: BlockRange) -> ByteRange {
        let offset = blocks.start << self.shift;
        let end = blocks.end << self.shift;
        let end = if end > self.capacity {
            self.capacity
        } else {
            end
        };
        ByteRange::new(offset, end.saturating_sub(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_and_covered_differ_at_partial_blocks() {
        let geometry = Geometry::new(10_000, 4096).unwrap();
        assert_eq!(geometry.blocks(), 3);
        let range = ByteRange::new(1, 8192);
        assert_eq!(geometry.touched(range), BlockRange::new(0, 3));
        assert_eq!(geometry.covered(range), BlockRange::new(1, 2));
        let tail = ByteRange::new(8192, 10_000 - 8192);
        assert_eq!(geometry.covered(tail), BlockRange::new(2, 3));
        assert_eq!(geometry.bytes_of(BlockRange::new(2, 3)), tail);
        assert!(geometry.covered(ByteRange::new(4097, 2)).is_empty());
    }

    #[test]
    fn geometry_refuses_what_no_volume_has() {
        assert!(Geometry::new(0, 4096).is_none());
        assert!(Geometry::new(1, 2048).is_none());
        assert!(Geometry::new(1, 131_072).is_none());
        assert!(Geometry::new(1, 5000).is_none());
        assert!(Geometry::new(u64::MAX, 4096).is_none());
    }

    #[test]
    fn an_id_reads_back_what_it_shows() {
        let id = Id(std::array::from_fn(|i| u8::try_from(i * 16).unwrap()));
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        assert_eq!(Id::parse("12"), None);
        assert_eq!(Id::parse(&"g".repeat(32)), None);
        assert_eq!(Id::parse(&"+1".repeat(16)), None);
    }
}
