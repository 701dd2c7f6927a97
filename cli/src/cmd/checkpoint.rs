//! `tidemark checkpoint`: the points that diffs are asked against.

use clap::Subcommand;
use serde_json::{Value, json};
use tidemark_proto::v1::{CheckpointInfo, DeleteCheckpointRequest, ListCheckpointsRequest};

use crate::{context::Context, json as as_json, select};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the checkpoints of a volume's current lineage, oldest first
    List {
        /// The volume
        volume: String,
    },
    /// Forget a checkpoint: no diff can be asked against it any more
    Delete {
        /// The volume
        volume: String,
        /// LINEAGE:EPOCH (a lineage's prefix will do), or the snapshot that made it
        checkpoint: String,
    },
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let out = &context.out;
    match command {
        Command::List { volume } => {
            let request = ListCheckpointsRequest { volume };
            let reply = client.checkpoints().list_checkpoints(request).await?;
            let all = reply.into_inner().checkpoints;
            out.document(&Value::Array(
                all.iter().map(as_json::checkpoint_info).collect(),
            ));
            let rows: Vec<_> = all.iter().map(row).collect();
            out.table(&["CHECKPOINT", "MADE AT", "SNAPSHOT"], &rows);
        }
        Command::Delete { volume, checkpoint } => {
            let point = select::point(&client, &volume, &checkpoint).await?;
            let request = DeleteCheckpointRequest {
                volume: volume.clone(),
                checkpoint: Some(point.clone()),
            };
            client.checkpoints().delete_checkpoint(request).await?;
            out.document(&json!({
                "volume": volume,
                "deleted": as_json::checkpoint(Some(&point)),
            }));
            out.say(format!(
                "checkpoint {}:{} forgotten",
                point.lineage, point.epoch
            ));
        }
    }
    Ok(())
}

fn row(info: &CheckpointInfo) -> Vec<String> {
    let point = info
        .checkpoint
        .as_ref()
        .map(|point| format!("{}:{}", point.lineage, point.epoch));
    let at = info.created_at.as_ref().map(ToString::to_string);
    vec![
        point.unwrap_or_default(),
        at.unwrap_or_default(),
        info.snapshot_id.clone(),
    ]
}
