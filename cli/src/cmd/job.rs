//! `tidemark job`: the agent's long work.

use clap::Subcommand;
use serde_json::Value;
use tidemark_proto::v1::{
    CancelOperationRequest, ErrorReason, GetOperationRequest, ListOperationsRequest, Operation,
    OperationState, WatchOperationRequest,
};

use crate::{
    client::Client,
    cmd::outcome,
    context::Context,
    exit::{Exit, Fault, reason_name},
    json,
    output::Output,
    select::malformed,
    text::plain,
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
    /// Show everything about one operation, with what it gave
    Show {
        /// The operation, or a prefix that only one has
        id: String,
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
        Command::Show { id } => {
            let id = whole_id(&client, id).await?;
            let reply = client
                .operations()
                .get_operation(GetOperationRequest { id })
                .await?;
            let operation = reply
                .into_inner()
                .operation
                .ok_or_else(|| malformed("GetOperation", "operation"))?;
            out.document(&json::operation(&operation));
            describe(&operation).iter().for_each(|line| out.line(line));
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
            tell_result(&ended, out);
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
    vec![
        operation.id.clone(),
        json::operation_kind(operation.kind).to_owned(),
        json::operation_state(operation.state).to_owned(),
        progress(operation),
        operation.subject.clone(),
    ]
}

fn progress(operation: &Operation) -> String {
    match operation.total_bytes {
        0 => units::bytes(operation.done_bytes),
        total => format!(
            "{} of {} ({})",
            units::bytes(operation.done_bytes),
            units::bytes(total),
            units::per_cent(operation.done_bytes, total)
        ),
    }
}

/// Everything about an operation.
fn describe(operation: &Operation) -> Vec<String> {
    let mut lines = vec![format!(
        "{}  {} {}",
        operation.id,
        json::operation_kind(operation.kind),
        json::operation_state(operation.state)
    )];
    let mut add = |label: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("  {label:<12} {text}"));
        }
    };
    let at =
        |time: Option<&prost_types::Timestamp>| time.map(ToString::to_string).unwrap_or_default();
    add("subject", operation.subject.clone());
    add("progress", progress(operation));
    add("started at", at(operation.started_at.as_ref()));
    add("ended at", at(operation.ended_at.as_ref()));
    add("error", plain(&operation.error_message));
    if operation.error_reason != 0 {
        add("reason", reason_name(operation.error_reason()).to_owned());
    }
    lines.extend(operation.result.iter().flat_map(outcome::lines));
    lines
}

fn tell_result(operation: &Operation, out: &Output) {
    for line in operation.result.iter().flat_map(outcome::lines) {
        out.line(line);
    }
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
            let message = format!("{what} failed: {}", operation.error_message);
            Err(Fault::of_reason(reason, message).into())
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

#[cfg(test)]
mod tests {
    use tidemark_proto::v1::{OperationKind, PruneResult, operation::Result as JobResult};

    use super::*;

    #[test]
    fn an_operation_is_shown_with_what_it_gave() {
        let operation = Operation {
            id: "abc".to_owned(),
            kind: OperationKind::Prune.into(),
            state: OperationState::Succeeded.into(),
            subject: "repo".to_owned(),
            done_bytes: 512,
            total_bytes: 1024,
            result: Some(JobResult::Prune(PruneResult::default())),
            ..Default::default()
        };
        assert_eq!(
            describe(&operation),
            [
                "abc  PRUNE SUCCEEDED",
                "  subject      repo",
                "  progress     512 B of 1.0 KiB (50.0 %)",
                "nothing to delete",
            ]
        );
        assert_eq!(json::operation(&operation)["result"]["deleted_packs"], 0);
    }
}
