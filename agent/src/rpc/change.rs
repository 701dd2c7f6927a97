//! ChangeService: which ranges hold data, and which changed.

use std::sync::Arc;

use futures_lite::{Stream, StreamExt, stream};
use tidemark_proto::v1::{
    ChangeSpan, EstimateChangesRequest, EstimateChangesResponse, ExtentRange,
    ListAllocatedExtentsRequest, ListAllocatedExtentsResponse, ListChangedExtentsRequest,
    ListChangedExtentsResponse, TrustReport, change_service_server,
};
use tonic::{Request, Response, Status};

use super::{data::Answers, status::to_status};
use crate::manager::{
    self, Checkpoint, Error, Extent, Manager, Trust,
    streams::{ExtentList, Span, digest::to_wire},
};

/// Serves `tidemark.v1.ChangeService`.
pub struct ChangeService {
    manager: Arc<Manager>,
}

impl ChangeService {
    /// Over one agent's volumes.
    pub fn new(manager: Arc<Manager>) -> Self {
        Self { manager }
    }
}

#[tonic::async_trait]
impl change_service_server::ChangeService for ChangeService {
    type ListAllocatedExtentsStream = Answers<ListAllocatedExtentsResponse>;
    type ListChangedExtentsStream = Answers<ListChangedExtentsResponse>;

    async fn list_allocated_extents(
        &self,
        request: Request<ListAllocatedExtentsRequest>,
    ) -> Result<Response<Self::ListAllocatedExtentsStream>, Status> {
        let asked = request.into_inner();
        let list = ExtentList::allocated(
            Arc::clone(&self.manager),
            &asked.snapshot_id,
            asked.starting_offset_bytes,
            asked.max_results,
        );
        let list = list.await.map_err(to_status)?;
        let capacity_bytes = list.capacity_bytes();
        let convert = move |extents| ListAllocatedExtentsResponse {
            capacity_bytes,
            extents,
        };
        answer(list, convert).await
    }

    async fn list_changed_extents(
        &self,
        request: Request<ListChangedExtentsRequest>,
    ) -> Result<Response<Self::ListChangedExtentsStream>, Status> {
        let asked = request.into_inner();
        let span = span_from_wire(asked.span).map_err(to_status)?;
        let list = ExtentList::changed(
            Arc::clone(&self.manager),
            span,
            asked.starting_offset_bytes,
            asked.max_results,
        );
        let (list, trust) = list.await.map_err(to_status)?;
        let capacity_bytes = list.capacity_bytes();
        let convert = move |extents| ListChangedExtentsResponse {
            capacity_bytes,
            trust: Some(trust_to_wire(&trust)),
            extents,
        };
        answer(list, convert).await
    }

    async fn estimate_changes(
        &self,
        request: Request<EstimateChangesRequest>,
    ) -> Result<Response<EstimateChangesResponse>, Status> {
        let span = span_from_wire(request.into_inner().span).map_err(to_status)?;
        let list = ExtentList::changed(Arc::clone(&self.manager), span, 0, 0);
        let (list, trust) = list.await.map_err(to_status)?;
        let sums = list.estimate().await.map_err(to_status)?;
        Ok(Response::new(EstimateChangesResponse {
            changed_bytes: sums.changed_bytes,
            zero_bytes: sums.zero_bytes,
            extents: sums.extents,
            trust: Some(trust_to_wire(&trust)),
        }))
    }
}

/// The messages of a list. The first is fetched before the call is answered, so that what is
/// wrong with the request is the call's own error.
async fn answer<T: Send + 'static>(
    mut list: ExtentList,
    convert: impl Fn(Vec<ExtentRange>) -> T + Send + 'static,
) -> Result<Response<Answers<T>>, Status> {
    let first = list.next().await.map_err(to_status)?;
    let first = first.map(|extents| Ok(convert(ranges_to_wire(extents))));
    let rest = follow(list, convert);
    Ok(Response::new(stream::iter(first).chain(rest).boxed()))
}

fn follow<T: Send + 'static>(
    list: ExtentList,
    convert: impl Fn(Vec<ExtentRange>) -> T + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send {
    stream::unfold(Some((list, convert)), |state| async move {
        let (mut list, convert) = state?;
        match list.next().await {
            Ok(None) => None,
            Ok(Some(extents)) => {
                let message = convert(ranges_to_wire(extents));
                Some((Ok(message), Some((list, convert))))
            }
            Err(error) => Some((Err(to_status(error)), None)),
        }
    })
}

fn ranges_to_wire(extents: Vec<Extent>) -> Vec<ExtentRange> {
    let ranges = extents.into_iter().map(|extent| ExtentRange {
        offset_bytes: extent.range.offset,
        length_bytes: extent.range.len,
        kind: to_wire(extent.kind).into(),
    });
    ranges.collect()
}

fn span_from_wire(span: Option<ChangeSpan>) -> Result<Span, Error> {
    let span = span.ok_or_else(|| Error::invalid("span", "is missing"))?;
    let since = span
        .since
        .ok_or_else(|| Error::invalid("span.since", "is missing"))?;
    let until = span.until.as_ref();
    Ok(Span {
        volume: span.volume,
        since: checkpoint_from_wire("span.since", &since)?,
        until: until
            .map(|until| checkpoint_from_wire("span.until", until))
            .transpose()?,
    })
}

/// A point out of a message; `field` names it in errors.
pub(super) fn checkpoint_from_wire(
    field: &str,
    wire: &tidemark_proto::v1::Checkpoint,
) -> Result<Checkpoint, Error> {
    manager::checkpoint(field, &wire.lineage, wire.epoch)
}

/// A point as the public API shows it.
pub(super) fn checkpoint_to_wire(checkpoint: Checkpoint) -> tidemark_proto::v1::Checkpoint {
    tidemark_proto::v1::Checkpoint {
        lineage: checkpoint.lineage.to_string(),
        epoch: checkpoint.epoch.0,
    }
}

/// Trust as the public API shows it.
pub(super) fn trust_to_wire(trust: &Trust) -> TrustReport {
    let since = std::time::UNIX_EPOCH + std::time::Duration::from_micros(trust.since_us);
    TrustReport {
        trust: trust.level.into(),
        reason: trust.reason.clone(),
        over_report_bound_bytes: trust.over_report_bound_bytes,
        since: Some(since.into()),
    }
}
