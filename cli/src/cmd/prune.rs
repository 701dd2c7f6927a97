//! `tidemark prune`: gives back the space of what no recovery point needs.

use std::time::Duration;

use tidemark_proto::v1::{Operation, PruneRequest};

use crate::{client::Client, cmd::follow, context::Context, units};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
A pack goes in two steps: one prune condemns it, a later one deletes it if nothing needed it for
the whole grace. So backups of others may run meanwhile, as long as none of them takes longer than
the grace.")]
pub(crate) struct PruneArgs {
    /// The repository
    repository: String,
    /// How long a pack must have been unneeded before it is deleted
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "24h")]
    grace: Duration,
    /// Store packs anew of which more than this is waste, in per cent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100), default_value = "50")]
    max_waste: u32,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Prunes.
pub(crate) async fn run(args: PruneArgs, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let request = PruneRequest {
        repository: args.repository,
        grace: Some(units::to_proto(args.grace)),
        max_waste_percent: Some(args.max_waste),
        dry_run: args.dry_run,
    };
    let ended = whole(request, &client, context).await?;
    follow::tell(&ended, context);
    Ok(())
}

/// A prune to its end.
pub(crate) async fn whole(
    request: PruneRequest,
    client: &Client,
    context: &Context,
) -> anyhow::Result<Operation> {
    let mut repositories = client.repositories();
    let reply = follow::begin(context, repositories.prune(request)).await?;
    follow::to_end(reply.operation, "Prune", "pruning", client, context).await
}
