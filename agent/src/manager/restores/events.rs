//! A session's end as an event.

use std::sync::Arc;

use tidemark_proto::v1::{EventKind, RestoreState, Severity};
use tokio::runtime::Handle;

use super::{OnEnd, RestoreStatus};
use crate::manager::{Happening, Manager};

/// Records each end with the manager's events.
pub(super) fn of_ends(manager: &Arc<Manager>) -> OnEnd {
    let (manager, runtime) = (Arc::clone(manager), Handle::current());
    Arc::new(move |end| {
        let (manager, happening) = (Arc::clone(&manager), happening(end));
        runtime.spawn(async move { manager.events().record(happening).await });
    })
}

fn happening(end: &RestoreStatus) -> Happening {
    let (id, subject) = (&end.id, &end.subject);
    let undefined = "its content is undefined until another restore is sealed";
    let (severity, message) = match end.state {
        RestoreState::Sealed => (
            Severity::Info,
            format!("restore {id} of {subject} was sealed: what was written reads back"),
        ),
        RestoreState::Aborted => (
            Severity::Warning,
            format!("restore {id} of {subject} was aborted: {undefined}"),
        ),
        RestoreState::Failed | RestoreState::Open | RestoreState::Unspecified => (
            Severity::Error,
            format!(
                "restore {id} of {subject} failed ({}): {undefined}",
                end.cause
            ),
        ),
    };
    let happening = Happening::new(EventKind::RestoreEnded, severity, message);
    if end.is_volume {
        happening.on_volume(subject)
    } else {
        happening
    }
}
