//! `tidemark job`: the agent's long work.

use clap::Subcommand;
use serde_json::Value;
use tidemark_proto::v1::{
    CancelOperationRequest, ErrorReason, GetOperationRequest, ListOperationsRequest, Operation,
    OperationState, WatchOperationRequest,
};

use crate::{
    client::Client,
    context::Context,
    exit::{Exit, Fault, reason_name},
    json,
    output::Output,
    select::malformed,
    units,
};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the operations
    List {
        /// Also those that ended
        #[arg(long)]
        all: bool,
    },
    /// Wait for an operation's end; fails when it failed
    Wait {
        /// The operation, or a prefix that only one has
        id: String,
    },
    /// Cancel an operation
    Cancel {
        /// The operation, or a prefix that only one has
        id: String,
    },
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let out = &context.out;
    match command {
        Command::List { all } => {
            let all = list(&client, !all).await?;
            out.document(&Value::Array(all.iter().map(json::operation).collect()));
            out.table(&HEADING, &all.iter().map(row).collect::<Vec<_>>());
            Ok(())
        }
        Command::Wait { id } => {
            let id = whole_id(&client, id).await?;
            let ended = watch(&client, out, "working", id).await?;
            out.document(&json::operation(&ended));
            out.say(format!(
                "operation {} {}",
                ended.id,
                json::operation_state(ended.state)
            ));
            ensure_succeeded(&ended)
        }
        Command::Cancel { id } => {
            let id = whole_id(&client, id).await?;
            let reply = client
                .operations()
                .cancel_operation(CancelOperationRequest { id })
                .await?;
            let operation = reply
                .into_inner()
                .operation
                .ok_or_else(|| malformed("CancelOperation", "operation"))?;
            out.document(&json::operation(&operation));
            out.say(format!(
                "operation {} {}",
                operation.id,
                json::operation_state(operation.state)
            ));
            Ok(())
        }
    }
}

/// Columns of [`row`].
pub(crate) const HEADING: [&str; 5] = ["OPERATION", "KIND", "STATE", "PROGRESS", "SUBJECT"];

/// An operation as a row of a table.
pub(crate) fn row(operation: &Operation) -> Vec<String> {
    let progress = match operation.total_bytes {
        0 => units::bytes(operation.done_bytes),
        total => format!(
            "{} of {} ({})",
            units::bytes(operation.done_bytes),
            units::bytes(total),
            units::per_cent(operation.done_bytes, total)
        ),
    };
    vec![
        operation.id.clone(),
        json::operation_kind(operation.kind).to_owned(),
        json::operation_state(operation.state).to_owned(),
        progress,
        operation.subject.clone(),
    ]
}

/// The operations that run, or all that are kept.
pub(crate) async fn list(client: &Client, running_only: bool) -> anyhow::Result<Vec<Operation>> {
    let request = ListOperationsRequest { running_only };
    let reply = client.operations().list_operations(request).await?;
    Ok(reply.into_inner().operations)
}

/// Finds the whole id. The contract takes whole ids only, so prefixes are looked up here.
async fn whole_id(client: &Client, id: String) -> anyhow::Result<String> {
    let all = list(client, false).await?;
    let mut fitting = all.iter().filter(|operation| operation.id.starts_with(&id));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one.id.clone()),
        (Some(_), Some(_)) => Err(Fault::new(
            Exit::Usage,
            format!("more than one operation begins with {id}: write more of it"),
        )
        .into()),
        // The daemon's own error says best that there is none.
        (None, _) => {
            let request = GetOperationRequest { id: id.clone() };
            client.operations().get_operation(request).await?;
            Ok(id)
        }
    }
}

/// Follows an operation to its end, with a progress bar.
pub(crate) async fn watch(
    client: &Client,
    out: &Output,
    label: &'static str,
    id: String,
) -> anyhow::Result<Operation> {
    let mut stream = client
        .operations()
        .watch_operation(WatchOperationRequest { id: id.clone() })
        .await?
        .into_inner();
    let bar = out.bar(label, 0);
    let mut last = None;
    while let Some(reply) = stream.message().await? {
        let Some(operation) = reply.operation else {
            continue;
        };
        bar.set_length(operation.total_bytes.max(operation.done_bytes));
        bar.set_position(operation.done_bytes);
        last = Some(operation);
    }
    bar.finish_and_clear();
    match last {
        Some(operation) if operation.state != OperationState::Running as i32 => Ok(operation),
        _ => Err(Fault::new(
            Exit::Failed,
            format!("the daemon stopped telling of operation {id} before it ended"),
        )
        .advise("`tidemark job list --all` tells how it stands")
        .into()),
    }
}

/// Turns an operation that did not succeed into a failure with its exit code.
pub(crate) fn ensure_succeeded(operation: &Operation) -> anyhow::Result<()> {
    let state = OperationState::try_from(operation.state).unwrap_or(OperationState::Unspecified);
    let what = format!("operation {}", operation.id);
    match state {
        OperationState::Succeeded => Ok(()),
        OperationState::Cancelled => {
            Err(Fault::new(Exit::Failed, format!("{what} was cancelled")).into())
        }
        OperationState::Failed => {
            let reason =
                ErrorReason::try_from(operation.error_reason).unwrap_or(ErrorReason::Unspecified);
            let exit = match reason {
                ErrorReason::DigestMismatch | ErrorReason::DataCorrupt => Exit::Integrity,
                _ => Exit::Failed,
            };
            Err(Fault::new(
                exit,
                format!(
                    "{what} failed: {} ({})",
                    operation.error_message,
                    reason_name(reason)
                ),
            )
            .into())
        }
        OperationState::Running | OperationState::Unspecified => Err(Fault::new(
            Exit::Failed,
            format!(
                "{what} is in state {}",
                json::operation_state(operation.state)
            ),
        )
        .into()),
    }
}
