//! Messages of the private protocol to and from the control plane's words. Replies are distrusted.

use tidemark_proto::private::{self, RangeKind};
use tidemark_store::units::{ByteRange, Id};

use super::LinkError;
use crate::volume::{Extent, ExtentPage, Kind};

pub(super) fn id_bytes(id: Id) -> prost::bytes::Bytes {
    prost::bytes::Bytes::copy_from_slice(&id.0)
}

/// A page must ascend, must not overlap, and must move on, or a reader would never end.
pub(super) fn extent_page(page: &private::ExtentPage, start: u64) -> Result<ExtentPage, LinkError> {
    let mut extents = Vec::with_capacity(page.ranges.len());
    let mut end = 0;
    for range in &page.ranges {
        let kind = match range.kind() {
            RangeKind::Data => Kind::Data,
            RangeKind::Zero => Kind::Zero,
            RangeKind::Discarded => Kind::Discarded,
            RangeKind::Unspecified => return Err(bad("a range of no kind")),
        };
        let extent = ByteRange::new(range.offset_bytes, range.length_bytes);
        if extent.is_empty() || extent.offset < end {
            return Err(bad("ranges that do not ascend"));
        }
        end = extent.end();
        extents.push(Extent {
            range: extent,
            kind,
        });
    }
    let next = (!page.last).then_some(page.next_bytes);
    if next.is_some_and(|next| next <= start) {
        return Err(bad("a page that does not move on"));
    }
    Ok(ExtentPage {
        extents,
        next,
        over_report_bytes: page.over_report_bytes,
    })
}

/// A page that may be believed.
pub fn checked_page(page: &private::ExtentPage, start: u64) -> Option<ExtentPage> {
    extent_page(page, start).ok()
}

fn bad(what: &str) -> LinkError {
    LinkError::Protocol(format!("the volume server answered {what}"))
}
