//! The engine's errors as failures of the protocol: kinds for the client to act on, messages for
//! people.

use tidemark_proto::private::{Failure, FailureKind};

use crate::{
    server::served::failure,
    volume::{ChangeError, CutError, ReleaseError, ViewError},
};

pub(in crate::server) fn cut_failure(error: CutError) -> Failure {
    let kind = match error {
        CutError::TimedOut => FailureKind::CutTimeout,
        CutError::Busy => FailureKind::Busy,
        CutError::TooManySnapshots(_) => FailureKind::Limit,
        CutError::Exists(_) => FailureKind::Invalid,
        CutError::State(_) => FailureKind::Io,
    };
    failure(kind, error.to_string())
}

pub(super) fn view_failure(error: ViewError) -> Failure {
    let kind = match error {
        ViewError::NotFound(_) => FailureKind::SnapshotNotFound,
        ViewError::Released(_) => FailureKind::SnapshotReleased,
        ViewError::Overflowed(_) => FailureKind::SnapshotOverflowed,
        ViewError::Lost(_) => FailureKind::SnapshotLost,
        ViewError::OutOfRange(_) => FailureKind::Invalid,
        ViewError::Origin(_) => FailureKind::Io,
    };
    failure(kind, error.to_string())
}

pub(super) fn release_failure(error: ReleaseError) -> Failure {
    let kind = match error {
        ReleaseError::SnapshotNotFound(_) => FailureKind::SnapshotNotFound,
        ReleaseError::CheckpointNotFound(_) => FailureKind::CheckpointGone,
    };
    failure(kind, error.to_string())
}

pub(super) fn change_failure(error: ChangeError) -> Failure {
    let kind = match error {
        ChangeError::TrackingReset { .. } => FailureKind::TrackingReset,
        ChangeError::CheckpointGone(_) => FailureKind::CheckpointGone,
        ChangeError::Backwards { .. } => FailureKind::Invalid,
        ChangeError::State { .. } => FailureKind::Io,
    };
    failure(kind, error.to_string())
}
