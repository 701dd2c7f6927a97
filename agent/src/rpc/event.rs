//! EventService.

use std::{pin::Pin, sync::Arc};

use tidemark_proto::v1::{self, event_service_server::EventService};
use tidemark_store::catalog::EventRecord;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{
    auth::{Role, require},
    convert,
};
use crate::manager::{Error, EventReader, Manager};

/// Events on their way to one client; more wait in the catalog.
const IN_FLIGHT: usize = 16;

pub(super) struct Events(pub(super) Arc<Manager>);

#[tonic::async_trait]
impl EventService for Events {
    type WatchEventsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        require(&request, Role::View)?;
        let asked = request.into_inner();
        let volume = Some(asked.volume).filter(|name| !name.is_empty());
        let reader = self
            .0
            .events()
            .read(asked.after_sequence, volume, !asked.no_follow);
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(forward(Arc::clone(&self.0), reader, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Sends events until there are no more, the client is gone, or the agent stops.
async fn forward(
    manager: Arc<Manager>,
    mut reader: EventReader,
    to: mpsc::Sender<Result<v1::WatchEventsResponse, Status>>,
) {
    loop {
        let next = tokio::select! {
            () = manager.shutting_down() => Err(Error::shutting_down()),
            () = to.closed() => return,
            next = reader.next() => next,
        };
        let part = match next {
            Ok(None) => return,
            Ok(Some(record)) => Ok(v1::WatchEventsResponse {
                event: Some(message(record)),
            }),
            Err(error) => Err(error.into()),
        };
        let last = part.is_err();
        if to.send(part).await.is_err() || last {
            return;
        }
    }
}

fn message(record: EventRecord) -> v1::Event {
    let event = record.event;
    let kind = v1::EventKind::from_str_name(&event.kind).unwrap_or(v1::EventKind::Unspecified);
    let severity =
        v1::Severity::from_str_name(&event.severity).unwrap_or(v1::Severity::Unspecified);
    v1::Event {
        sequence: record.sequence,
        at: Some(convert::timestamp(event.at_us)),
        kind: kind.into(),
        severity: severity.into(),
        volume: event.volume,
        snapshot_id: event.snapshot.map(|id| id.to_string()).unwrap_or_default(),
        message: event.message,
    }
}
