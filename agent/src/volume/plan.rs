//! What a request changes: a decision without locks, clocks or I/O.

use tidemark_store::{
    changes::Kind,
    units::{BlockRange, ByteRange, Geometry},
};

use crate::request::Request;

/// What a request is about to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Change {
    /// Every block of which a byte changes: to be marked and preserved.
    pub(super) touched: BlockRange,
    /// The blocks whose every byte becomes `kind`.
    pub(super) settled: BlockRange,
    /// What they become. Blocks that are touched but not settled become data.
    pub(super) kind: Kind,
}

/// The change that `request` makes; `None` for one that changes nothing.
///
/// Exhaustive over operations: one that slipped past here would be a lost change.
/// `discard_zeroes` says whether the origin reads zeros after a discard; where it does not, a
/// discarded block holds any bytes and counts as data.
pub(super) fn change_of(
    request: &Request<'_>,
    geometry: Geometry,
    discard_zeroes: bool,
) -> Option<Change> {
    match request {
        Request::Read { .. } | Request::ReadRegistered { .. } | Request::Flush => None,
        Request::WriteRegistered { offset, from, .. } => change(
            ByteRange::new(*offset, from.len.into()),
            Kind::Data,
            geometry,
        ),
        Request::Write { offset, from, .. } => change(
            ByteRange::new(*offset, from.len() as u64),
            Kind::Data,
            geometry,
        ),
        Request::Discard { range } => {
            let kind = if discard_zeroes {
                Kind::Discarded
            } else {
                Kind::Data
            };
            change(*range, kind, geometry)
        }
        Request::WriteZeroes { range, .. } => change(*range, Kind::Zero, geometry),
    }
}

fn change(range: ByteRange, kind: Kind, geometry: Geometry) -> Option<Change> {
    let change = Change {
        touched: geometry.touched(range),
        settled: geometry.covered(range),
        kind,
    };
    (!range.is_empty()).then_some(change)
}

/// The bytes that a request is about; `None` for a flush, which is about all.
pub(super) fn range_of(request: &Request<'_>) -> Option<ByteRange> {
    match request {
        Request::Read { offset, into } => Some(ByteRange::new(*offset, into.len() as u64)),
        Request::Write { offset, from, .. } => Some(ByteRange::new(*offset, from.len() as u64)),
        Request::ReadRegistered { offset, into } => Some(ByteRange::new(*offset, into.len.into())),
        Request::WriteRegistered { offset, from, .. } => {
            Some(ByteRange::new(*offset, from.len.into()))
        }
        Request::Discard { range } | Request::WriteZeroes { range, .. } => Some(*range),
        Request::Flush => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry::new(100 * 4096 + 512, 4096).unwrap();

    fn of(request: &Request<'_>) -> Option<Change> {
        change_of(request, GEOMETRY, true)
    }

    #[test]
    fn reads_and_flushes_change_nothing() {
        assert_eq!(of(&Request::Flush), None);
        assert_eq!(
            of(&Request::Read {
                offset: 0,
                into: &mut [0; 512]
            }),
            None
        );
        assert_eq!(
            of(&Request::Write {
                offset: 9,
                from: &[],
                fua: true
            }),
            None
        );
    }

    #[test]
    fn a_small_write_touches_its_block() {
        let change = of(&Request::Write {
            offset: 4096 - 512,
            from: &[0; 1024],
            fua: false,
        })
        .unwrap();
        assert_eq!(change.touched, BlockRange::new(0, 2));
        assert_eq!(change.kind, Kind::Data);
    }

    #[test]
    fn a_discard_settles_only_what_it_covers() {
        let range = ByteRange::new(4096 * 2 - 512, 4096 * 2);
        let change = of(&Request::Discard { range }).unwrap();
        assert_eq!(change.touched, BlockRange::new(1, 4));
        assert_eq!(change.settled, BlockRange::new(2, 3));
        assert_eq!(change.kind, Kind::Discarded);
        let unsure = change_of(&Request::Discard { range }, GEOMETRY, false).unwrap();
        assert_eq!(unsure.kind, Kind::Data);
    }
}
