//! DataService: a snapshot's bytes.

use std::pin::Pin;

use futures_lite::{Stream, StreamExt, stream};
use prost::bytes::Bytes;
use tidemark_proto::v1::{
    self, Compression, DataHeader, ExtentRange, HashExtentsRequest, HashExtentsResponse,
    ReadExtentsRequest, ReadExtentsResponse, StreamDataRequest, StreamDataResponse,
    data_service_server, read_extents_response, stream_data_response,
};
use tidemark_store::units::ByteRange;
use tonic::{Request, Response, Status};

use super::{
    change::{checkpoint_from_wire, checkpoint_to_wire, trust_to_wire},
    status::to_status,
};
use crate::manager::{
    Error,
    streams::{DataStream, Feed, Part, PieceHashes, Streams},
};

/// What a streaming call answers with.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves `tidemark.v1.DataService`.
pub struct DataService {
    streams: Streams,
}

impl DataService {
    /// Over the streams of one agent.
    pub fn new(streams: Streams) -> Self {
        Self { streams }
    }
}

#[tonic::async_trait]
impl data_service_server::DataService for DataService {
    type StreamDataStream = Answers<StreamDataResponse>;
    type ReadExtentsStream = Answers<ReadExtentsResponse>;
    type HashExtentsStream = Answers<HashExtentsResponse>;

    async fn stream_data(
        &self,
        request: Request<StreamDataRequest>,
    ) -> Result<Response<Self::StreamDataStream>, Status> {
        let asked = request.into_inner();
        let since = asked.since.as_ref();
        let since = since.map(|since| checkpoint_from_wire("since", since));
        let since = since.transpose().map_err(to_status)?;
        let compression = compression(asked.compression).map_err(to_status)?;
        let opened = self
            .streams
            .data(
                &asked.snapshot_id,
                since,
                asked.start_offset_bytes,
                compression,
            )
            .await
            .map_err(to_status)?;
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
        let asked = request.into_inner();
        let compression = compression(asked.compression).map_err(to_status)?;
        let ranges = asked.ranges.iter().map(range_from_wire).collect();
        let opened = self
            .streams
            .ranges(&asked.snapshot_id, ranges, compression)
            .await
            .map_err(to_status)?;
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
        let asked = request.into_inner();
        let opened = self
            .streams
            .hashes(
                &asked.snapshot_id,
                asked.start_offset_bytes,
                asked.piece_bytes,
            )
            .await
            .map_err(to_status)?;
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
fn answer<T: Send + 'static>(
    first: T,
    parts: Feed<Part>,
    convert: impl Fn(Part) -> T + Send + 'static,
) -> Response<Answers<T>> {
    let rest = follow(parts, convert);
    Response::new(stream::once(Ok(first)).chain(rest).boxed())
}

fn follow<F: Send + 'static, T: Send + 'static>(
    feed: Feed<F>,
    convert: impl Fn(F) -> T + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send {
    stream::unfold((feed, convert), |(mut feed, convert)| async move {
        let next = feed.next().await?;
        Some((next.map(&convert).map_err(to_status), (feed, convert)))
    })
}

fn header(opened: &DataStream) -> DataHeader {
    let record = &opened.snapshot.record;
    DataHeader {
        snapshot_id: record.id.to_string(),
        volume: record.volume.clone(),
        capacity_bytes: record.capacity_bytes,
        block_bytes: record.block_bytes,
        checkpoint: Some(checkpoint_to_wire(opened.snapshot.checkpoint())),
        since: opened.since.map(checkpoint_to_wire),
        trust: Some(trust_to_wire(&opened.trust)),
        operation_id: opened.operation_id.clone(),
    }
}

fn compression(wire: i32) -> Result<Compression, Error> {
    Compression::try_from(wire)
        .map_err(|_| Error::invalid("compression", format!("{wire} is unknown")))
}

fn range_from_wire(range: &ExtentRange) -> ByteRange {
    let v1::ExtentRange {
        offset_bytes,
        length_bytes,
        kind: _,
    } = *range;
    ByteRange::new(offset_bytes, length_bytes)
}
