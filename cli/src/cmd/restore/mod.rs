//! `tidemark restore`: a recovery point back to a volume, a path, or standard output.

mod stream;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
    path::PathBuf,
    time::Duration,
};

use tidemark_proto::v1::{RestorePointRequest, restore_point_request::Target};

use super::{follow, points::FilterArgs, volume};
use crate::{
    context::Context,
    exit::{Exit, Fault},
    units,
};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
To a volume or a path only what differs is written. --stdout writes the whole image, byte by byte,
and exits with 0 only when all of it was proven by digest.")]
pub(crate) struct RestoreArgs {
    /// The repository
    pub(crate) repository: String,
    /// A recovery point's id, a unique prefix, or `latest` of those that the filter leaves
    pub(crate) point: String,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Make the file when it does not exist; `.partial` is behind its name until all of it is there
    #[arg(long, conflicts_with_all = ["to_volume", "stdout"])]
    pub(crate) create: bool,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// How long --stdout waits for a daemon that went away in mid-stream
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "60s")]
    pub(crate) reconnect_for: Duration,
}

/// Where to: one of these.
#[derive(clap::Args, Clone, Default, Debug)]
#[group(id = "target", required = true, multiple = false)]
pub(crate) struct TargetArgs {
    /// An image file or an unmounted device on the daemon's host
    #[arg(long, value_name = "PATH")]
    pub(crate) to: Option<PathBuf>,
    /// An attached volume that is not mounted; its changes are tracked
    #[arg(long, value_name = "NAME")]
    pub(crate) to_volume: Option<String>,
    /// Standard output
    #[arg(long)]
    pub(crate) stdout: bool,
}

/// Restores, and tells what it took.
pub(crate) async fn run(args: RestoreArgs, context: &Context) -> anyhow::Result<()> {
    if args.target.stdout {
        return to_stdout(args, context).await;
    }
    let client = context.client().await?;
    let request = request(args)?;
    let mut repositories = client.repositories();
    let reply = follow::begin(context, repositories.restore_point(request)).await?;
    let operation = reply.operation;
    let ended = follow::to_end(operation, "RestorePoint", "restoring", &client, context).await?;
    follow::tell(&ended, context);
    Ok(())
}

fn request(args: RestoreArgs) -> anyhow::Result<RestorePointRequest> {
    let path = args
        .target
        .to
        .as_deref()
        .map(volume::absolute)
        .transpose()?;
    Ok(RestorePointRequest {
        repository: args.repository,
        point_id: args.point,
        filter: args.filter.into_proto(),
        target: args
            .target
            .to_volume
            .map(Target::Volume)
            .or(path.map(Target::Path)),
        create: args.create,
    })
}

async fn to_stdout(args: RestoreArgs, context: &Context) -> anyhow::Result<()> {
    if context.out.is_json() {
        let message = "--stdout writes the image to standard output, so --json cannot";
        return Err(Fault::new(Exit::Usage, message).into());
    }
    if io::stdout().is_terminal() {
        return Err(Fault::new(Exit::Usage, "standard output is a terminal")
            .advise("redirect it to a file or a program, or use --to")
            .into());
    }
    // Not through the standard library's buffer, which looks for ends of lines.
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let summary = stream::stream(args, out, context).await?;
    context.out.note(summary.line());
    Ok(())
}
