//! A call to a volume server that failed, and what its reason is to the public.

use std::{io, time::Duration};

use tidemark_proto::private::{Failure, FailureKind, reply::Result as Answer};

use crate::{
    manager::{Error, ErrorReason},
    server::wire::WireError,
};

/// Why a call to a volume server failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::manager) enum LinkError {
    /// It cannot be reached, or the connection broke.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// It speaks another version.
    #[error("it speaks version {0} of the private protocol")]
    Version(u32),
    /// It answered something else than was asked.
    #[error("{0}")]
    Protocol(String),
    /// It answered that it will not, or could not.
    #[error("{}", .0.message)]
    Refused(Failure),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        Self::Wire(WireError::Io(error))
    }
}

impl LinkError {
    pub(super) fn unexpected(asked: &str, answer: &Answer) -> Self {
        let got = match answer {
            Answer::Done(_) => "Done",
            Answer::Failure(_) => "Failure",
            Answer::Hello(_) => "Hello",
            Answer::Description(_) => "Description",
            Answer::Held(_) => "Held",
            Answer::Cut(_) => "Cut",
            Answer::Extents(_) => "Extents",
            Answer::Events(_) => "Events",
            Answer::Measurements(_) => "Measurements",
        };
        Self::Protocol(format!("{asked} was answered with {got}"))
    }

    /// The kind of a refusal; `None` when the server did not answer properly.
    pub(in crate::manager) fn refusal(&self) -> Option<FailureKind> {
        match self {
            Self::Refused(failure) => Some(failure.kind()),
            _ => None,
        }
    }

    /// Whether nobody listens at the socket.
    pub(in crate::manager) fn nobody_there(&self) -> bool {
        let Self::Wire(WireError::Io(error)) = self else {
            return false;
        };
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        )
    }

    /// The public error.
    pub(in crate::manager) fn on_volume(self, volume: &str) -> Error {
        let Self::Refused(failure) = self else {
            return Error::unavailable(volume, self);
        };
        let reason = match failure.kind() {
            FailureKind::Unspecified | FailureKind::Io => ErrorReason::Internal,
            FailureKind::Invalid => ErrorReason::OutOfRange,
            FailureKind::Version => ErrorReason::VolumeServerUnavailable,
            FailureKind::SnapshotNotFound => ErrorReason::SnapshotNotFound,
            FailureKind::SnapshotReleased => ErrorReason::SnapshotReleased,
            FailureKind::SnapshotOverflowed => ErrorReason::SnapshotOverflowed,
            FailureKind::SnapshotLost => ErrorReason::SnapshotLost,
            FailureKind::TrackingReset => ErrorReason::TrackingReset,
            FailureKind::CheckpointGone => ErrorReason::CheckpointGone,
            FailureKind::CutTimeout => ErrorReason::CutTimeout,
            FailureKind::Limit => ErrorReason::LimitReached,
            FailureKind::Busy => ErrorReason::VolumeBusy,
        };
        let message = format!("volume \"{volume}\": {}", failure.message);
        Error::new(reason, message).on_volume(volume)
    }
}
