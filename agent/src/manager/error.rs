//! Why a call failed: one type for the whole control plane, with the public reason in it.

use std::{collections::BTreeMap, fmt};

pub use tidemark_proto::v1::ErrorReason;
use tidemark_store::units::Id;

/// A failed call: the reason that clients branch on, a sentence for a human, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What clients branch on.
    pub reason: ErrorReason,
    /// What happened, where, and what can be done.
    pub message: String,
    /// Names the object: "volume", "snapshot", "field", "cause".
    pub metadata: BTreeMap<String, String>,
}

impl Error {
    /// An error without metadata.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
        }
    }

    /// Adds an entry of metadata.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Names the volume.
    #[must_use]
    pub fn on_volume(self, name: &str) -> Self {
        self.with("volume", name)
    }

    /// Names the snapshot.
    #[must_use]
    pub fn on_snapshot(self, id: Id) -> Self {
        self.with("snapshot", id)
    }

    /// A field has a value that no call could accept.
    pub fn invalid(field: &str, why: impl fmt::Display) -> Self {
        Self::new(ErrorReason::InvalidField, format!("{field}: {why}")).with("field", field)
    }

    /// No volume has this name.
    pub fn volume_not_found(name: &str) -> Self {
        Self::new(
            ErrorReason::VolumeNotFound,
            format!("no volume is named \"{name}\"; list the volumes to see what is attached"),
        )
        .on_volume(name)
    }

    /// No snapshot has this id or prefix.
    pub fn snapshot_not_found(id: impl fmt::Display) -> Self {
        Self::new(
            ErrorReason::SnapshotNotFound,
            format!("no snapshot has the id or prefix \"{id}\""),
        )
        .with("snapshot", id)
    }

    /// No group has this name.
    pub fn group_not_found(name: &str) -> Self {
        Self::new(
            ErrorReason::GroupNotFound,
            format!("no group is named \"{name}\""),
        )
        .with("group", name)
    }

    /// The checkpoint is of an older lineage.
    pub fn tracking_reset(volume: &str, cause: &str) -> Self {
        Self::new(
            ErrorReason::TrackingReset,
            format!("tracking of volume \"{volume}\" started anew ({cause}): take a full backup"),
        )
        .on_volume(volume)
        .with("cause", cause)
    }

    /// The checkpoint was forgotten, or never made.
    pub fn checkpoint_gone(volume: &str, lineage: impl fmt::Display, epoch: u64) -> Self {
        Self::new(
            ErrorReason::CheckpointGone,
            format!("volume \"{volume}\" has no checkpoint {lineage}/{epoch}: take a full backup"),
        )
        .on_volume(volume)
        .with("lineage", lineage)
        .with("epoch", epoch)
    }

    /// The snapshot's lease ended.
    pub fn lease_expired(id: Id) -> Self {
        Self::new(
            ErrorReason::LeaseExpired,
            format!(
                "the lease of snapshot {id} ended and its data was released; its checkpoint may \
                 still serve as the base of a diff"
            ),
        )
        .on_snapshot(id)
    }

    /// The volume server does not answer.
    pub fn unavailable(volume: &str, why: impl fmt::Display) -> Self {
        Self::new(
            ErrorReason::VolumeServerUnavailable,
            format!(
                "the server of volume \"{volume}\" does not answer ({why}); it is started again \
                 by itself, and its log says more"
            ),
        )
        .on_volume(volume)
    }

    /// The agent is stopping.
    pub fn shutting_down() -> Self {
        Self::new(
            ErrorReason::ShuttingDown,
            "the agent is stopping; try again when it is back",
        )
    }

    /// Something that is the agent's own fault, or its host's.
    pub fn internal(what: impl fmt::Display) -> Self {
        Self::new(ErrorReason::Internal, what.to_string())
    }

    /// The reason as clients see it: without the enum's prefix.
    pub fn reason_name(&self) -> &'static str {
        reason_name(self.reason)
    }
}

/// An [`ErrorReason`] without its prefix, for example "STORE_FULL".
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.reason_name())
    }
}

impl std::error::Error for Error {}
