//! What changed, what a snapshot holds, and what is given up.

use futures_lite::future::block_on;
use tidemark_proto::private::{
    Allocated, Changes, ExtentPage, Failure, FailureKind, ForgetCheckpoint, Range, RangeKind,
    ReleaseSnapshot, ResetTracking,
};
use tidemark_store::units::{Epoch, Id};

use super::failure::{change_failure, cut_failure, release_failure, view_failure};
use crate::{
    server::{
        served::{Served, failure},
        wire::MAX_RANGES,
    },
    volume::{self, Kind},
};

pub(super) fn changes(served: &Served, asked: &Changes) -> Result<ExtentPage, Failure> {
    served.check_guard()?;
    let lineage = match asked.lineage.as_ref() {
        [] => None,
        bytes => Some(id(bytes, "lineage")?),
    };
    let until = (asked.until_epoch != 0).then_some(Epoch(asked.until_epoch));
    let since = Epoch(asked.since_epoch);
    let max = page_size(asked.max_ranges);
    let page = served
        .volume
        .changes(lineage, since, until, asked.start_bytes, max);
    Ok(extent_page(served, page.map_err(change_failure)?))
}

pub(super) fn allocated(served: &Served, asked: &Allocated) -> Result<ExtentPage, Failure> {
    served.check_guard()?;
    let snapshot = id(&asked.snapshot_id, "snapshot_id")?;
    let max = page_size(asked.max_ranges);
    let page = block_on(served.volume.allocated(snapshot, asked.start_bytes, max));
    Ok(extent_page(served, page.map_err(view_failure)?))
}

/// Every live snapshot has its device when this has been answered.
pub(super) fn present_views(served: &Served) -> Result<(), Failure> {
    block_on(served.volume.settle());
    let settled = served.views.as_ref().map_or(Ok(()), |views| views.settle());
    settled.map_err(|error| failure(FailureKind::Io, error.to_string()))
}

pub(super) fn release(served: &Served, asked: &ReleaseSnapshot) -> Result<(), Failure> {
    let snapshot = id(&asked.snapshot_id, "snapshot_id")?;
    served.volume.release(snapshot).map_err(release_failure)?;
    block_on(served.volume.ends_told());
    served.wake_housekeeping();
    Ok(())
}

pub(super) fn forget(served: &Served, asked: &ForgetCheckpoint) -> Result<(), Failure> {
    served
        .volume
        .forget(Epoch(asked.epoch))
        .map_err(release_failure)?;
    served.wake_housekeeping();
    Ok(())
}

pub(super) fn reset(served: &Served, asked: &ResetTracking) -> Result<(), Failure> {
    let lineage = block_on(served.volume.reset_tracking(&asked.reason)).map_err(cut_failure)?;
    tracing::warn!(%lineage, reason = asked.reason, "tracking was reset");
    Ok(())
}

/// 0 asks for as many as a message holds.
fn page_size(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(0) | Err(_) => MAX_RANGES,
        Ok(asked) => asked.min(MAX_RANGES),
    }
}

fn id(bytes: &[u8], field: &str) -> Result<Id, Failure> {
    let wrong = || failure(FailureKind::Invalid, format!("{field} must have 16 bytes"));
    Id::from_slice(bytes).ok_or_else(wrong)
}

fn extent_page(served: &Served, page: volume::ExtentPage) -> ExtentPage {
    let range = |extent: volume::Extent| Range {
        offset_bytes: extent.range.offset,
        length_bytes: extent.range.len,
        kind: match extent.kind {
            Kind::Data => RangeKind::Data,
            Kind::Zero => RangeKind::Zero,
            Kind::Discarded => RangeKind::Discarded,
        }
        .into(),
    };
    ExtentPage {
        ranges: page.extents.into_iter().map(range).collect(),
        next_bytes: page
            .next
            .unwrap_or_else(|| served.volume.geometry().capacity()),
        last: page.next.is_none(),
        over_report_bytes: page.over_report_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_never_outgrows_a_message() {
        assert_eq!(page_size(0), MAX_RANGES);
        assert_eq!(page_size(1), 1);
        assert_eq!(page_size(u32::MAX), MAX_RANGES);
    }

    #[test]
    fn ids_of_other_lengths_are_refused() {
        assert!(id(&[], "x").is_err());
        assert!(id(&[0; 15], "x").is_err());
        assert_eq!(id(&[7; 16], "x"), Ok(Id([7; 16])));
    }
}
