//! `tidemark backup`: recovery points of volumes, snapshots or an image.

use std::path::PathBuf;

use tidemark_proto::v1::{BackupRequest, Operation};
use uuid::Uuid;

use crate::{
    client::Client,
    cmd::{follow, volume},
    context::Context,
    json as as_json, select,
    select::malformed,
};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Only what changed since the volume's last recovery point is read, where tracking tells; else all
is read, and the summary says why. Nothing that the repository holds is stored again. The backup
runs in the daemon: ^C cancels it, a second ^C leaves it running. What a cancelled or failed backup
had stored is not sent again by the next.")]
pub(crate) struct BackupArgs {
    /// The repository
    #[arg(long, value_name = "REPO")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) what: WhatArgs,
    /// The image's name in the repository; the file's name without it
    #[arg(long, conflicts_with_all = ["volumes", "group", "snapshots"], value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Something to find the points by, as often as needed
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Read everything, whatever is known of changes
    #[arg(long)]
    pub(crate) full: bool,
    /// Name this backup: a repeated call with it, until the daemon restarts, is the same backup
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Print the operation, and do not wait for it
    #[arg(long)]
    pub(crate) detach: bool,
}

/// What is backed up: one of these.
#[derive(clap::Args, Clone, Default, Debug)]
#[group(id = "what", required = true, multiple = false)]
pub(crate) struct WhatArgs {
    /// Volumes: a snapshot of all at one moment is made and given back
    #[arg(value_name = "VOLUME")]
    pub(crate) volumes: Vec<String>,
    /// A group's volumes
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Snapshots that are there: ids, unique prefixes or latest:VOLUME; they stay
    #[arg(long = "snapshot", value_name = "ID", num_args = 1..)]
    pub(crate) snapshots: Vec<String>,
    /// An image file on the daemon's host that nobody writes to meanwhile
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
}

/// Backs up, and tells what it took.
pub(crate) async fn run(args: BackupArgs, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let detach = args.detach;
    let request = context.interrupt.guard(request(args, &client)).await?;
    if detach {
        let mut repositories = client.repositories();
        let reply = follow::begin(context, repositories.backup(request)).await?;
        let operation = reply
            .operation
            .ok_or_else(|| malformed("Backup", "operation"))?;
        context.out.document(&as_json::operation(&operation));
        context.out.line(&operation.id);
        context.out.note("`tidemark job wait` waits for it");
        return Ok(());
    }
    let ended = whole(request, &client, context).await?;
    follow::tell(&ended, context);
    Ok(())
}

/// A backup to its end.
pub(crate) async fn whole(
    request: BackupRequest,
    client: &Client,
    context: &Context,
) -> anyhow::Result<Operation> {
    let mut repositories = client.repositories();
    let reply = follow::begin(context, repositories.backup(request)).await?;
    follow::to_end(reply.operation, "Backup", "backing up", client, context).await
}

async fn request(args: BackupArgs, client: &Client) -> anyhow::Result<BackupRequest> {
    let mut snapshot_ids = Vec::with_capacity(args.what.snapshots.len());
    for name in &args.what.snapshots {
        snapshot_ids.push(select::snapshot(client, name, "").await?.id);
    }
    let image = args.what.image.as_deref().map(volume::absolute);
    Ok(BackupRequest {
        repository: args.to,
        volumes: args.what.volumes,
        group: args.what.group.unwrap_or_default(),
        snapshot_ids,
        image_path: image.transpose()?.unwrap_or_default(),
        image_name: args.name.unwrap_or_default(),
        tags: args.tags,
        full: args.full,
        request_id: args
            .request_id
            .unwrap_or_else(|| Uuid::new_v4().to_string()),
    })
}
