//! A recovery point as bytes in order, over as many connections as it takes.
//!
//! What was written cannot be taken back, so a stream that is cut goes on behind the last byte
//! written, of the same point; every extent is checked before it is written, and every stream that
//! came to its end against its trailer.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use tidemark_proto::v1::{
    Compression, DataBatch, DataExtent, DataTrailer, ExtentKind, PointFilter, PointHeader,
    RecoveryPoint, StreamPointRequest, StreamPointResponse, stream_point_response::Part as Message,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::RestoreArgs;
use crate::{
    client::Client,
    cmd::pull::{
        apply::{MAX_EXTENT_BYTES, Part},
        retry::{Patience, truncated},
        tally::{Counts, Tally},
        unpack::{corrupt, unpack},
    },
    context::{Context, Interrupt},
    exit::{Exit, Fault},
    output::counted,
    select::malformed,
    text::plain,
    units,
};

/// Batches that may wait for the reader; with the stream's window it bounds memory.
const QUEUE: usize = 8;
/// What is written for what holds nothing, at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What was streamed.
#[derive(Clone, Debug)]
pub(crate) struct Streamed {
    /// The point.
    pub(crate) point: RecoveryPoint,
    /// Sums over its extents.
    pub(crate) counts: Counts,
    /// How often the connection was lost and found again.
    pub(crate) reconnects: u32,
    took: Duration,
}

impl Streamed {
    /// In a line.
    pub(crate) fn line(&self) -> String {
        let capacity = self.point.capacity_bytes;
        let lost = match self.reconnects {
            0 => String::new(),
            attempts => format!(
                "; the connection was lost and found again: {}",
                counted(u64::from(attempts), "attempt")
            ),
        };
        format!(
            "{} of {}: {} written, {} of it data, in {}, {}; the digest holds{lost}",
            self.point.id,
            plain(&self.point.name),
            units::bytes(capacity),
            units::bytes(self.counts.data_bytes),
            units::span(self.took),
            units::rate(capacity, self.took)
        )
    }
}

/// Writes a recovery point to `out`, whole.
pub(crate) async fn stream<W: Write + Send + 'static>(
    args: RestoreArgs,
    out: W,
    context: &Context,
) -> anyhow::Result<Streamed> {
    let started = Instant::now();
    let client = context.client().await?;
    let mut patience = Patience::new(args.reconnect_for);
    let mut source = Source {
        client: &client,
        interrupt: &context.interrupt,
        repository: args.repository,
        point_id: args.point,
        filter: args.filter.into_proto(),
        point: None,
    };
    let bar = context.out.bar("restoring", 0);
    let mut writer = Writer::new(out, bar.clone());
    loop {
        let before = writer.position;
        let lost;
        (writer, lost) = source.connect(writer).await?;
        if writer.complete {
            break;
        }
        if writer.position > before {
            patience.progress();
        }
        patience.pause(lost, &context.interrupt).await?;
    }
    bar.finish_and_clear();
    Ok(Streamed {
        point: source
            .point
            .ok_or_else(|| malformed("StreamPoint", "header"))?,
        counts: writer.total,
        reconnects: patience.attempts,
        took: started.elapsed(),
    })
}

/// Where the bytes come from.
struct Source<'a> {
    client: &'a Client,
    interrupt: &'a Interrupt,
    repository: String,
    point_id: String,
    filter: Option<PointFilter>,
    /// The first header's: `latest` must not become another one in the middle.
    point: Option<RecoveryPoint>,
}

impl Source<'_> {
    /// Asks once, from where the writer is, and writes what comes. The status says why the
    /// stream ended, where it did before its time.
    async fn connect<W: Write + Send + 'static>(
        &mut self,
        mut writer: Writer<W>,
    ) -> anyhow::Result<(Writer<W>, Status)> {
        let request = match &self.point {
            Some(point) => self.request(point.id.clone(), None, writer.position),
            None => self.request(self.point_id.clone(), self.filter.clone(), 0),
        };
        let opened = tokio::select! {
            opened = self.open(request) => opened,
            () = self.interrupt.wait() => return Err(Fault::interrupted().into()),
        };
        let (header, stream) = match opened {
            Ok(opened) => opened,
            Err(status) => return Ok((writer, status)),
        };
        let point = header
            .point
            .ok_or_else(|| malformed("StreamPoint", "recovery point"))?;
        match &self.point {
            None => writer.begin(point.capacity_bytes),
            Some(first) if first.id == point.id && first.capacity_bytes == point.capacity_bytes => {
            }
            Some(first) => {
                return Err(Fault::new(
                    Exit::Failed,
                    format!(
                        "asked for point {}, the daemon streams {}",
                        first.id,
                        plain(&point.id)
                    ),
                )
                .into());
            }
        }
        self.point = Some(point);
        let (send, receive) = mpsc::channel(QUEUE);
        let worker = tokio::task::spawn_blocking(move || {
            let outcome = writer.run(receive);
            (writer, outcome)
        });
        // After a signal nobody waits for a writer whose reader may have stopped reading.
        let lost = self.feed(stream, send).await?;
        let (writer, outcome) = worker.await?;
        outcome?;
        Ok((writer, lost))
    }

    fn request(
        &self,
        point_id: String,
        filter: Option<PointFilter>,
        start_offset_bytes: u64,
    ) -> StreamPointRequest {
        StreamPointRequest {
            repository: self.repository.clone(),
            point_id,
            filter,
            start_offset_bytes,
            compression: Compression::None.into(),
        }
    }

    /// Opens a stream and reads its header.
    async fn open(
        &self,
        request: StreamPointRequest,
    ) -> Result<(PointHeader, Streaming<StreamPointResponse>), Status> {
        let mut repositories = self.client.repositories();
        let mut stream = repositories.stream_point(request).await?.into_inner();
        match stream.message().await?.and_then(|message| message.part) {
            Some(Message::Header(header)) => Ok((header, stream)),
            Some(Message::Batch(_) | Message::Trailer(_)) => {
                Err(Status::data_loss("the stream does not begin with a header"))
            }
            None => Err(truncated()),
        }
    }

    /// Hands parts to the writer until the trailer, the stream's end or a signal.
    async fn feed(
        &self,
        mut stream: Streaming<StreamPointResponse>,
        send: mpsc::Sender<Part>,
    ) -> anyhow::Result<Status> {
        loop {
            let message = tokio::select! {
                biased;
                () = self.interrupt.wait() => return Err(Fault::interrupted().into()),
                message = stream.message() => message,
            };
            let part = match message {
                Ok(Some(message)) => message.part,
                Ok(None) => return Ok(truncated()),
                Err(status) => return Ok(status),
            };
            let (part, last) = match part {
                Some(Message::Batch(batch)) => (Part::Batch(batch), false),
                Some(Message::Trailer(trailer)) => (Part::Trailer(trailer), true),
                Some(Message::Header(_)) => {
                    return Ok(Status::data_loss("a second header came in one stream"));
                }
                // A part of a later contract: nothing says that it may be passed over.
                None => return Ok(Status::data_loss("a part of no known kind came")),
            };
            let sent = tokio::select! {
                biased;
                () = self.interrupt.wait() => return Err(Fault::interrupted().into()),
                sent = send.send(part) => sent,
            };
            // When the writer is gone, it says why itself.
            if sent.is_err() || last {
                return Ok(truncated());
            }
        }
    }
}

/// Writes extents in order, with zeros between them.
struct Writer<W> {
    out: W,
    bar: ProgressBar,
    capacity: u64,
    /// Everything below is written; where the next extent may start.
    position: u64,
    /// Of this stream.
    tally: Tally,
    /// Of all streams.
    total: Counts,
    complete: bool,
}

impl<W: Write> Writer<W> {
    fn new(out: W, bar: ProgressBar) -> Self {
        Self {
            out,
            bar,
            capacity: 0,
            position: 0,
            tally: Tally::default(),
            total: Counts::default(),
            complete: false,
        }
    }

    fn begin(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.bar.set_length(capacity);
    }

    /// Writes what comes until the sender is gone.
    fn run(&mut self, mut parts: mpsc::Receiver<Part>) -> anyhow::Result<()> {
        self.tally = Tally::default();
        while let Some(part) = parts.blocking_recv() {
            match part {
                Part::Batch(batch) => self.batch(&batch)?,
                Part::Trailer(trailer) => self.trailer(&trailer)?,
            }
        }
        Ok(())
    }

    fn batch(&mut self, batch: &DataBatch) -> anyhow::Result<()> {
        for extent in &batch.extents {
            self.extent(extent)?;
        }
        let resume = batch.resume_offset_bytes;
        if resume < self.position || resume > self.capacity {
            return Err(corrupt(format!(
                "a batch that reaches {} says to resume at {resume}",
                self.position
            )));
        }
        self.zeros_to(resume)
    }

    fn extent(&mut self, extent: &DataExtent) -> anyhow::Result<()> {
        let (offset, length) = (extent.offset_bytes, extent.length_bytes);
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.capacity);
        let Some(end) = end.filter(|_| length > 0 && offset >= self.position) else {
            return Err(corrupt(format!(
                "extent {offset}+{length} is empty, out of order or past the end"
            )));
        };
        let sent = extent.data.len() as u64;
        let counts = match ExtentKind::try_from(extent.kind) {
            Ok(ExtentKind::Data) => {
                let (bytes, hash) = unpack(extent, MAX_EXTENT_BYTES)?;
                self.zeros_to(offset)?;
                self.write(&bytes)?;
                self.tally
                    .add(offset, length, ExtentKind::Data, Some(&hash), sent)
            }
            Ok(kind @ (ExtentKind::Zero | ExtentKind::Discarded)) if sent == 0 => {
                self.zeros_to(end)?;
                self.tally.add(offset, length, kind, None, sent)
            }
            Ok(ExtentKind::Zero | ExtentKind::Discarded) => {
                return Err(corrupt(format!(
                    "extent {offset}+{length} of zeros carries bytes"
                )));
            }
            Ok(ExtentKind::Unspecified) | Err(_) => {
                return Err(corrupt(format!(
                    "extent {offset}+{length} is of no known kind"
                )));
            }
        };
        self.total.add(&counts);
        Ok(())
    }

    fn trailer(&mut self, trailer: &DataTrailer) -> anyhow::Result<()> {
        self.tally.check(trailer)?;
        self.zeros_to(self.capacity)?;
        self.out.flush().map_err(|error| self.refused(&error))?;
        self.complete = true;
        Ok(())
    }

    fn zeros_to(&mut self, offset: u64) -> anyhow::Result<()> {
        while self.position < offset {
            let left = usize::try_from(offset - self.position).unwrap_or(usize::MAX);
            let zeros = ZEROS.get(..left).unwrap_or(&ZEROS);
            self.write(zeros)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out
            .write_all(bytes)
            .map_err(|error| self.refused(&error))?;
        self.position += bytes.len() as u64;
        self.bar.set_position(self.position);
        Ok(())
    }

    fn refused(&self, error: &io::Error) -> anyhow::Error {
        Fault::new(
            Exit::Failed,
            format!("writing the image at {}: {error}", self.position),
        )
        .into()
    }
}
