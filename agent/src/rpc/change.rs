//! ChangeService: which ranges hold data, and which changed.

use std::sync::Arc;

use futures_lite::{Stream, StreamExt, stream};
use tidemark_proto::v1::{
    ChangeSpan, EstimateChangesRequest, EstimateChangesResponse, ExtentRange,
    ListAllocatedExtentsRequest, ListAllocatedExtentsResponse, ListChangedExtentsRequest,
    ListChangedExtentsResponse, change_service_server::ChangeService,
};
use tonic::{Request, Response, Status};

use super::{
    auth::{Role, require},
    convert,
    data::Answers,
};
use crate::manager::{
    Error, Extent, Manager,
    streams::{ExtentList, Span, digest::to_wire},
};

pub(super) struct Changes(pub(super) Arc<Manager>);

#[tonic::async_trait]
impl ChangeService for Changes {
    type ListAllocatedExtentsStream = Answers<ListAllocatedExtentsResponse>;
    type ListChangedExtentsStream = Answers<ListChangedExtentsResponse>;

    async fn list_allocated_extents(
        &self,
        request: Request<ListAllocatedExtentsRequest>,
    ) -> Result<Response<Self::ListAllocatedExtentsStream>, Status> {
        require(&request, Role::View)?;
        let asked = request.into_inner();
        let list = ExtentList::allocated(
            Arc::clone(&self.0),
            &asked.snapshot_id,
            asked.starting_offset_bytes,
            asked.max_results,
        );
        let list = list.await?;
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
        require(&request, Role::View)?;
        let asked = request.into_inner();
        let span = span_from_wire(asked.span)?;
        let list = ExtentList::changed(
            Arc::clone(&self.0),
            span,
            asked.starting_offset_bytes,
            asked.max_results,
        );
        let (list, trust) = list.await?;
        let capacity_bytes = list.capacity_bytes();
        let convert = move |extents| ListChangedExtentsResponse {
            capacity_bytes,
            trust: Some(convert::trust(trust.clone())),
            extents,
        };
        answer(list, convert).await
    }

    async fn estimate_changes(
        &self,
        request: Request<EstimateChangesRequest>,
    ) -> Result<Response<EstimateChangesResponse>, Status> {
        require(&request, Role::View)?;
        let span = span_from_wire(request.into_inner().span)?;
        let list = ExtentList::changed(Arc::clone(&self.0), span, 0, 0);
        let (list, trust) = list.await?;
        let sums = list.estimate().await?;
        Ok(Response::new(EstimateChangesResponse {
            changed_bytes: sums.changed_bytes,
            zero_bytes: sums.zero_bytes,
            extents: sums.extents,
            trust: Some(convert::trust(trust)),
        }))
    }
}

/// The messages of a list. The first is fetched before the call is answered, so that what is
/// wrong with the request is the call's own error.
async fn answer<T: Send + 'static>(
    mut list: ExtentList,
    convert: impl Fn(Vec<ExtentRange>) -> T + Send + 'static,
) -> Result<Response<Answers<T>>, Status> {
    let first = list.next().await?;
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
            Err(error) => Some((Err(error.into()), None)),
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
    let until = span.until;
    Ok(Span {
        volume: span.volume,
        since: convert::read_checkpoint("span.since", span.since)?,
        until: until
            .map(|until| convert::read_checkpoint("span.until", Some(until)))
            .transpose()?,
    })
}
