//! Recovery points: how they are chosen and shown. `tidemark snapshots` lists them.

use serde_json::json;
use tidemark_proto::v1::{ListPointsRequest, ListPointsResponse, PointFilter, RecoveryPoint};

use crate::{context::Context, json as as_json, text::plain, units};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
These are recovery points in a repository, which stay until they are forgotten. A volume's own
snapshots, which live in its area, are listed by `tidemark snapshot list`.")]
pub(crate) struct SnapshotsArgs {
    /// The repository
    repository: String,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Which recovery points. All conditions must hold.
#[derive(clap::Args, Clone, Default, Debug)]
#[group(id = "filter", multiple = true)]
pub(crate) struct FilterArgs {
    /// Only points of this volume or image
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only points made on this host
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Only points with this tag; given several times, with one of them
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
}

impl FilterArgs {
    /// For a request; nothing where nothing was asked for.
    pub(crate) fn into_proto(self) -> Option<PointFilter> {
        let filter = PointFilter {
            name: self.name.unwrap_or_default(),
            host: self.host.unwrap_or_default(),
            tags: self.tags,
        };
        (filter != PointFilter::default()).then_some(filter)
    }
}

/// Lists recovery points.
pub(crate) async fn run(args: SnapshotsArgs, context: &Context) -> anyhow::Result<()> {
    let request = ListPointsRequest {
        repository: args.repository,
        filter: args.filter.into_proto(),
    };
    let client = context.client().await?;
    let reply = client.repositories().list_points(request).await?;
    let listed = reply.into_inner();
    context.out.document(&json(&listed));
    context
        .out
        .table(&HEADING, &listed.points.iter().map(row).collect::<Vec<_>>());
    for damage in &listed.damaged {
        context.out.line(format!("! damaged: {}", plain(damage)));
    }
    if !listed.damaged.is_empty() {
        context
            .out
            .note("`tidemark check` tells what is wrong, `tidemark repair` mends what it can");
    }
    Ok(())
}

fn json(listed: &ListPointsResponse) -> serde_json::Value {
    json!({
        "points": listed.points.iter().map(as_json::point).collect::<Vec<_>>(),
        "damaged": listed.damaged,
    })
}

/// Columns of [`row`].
pub(crate) const HEADING: [&str; 9] = [
    "POINT", "NAME", "HOST", "MADE AT", "SIZE", "CHANGED", "STORED", "READ", "TAGS",
];

/// A recovery point as a row of a table.
pub(crate) fn row(point: &RecoveryPoint) -> Vec<String> {
    let work = point.work.unwrap_or_default();
    let read = if point.full_reason.is_empty() {
        "changes"
    } else {
        "all"
    };
    vec![
        plain(&point.id),
        plain(&point.name),
        plain(&point.host),
        made_at(point),
        units::bytes(point.capacity_bytes),
        units::bytes(work.changed_bytes),
        units::bytes(work.stored_bytes),
        read.to_owned(),
        plain(&point.tags.join(",")),
    ]
}

/// When a point was made, to the second.
pub(crate) fn made_at(point: &RecoveryPoint) -> String {
    point.created_at.map_or_else(String::new, |at| {
        prost_types::Timestamp { nanos: 0, ..at }.to_string()
    })
}

#[cfg(test)]
mod tests {
    use tidemark_proto::v1::PointWork;

    use super::*;

    #[test]
    fn a_point_in_a_table() {
        let point = RecoveryPoint {
            id: "ab".to_owned(),
            name: "data".to_owned(),
            host: "h\x07".to_owned(),
            created_at: Some(prost_types::Timestamp {
                seconds: 1_800_000_000,
                nanos: 5,
            }),
            capacity_bytes: 1 << 30,
            full_reason: "first".to_owned(),
            work: Some(PointWork {
                changed_bytes: 4096,
                stored_bytes: 2048,
                ..Default::default()
            }),
            tags: vec!["a".to_owned(), "b".to_owned()],
            ..Default::default()
        };
        let cells = [
            "ab",
            "data",
            "h\u{fffd}",
            "2027-01-15T08:00:00Z",
            "1.0 GiB",
            "4.0 KiB",
            "2.0 KiB",
            "all",
            "a,b",
        ];
        assert_eq!(row(&point), cells);
        assert_eq!(HEADING.len(), cells.len());
        assert_eq!(as_json::point(&point)["work"]["changed_bytes"], 4096);
    }
}
