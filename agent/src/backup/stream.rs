//! A recovery point's bytes, streamed as a snapshot's are.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use tidemark_proto::v1::{Compression, OperationKind, RecoveryPoint};
use tidemark_store::{
    repository::{self, Image, Repository},
    units::{ByteRange, Id},
};

use super::{Backups, Filter, error::of_repository, points::resolve, told};
use crate::manager::{
    Error, Extent, ExtentPage, Kind,
    streams::{Encoder, Feed, Part, Scope, Subject, Walk, past_the_end, spawn},
};

/// The grain at which zeros are told from data, in bytes.
const BLOCK_BYTES: u64 = 4096;

/// A stream that runs.
pub struct PointStream {
    /// What is streamed.
    pub point: RecoveryPoint,
    /// For progress and cancel.
    pub operation_id: String,
    /// Batches and the trailer.
    pub parts: Feed<Part>,
}

impl Backups {
    /// Streams a recovery point from `start` on.
    pub async fn stream(
        &self,
        name: &str,
        point: &str,
        filter: &Filter,
        start: u64,
        compression: Compression,
    ) -> Result<PointStream, Error> {
        let found = self.ask(name, |repository| repository.points()).await?;
        let (id, point) = resolve(&found, point, filter)?;
        let capacity = point.capacity;
        if start > capacity {
            return Err(past_the_end("start_offset_bytes", start, capacity));
        }
        let subject = PointSubject::open(name, self.repository(name).await?, *id, capacity)?;
        let operation =
            self.operations
                .start(OperationKind::StreamPoint, id.to_string(), capacity)?;
        let operation_id = operation.id().to_owned();
        let token = operation.cancel_token().clone();
        let walk = Walk::new(
            subject,
            Scope::Whole { start },
            capacity,
            BLOCK_BYTES,
            token,
        );
        Ok(PointStream {
            point: told::point(*id, point),
            operation_id,
            parts: spawn(walk, Encoder::new(compression)?, operation, ())?,
        })
    }
}

/// A wish for bytes: from where, how many.
type Wish = (u64, usize);

/// An image, open in a thread that lives as long as this: it borrows what it reads from.
struct PointSubject {
    name: String,
    capacity: u64,
    wishes: Sender<Wish>,
    answers: Receiver<Result<Vec<u8>, repository::Error>>,
    /// Why the first read failed that did.
    failed: Option<Error>,
}

impl PointSubject {
    fn open(name: &str, repository: Repository, id: Id, capacity: u64) -> Result<Self, Error> {
        let (wishes, asked) = channel();
        let (answer, answers) = channel();
        let read = move || {
            let serve = || {
                let table = repository.table()?;
                let image = Image::open(&repository, &table, id)?;
                for (offset, len) in asked.iter() {
                    let mut bytes = vec![0; len];
                    let read = image.read_at(offset, &mut bytes).map(|()| bytes);
                    // Nobody listens any more.
                    if answer.send(read).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            let opened: Result<(), repository::Error> = serve();
            if let Err(why) = opened {
                let _ = answer.send(Err(why));
            }
        };
        let started = thread::Builder::new()
            .name("tm-point".to_owned())
            .spawn(read);
        started.map_err(Error::internal)?;
        Ok(Self {
            name: name.to_owned(),
            capacity,
            wishes,
            answers,
            failed: None,
        })
    }
}

impl Subject for PointSubject {
    fn page(&mut self, start: u64) -> Result<ExtentPage, Error> {
        let range = ByteRange::new(start, self.capacity - start);
        let all = Extent {
            range,
            kind: Kind::Data,
        };
        Ok(ExtentPage {
            extents: vec![all],
            next: None,
            over_report_bytes: 0,
        })
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let ended = || io::Error::other("the thread that reads the repository ended");
        // Where it cannot be sent, the reason waits to be received.
        let _ = self.wishes.send((offset, into.len()));
        match self.answers.recv().map_err(|_| ended())? {
            Ok(bytes) => {
                into.copy_from_slice(&bytes);
                Ok(())
            }
            Err(why) => {
                let error = of_repository(&self.name, why);
                let why = io::Error::other(error.to_string());
                self.failed.get_or_insert(error);
                Err(why)
            }
        }
    }

    fn check(&mut self) -> Result<(), Error> {
        self.failed.take().map_or(Ok(()), Err)
    }
}
