//! The calls of the private protocol: each converts, calls the volume, converts back.

mod changes;
mod cut;
mod describe;
mod events;
pub(super) mod failure;
mod measure;
mod stop;

use std::{
    collections::HashMap,
    sync::{Arc, mpsc::Sender},
};

use tidemark_proto::private::{
    Done, Failure, FailureKind, Hello, HelloReply, Reply, Request, reply::Result as Answer,
    request::Call,
};

use super::{
    served::{Ending, HoldPermit, Served, failure},
    wire,
};
use crate::volume::HoldToken;

/// One connection's side of the calls. Dropped, it lets go of what its client held.
pub(super) struct Session {
    served: Arc<Served>,
    greeted: bool,
    holds: HashMap<u64, HoldPermit>,
}

/// What to send, and what follows.
pub(super) struct Answered {
    /// The reply to send.
    pub(super) reply: Reply,
    /// The connection ends after the reply.
    pub(super) last: bool,
    /// Dropped once the reply has been sent: somebody waits for that.
    pub(super) told: Option<Sender<()>>,
}

impl Session {
    pub(super) fn new(served: Arc<Served>) -> Self {
        Self {
            served,
            greeted: false,
            holds: HashMap::new(),
        }
    }

    /// Answers one request.
    pub(super) fn answer(&mut self, request: Request) -> Answered {
        let Some(call) = request.call else {
            return refused(
                FailureKind::Invalid,
                "a request without a call this server knows",
            );
        };
        match (self.greeted, call) {
            (_, Call::Hello(hello)) => self.hello(&hello),
            (false, _) => refused(FailureKind::Version, "the first request must be Hello"),
            (true, Call::Stop(stop)) => {
                let ending = Ending::Detach { force: stop.force };
                stop::end(&self.served, ending)
            }
            (true, Call::HandOver(_)) => stop::end(&self.served, Ending::HandOver),
            (true, call) => answered(self.call(call)),
        }
    }

    fn hello(&mut self, hello: &Hello) -> Answered {
        if hello.version != wire::VERSION {
            let (asked, spoken) = (hello.version, wire::VERSION);
            let message =
                format!("this server speaks version {spoken} of its protocol, not {asked}");
            return refused(FailureKind::Version, message);
        }
        self.greeted = true;
        answered(Ok(Answer::Hello(HelloReply {
            version: wire::VERSION,
            volume: self.served.name.clone(),
            pid: describe::pid(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        })))
    }

    fn call(&mut self, call: Call) -> Result<Answer, Failure> {
        let served = &self.served;
        match call {
            Call::Describe(_) => Ok(Answer::Description(describe::describe(served))),
            Call::Measure(_) => Ok(Answer::Measurements(measure::measure(served))),
            Call::PresentViews(_) => changes::present_views(served).map(done),
            Call::Hold(hold) => self.hold(&hold).map(Answer::Held),
            Call::Cut(cut) => self.cut(&cut).map(Answer::Cut),
            Call::Unhold(unhold) => {
                self.unhold(unhold.token);
                Ok(Answer::Done(Done {}))
            }
            Call::ReleaseSnapshot(release) => changes::release(served, &release).map(done),
            Call::ForgetCheckpoint(forget) => changes::forget(served, &forget).map(done),
            Call::Changes(asked) => changes::changes(served, &asked).map(Answer::Extents),
            Call::Allocated(asked) => changes::allocated(served, &asked).map(Answer::Extents),
            Call::ResetTracking(reset) => changes::reset(served, &reset).map(done),
            Call::WaitEvents(wait) => Ok(Answer::Events(events::wait(served, &wait))),
            // Answered before: a stop ends the connection, a greeting begins it.
            Call::Hello(_) | Call::Stop(_) | Call::HandOver(_) => {
                Err(failure(FailureKind::Invalid, "not a call for here"))
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for token in self.holds.keys() {
            tracing::warn!(
                token,
                "a client went away while it held changes: they go on"
            );
            self.served.volume.unhold(HoldToken(*token));
        }
    }
}

fn done((): ()) -> Answer {
    Answer::Done(Done {})
}

fn answered(answer: Result<Answer, Failure>) -> Answered {
    let answer = answer.unwrap_or_else(Answer::Failure);
    Answered {
        reply: Reply {
            result: Some(answer),
        },
        last: false,
        told: None,
    }
}

fn refused(kind: FailureKind, message: impl Into<String>) -> Answered {
    Answered {
        last: true,
        ..answered(Err(failure(kind, message)))
    }
}
