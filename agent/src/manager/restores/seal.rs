//! Sealing: flush, read everything back, compare with the client's digest.

use tidemark_proto::v1::RestoreState;
use tidemark_store::units::ByteRange;

use super::{
    MAX_DATA_EXTENT_BYTES,
    record::Entry,
    session::{Session, Work, WorkGuard},
    target::Target,
};
use crate::{
    manager::{
        Error, ErrorReason,
        operations::{CancelToken, OperationGuard, Progress},
        streams::{
            digest::{ExtentHash, StreamDigest},
            is_zero,
        },
    },
    volume::Kind,
};

/// Seals a session; blocks until that is done. The operation ends after the session's state says
/// how. Cancelled, the session stays open and can be sealed again.
pub(super) fn run(
    session: &Session,
    work: WorkGuard,
    digest: &ExtentHash,
    operation: OperationGuard,
) {
    let outcome = match work.as_ref() {
        Some(work) => prove(session, work, digest, &operation),
        None => Err(Error::internal("the session ended before its seal began")),
    };
    let stopped = operation.cancel_token().cause().is_some() || session.ending.cause().is_some();
    match &outcome {
        Ok(()) => {
            session.end(work, RestoreState::Sealed, "");
        }
        Err(_) if stopped => {
            session.touch();
            drop(work);
        }
        Err(error) => {
            session.end(work, RestoreState::Failed, &error.message);
        }
    }
    operation.finish(outcome);
}

fn prove(
    session: &Session,
    work: &Work,
    digest: &ExtentHash,
    operation: &OperationGuard,
) -> Result<(), Error> {
    if work.record.digest() != *digest {
        return Err(mismatch(
            session,
            "the extents that arrived are not those of the digest: some are missing, or they came \
             in another order",
        ));
    }
    work.target.flush()?;
    let back = ReadBack {
        session,
        target: &work.target,
        cancel: operation.cancel_token(),
        progress: operation.progress(),
    };
    if back.digest(work.record.entries())? != *digest {
        // Each hash agreed with its hint, so this takes two faults at once.
        return Err(mismatch(
            session,
            "what reads back differs from what was written",
        ));
    }
    Ok(())
}

fn mismatch(session: &Session, what: &str) -> Error {
    Error::new(
        ErrorReason::DigestMismatch,
        format!("{}: {what}; restore it again", session.subject),
    )
    .with("restore", &session.id)
}

struct ReadBack<'a> {
    session: &'a Session,
    target: &'a Target,
    cancel: &'a CancelToken,
    progress: Progress,
}

impl ReadBack<'_> {
    fn digest(&self, entries: &[Entry]) -> Result<ExtentHash, Error> {
        let mut digest = StreamDigest::default();
        let mut buffer = Vec::new();
        for entry in entries {
            let extent = entry.extent();
            let hash = match extent.kind {
                Kind::Data => self.hash(extent.range, entry, &mut buffer)?,
                Kind::Zero | Kind::Discarded => {
                    self.check_zero(extent.range, &mut buffer)?;
                    ExtentHash::default()
                }
            };
            digest.add(extent.range, extent.kind, &hash);
        }
        Ok(digest.value())
    }

    fn hash(
        &self,
        range: ByteRange,
        entry: &Entry,
        buffer: &mut Vec<u8>,
    ) -> Result<ExtentHash, Error> {
        let hash = *blake3::hash(self.read(range, buffer)?).as_bytes();
        if entry.may_be(&hash) {
            return Ok(hash);
        }
        Err(self.differs(range))
    }

    /// Holes are taken at the file system's word, all else is read.
    fn check_zero(&self, range: ByteRange, buffer: &mut Vec<u8>) -> Result<(), Error> {
        let mut at = range.offset;
        while at < range.end() {
            let data = self.target.next_data(at, range.end());
            self.progress.add(data - at);
            at = data;
            let len = (range.end() - at).min(MAX_DATA_EXTENT_BYTES);
            let piece = ByteRange::new(at, len);
            if !is_zero(self.read(piece, buffer)?) {
                return Err(self.differs(piece));
            }
            at += len;
        }
        Ok(())
    }

    fn read<'b>(&self, range: ByteRange, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Error> {
        self.cancel.check()?;
        self.session.ending.check()?;
        let len = usize::try_from(range.len).map_err(Error::internal)?;
        buffer.resize(len, 0);
        self.target.read(range.offset, buffer)?;
        self.progress.add(range.len);
        Ok(buffer)
    }

    fn differs(&self, range: ByteRange) -> Error {
        mismatch(
            self.session,
            &format!("bytes {range} do not read back as they were written"),
        )
        .with("offset", range.offset)
    }
}
