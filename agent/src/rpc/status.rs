//! Errors on the wire: a status code, and the reason in a `google.rpc.ErrorInfo`.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::manager::{Error, ErrorReason};

/// The domain of every reason.
pub const DOMAIN: &str = "tidemark";

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if error.reason == ErrorReason::Internal {
            tracing::error!(%error, "a call failed");
        }
        let reason = error.reason_name();
        let details = ErrorDetails::with_error_info(
            reason,
            DOMAIN,
            error
                .metadata
                .into_iter()
                .collect::<std::collections::HashMap<_, _>>(),
        );
        Self::with_error_details(code(error.reason), error.message, details)
    }
}

/// The status code for clients that know nothing of reasons.
fn code(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::InvalidField | ErrorReason::RequestIdReused => Code::InvalidArgument,
        ErrorReason::VolumeNotFound
        | ErrorReason::SnapshotNotFound
        | ErrorReason::GroupNotFound
        | ErrorReason::OperationNotFound
        | ErrorReason::RestoreNotFound
        | ErrorReason::RepositoryNotFound
        | ErrorReason::PointNotFound => Code::NotFound,
        ErrorReason::VolumeExists | ErrorReason::GroupExists | ErrorReason::RepositoryExists => {
            Code::AlreadyExists
        }
        ErrorReason::TrackingReset
        | ErrorReason::CheckpointGone
        | ErrorReason::SnapshotReleased
        | ErrorReason::SnapshotOverflowed
        | ErrorReason::LeaseExpired
        | ErrorReason::OriginInUse
        | ErrorReason::OriginUnsuitable
        | ErrorReason::AreaOnVolume
        | ErrorReason::AreaInUse
        | ErrorReason::AreaCorrupt
        | ErrorReason::FreezeFailed
        | ErrorReason::VolumeBusy
        | ErrorReason::RepositoryKey
        | ErrorReason::RepositoryAppendOnly
        | ErrorReason::ConfigurationWrong
        | ErrorReason::HookFailed
        | ErrorReason::Unsupported => Code::FailedPrecondition,
        ErrorReason::SnapshotLost | ErrorReason::DigestMismatch | ErrorReason::DataCorrupt => {
            Code::DataLoss
        }
        ErrorReason::AreaNoSpace | ErrorReason::LimitReached => Code::ResourceExhausted,
        ErrorReason::OutOfRange => Code::OutOfRange,
        ErrorReason::CutTimeout | ErrorReason::PrunedMeanwhile => Code::Aborted,
        ErrorReason::VolumeServerUnavailable
        | ErrorReason::RepositoryStorage
        | ErrorReason::SourceIo
        | ErrorReason::TargetIo
        | ErrorReason::ShuttingDown => Code::Unavailable,
        ErrorReason::Permission => Code::PermissionDenied,
        ErrorReason::OperationCancelled => Code::Cancelled,
        ErrorReason::Internal | ErrorReason::Unspecified => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_travels_with_its_metadata() {
        let status = Status::from(Error::tracking_reset("data", "host restarted"));
        assert_eq!(status.code(), Code::FailedPrecondition);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.domain, DOMAIN);
        assert_eq!(info.reason, "TRACKING_RESET");
        assert_eq!(info.metadata["cause"], "host restarted");
        assert_eq!(info.metadata["volume"], "data");
    }
}
