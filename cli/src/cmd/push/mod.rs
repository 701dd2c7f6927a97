//! `tidemark push`: an image into a volume, a device or a file on the agent's host.

mod read;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::json;
use tidemark_proto::v1::{
    AbortRestoreRequest, BeginRestoreRequest, Operation, Restore, SealRestoreRequest,
    begin_restore_request::Target,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use read::{Ended, Reader, Sent};

use crate::{
    client::Client,
    cmd::{
        job,
        pull::{
            Compress,
            state::{Loaded, Phase, StateFile},
        },
        volume,
    },
    context::Context,
    exit::{Exit, Fault},
    image::Image,
    json as as_json,
    select::malformed,
    units,
};

/// Messages under way, of at most 1 MiB each.
const QUEUE: usize = 8;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PushArgs {
    /// The image: a file or a block device
    pub(crate) image: PathBuf,
    /// volume:NAME (attached, not mounted), or a path on the agent's host: a device, or a file, made when there is none
    pub(crate) target: String,
    /// The image's state file, when it is not beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// How data is sent
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) compress: Compress,
    /// Push an image whose state says that it is not valid
    #[arg(long)]
    pub(crate) force: bool,
}

/// What a push did.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    /// The session.
    pub(crate) restore: Restore,
    /// What was sent.
    pub(crate) sent: Sent,
    /// How the agent's check of it ended.
    pub(crate) operation: Operation,
    /// From the start to the end of that check.
    pub(crate) duration: Duration,
}

/// Pushes and tells about it.
pub(crate) async fn run(args: PushArgs, context: &Context) -> anyhow::Result<()> {
    let pushed = push(&args, context).await?;
    let sent = &pushed.sent;
    context.out.document(&json!({
        "image": args.image,
        "target": args.target,
        "restore": as_json::restore(&pushed.restore),
        "operation": as_json::operation(&pushed.operation),
        "data_bytes": sent.data_bytes,
        "zero_bytes": sent.zero_bytes,
        "sent_bytes": sent.sent_bytes,
        "extents": sent.extents,
        "digest": sent.digest.to_hex().as_str(),
        "duration_us": u64::try_from(pushed.duration.as_micros()).unwrap_or(u64::MAX),
    }));
    context.out.say(format!(
        "{} restored to {}: {} of data, {} of zeros, {} sent in {}; the agent read it back and the digest holds",
        args.image.display(),
        args.target,
        units::bytes(sent.data_bytes),
        units::bytes(sent.zero_bytes),
        units::bytes(sent.sent_bytes),
        units::span(pushed.duration)
    ));
    Ok(())
}

/// Pushes. A session that does not come to its end is aborted, also by a signal.
pub(crate) async fn push(args: &PushArgs, context: &Context) -> anyhow::Result<Pushed> {
    let started = Instant::now();
    let image = Image::open_source(&args.image)?;
    check_valid(args)?;
    let capacity = image.size()?;
    let client = context.client().await?;
    let restore = begin(args, capacity, &client).await?;
    let id = restore.id.clone();
    let work = async {
        let (restore, sent) = write(image, &restore, args, &client, context).await?;
        let operation = seal(&restore, &sent, &client, context).await?;
        Ok(Pushed {
            restore,
            sent,
            operation,
            duration: started.elapsed(),
        })
    };
    let outcome = context.interrupt.guard(work).await;
    if outcome.is_err() {
        // The session expires by itself when this does not get through.
        let _ = client
            .restores()
            .abort_restore(AbortRestoreRequest { restore_id: id })
            .await;
    }
    outcome
}

/// Refuses an image that a pull left neither old nor new.
fn check_valid(args: &PushArgs) -> anyhow::Result<()> {
    let file = match &args.state {
        Some(path) => StateFile::at(path),
        None => StateFile::beside(&std::fs::canonicalize(&args.image)?),
    };
    let wrong = match file.load()? {
        Loaded::Missing => return Ok(()),
        Loaded::Found(state) => match state.phase {
            Phase::Complete { .. } => return Ok(()),
            Phase::InProgress { .. } => {
                "a pull into it was interrupted: it is neither old nor new".to_owned()
            }
            Phase::Invalid { reason } => format!("it is marked as not valid: {reason}"),
        },
        Loaded::Unreadable(error) => format!("{} cannot be read: {error}", file.path().display()),
    };
    if args.force {
        return Ok(());
    }
    Err(Fault::new(
        Exit::Integrity,
        format!("{}: {wrong}", args.image.display()),
    )
    .advise("run `tidemark pull` to its end first, or give --force to push what is there")
    .into())
}

async fn begin(args: &PushArgs, capacity: u64, client: &Client) -> anyhow::Result<Restore> {
    let target = match args.target.strip_prefix("volume:") {
        Some(name) => Target::Volume(name.to_owned()),
        None => Target::Path(volume::absolute(Path::new(&args.target))?),
    };
    let request = BeginRestoreRequest {
        capacity_bytes: capacity,
        create: matches!(target, Target::Path(_)),
        target: Some(target),
        request_id: Uuid::new_v4().to_string(),
    };
    let reply = client.restores().begin_restore(request).await?;
    reply
        .into_inner()
        .restore
        .ok_or_else(|| malformed("BeginRestore", "restore"))
}

async fn write(
    image: Image,
    restore: &Restore,
    args: &PushArgs,
    client: &Client,
    context: &Context,
) -> anyhow::Result<(Restore, Sent)> {
    let (send, receive) = mpsc::channel(QUEUE);
    let capacity = restore.capacity_bytes;
    let bar = context.out.bar("pushing", capacity);
    let compress = args.compress == Compress::Zstd;
    let reader = Reader::new(
        image,
        capacity,
        restore.id.clone(),
        compress,
        send,
        bar.clone(),
    );
    let reading = tokio::task::spawn_blocking(move || reader.run());
    let answer = client
        .restores()
        .write_restore(ReceiverStream::new(receive))
        .await;
    let read = reading.await?;
    bar.finish_and_clear();
    let sent = match (read, answer) {
        // The agent's refusal is the cause, the reader's closed channel its effect.
        (Err(error), Err(status)) if error.is::<Ended>() => return Err(status.into()),
        (Err(error), _) => return Err(error),
        (Ok(_), Err(status)) => return Err(status.into()),
        (Ok(sent), Ok(reply)) => (reply.into_inner().restore, sent),
    };
    match sent {
        (Some(restore), sent) => Ok((restore, sent)),
        (None, _) => Err(malformed("WriteRestore", "restore")),
    }
}

async fn seal(
    restore: &Restore,
    sent: &Sent,
    client: &Client,
    context: &Context,
) -> anyhow::Result<Operation> {
    let request = SealRestoreRequest {
        restore_id: restore.id.clone(),
        digest: sent.digest.as_bytes().to_vec().into(),
    };
    let reply = client.restores().seal_restore(request).await?;
    let operation = reply
        .into_inner()
        .operation
        .ok_or_else(|| malformed("SealRestore", "operation"))?;
    let ended = job::watch(client, &context.out, "verifying", operation.id).await?;
    job::ensure_succeeded(&ended)?;
    Ok(ended)
}
