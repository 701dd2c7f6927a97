//! Moves a stream into an image, over as many connections as it takes.

use indicatif::ProgressBar;
use tidemark_proto::v1::{
    Checkpoint, Compression, DataHeader, ErrorReason, StreamDataRequest, StreamDataResponse, Trust,
    TrustReport, stream_data_response::Part as Message,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    apply::{Applier, Mode, Part},
    plan::Plan,
    record::Record,
    retry::{Patience, truncated},
    state::Point,
    tally::Counts,
};
use crate::{
    client::Client,
    context::Interrupt,
    exit::{Exit, Fault, metadata_of, reason_name, reason_of},
    image::Image,
};

/// Batches that may wait for the disk; with the stream's window it bounds memory.
const QUEUE: usize = 8;

/// What a transfer needs besides its image.
#[derive(Debug)]
pub(crate) struct Transfer<'a> {
    /// The agent.
    pub(crate) client: &'a Client,
    /// When to stop.
    pub(crate) interrupt: &'a Interrupt,
    /// How data is to be sent.
    pub(crate) compression: Compression,
    /// Read back what was written.
    pub(crate) read_back: bool,
    /// Shows how far it is.
    pub(crate) bar: ProgressBar,
}

/// How a transfer ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The whole stream is in the image.
    Done {
        /// Sums.
        counts: Counts,
        /// How far the diff can be trusted.
        trust: Option<TrustReport>,
    },
    /// No diff can be given, and nothing was changed by this transfer; take all.
    NeedFull {
        /// Why.
        why: String,
    },
}

/// What a failed transfer leaves: the image, so that its state can be written down.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Why.
    pub(crate) error: anyhow::Error,
    /// The image and its record; none when the applier's thread died.
    pub(crate) parts: Option<(Image, Record)>,
}

/// What one transfer asks for, on each of its connections.
struct Asked {
    snapshot_id: String,
    since: Option<Checkpoint>,
    target: Checkpoint,
    capacity: u64,
}

/// How one connection ended.
enum Step {
    /// The sender closed after the trailer, or the applier refused a part.
    Ended,
    /// The stream was cut, or could not be opened.
    Lost(Status),
    /// No diff can be given.
    NeedFull(String),
    /// A signal came.
    Interrupted,
}

impl Transfer<'_> {
    /// Brings `image` to the record's target as `plan` says.
    pub(crate) async fn run(
        &self,
        image: Image,
        record: Record,
        plan: &Plan,
        patience: &mut Patience,
    ) -> Result<(Ended, Image, Record), Failed> {
        let asked = Asked {
            snapshot_id: record.snapshot_id.clone(),
            since: plan.base.as_ref().map(Point::checkpoint),
            target: record.target.checkpoint(),
            capacity: record.capacity_bytes,
        };
        let mode = Mode {
            capacity: asked.capacity,
            gaps_are_zero: asked.since.is_none(),
            read_back: self.read_back,
        };
        let start = plan.start_offset_bytes;
        let mut applier = Applier::new(image, record, mode, start, self.bar.clone());
        let mut trust = None;
        loop {
            let before = applier.position();
            let step;
            (applier, step) = self.connect(applier, &asked, &mut trust).await?;
            if applier.is_complete() {
                let counts = applier.total();
                return Ok(ended(Ended::Done { counts, trust }, applier));
            }
            if applier.position() > before {
                patience.progress();
            }
            let lost = match step {
                Step::Ended => truncated(),
                Step::Lost(status) => status,
                Step::NeedFull(why) => return Ok(ended(Ended::NeedFull { why }, applier)),
                Step::Interrupted => return Err(failed(Fault::interrupted().into(), applier)),
            };
            if let Err(error) = patience.pause(lost, self.interrupt).await {
                return Err(failed(error, applier));
            }
        }
    }

    /// Asks once, from where the image is, and applies what comes.
    async fn connect(
        &self,
        mut applier: Applier,
        asked: &Asked,
        trust: &mut Option<TrustReport>,
    ) -> Result<(Applier, Step), Failed> {
        let request = StreamDataRequest {
            snapshot_id: asked.snapshot_id.clone(),
            since: asked.since.clone(),
            start_offset_bytes: applier.position(),
            compression: self.compression.into(),
        };
        let opened = tokio::select! {
            opened = self.open(request) => opened,
            () = self.interrupt.wait() => return Ok((applier, Step::Interrupted)),
        };
        let (header, stream) = match opened {
            Ok(opened) => opened,
            Err(status) => {
                let why = why_full(&status).filter(|_| asked.since.is_some());
                return Ok((applier, why.map_or(Step::Lost(status), Step::NeedFull)));
            }
        };
        if asked.since.is_some() && is_broken(header.trust.as_ref()) {
            let reason = header.trust.map(|trust| trust.reason).unwrap_or_default();
            let why = format!("tracking is broken: {reason}");
            return Ok((applier, Step::NeedFull(why)));
        }
        let begun = check_header(&header, asked).and_then(|()| applier.begin());
        if let Err(error) = begun {
            return Err(failed(error, applier));
        }
        *trust = header.trust;
        self.apply(applier, stream).await
    }

    /// Opens a stream and reads its header.
    async fn open(
        &self,
        request: StreamDataRequest,
    ) -> Result<(DataHeader, Streaming<StreamDataResponse>), Status> {
        let mut stream = self.client.data().stream_data(request).await?.into_inner();
        match stream.message().await?.and_then(|message| message.part) {
            Some(Message::Header(header)) => Ok((header, stream)),
            Some(Message::Batch(_) | Message::Trailer(_)) => {
                Err(Status::data_loss("the stream does not begin with a header"))
            }
            None => Err(truncated()),
        }
    }

    /// Feeds the applier, which works in a thread of its own, until the stream ends.
    async fn apply(
        &self,
        mut applier: Applier,
        stream: Streaming<StreamDataResponse>,
    ) -> Result<(Applier, Step), Failed> {
        let (send, receive) = mpsc::channel(QUEUE);
        let worker = tokio::task::spawn_blocking(move || {
            let outcome = applier.run(receive);
            (applier, outcome)
        });
        let cut = self.feed(stream, send).await;
        match worker.await {
            Ok((applier, Ok(()))) => Ok((applier, cut)),
            Ok((applier, Err(error))) => Err(failed(error, applier)),
            Err(error) => Err(Failed {
                error: error.into(),
                parts: None,
            }),
        }
    }

    async fn feed(
        &self,
        mut stream: Streaming<StreamDataResponse>,
        send: mpsc::Sender<Part>,
    ) -> Step {
        loop {
            let message = tokio::select! {
                biased;
                () = self.interrupt.wait() => return Step::Interrupted,
                message = stream.message() => message,
            };
            let (part, last) = match message {
                Ok(Some(StreamDataResponse {
                    part: Some(Message::Batch(batch)),
                })) => (Part::Batch(batch), false),
                Ok(Some(StreamDataResponse {
                    part: Some(Message::Trailer(trailer)),
                })) => (Part::Trailer(trailer), true),
                Ok(Some(StreamDataResponse {
                    part: Some(Message::Header(_)),
                })) => {
                    return Step::Lost(Status::data_loss("a second header came in one stream"));
                }
                // A part of a later contract: nothing says that it may be passed over.
                Ok(Some(StreamDataResponse { part: None })) => {
                    return Step::Lost(Status::data_loss("a part of no known kind came"));
                }
                Ok(None) => return Step::Ended,
                Err(status) => return Step::Lost(status),
            };
            // When the applier is gone, it says why itself.
            if send.send(part).await.is_err() || last {
                return Step::Ended;
            }
        }
    }
}

fn ended(ended: Ended, applier: Applier) -> (Ended, Image, Record) {
    let (image, record) = applier.into_parts();
    (ended, image, record)
}

fn failed(error: anyhow::Error, applier: Applier) -> Failed {
    Failed {
        error,
        parts: Some(applier.into_parts()),
    }
}

/// Why a full stream is needed, when that is what the agent says.
fn why_full(status: &Status) -> Option<String> {
    let reason = reason_of(status)?;
    let cause = metadata_of(status, "cause").unwrap_or_else(|| status.message().to_owned());
    match reason {
        ErrorReason::TrackingReset => Some(format!(
            "tracking started anew ({}): {cause}",
            reason_name(reason)
        )),
        ErrorReason::CheckpointGone => Some(format!(
            "the checkpoint of the last pull is gone ({})",
            reason_name(reason)
        )),
        _ => None,
    }
}

fn is_broken(trust: Option<&TrustReport>) -> bool {
    trust.is_some_and(|trust| trust.trust == Trust::Broken as i32)
}

/// A stream of something else must not touch the image.
fn check_header(header: &DataHeader, asked: &Asked) -> anyhow::Result<()> {
    let same = header.snapshot_id == asked.snapshot_id
        && header.capacity_bytes == asked.capacity
        && header.checkpoint.as_ref() == Some(&asked.target)
        && header.since == asked.since;
    if same {
        return Ok(());
    }
    Err(Fault::new(
        Exit::Failed,
        format!(
            "asked for snapshot {}, the agent streams something else: {header:?}",
            asked.snapshot_id
        ),
    )
    .advise("the daemon and this command may be of different versions: see `tidemark doctor`")
    .into())
}
