//! `tidemark status`: one page for whoever is called at night.

use serde_json::json;
use tidemark_proto::v1::{
    Event, GetServerInfoRequest, GetServerInfoResponse, ListSnapshotsRequest, Severity, Snapshot,
    Trust, Volume, VolumeState, WatchEventsRequest,
};

use crate::{
    client::Client,
    cmd::{events, job, repo, snapshot, volume},
    context::Context,
    json as as_json,
    output::counted,
    text::plain,
};

/// A store fuller than this is worth a word.
const STORE_WARN_PER_CENT: u128 = 80;
/// How many of the latest warnings are shown.
const WARNINGS: usize = 5;

/// Prints volumes, snapshots, repositories, running operations, the latest warnings, and what needs a hand.
pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let info = client
        .agent()
        .get_server_info(GetServerInfoRequest {})
        .await?
        .into_inner();
    let volumes = volume::list(&client).await?;
    let request = ListSnapshotsRequest::default();
    let snapshots = client
        .snapshots()
        .list_snapshots(request)
        .await?
        .into_inner()
        .snapshots;
    let operations = job::list(&client, true).await?;
    let repositories = repo::list_if_any(&client).await?;
    let warnings = latest_warnings(&client).await?;
    let mut trouble = trouble(&volumes);
    trouble.extend(of_configuration(&info));
    let out = &context.out;
    out.document(&json!({
        "server": as_json::server_info(&info),
        "attention": trouble,
        "volumes": volumes.iter().map(as_json::volume).collect::<Vec<_>>(),
        "snapshots": snapshots.iter().map(as_json::snapshot).collect::<Vec<_>>(),
        "repositories": repositories.iter().map(as_json::repository).collect::<Vec<_>>(),
        "operations": operations.iter().map(as_json::operation).collect::<Vec<_>>(),
        "warnings": warnings.iter().map(as_json::event).collect::<Vec<_>>(),
    }));
    out.line(headline(&info.version, volumes.len(), &trouble));
    trouble
        .iter()
        .for_each(|line| out.line(format!("  ! {line}")));
    for volume in &volumes {
        out.line("");
        volume::describe(volume)
            .iter()
            .for_each(|line| out.line(line));
    }
    section(
        context,
        &snapshot::HEADING,
        &snapshots.iter().map(snapshot::row).collect::<Vec<_>>(),
    );
    if !repositories.is_empty() {
        out.line("");
    }
    for repository in &repositories {
        out.line(repo::describe(repository));
    }
    section(
        context,
        &job::HEADING,
        &operations.iter().map(job::row).collect::<Vec<_>>(),
    );
    if !warnings.is_empty() {
        out.line("\nlatest warnings:");
        warnings
            .iter()
            .for_each(|event| out.line(events::line(event)));
    }
    say_leases(&snapshots, context);
    Ok(())
}

fn headline(version: &str, volumes: usize, trouble: &[String]) -> String {
    let volumes = counted(volumes as u64, "volume");
    match trouble {
        [] => format!("tidemarkd {version}: {volumes}, nothing needs attention"),
        list => format!(
            "tidemarkd {version}: {volumes}, TO BE LOOKED AT: {}",
            list.len()
        ),
    }
}

fn section(context: &Context, heading: &[&str], rows: &[Vec<String>]) {
    if !rows.is_empty() {
        context.out.line("");
        context.out.table(heading, rows);
    }
}

/// A snapshot without a lease holds its store until somebody releases it.
fn say_leases(snapshots: &[Snapshot], context: &Context) {
    let kept = snapshots
        .iter()
        .filter(|snapshot| snapshot.lease_expires_at.is_none())
        .count();
    if kept > 0 {
        context.out.say(format!(
            "\n{} without a lease: kept until released",
            counted(kept as u64, "snapshot")
        ));
    }
}

/// What needs a hand, worst first.
fn trouble(volumes: &[Volume]) -> Vec<String> {
    let mut lines = Vec::new();
    for volume in volumes {
        let name = &volume.name;
        if volume.state != VolumeState::Attached as i32 {
            lines.push(format!("{name}: its server does not answer; see its log"));
        }
        if let Some(trust) = volume
            .trust
            .as_ref()
            .filter(|trust| trust.trust == Trust::Broken as i32)
        {
            lines.push(format!(
                "{name}: tracking is broken ({}); the next pull is full",
                trust.reason
            ));
        }
        let store = volume.store_status.unwrap_or_default();
        let used = u128::from(store.used_bytes) * 100;
        if store.capacity_bytes > 0
            && used >= u128::from(store.capacity_bytes) * STORE_WARN_PER_CENT
        {
            lines.push(format!(
                "{name}: its store is {} % full; release snapshots, or give it a larger area",
                used / u128::from(store.capacity_bytes)
            ));
        }
    }
    lines
}

/// A configuration that is not in force, or not in full.
fn of_configuration(info: &GetServerInfoResponse) -> Vec<String> {
    let Some(status) = &info.configuration else {
        return Vec::new();
    };
    status
        .problems
        .iter()
        .map(|problem| format!("configuration: {}", plain(problem)))
        .collect()
}

async fn latest_warnings(client: &Client) -> anyhow::Result<Vec<Event>> {
    let request = WatchEventsRequest {
        no_follow: true,
        ..Default::default()
    };
    let mut stream = client.events().watch_events(request).await?.into_inner();
    let mut kept = std::collections::VecDeque::with_capacity(WARNINGS + 1);
    while let Some(reply) = stream.message().await? {
        let Some(event) = reply.event else { continue };
        if event.severity >= Severity::Warning as i32 {
            kept.push_back(event);
        }
        if kept.len() > WARNINGS {
            kept.pop_front();
        }
    }
    Ok(kept.into())
}

#[cfg(test)]
mod tests {
    use tidemark_proto::v1::{StoreStatus, TrustReport};

    use super::*;

    #[test]
    fn trouble_names_the_volume_and_what_to_do() {
        let well = Volume {
            name: "a".into(),
            state: VolumeState::Attached.into(),
            ..Default::default()
        };
        assert!(trouble(std::slice::from_ref(&well)).is_empty());
        let ill = Volume {
            name: "b".into(),
            state: VolumeState::Unavailable.into(),
            trust: Some(TrustReport {
                trust: Trust::Broken.into(),
                ..Default::default()
            }),
            store_status: Some(StoreStatus {
                capacity_bytes: 10,
                used_bytes: 9,
            }),
            ..Default::default()
        };
        let lines = trouble(&[well, ill]);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.starts_with("b: ")));
    }
}
