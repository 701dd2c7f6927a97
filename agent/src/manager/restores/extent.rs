//! Extents out of a client's messages, distrusted until checked.

use prost::bytes::Bytes;
use tidemark_proto::v1::{Compression, DataExtent};
use tidemark_store::units::ByteRange;

use crate::{
    manager::{
        Error, ErrorReason,
        streams::digest::{ExtentHash, from_wire, to_wire},
    },
    volume::{Extent, Kind},
};

/// The longest DATA extent that is taken, plain: one is held in memory, with its compressed form.
pub const MAX_DATA_EXTENT_BYTES: u64 = 4 << 20;

/// An extent that may be written.
#[derive(Debug, PartialEq)]
pub(super) struct Checked {
    /// Where and what; within the capacity and not empty.
    pub(super) extent: Extent,
    /// Plain bytes; as long as the extent when it is data, else empty.
    pub(super) data: Bytes,
    /// BLAKE3 of `data`, zeros unless data.
    pub(super) hash: ExtentHash,
}

/// Checks and unpacks one extent for a target of `capacity` bytes.
pub(super) fn check(wire: DataExtent, capacity: u64) -> Result<Checked, Error> {
    let range = ByteRange::new(wire.offset_bytes, wire.length_bytes);
    let kind = from_wire(wire.kind)
        .ok_or_else(|| Error::invalid("kind", format!("extent {range} has none")))?;
    if range.is_empty() {
        return Err(Error::invalid(
            "length_bytes",
            format!("extent {range} is empty"),
        ));
    }
    if range.offset > capacity || range.len > capacity - range.offset {
        return Err(Error::new(
            ErrorReason::OutOfRange,
            format!("extent {range} ends past the capacity of {capacity} bytes"),
        ));
    }
    let extent = Extent { range, kind };
    match kind {
        Kind::Data => check_data(extent, wire),
        Kind::Zero | Kind::Discarded if wire.data.is_empty() && wire.blake3.is_empty() => {
            Ok(Checked {
                extent,
                data: Bytes::new(),
                hash: ExtentHash::default(),
            })
        }
        Kind::Zero | Kind::Discarded => Err(Error::invalid(
            "data",
            format!("extent {range} is not data, yet brings bytes or a hash"),
        )),
    }
}

/// Checks and unpacks an extent, and makes a message of it again, plain.
pub fn recheck(wire: DataExtent, capacity: u64) -> Result<DataExtent, Error> {
    let checked = check(wire, capacity)?;
    let hash = match checked.extent.kind {
        Kind::Data => Bytes::copy_from_slice(&checked.hash),
        Kind::Zero | Kind::Discarded => Bytes::new(),
    };
    Ok(DataExtent {
        offset_bytes: checked.extent.range.offset,
        length_bytes: checked.extent.range.len,
        kind: to_wire(checked.extent.kind).into(),
        data: checked.data,
        compression: Compression::None.into(),
        blake3: hash,
    })
}

fn check_data(extent: Extent, wire: DataExtent) -> Result<Checked, Error> {
    let range = extent.range;
    if range.len > MAX_DATA_EXTENT_BYTES {
        return Err(Error::invalid(
            "length_bytes",
            format!("data extent {range} is longer than {MAX_DATA_EXTENT_BYTES} bytes: split it"),
        ));
    }
    let told = ExtentHash::try_from(wire.blake3.as_ref())
        .map_err(|_| Error::invalid("blake3", format!("extent {range} needs one of 32 bytes")))?;
    let len = usize::try_from(range.len).map_err(Error::internal)?;
    let data = unpack(&wire, len)?;
    if data.len() != len {
        return Err(Error::invalid(
            "data",
            format!("extent {range} brings {} bytes", data.len()),
        ));
    }
    let hash = *blake3::hash(&data).as_bytes();
    if hash != told {
        return Err(Error::new(
            ErrorReason::DataCorrupt,
            format!("the bytes of extent {range} do not match their BLAKE3: send them again"),
        ));
    }
    Ok(Checked { extent, data, hash })
}

/// Plain bytes. Never makes more than `len` of them, whatever the message claims.
fn unpack(wire: &DataExtent, len: usize) -> Result<Bytes, Error> {
    let compression = Compression::try_from(wire.compression)
        .map_err(|_| Error::invalid("compression", format!("{} is unknown", wire.compression)))?;
    match compression {
        Compression::Unspecified | Compression::None => Ok(wire.data.clone()),
        Compression::Zstd => zstd::bulk::decompress(&wire.data, len)
            .map(Bytes::from)
            .map_err(|error| {
                Error::new(
                    ErrorReason::DataCorrupt,
                    format!(
                        "extent {}+{len} is not zstd of {len} bytes: {error}",
                        wire.offset_bytes
                    ),
                )
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: u64 = 16 << 20;

    fn data(offset: u64, bytes: &[u8]) -> DataExtent {
        DataExtent {
            offset_bytes: offset,
            length_bytes: bytes.len() as u64,
            kind: 1,
            data: Bytes::copy_from_slice(bytes),
            compression: 1,
            blake3: Bytes::copy_from_slice(blake3::hash(bytes).as_bytes()),
        }
    }

    fn reason(wire: DataExtent) -> ErrorReason {
        check(wire, CAPACITY).unwrap_err().reason
    }

    #[test]
    fn a_good_extent_comes_through() {
        let plain = vec![7; 5000];
        let mut wire = data(1, &plain);
        assert_eq!(check(wire.clone(), CAPACITY).unwrap().data, plain);
        wire.data = zstd::bulk::compress(&plain, 1).unwrap().into();
        wire.compression = Compression::Zstd.into();
        assert_eq!(check(wire, CAPACITY).unwrap().data, plain);
        let zero = DataExtent {
            length_bytes: CAPACITY,
            kind: 2,
            ..DataExtent::default()
        };
        assert_eq!(check(zero, CAPACITY).unwrap().extent.kind, Kind::Zero);
    }

    #[test]
    fn ranges_past_the_end_are_refused() {
        assert_eq!(reason(data(CAPACITY, b"x")), ErrorReason::OutOfRange);
        assert_eq!(reason(data(u64::MAX, b"x")), ErrorReason::OutOfRange);
        assert_eq!(reason(data(CAPACITY - 1, b"xy")), ErrorReason::OutOfRange);
        let zero = DataExtent {
            offset_bytes: 4096,
            length_bytes: u64::MAX,
            kind: 2,
            ..DataExtent::default()
        };
        assert_eq!(reason(zero), ErrorReason::OutOfRange);
    }

    #[test]
    fn fields_that_disagree_are_refused() {
        let good = data(0, b"some bytes");
        let change = |f: fn(&mut DataExtent)| {
            let mut wire = good.clone();
            f(&mut wire);
            reason(wire)
        };
        assert_eq!(change(|w| w.length_bytes += 1), ErrorReason::InvalidField);
        assert_eq!(change(|w| w.length_bytes -= 1), ErrorReason::InvalidField);
        assert_eq!(change(|w| w.length_bytes = 0), ErrorReason::InvalidField);
        assert_eq!(
            change(|w| w.length_bytes = 5 << 20),
            ErrorReason::InvalidField
        );
        assert_eq!(change(|w| w.kind = 0), ErrorReason::InvalidField);
        assert_eq!(change(|w| w.kind = 9), ErrorReason::InvalidField);
        assert_eq!(change(|w| w.kind = 2), ErrorReason::InvalidField);
        assert_eq!(change(|w| w.compression = 77), ErrorReason::InvalidField);
        assert_eq!(
            change(|w| w.blake3 = Bytes::new()),
            ErrorReason::InvalidField
        );
        assert_eq!(
            change(|w| w.data = Bytes::from_static(b"other byte")),
            ErrorReason::DataCorrupt
        );
    }

    #[test]
    fn bad_zstd_and_bombs_are_refused() {
        let plain = vec![0; 8 << 20];
        let mut bomb = data(0, &plain[..4096]);
        bomb.compression = Compression::Zstd.into();
        bomb.data = zstd::bulk::compress(&plain, 1).unwrap().into();
        assert!(bomb.data.len() < 4096);
        assert_eq!(reason(bomb.clone()), ErrorReason::DataCorrupt);
        bomb.data = Bytes::from_static(b"\x28\xb5\x2f\xfdnot a frame");
        assert_eq!(reason(bomb.clone()), ErrorReason::DataCorrupt);
        bomb.data = Bytes::new();
        assert_eq!(reason(bomb.clone()), ErrorReason::InvalidField);
        bomb.data = zstd::bulk::compress(&plain[..100], 1).unwrap().into();
        assert_eq!(reason(bomb), ErrorReason::InvalidField);
    }
}
