//! How objects are named on the command line: id prefixes, `latest`, points in a lineage.

use anyhow::Context;
use tidemark_proto::v1::{
    Checkpoint, GetSnapshotRequest, GetVolumeRequest, ListSnapshotsRequest, Snapshot,
};

use crate::{
    client::Client,
    exit::{Exit, Fault},
};

/// Number of hex digits of a whole lineage.
const LINEAGE_DIGITS: usize = 32;

/// Finds the snapshot that `name` means: an id, a unique prefix, `latest` or `latest:VOLUME`.
/// `volume` is what a bare `latest` is the latest of; empty is any.
pub(crate) async fn snapshot(
    client: &Client,
    name: &str,
    volume: &str,
) -> anyhow::Result<Snapshot> {
    match name.split_once(':') {
        Some(("latest", of)) => latest(client, of).await,
        None if name == "latest" => latest(client, volume).await,
        _ => by_prefix(client, name).await,
    }
}

async fn latest(client: &Client, volume: &str) -> anyhow::Result<Snapshot> {
    let request = ListSnapshotsRequest {
        volume: volume.to_owned(),
        include_gone: false,
    };
    let reply = client.snapshots().list_snapshots(request).await?;
    reply.into_inner().snapshots.pop().ok_or_else(|| {
        let of = if volume.is_empty() {
            String::new()
        } else {
            format!(" of volume {volume}")
        };
        Fault::new(Exit::Failed, format!("there is no snapshot{of}"))
            .advise("`tidemark snapshot create` makes one")
            .into()
    })
}

async fn by_prefix(client: &Client, prefix: &str) -> anyhow::Result<Snapshot> {
    let request = GetSnapshotRequest {
        id: prefix.to_owned(),
    };
    let reply = client
        .snapshots()
        .get_snapshot(request)
        .await
        .with_context(|| format!("snapshot {prefix}"))?;
    reply
        .into_inner()
        .snapshot
        .ok_or_else(|| malformed("GetSnapshot", "snapshot"))
}

/// Finds the point that `text` means: `LINEAGE:EPOCH`, where the lineage may be a prefix of the
/// current one, or a snapshot.
pub(crate) async fn point(client: &Client, volume: &str, text: &str) -> anyhow::Result<Checkpoint> {
    if let Some((lineage, epoch)) = parse_point(text) {
        let lineage = whole_lineage(client, volume, lineage).await?;
        return Ok(Checkpoint { lineage, epoch });
    }
    let snapshot = snapshot(client, text, volume).await?;
    if snapshot.volume != volume {
        return Err(Fault::new(
            Exit::Usage,
            format!(
                "snapshot {} is of volume {}, not of {volume}",
                snapshot.id, snapshot.volume
            ),
        )
        .into());
    }
    snapshot
        .checkpoint
        .ok_or_else(|| malformed("GetSnapshot", "checkpoint"))
}

/// `LINEAGE:EPOCH` taken apart; `None` when it is not of that shape.
fn parse_point(text: &str) -> Option<(&str, u64)> {
    let (lineage, epoch) = text.split_once(':')?;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fits = !lineage.is_empty() && lineage.len() <= LINEAGE_DIGITS;
    if !fits || !lineage.bytes().all(hex) {
        return None;
    }
    Some((lineage, epoch.parse().ok()?))
}

async fn whole_lineage(client: &Client, volume: &str, prefix: &str) -> anyhow::Result<String> {
    if prefix.len() == LINEAGE_DIGITS {
        return Ok(prefix.to_owned());
    }
    let request = GetVolumeRequest {
        name: volume.to_owned(),
    };
    let current = client
        .volumes()
        .get_volume(request)
        .await?
        .into_inner()
        .volume
        .map(|volume| volume.lineage)
        .unwrap_or_default();
    if current.starts_with(prefix) {
        return Ok(current);
    }
    Err(Fault::new(
        Exit::FullRequired,
        format!("{prefix} does not begin the current lineage of {volume}, which is {current}"),
    )
    .advise("tracking started anew since: a full backup is required")
    .into())
}

/// An answer lacks a field that the contract promises.
pub(crate) fn malformed(call: &str, field: &str) -> anyhow::Error {
    Fault::new(
        Exit::Failed,
        format!("the daemon's answer to {call} has no {field}"),
    )
    .advise("the daemon and this command may be of different versions: see `tidemark doctor`")
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_snapshots_are_told_apart() {
        assert_eq!(parse_point("ab12:7"), Some(("ab12", 7)));
        for other in [
            "latest:vol",
            "ab12",
            "ab12:",
            ":7",
            "AB:7",
            "ab:-1",
            "ab:7:8",
        ] {
            assert_eq!(parse_point(other), None, "{other}");
        }
        let long = format!("{}:1", "a".repeat(33));
        assert_eq!(parse_point(&long), None);
    }
}
