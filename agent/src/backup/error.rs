//! What goes wrong with a repository, in the public contract's words.

use tidemark_store::repository;

use crate::manager::{Error, ErrorReason};

/// An error of repository `name`.
pub(super) fn of_repository(name: &str, error: repository::Error) -> Error {
    use repository::Error as E;
    let message = format!("repository \"{name}\": {error}");
    let reason = match error {
        E::Storage { why, .. } if why.kind() == std::io::ErrorKind::PermissionDenied => {
            ErrorReason::Permission
        }
        E::Storage { .. } => ErrorReason::RepositoryStorage,
        E::Damaged { .. } | E::DamagedBlob { .. } | E::Missing(_) | E::BadEncoding { .. } => {
            ErrorReason::DataCorrupt
        }
        E::NoPoint(_) => ErrorReason::PointNotFound,
        E::NoRepository(_) => ErrorReason::RepositoryNotFound,
        E::Exists(_) => ErrorReason::RepositoryExists,
        E::KeyNeeded | E::WrongKey(_) | E::NotEncrypted | E::BadKey(_) => {
            ErrorReason::RepositoryKey
        }
        E::Cancelled => ErrorReason::OperationCancelled,
        E::Source { .. } => ErrorReason::SourceIo,
        E::Target { .. } => ErrorReason::TargetIo,
        E::Pruned(_) | E::Unsettled { .. } => ErrorReason::PrunedMeanwhile,
        E::BadImage(_) | E::Random(_) => ErrorReason::Internal,
    };
    Error::new(reason, message).with("repository", name)
}

/// This agent may not delete there.
pub(super) fn append_only(name: &str) -> Error {
    Error::new(
        ErrorReason::RepositoryAppendOnly,
        format!(
            "repository \"{name}\" is append-only for this agent, which therefore deletes nothing \
             of it: forget and prune where that is allowed"
        ),
    )
    .with("repository", name)
}
