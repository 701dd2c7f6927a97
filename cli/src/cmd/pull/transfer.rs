//! Moves a stream into an image, over as many connections as it takes.

use indicatif::ProgressBar;
use tidemark_proto::v1::{
    Checkpoint, Compression, DataHeader, ErrorReason, StreamDataRequest, StreamDataResponse, Trust,
    TrustReport, stream_data_response::Part as Message,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    apply::{Applier, Counts, Mode, Part},
    plan::Plan,
    record::Record,
    retry::{Patience, truncated},
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

/// One connection's end.
enum Cut {
    /// The sender closed after the trailer, or the applier refused a part.
    Ended,
    /// The stream was cut.
    Lost(Status),
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
        let mode = Mode {
            capacity: record.capacity_bytes,
            gaps_are_zero: plan.base.is_none(),
            read_back: self.read_back,
        };
        let snapshot_id = record.snapshot_id.clone();
        let target = record.target.checkpoint();
        let since = plan.base.as_ref().map(|base| base.checkpoint());
        let mut applier = Applier::new(image, record, mode, plan.start_offset_bytes, self.bar.clone());
        let mut prepared = false;
        let mut trust = None;
        while !applier.is_complete() {
            let request = StreamDataRequest {
                snapshot_id: snapshot_id.clone(),
                since: since.clone(),
                start_offset_bytes: applier.position(),
                compression: self.compression.into(),
            };
            let opened = tokio::select! {
                opened = self.open(request) => opened,
                () = self.interrupt.wait() => return Err(failed(Fault::interrupted().into(), applier)),
            };
            let (header, stream) = match opened {
                Ok(opened) => opened,
                Err(status) => match why_full(&status).filter(|_| since.is_some()) {
                    Some(why) => return Ok(ended(Ended::NeedFull { why }, applier)),
                    None => match patience.pause(status, self.interrupt).await {
                        Ok(()) => continue,
                        Err(error) => return Err(failed(error, applier)),
                    },
                },
            };
            if since.is_some() && is_broken(header.trust.as_ref()) {
                let why = header.trust.map(|trust| trust.reason).unwrap_or_default();
                let why = format!("tracking is broken: {why}");
                return Ok(ended(Ended::NeedFull { why }, applier));
            }
            if let Err(error) = check_header(&header, &snapshot_id, mode.capacity, &target, since.as_ref()) {
                return Err(failed(error, applier));
            }
            trust = header.trust;
            if !prepared {
                if let Err(error) = applier.begin() {
                    return Err(failed(error, applier));
                }
                prepared = true;
            }
            let before = applier.position();
            let cut;
            (applier, cut) = self.apply(applier, stream).await?;
            if applier.position() > before {
                patience.progress();
            }
            match cut {
                Cut::Ended if applier.is_complete() => {}
                Cut::Ended => {
                    if let Err(error) = patience.pause(truncated(), self.interrupt).await {
                        return Err(failed(error, applier));
                    }
                }
                Cut::Lost(status) => {
                    if let Err(error) = patience.pause(status, self.interrupt).await {
                        return Err(failed(error, applier));
                    }
                }
                Cut::Interrupted => return Err(failed(Fault::interrupted().into(), applier)),
            }
        }
        let counts = applier.total();
        Ok(ended(Ended::Done { counts, trust }, applier))
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
    ) -> Result<(Applier, Cut), Failed> {
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

    async fn feed(&self, mut stream: Streaming<StreamDataResponse>, send: mpsc::Sender<Part>) -> Cut {
        loop {
            let message = tokio::select! {
                biased;
                () = self.interrupt.wait() => return Cut::Interrupted,
                message = stream.message() => message,
            };
            let (part, last) = match message {
                Ok(Some(StreamDataResponse { part: Some(Message::Batch(batch)) })) => {
                    (Part::Batch(batch), false)
                }
                Ok(Some(StreamDataResponse { part: Some(Message::Trailer(trailer)) })) => {
                    (Part::Trailer(trailer), true)
                }
                Ok(Some(StreamDataResponse { part: Some(Message::Header(_)) })) => {
                    return Cut::Lost(Status::data_loss("a second header came in one stream"));
                }
                // A part of a later contract: nothing says that it may be passed over.
                Ok(Some(StreamDataResponse { part: None })) => {
                    return Cut::Lost(Status::data_loss("a part of no known kind came"));
                }
                Ok(None) => return Cut::Ended,
                Err(status) => return Cut::Lost(status),
            };
            // When the applier is gone, it says why itself.
            if send.send(part).await.is_err() || last {
                return Cut::Ended;
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
        ErrorReason::TrackingReset => Some(format!("tracking started anew ({}): {cause}", reason_name(reason))),
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
fn check_header(
    header: &DataHeader,
    snapshot_id: &str,
    capacity: u64,
    target: &Checkpoint,
    since: Option<&Checkpoint>,
) -> anyhow::Result<()> {
    let same = header.snapshot_id == snapshot_id
        && header.capacity_bytes == capacity
        && header.checkpoint.as_ref() == Some(target)
        && header.since.as_ref() == since;
    if same {
        return Ok(());
    }
    Err(Fault::new(
        Exit::Failed,
        format!("asked for snapshot {snapshot_id}, the agent streams something else: {header:?}"),
    )
    .advise("the daemon and this command may be of different versions: see `tidemark doctor`")
    .into())
}
