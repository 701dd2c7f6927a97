//! `tidemark pull`: a volume or snapshot into an image, full the first time, then what changed.
//!
//! The walk: [`source`] finds what to read and makes a snapshot, [`target`] opens the image and
//! its [`state`], [`plan`] decides, [`transfer`] streams over as many connections as it takes,
//! [`apply`] writes, [`verify`] proves, and only then the state says that the image is complete.

pub(crate) mod apply;
mod plan;
mod record;
pub(crate) mod retry;
mod source;
pub(crate) mod state;
mod summary;
pub(crate) mod tally;
mod target;
#[cfg(test)]
mod tests;
mod transfer;
pub(crate) mod unpack;
mod verify;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tidemark_proto::v1::{ChangeSpan, Compression, EstimateChangesRequest};

use plan::{Facts, Plan};
use record::Record;
use retry::Patience;
use source::{Held, Making, Source};
pub(crate) use summary::Summary;
use tally::Counts;
use target::Target;
use transfer::{Ended, Failed, Transfer};
use verify::Against;

use crate::{
    client::Client,
    cmd::{snapshot::Freeze, volume},
    context::Context,
    exit::{Exit, Report},
    image::Image,
    units,
};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The state of an image is kept beside it in TARGET.tidemark (for a device: in the file given by
--state). Changes that others make to an image file are noticed and lead to a full pull; on a
device only --verify all notices them. An interrupted pull goes on where it stopped: run the same
command again. While a pull is under way the image is neither old nor new, and its state says so.")]
pub(crate) struct PullArgs {
    /// A volume (a snapshot is made and given back), or a snapshot's id, prefix or latest:VOLUME
    #[arg(value_name = "VOLUME|SNAPSHOT")]
    pub(crate) source: String,
    /// The image: a file, made when there is none, or a block device
    pub(crate) target: PathBuf,
    /// Where the state is kept; needed for a device
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Pull everything, whatever the state says
    #[arg(long)]
    pub(crate) full: bool,
    /// Overwrite a target that no earlier pull of this volume made
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// How data is sent
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) compress: Compress,
    /// What is proven at the end: what was sent, or the whole image against the snapshot
    #[arg(long, value_enum, default_value = "sent")]
    pub(crate) verify: Verify,
    /// Whether mounted file systems are frozen for the snapshot
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) freeze: Freeze,
    /// Keep the snapshot, without a lease, after the pull
    #[arg(long)]
    pub(crate) keep_snapshot: bool,
    /// How long to wait for a daemon that went away in mid-stream
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "60s")]
    pub(crate) reconnect_for: Duration,
}

/// How data is sent.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq, Debug)]
pub(crate) enum Compress {
    /// Each extent by zstd, where that makes it smaller
    Zstd,
    /// As it is
    None,
}

/// What is proven at the end. Hashes of what arrives are checked in any case.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq, Debug)]
pub(crate) enum Verify {
    /// Read back what was written, compare with the hashes it was sent with
    Sent,
    /// Also compare the whole image with the snapshot
    All,
    /// Nothing more
    None,
}

/// Pulls and tells about it.
pub(crate) async fn run(args: PullArgs, context: &Context) -> anyhow::Result<()> {
    let summary = pull(&args, context).await?;
    context.out.document(&summary.json());
    summary
        .lines()
        .iter()
        .for_each(|line| context.out.say(line));
    Ok(())
}

/// Pulls.
pub(crate) async fn pull(args: &PullArgs, context: &Context) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let client = context.client().await?;
    let (source, volumes) = context
        .interrupt
        .guard(async {
            let source = Source::find(&client, &args.source).await?;
            Ok((source, volume::list(&client).await?))
        })
        .await?;
    let target = Target::open(&args.target, args.state.as_deref())?;
    let ready = async {
        target.check_overwrite(&source.volume, args.overwrite)?;
        target.check_origins(&volumes)?;
        let making = Making {
            freeze: args.freeze,
            keep: args.keep_snapshot,
        };
        // Not dropped in mid-call by a signal: the snapshot would be made and nobody know it.
        Held::obtain(&client, &source, target.known(), making).await
    };
    let held = match ready.await {
        Ok(held) => held,
        Err(error) => {
            target.undo_making();
            return Err(error);
        }
    };
    let pull = Pull {
        args,
        context,
        client: &client,
        source: &source,
        held: &held,
        started,
    };
    let summary = pull.run(target).await;
    // An interrupted pull keeps its snapshot for as long as the lease lasts, to go on with.
    let keep = summary
        .as_ref()
        .is_err_and(|error| Report::of(error).exit == Exit::Interrupted);
    if !keep && let Err(status) = held.release(&client).await {
        context.out.note(format!(
            "the snapshot could not be released ({}); its lease ends soon",
            status.message()
        ));
    }
    summary
}

/// One pull, once its snapshot exists.
struct Pull<'a> {
    args: &'a PullArgs,
    context: &'a Context,
    client: &'a Client,
    source: &'a Source,
    held: &'a Held,
    started: Instant,
}

impl Pull<'_> {
    async fn run(&self, target: Target) -> anyhow::Result<Summary> {
        let plan = self.decide(&target);
        if plan.base.is_none() {
            // Before hours of it, not after.
            self.context.out.note(format!("full pull: {}", plan.why));
        }
        let obsolete = obsolete_points(&target, self.held);
        let record = self.record(&target, &plan);
        let mut patience = Patience::new(self.args.reconnect_for);
        let moved = self
            .move_data(target.image, record, plan, &mut patience)
            .await;
        let (moved, image, record) = match moved {
            Ok(moved) => moved,
            Err(failed) => return Err(self.settle(failed)),
        };
        let against = Against {
            snapshot_id: record.snapshot_id.clone(),
            capacity: record.capacity_bytes,
        };
        let compared = self.args.verify == Verify::All || record.suspect;
        let image = if compared {
            match self.compare(image, &against).await {
                Ok(image) => image,
                Err(error) => return Err(self.settle_by_path(error, &record)),
            }
        } else {
            image
        };
        record.complete(&image)?;
        for point in obsolete {
            source::forget(self.client, &self.source.volume.name, point.checkpoint()).await;
        }
        Ok(self.summary(moved, &patience, compared, &image))
    }

    fn decide(&self, target: &Target) -> Plan {
        plan::decide(&Facts {
            full_asked: self.args.full,
            state: &target.state,
            image: target.found.as_ref(),
            volume_id: &self.source.volume.id,
            capacity_bytes: self.held.snapshot.capacity_bytes,
            snapshot_id: &self.held.snapshot.id,
            target: &self.held.point,
        })
    }

    fn record(&self, target: &Target, plan: &Plan) -> Record {
        Record {
            file: target.file.clone(),
            volume: self.source.volume.name.clone(),
            volume_id: self.source.volume.id.clone(),
            capacity_bytes: self.held.snapshot.capacity_bytes,
            block_bytes: self.held.snapshot.block_bytes,
            base: plan.base.clone(),
            target: self.held.point.clone(),
            snapshot_id: self.held.snapshot.id.clone(),
            suspect: plan.check_all,
        }
    }

    /// Streams as planned; in full when no diff can be given.
    async fn move_data(
        &self,
        image: Image,
        record: Record,
        mut plan: Plan,
        patience: &mut Patience,
    ) -> Result<(Moved, Image, Record), Failed> {
        let transfer = Transfer {
            client: self.client,
            interrupt: &self.context.interrupt,
            compression: match self.args.compress {
                Compress::Zstd => Compression::Zstd,
                Compress::None => Compression::None,
            },
            read_back: self.args.verify != Verify::None,
            bar: self
                .context
                .out
                .bar("pulling", self.expected_bytes(&plan).await),
        };
        let first = transfer.run(image, record, &plan, patience).await?;
        let (ended, image, record) = match first {
            (Ended::NeedFull { why }, image, mut record) => {
                self.context.out.note(format!("full pull: {why}"));
                plan = Plan::full(why);
                record.base = None;
                record.suspect = false;
                transfer.bar.set_length(record.capacity_bytes);
                transfer.run(image, record, &plan, patience).await?
            }
            done => done,
        };
        transfer.bar.finish_and_clear();
        match ended {
            Ended::Done { counts, trust } => Ok((
                Moved {
                    plan,
                    counts,
                    trust,
                },
                image,
                record,
            )),
            Ended::NeedFull { why } => Err(Failed {
                error: anyhow::anyhow!("the agent refuses a full stream too: {why}"),
                parts: Some((image, record)),
            }),
        }
    }

    /// For the progress bar only, so a failure is no matter: the stream meets it too.
    async fn expected_bytes(&self, plan: &Plan) -> u64 {
        let capacity = self.held.snapshot.capacity_bytes;
        let Some(base) = &plan.base else {
            return capacity.saturating_sub(plan.start_offset_bytes);
        };
        let span = ChangeSpan {
            volume: self.source.volume.name.clone(),
            since: Some(base.checkpoint()),
            until: Some(self.held.point.checkpoint()),
        };
        let request = EstimateChangesRequest { span: Some(span) };
        match self.client.changes().estimate_changes(request).await {
            Ok(reply) => reply.into_inner().changed_bytes,
            Err(_) => capacity,
        }
    }

    async fn compare(&self, image: Image, against: &Against) -> anyhow::Result<Image> {
        let bar = self.context.out.bar("comparing", against.capacity);
        let patience = Patience::new(self.args.reconnect_for);
        let interrupt = &self.context.interrupt;
        let image =
            verify::compare_all(self.client, image, against, patience, interrupt, &bar).await;
        bar.finish_and_clear();
        image
    }

    /// Writes down that an image is not valid, when that is what went wrong.
    fn settle(&self, failed: Failed) -> anyhow::Error {
        if let Some((image, record)) = &failed.parts {
            return mark_invalid(failed.error, image, record);
        }
        failed.error
    }

    /// The same when the image went down with the comparison.
    fn settle_by_path(&self, error: anyhow::Error, record: &Record) -> anyhow::Error {
        match Image::open_target(&self.args.target) {
            Ok((image, _)) => mark_invalid(error, &image, record),
            Err(_) => error,
        }
    }

    fn summary(&self, moved: Moved, patience: &Patience, compared: bool, image: &Image) -> Summary {
        let snapshot = &self.held.snapshot;
        let span = |span: Option<&prost_types::Duration>| span.map(units::from_proto);
        Summary {
            volume: self.source.volume.name.clone(),
            target: image.path().to_owned(),
            snapshot_id: snapshot.id.clone(),
            point: self.held.point.clone(),
            base: moved.plan.base,
            why: moved.plan.why,
            resumed_at: moved.plan.start_offset_bytes,
            capacity_bytes: snapshot.capacity_bytes,
            counts: moved.counts,
            trust: moved.trust,
            consistency: snapshot.consistency,
            held: span(snapshot.held.as_ref()),
            frozen: span(snapshot.frozen.as_ref()),
            duration: self.started.elapsed(),
            reconnects: patience.attempts,
            verified: match (compared, self.args.verify) {
                (true, _) => "all",
                (false, Verify::None) => "none",
                (false, Verify::Sent | Verify::All) => "sent",
            },
        }
    }
}

/// What a transfer brought.
struct Moved {
    plan: Plan,
    counts: Counts,
    trust: Option<tidemark_proto::v1::TrustReport>,
}

/// Points that only this image needed and that the finished pull makes useless.
fn obsolete_points(target: &Target, held: &Held) -> Vec<state::Point> {
    use state::Phase;
    let points = match target.known().map(|state| &state.phase) {
        Some(Phase::Complete { at }) => vec![at.clone()],
        Some(Phase::InProgress { base, target, .. }) => {
            base.iter().chain([target]).cloned().collect()
        }
        Some(Phase::Invalid { .. }) | None => Vec::new(),
    };
    points
        .into_iter()
        .filter(|point| point.ours && !point.same_moment(&held.point))
        .collect()
}

fn mark_invalid(error: anyhow::Error, image: &Image, record: &Record) -> anyhow::Error {
    if Report::of(&error).exit != Exit::Integrity {
        return error;
    }
    match record.invalid(image, &format!("{error:#}")) {
        Ok(()) => error,
        Err(second) => error.context(format!("and the state could not be written ({second:#})")),
    }
}
