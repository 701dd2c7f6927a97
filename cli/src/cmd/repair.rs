//! `tidemark repair`: mends what can be mended.

use tidemark_proto::v1::{RepairRequest, operation::Result as JobResult};

use crate::{
    cmd::follow,
    context::Context,
    exit::{Exit, Fault},
    output::counted,
    select::malformed,
};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RepairArgs {
    /// The repository
    repository: String,
    /// Another one with the same key, such as a mirror, to take what is lost from
    #[arg(long, value_name = "REPO")]
    from: Option<String>,
}

/// Repairs; what stays damaged is a failure of its own.
pub(crate) async fn run(args: RepairArgs, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let has_second = args.from.is_some();
    let request = RepairRequest {
        repository: args.repository.clone(),
        second_repository: args.from.unwrap_or_default(),
    };
    let mut repositories = client.repositories();
    let reply = follow::begin(context, repositories.repair(request)).await?;
    let ended = follow::to_end(reply.operation, "Repair", "repairing", &client, context).await?;
    follow::tell(&ended, context);
    let Some(JobResult::Repair(result)) = &ended.result else {
        return Err(malformed("Repair", "result"));
    };
    let points = result.lost_point_ids.len() as u64;
    if result.lost_blobs == 0 && points == 0 {
        return Ok(());
    }
    let lost = [(result.lost_blobs, "piece"), (points, "recovery point")];
    let lost: Vec<String> = lost
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| counted(number, what))
        .collect();
    let advice = if has_second {
        "`tidemark check` names the recovery points that need what is lost; the next backup may bring it back"
    } else {
        "give a second copy with --from; the next backup may bring back what is still on its volume"
    };
    Err(Fault::new(
        Exit::Integrity,
        format!(
            "repository {} is still damaged: {} could not be mended",
            args.repository,
            lost.join(" and ")
        ),
    )
    .advise(advice)
    .into())
}
