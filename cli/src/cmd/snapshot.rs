//! `tidemark snapshot`: take, look at, compare and give back.

mod diff;

use std::{collections::HashMap, time::Duration};

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use tidemark_proto::v1::{
    CreateSnapshotRequest, DeleteSnapshotRequest, FreezeMode, ListSnapshotsRequest,
    ReleaseSnapshotRequest, RenewLeaseRequest, Snapshot,
};
use uuid::Uuid;

use crate::{
    client::Client,
    context::Context,
    exit::{Exit, Fault, Report},
    json as as_json, select, units,
};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Cut one volume, several at one moment, or a group
    Create(CreateArgs),
    /// Show snapshots, oldest first
    List {
        /// Only this volume's
        volume: Option<String>,
        /// Also those whose data is gone
        #[arg(long)]
        all: bool,
    },
    /// Show everything about one snapshot
    Show {
        /// An id, a unique prefix, `latest` or `latest:VOLUME`
        id: String,
    },
    /// List what changed between two points of a volume
    Diff(diff::DiffArgs),
    /// Give the data back to the store; the checkpoint stays for diffs
    Release {
        /// Ids, unique prefixes or `latest:VOLUME`
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Release the data and forget the checkpoint
    Delete {
        /// Ids, unique prefixes or `latest:VOLUME`
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Move the end of a lease
    Renew {
        /// An id, a unique prefix, `latest` or `latest:VOLUME`
        id: String,
        /// From now
        #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
        lease: Duration,
    },
}

#[derive(clap::Args, Debug)]
pub(crate) struct CreateArgs {
    /// Volumes to cut at one moment
    #[arg(
        required_unless_present = "group",
        conflicts_with = "group",
        value_name = "VOLUME"
    )]
    volumes: Vec<String>,
    /// Cut the volumes of this group
    #[arg(long)]
    group: Option<String>,
    /// Whether mounted file systems are frozen for the cut
    #[arg(long, value_enum, default_value = "auto")]
    freeze: Freeze,
    /// Release by itself after this time unless renewed; kept until released without it
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    lease: Option<Duration>,
    /// Something to remember, as often as needed
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// The longest that file systems may stay frozen
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "10s")]
    max_freeze: Duration,
}

/// What to do about mounted file systems.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq, Debug)]
pub(crate) enum Freeze {
    /// Freeze what is mounted; crash-consistent where nothing is
    Auto,
    /// Fail when nothing is mounted or it cannot be frozen
    Require,
    /// Never freeze
    None,
}

impl From<Freeze> for FreezeMode {
    fn from(freeze: Freeze) -> Self {
        match freeze {
            Freeze::Auto => Self::Auto,
            Freeze::Require => Self::Require,
            Freeze::None => Self::None,
        }
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is no label; write KEY=VALUE")),
    }
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    match command {
        Command::Create(args) => create(args, &client, context).await,
        Command::List { volume, all } => {
            let request = ListSnapshotsRequest {
                volume: volume.unwrap_or_default(),
                include_gone: all,
            };
            let reply = client.snapshots().list_snapshots(request).await?;
            print_list(&reply.into_inner().snapshots, context);
            Ok(())
        }
        Command::Show { id } => {
            let snapshot = select::snapshot(&client, &id, "").await?;
            context.out.document(&as_json::snapshot(&snapshot));
            describe(&snapshot)
                .iter()
                .for_each(|line| context.out.line(line));
            Ok(())
        }
        Command::Diff(args) => diff::run(args, &client, context).await,
        Command::Release { ids } => each(&ids, &client, context, End::Release).await,
        Command::Delete { ids } => each(&ids, &client, context, End::Delete).await,
        Command::Renew { id, lease } => renew(&id, lease, &client, context).await,
    }
}

async fn create(args: CreateArgs, client: &Client, context: &Context) -> anyhow::Result<()> {
    let request = CreateSnapshotRequest {
        volumes: args.volumes,
        group: args.group.unwrap_or_default(),
        freeze: FreezeMode::from(args.freeze).into(),
        lease: args.lease.map(units::to_proto),
        labels: HashMap::from_iter(args.labels),
        request_id: Uuid::new_v4().to_string(),
        max_freeze: Some(units::to_proto(args.max_freeze)),
    };
    let reply = client.snapshots().create_snapshot(request).await?;
    print_list(&reply.into_inner().snapshots, context);
    Ok(())
}

fn print_list(snapshots: &[Snapshot], context: &Context) {
    let out = &context.out;
    out.document(&Value::Array(
        snapshots.iter().map(as_json::snapshot).collect(),
    ));
    out.table(&HEADING, &snapshots.iter().map(row).collect::<Vec<_>>());
}

/// Columns of [`row`].
pub(crate) const HEADING: [&str; 8] = [
    "SNAPSHOT",
    "VOLUME",
    "STATE",
    "CONSISTENCY",
    "MADE AT",
    "KEPT",
    "HELD",
    "LEASE UNTIL",
];

/// A snapshot as a row of a table.
pub(crate) fn row(snapshot: &Snapshot) -> Vec<String> {
    let time = |at: Option<&prost_types::Timestamp>| at.map(ToString::to_string);
    let held = snapshot
        .held
        .as_ref()
        .map(|held| units::span(units::from_proto(held)));
    vec![
        snapshot.id.clone(),
        snapshot.volume.clone(),
        as_json::snapshot_state(snapshot.state).to_owned(),
        as_json::consistency(snapshot.consistency).to_owned(),
        time(snapshot.created_at.as_ref()).unwrap_or_default(),
        units::bytes(snapshot.preserved_bytes),
        held.unwrap_or_default(),
        time(snapshot.lease_expires_at.as_ref()).unwrap_or_else(|| "-".to_owned()),
    ]
}

fn describe(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = vec![format!(
        "{}  {}",
        snapshot.id,
        as_json::snapshot_state(snapshot.state)
    )];
    let mut add = |label: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("  {label:<12} {text}"));
        }
    };
    let span = |time: Option<&prost_types::Duration>| {
        time.map(|time| units::span(units::from_proto(time)))
            .unwrap_or_default()
    };
    let at =
        |time: Option<&prost_types::Timestamp>| time.map(ToString::to_string).unwrap_or_default();
    add("why", snapshot.state_reason.clone());
    add("volume", snapshot.volume.clone());
    add("set", snapshot.set_id.clone());
    if let Some(point) = &snapshot.checkpoint {
        add("checkpoint", format!("{}:{}", point.lineage, point.epoch));
    }
    add(
        "consistency",
        as_json::consistency(snapshot.consistency).to_owned(),
    );
    add("size", units::bytes(snapshot.capacity_bytes));
    add("made at", at(snapshot.created_at.as_ref()));
    add("lease until", at(snapshot.lease_expires_at.as_ref()));
    add("held", span(snapshot.held.as_ref()));
    add("frozen", span(snapshot.frozen.as_ref()));
    add("kept", units::bytes(snapshot.preserved_bytes));
    add("view", snapshot.view_path.clone());
    let mut labels: Vec<_> = snapshot.labels.iter().collect();
    labels.sort();
    for (key, value) in labels {
        add("label", format!("{key}={value}"));
    }
    lines
}

#[derive(Clone, Copy)]
enum End {
    Release,
    Delete,
}

/// Ends each snapshot; goes on after a failure and then says that only some were done.
async fn each(ids: &[String], client: &Client, context: &Context, end: End) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for id in ids {
        match end_one(id, client, end).await {
            Ok(value) => {
                context.out.document(&value);
                let verb = match end {
                    End::Release => "released; its checkpoint stays",
                    End::Delete => "deleted",
                };
                context.out.say(format!("snapshot {id} {verb}"));
            }
            Err(error) => failed.push(error.context(format!("snapshot {id}"))),
        }
    }
    let done = ids.len() - failed.len();
    let Some(last) = failed.pop() else {
        return Ok(());
    };
    if done == 0 && failed.is_empty() {
        return Err(last);
    }
    for error in failed.iter().chain([&last]) {
        Report::of(error).print(context.out.is_json());
    }
    let exit = if done == 0 {
        Exit::Failed
    } else {
        Exit::Partial
    };
    Err(Fault::new(exit, format!("{done} of {} snapshots were done", ids.len())).into())
}

async fn end_one(id: &str, client: &Client, end: End) -> anyhow::Result<Value> {
    let id = select::snapshot(client, id, "").await?.id;
    match end {
        End::Release => {
            let request = ReleaseSnapshotRequest { id };
            let reply = client
                .snapshots()
                .release_snapshot(request)
                .await?
                .into_inner();
            Ok(reply
                .snapshot
                .as_ref()
                .map_or(Value::Null, as_json::snapshot))
        }
        End::Delete => {
            let request = DeleteSnapshotRequest { id: id.clone() };
            client.snapshots().delete_snapshot(request).await?;
            Ok(json!({ "deleted": id }))
        }
    }
}

async fn renew(
    id: &str,
    lease: Duration,
    client: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    let snapshot = select::snapshot(client, id, "").await?;
    let request = RenewLeaseRequest {
        id: snapshot.id.clone(),
        lease: Some(units::to_proto(lease)),
    };
    let until = client
        .snapshots()
        .renew_lease(request)
        .await?
        .into_inner()
        .lease_expires_at;
    context.out.document(&json!({
        "id": snapshot.id,
        "lease_expires_at": as_json::time(until.as_ref()),
    }));
    let until = until.map(|at| at.to_string()).unwrap_or_default();
    context
        .out
        .say(format!("snapshot {} kept until {until}", snapshot.id));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_a_key() {
        assert_eq!(parse_label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_label("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_label("=b").is_err());
        assert!(parse_label("ab").is_err());
    }
}
