//! `tidemark copy`: recovery points into another repository.

use tidemark_proto::v1::CopyPointsRequest;

use crate::{
    cmd::{follow, points::FilterArgs},
    context::Context,
};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct CopyArgs {
    /// The repository to copy from
    repository: String,
    /// The repository to copy to; it may have another key
    #[arg(long, value_name = "REPO")]
    to: String,
    /// Points: ids or unique prefixes; none is all
    #[arg(value_name = "POINT", conflicts_with = "filter")]
    points: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Copies.
pub(crate) async fn run(args: CopyArgs, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let request = CopyPointsRequest {
        repository: args.repository,
        to_repository: args.to,
        point_ids: args.points,
        filter: args.filter.into_proto(),
    };
    let mut repositories = client.repositories();
    let reply = follow::begin(context, repositories.copy_points(request)).await?;
    let ended = follow::to_end(reply.operation, "CopyPoints", "copying", &client, context).await?;
    follow::tell(&ended, context);
    Ok(())
}
