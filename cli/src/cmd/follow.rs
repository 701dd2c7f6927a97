//! Follows an operation of the agent to its end.
//!
//! The operation goes on whoever watches. So a lost connection is made anew, a first signal cancels
//! the operation and waits for it to end, and a second one leaves it as it is.

use std::time::Duration;

use indicatif::ProgressBar;
use tidemark_proto::v1::{
    CancelOperationRequest, ErrorReason, Operation, OperationState, WatchOperationRequest,
};
use tonic::{Response, Status};

use super::{
    job, outcome,
    pull::retry::{Patience, truncated},
};
use crate::{
    client::Client,
    context::Context,
    exit::{Exit, Fault, reason_of},
    json as as_json,
    select::malformed,
};

/// How long to wait for a daemon that went away meanwhile.
const RECONNECT_FOR: Duration = Duration::from_secs(60);

/// Makes the call that begins an operation. Only a second signal drops it: the operation might
/// have begun, and nobody would know its id.
pub(crate) async fn begin<T>(
    context: &Context,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        () = context.interrupt.wait_for(2) => Err(Fault::interrupted().into()),
        reply = call => Ok(reply?.into_inner()),
    }
}

/// Follows what `call` began, and fails unless it succeeded.
pub(crate) async fn to_end(
    started: Option<Operation>,
    call: &'static str,
    label: &'static str,
    client: &Client,
    context: &Context,
) -> anyhow::Result<Operation> {
    let started = started.ok_or_else(|| malformed(call, "operation"))?;
    let bar = context.out.bar(label, started.total_bytes);
    let mut follower = Follower {
        client,
        context,
        id: started.id,
        bar,
        signals: 0,
    };
    let ended = follower.run().await;
    follower.bar.finish_and_clear();
    let ended = ended?;
    if follower.signals > 0 && ended.state() == OperationState::Cancelled {
        let message = format!("operation {} was cancelled", ended.id);
        return Err(Fault::new(Exit::Interrupted, message).into());
    }
    job::ensure_succeeded(&ended)?;
    Ok(ended)
}

/// Prints what an operation that succeeded gave.
pub(crate) fn tell(ended: &Operation, context: &Context) {
    context.out.document(&as_json::operation(ended));
    for line in ended.result.iter().flat_map(outcome::lines) {
        context.out.line(line);
    }
}

struct Follower<'a> {
    client: &'a Client,
    context: &'a Context,
    id: String,
    bar: ProgressBar,
    /// How many signals were seen to.
    signals: u32,
}

impl Follower<'_> {
    async fn run(&mut self) -> anyhow::Result<Operation> {
        let mut patience = Patience::new(RECONNECT_FOR);
        let mut lost_once = false;
        loop {
            let lost = match self.watch(&mut patience).await? {
                Ok(ended) => return Ok(ended),
                Err(status) => status,
            };
            if lost_once && reason_of(&lost) == Some(ErrorReason::OperationNotFound) {
                return Err(Fault::of_reason(
                    ErrorReason::ShuttingDown,
                    format!(
                        "the daemon was restarted meanwhile, and operation {} ended with it",
                        self.id
                    ),
                )
                .advise("run it again: it goes on from what was stored")
                .into());
            }
            lost_once = true;
            patience.pause(lost, &self.context.interrupt).await?;
        }
    }

    /// Watches over one connection, to the operation's end or the connection's.
    async fn watch(
        &mut self,
        patience: &mut Patience,
    ) -> anyhow::Result<Result<Operation, Status>> {
        let request = WatchOperationRequest {
            id: self.id.clone(),
        };
        let mut operations = self.client.operations();
        let opening = operations.watch_operation(request);
        tokio::pin!(opening);
        let mut stream = loop {
            tokio::select! {
                biased;
                () = self.signal() => self.interrupted().await?,
                opened = &mut opening => match opened {
                    Ok(opened) => break opened.into_inner(),
                    Err(status) => return Ok(Err(status)),
                },
            }
        };
        loop {
            let message = tokio::select! {
                biased;
                () = self.signal() => {
                    self.interrupted().await?;
                    continue;
                }
                message = stream.message() => message,
            };
            let operation = match message {
                Ok(Some(reply)) => reply.operation,
                Ok(None) => return Ok(Err(truncated())),
                Err(status) => return Ok(Err(status)),
            };
            let Some(operation) = operation else { continue };
            patience.progress();
            self.bar
                .set_length(operation.total_bytes.max(operation.done_bytes));
            self.bar.set_position(operation.done_bytes);
            if operation.state() != OperationState::Running {
                return Ok(Ok(operation));
            }
        }
    }

    /// Returns when there is a signal that was not seen to.
    async fn signal(&self) {
        let times = self.signals.saturating_add(1);
        self.context.interrupt.wait_for(times).await;
    }

    /// Sees to a signal: cancels at the first, leaves at the second.
    async fn interrupted(&mut self) -> anyhow::Result<()> {
        self.signals = self.signals.saturating_add(1);
        if self.signals > 1 {
            let message = format!("interrupted; operation {} was not waited for", self.id);
            return Err(Fault::new(Exit::Interrupted, message)
                .advise("`tidemark job wait` waits for it, `tidemark job list` shows it")
                .into());
        }
        let request = CancelOperationRequest {
            id: self.id.clone(),
        };
        let cancel = async { self.client.operations().cancel_operation(request).await };
        let told = tokio::select! {
            biased;
            () = self.context.interrupt.wait_for(2) => return Ok(()),
            told = cancel => told,
        };
        self.context.out.note(match told {
            Ok(_) => "cancelling; a second interrupt does not wait for it".to_owned(),
            Err(status) => format!("it could not be cancelled: {}", status.message()),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
