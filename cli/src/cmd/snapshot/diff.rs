//! `tidemark snapshot diff`: what changed between two points.

use serde_json::json;
use tidemark_proto::v1::{
    ChangeSpan, EstimateChangesRequest, ListChangedExtentsRequest, Trust, TrustReport,
};

use crate::{client::Client, context::Context, json as as_json, select, units};

#[derive(clap::Args, Debug)]
pub(crate) struct DiffArgs {
    /// The volume
    volume: String,
    /// The first point: LINEAGE:EPOCH, or a snapshot
    #[arg(long, value_name = "POINT")]
    since: String,
    /// The second point: LINEAGE:EPOCH, a snapshot, or `now`
    #[arg(long, value_name = "POINT", default_value = "now")]
    until: String,
    /// Only the sums
    #[arg(long)]
    estimate: bool,
}

/// Lists the extents, or their sums.
pub(crate) async fn run(args: DiffArgs, client: &Client, context: &Context) -> anyhow::Result<()> {
    let since = select::point(client, &args.volume, &args.since).await?;
    let until = match args.until.as_str() {
        "now" => None,
        text => Some(select::point(client, &args.volume, text).await?),
    };
    let span = ChangeSpan {
        volume: args.volume,
        since: Some(since),
        until,
    };
    if args.estimate {
        estimate(span, client, context).await
    } else {
        list(span, client, context).await
    }
}

async fn estimate(span: ChangeSpan, client: &Client, context: &Context) -> anyhow::Result<()> {
    let request = EstimateChangesRequest { span: Some(span) };
    let sums = client
        .changes()
        .estimate_changes(request)
        .await?
        .into_inner();
    context.out.document(&json!({
        "changed_bytes": sums.changed_bytes,
        "zero_bytes": sums.zero_bytes,
        "extents": sums.extents,
        "trust": as_json::trust(sums.trust.as_ref()),
    }));
    context.out.line(format!(
        "{} changed in {} extents, {} of it zero",
        units::bytes(sums.changed_bytes),
        sums.extents,
        units::bytes(sums.zero_bytes)
    ));
    say_trust(sums.trust.as_ref(), context);
    Ok(())
}

async fn list(span: ChangeSpan, client: &Client, context: &Context) -> anyhow::Result<()> {
    let request = ListChangedExtentsRequest {
        span: Some(span),
        starting_offset_bytes: 0,
        max_results: 0,
    };
    let mut stream = client
        .changes()
        .list_changed_extents(request)
        .await?
        .into_inner();
    let (mut extents, mut changed) = (0_u64, 0_u64);
    let mut trust = None;
    context
        .out
        .line(format!("{:>16} {:>16}  KIND", "OFFSET", "LENGTH"));
    while let Some(reply) = stream.message().await? {
        trust = reply.trust.or(trust);
        for extent in &reply.extents {
            extents += 1;
            changed = changed.saturating_add(extent.length_bytes);
            context.out.document(&as_json::extent(extent));
            context.out.line(format!(
                "{:>16} {:>16}  {}",
                extent.offset_bytes,
                extent.length_bytes,
                as_json::extent_kind(extent.kind)
            ));
        }
        if context.out.closed() {
            return Ok(());
        }
    }
    context.out.document(&json!({ "summary": {
        "changed_bytes": changed,
        "extents": extents,
        "trust": as_json::trust(trust.as_ref()),
    }}));
    context.out.say(format!(
        "{} changed in {extents} extents",
        units::bytes(changed)
    ));
    say_trust(trust.as_ref(), context);
    Ok(())
}

/// Says when the list is not exact.
fn say_trust(report: Option<&TrustReport>, context: &Context) {
    let Some(report) = report else { return };
    match Trust::try_from(report.trust) {
        Ok(Trust::Superset) => context.out.say(format!(
            "superset: up to {} more than changed ({})",
            units::bytes(report.over_report_bound_bytes),
            report.reason
        )),
        Ok(Trust::Broken) => context.out.say(format!(
            "NOT TO BE TRUSTED, changes may be missing ({}): take a full backup",
            report.reason
        )),
        Ok(Trust::Continuous | Trust::Unspecified) | Err(_) => {}
    }
}
