//! `tidemark check`: looks for damage in a repository.

use tidemark_proto::v1::{CheckRequest, Operation, operation::Result as JobResult};

use crate::{
    client::Client,
    cmd::follow,
    context::Context,
    exit::{Exit, Fault},
    output::counted,
    select::malformed,
};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
The structure is always checked: every recovery point, its tree and the indexes. Exit code 14
tells that there were findings.")]
pub(crate) struct CheckArgs {
    /// The repository
    repository: String,
    /// Also read all data, and hold it against its ids
    #[arg(long, conflicts_with = "read_data_percent")]
    read_data: bool,
    /// The same for a sample of the packs, in per cent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    read_data_percent: Option<u32>,
}

/// Checks; findings are a failure of their own.
pub(crate) async fn run(args: CheckArgs, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let request = CheckRequest {
        repository: args.repository.clone(),
        read_data_percent: match args.read_data {
            true => 100,
            false => args.read_data_percent.unwrap_or(0),
        },
    };
    let ended = whole(request, &client, context).await?;
    follow::tell(&ended, context);
    ensure_sound(&ended, &args.repository)
}

/// A check to its end, whatever it found.
pub(crate) async fn whole(
    request: CheckRequest,
    client: &Client,
    context: &Context,
) -> anyhow::Result<Operation> {
    let mut repositories = client.repositories();
    let reply = follow::begin(context, repositories.check(request)).await?;
    follow::to_end(reply.operation, "Check", "checking", client, context).await
}

/// Turns findings into a failure.
pub(crate) fn ensure_sound(ended: &Operation, repository: &str) -> anyhow::Result<()> {
    let Some(JobResult::Check(result)) = &ended.result else {
        return Err(malformed("Check", "result"));
    };
    let findings = result.total_findings.max(result.findings.len() as u64);
    if findings == 0 {
        return Ok(());
    }
    Err(Fault::new(
        Exit::Integrity,
        format!(
            "{} in repository {repository}",
            counted(findings, "finding"),
        ),
    )
    .advise("`tidemark repair` mends what it can, with --from also out of a second copy")
    .into())
}
