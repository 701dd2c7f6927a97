//! DataService: a snapshot's bytes.

use std::pin::Pin;

use futures_lite::{Stream, StreamExt, stream};
use prost::bytes::Bytes;
use tidemark_proto::v1::{
    Compression, DataHeader, ExtentRange, HashExtentsRequest, HashExtentsResponse,
    ReadExtentsRequest, ReadExtentsResponse, StreamDataRequest, StreamDataResponse,
    data_service_server::DataService, read_extents_response, stream_data_response,
};
use tidemark_store::units::ByteRange;
use tonic::{Request, Response, Status};

use super::{
    auth::{Role, require},
    convert,
};
use crate::manager::streams::{DataStream, Feed, Part, PieceHashes, Streams};

/// What a streaming call answers with.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) struct Data(pub(super) Streams);

#[tonic::async_trait]
impl DataService for Data {
    type StreamDataStream = Answers<StreamDataResponse>;
    type ReadExtentsStream = Answers<ReadExtentsResponse>;
    type HashExtentsStream = Answers<HashExtentsResponse>;

    async fn stream_data(
        &self,
        request: Request<StreamDataRequest>,
    ) -> Result<Response<Self::StreamDataStream>, Status> {
        require(&request, Role::Backup)?;
        let asked = request.into_inner();
        let since = asked.since;
        let since = since.map(|since| convert::read_checkpoint("since", Some(since)));
        let compression = convert::known("compression", asked.compression)?;
        let opened = self
            .0
            .data(
                &asked.snapshot_id,
                since.transpose()?,
                asked.start_offset_bytes,
                compression,
            )
            .await?;
        let first = StreamDataResponse {
            part: Some(stream_data_response::Part::Header(header(&opened))),
        };
        Ok(answer(first, opened.parts, |part| StreamDataResponse {
            part: Some(match part {
                Part::Batch(batch) => stream_data_response::Part::Batch(batch),
                Part::Trailer(trailer) => stream_data_response::Part::Trailer(trailer),
            }),
        }))
    }

    async fn read_extents(
        &self,
        request: Request<ReadExtentsRequest>,
    ) -> Result<Response<Self::ReadExtentsStream>, Status> {
        require(&request, Role::Backup)?;
        let asked = request.into_inner();
        let compression: Compression = convert::known("compression", asked.compression)?;
        let ranges = asked.ranges.iter().map(range_from_wire).collect();
        let opened = self
            .0
            .ranges(&asked.snapshot_id, ranges, compression)
            .await?;
        let first = ReadExtentsResponse {
            part: Some(read_extents_response::Part::Header(header(&opened))),
        };
        Ok(answer(first, opened.parts, |part| ReadExtentsResponse {
            part: Some(match part {
                Part::Batch(batch) => read_extents_response::Part::Batch(batch),
                Part::Trailer(trailer) => read_extents_response::Part::Trailer(trailer),
            }),
        }))
    }

    async fn hash_extents(
        &self,
        request: Request<HashExtentsRequest>,
    ) -> Result<Response<Self::HashExtentsStream>, Status> {
        require(&request, Role::Backup)?;
        let asked = request.into_inner();
        let opened = self
            .0
            .hashes(
                &asked.snapshot_id,
                asked.start_offset_bytes,
                asked.piece_bytes,
            )
            .await?;
        let (capacity_bytes, piece_bytes) = (opened.capacity_bytes, opened.piece_bytes);
        let convert = move |message: PieceHashes| HashExtentsResponse {
            capacity_bytes,
            piece_bytes,
            offset_bytes: message.offset_bytes,
            blake3: message
                .hashes
                .iter()
                .map(|hash| Bytes::copy_from_slice(hash))
                .collect(),
        };
        Ok(Response::new(follow(opened.messages, convert).boxed()))
    }
}

/// The header, then the parts. Dropping the answer stops the stream's worker.
pub(super) fn answer<T: Send + 'static>(
    first: T,
    parts: Feed<Part>,
    convert_part: impl Fn(Part) -> T + Send + 'static,
) -> Response<Answers<T>> {
    let rest = follow(parts, convert_part);
    Response::new(stream::once(Ok(first)).chain(rest).boxed())
}

/// The messages of a worker until its last, an error, or the client's end.
fn follow<F: Send + 'static, T: Send + 'static>(
    feed: Feed<F>,
    convert: impl Fn(F) -> T + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send {
    stream::unfold((feed, convert), |(mut feed, convert)| async move {
        let next = feed.next().await?;
        Some((next.map(&convert).map_err(Status::from), (feed, convert)))
    })
}

fn header(opened: &DataStream) -> DataHeader {
    let record = &opened.snapshot.record;
    DataHeader {
        snapshot_id: record.id.to_string(),
        volume: record.volume.clone(),
        capacity_bytes: record.capacity_bytes,
        block_bytes: record.block_bytes,
        checkpoint: Some(convert::checkpoint(opened.snapshot.checkpoint())),
        since: opened.since.map(convert::checkpoint),
        trust: Some(convert::trust(opened.trust.clone())),
        operation_id: opened.operation_id.clone(),
    }
}

/// Its kind is not asked for.
fn range_from_wire(range: &ExtentRange) -> ByteRange {
    ByteRange::new(range.offset_bytes, range.length_bytes)
}
