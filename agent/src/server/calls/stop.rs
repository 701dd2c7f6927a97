//! Asking the main thread to end the server, and telling the client before the process ends.

use std::sync::mpsc;

use tidemark_proto::private::{Done, FailureKind, reply::Result as Answer};

use super::{Answered, answered};
use crate::server::served::{Ending, Served, StopRequest, failure};

pub(super) fn end(served: &Served, ending: Ending) -> Answered {
    let (outcome, decided) = mpsc::sync_channel(1);
    let (tell, told) = mpsc::channel();
    let request = StopRequest {
        ending,
        outcome: Some(outcome),
        told: Some(told),
    };
    let gone = || failure(FailureKind::Io, "the server is ending already");
    let sent = served.stop.send(request).map_err(|_| gone());
    let done = sent.and_then(|()| decided.recv().unwrap_or_else(|_| Err(gone())));
    Answered {
        last: done.is_ok(),
        told: Some(tell),
        ..answered(done.map(|()| Answer::Done(Done {})))
    }
}
