//! How the command ends: exit codes, and what is said about a failure.

use std::{collections::BTreeMap, process::ExitCode};

use serde_json::{Value, json};
use tidemark_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The domain of every reason that the agent gives.
const DOMAIN: &str = "tidemark";

/// Shown by `--help`; the one list of codes besides [`Exit`].
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong use of the command line
  3  done in part
 10  no daemon answers, or a volume's server does not; or there is no such repository
 11  busy: in use, or a limit is reached
 12  denied, or a repository's key does not fit
 13  a full backup is required
 14  integrity: data does not match its hash, an image is not valid, or a repository is damaged
 15  something needs the operator: what `status` and `doctor` say besides 0
130  interrupted";

/// An exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It failed, for a reason with no code of its own.
    Failed = 1,
    /// The command line, or a value on it, is wrong.
    Usage = 2,
    /// Some of several things were done.
    Partial = 3,
    /// The daemon, or the volume's server, does not answer; or there is no such repository.
    NoDaemon = 10,
    /// In use by another, or at a limit.
    Busy = 11,
    /// The caller may not do this.
    Denied = 12,
    /// No diff can be given.
    FullRequired = 13,
    /// Bytes are not what they should be.
    Integrity = 14,
    /// All was told, and something of it needs the operator.
    Attention = 15,
    /// A signal ended it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure found on this side, with its exit code and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What happened, where.
    pub(crate) message: String,
    /// What the operator can do.
    pub(crate) advice: Option<String>,
    /// The agent's reason, where it was the agent that failed.
    pub(crate) reason: Option<ErrorReason>,
}

impl Fault {
    /// A failure with no advice.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            advice: None,
            reason: None,
        }
    }

    /// A failure that the agent tells of other than by a call's status.
    pub(crate) fn of_reason(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            exit: exit_of_reason(reason),
            message: message.into(),
            advice: advice_for(reason).map(ToOwned::to_owned),
            reason: Some(reason).filter(|reason| *reason != ErrorReason::Unspecified),
        }
    }

    /// The same with advice.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// What a signal leaves behind.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }
}

/// The reason that the agent gave for a failed call, if the agent gave it.
pub(crate) fn reason_of(status: &Status) -> Option<ErrorReason> {
    let info = status.get_details_error_info()?;
    if info.domain != DOMAIN {
        return None;
    }
    ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason))
}

/// A piece of metadata of the agent's reason, for example `cause`.
pub(crate) fn metadata_of(status: &Status, key: &str) -> Option<String> {
    status.get_details_error_info()?.metadata.get(key).cloned()
}

/// A reason's name without the prefix, as it stands in ErrorInfo.
pub(crate) fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// A failure as it is told: to a person, or as JSON.
#[derive(Debug)]
pub(crate) struct Report {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// The agent's reason.
    pub(crate) reason: Option<String>,
    /// What happened, where.
    pub(crate) message: String,
    advice: Option<String>,
    metadata: BTreeMap<String, String>,
}

impl Report {
    /// Reads a failure: the first cause that knows its exit code decides.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let mut parts = Vec::new();
        for cause in error.chain() {
            if let Some(status) = cause.downcast_ref::<Status>() {
                return Self::of_status(status, parts);
            }
            parts.push(cause.to_string());
            if let Some(fault) = cause.downcast_ref::<Fault>() {
                return Self {
                    exit: fault.exit,
                    reason: fault.reason.map(|reason| reason_name(reason).to_owned()),
                    message: parts.join(": "),
                    advice: fault.advice.clone(),
                    metadata: BTreeMap::new(),
                };
            }
        }
        Self {
            exit: exit_of_io(error),
            reason: None,
            message: parts.join(": "),
            advice: None,
            metadata: BTreeMap::new(),
        }
    }

    fn of_status(status: &Status, mut parts: Vec<String>) -> Self {
        parts.push(match status.message() {
            "" if status.code() == Code::Unimplemented => {
                "the daemon is older than this command and cannot do that".to_owned()
            }
            "" => format!("the agent answered {:?}", status.code()),
            text => text.to_owned(),
        });
        let info = status
            .get_details_error_info()
            .filter(|info| info.domain == DOMAIN);
        let known = reason_of(status);
        Self {
            exit: known.map_or_else(|| exit_of_status(status), exit_of_reason),
            message: parts.join(": "),
            advice: known
                .and_then(advice_for)
                .or_else(|| advice_for_code(status.code()))
                .map(ToOwned::to_owned),
            reason: info.as_ref().map(|info| info.reason.clone()),
            metadata: info
                .map(|info| info.metadata.into_iter().collect())
                .unwrap_or_default(),
        }
    }

    /// What can be done about it.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// Writes it to standard error.
    pub(crate) fn print(&self, as_json: bool) {
        if as_json {
            eprintln!("{}", self.json());
            return;
        }
        eprintln!("tidemark: {}", self.message);
        if let Some(reason) = &self.reason {
            eprintln!("  reason: {reason}");
        }
        if let Some(advice) = &self.advice {
            eprintln!("  what to do: {advice}");
        }
    }

    fn json(&self) -> Value {
        json!({ "error": {
            "exit_code": self.exit as u8,
            "reason": self.reason,
            "message": self.message,
            "advice": self.advice,
            "metadata": self.metadata,
        }})
    }
}

/// A local error of the kernel's may still have a code of its own.
fn exit_of_io(error: &anyhow::Error) -> Exit {
    let kind = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    match kind {
        Some(std::io::ErrorKind::PermissionDenied) => Exit::Denied,
        Some(std::io::ErrorKind::ResourceBusy) => Exit::Busy,
        _ => Exit::Failed,
    }
}

fn exit_of_reason(reason: ErrorReason) -> Exit {
    use ErrorReason as R;
    match reason {
        R::InvalidField => Exit::Usage,
        R::VolumeServerUnavailable | R::ShuttingDown | R::RepositoryNotFound => Exit::NoDaemon,
        R::OriginInUse | R::AreaInUse | R::VolumeBusy | R::LimitReached | R::CutTimeout => {
            Exit::Busy
        }
        R::Permission | R::RepositoryKey | R::RepositoryAppendOnly => Exit::Denied,
        R::TrackingReset | R::CheckpointGone => Exit::FullRequired,
        R::DigestMismatch | R::DataCorrupt | R::AreaCorrupt => Exit::Integrity,
        R::Unspecified
        | R::VolumeNotFound
        | R::VolumeExists
        | R::SnapshotNotFound
        | R::GroupNotFound
        | R::OperationNotFound
        | R::RestoreNotFound
        | R::SnapshotReleased
        | R::SnapshotOverflowed
        | R::SnapshotLost
        | R::LeaseExpired
        | R::OriginUnsuitable
        | R::AreaOnVolume
        | R::AreaNoSpace
        | R::OutOfRange
        | R::FreezeFailed
        | R::OperationCancelled
        | R::RequestIdReused
        | R::GroupExists
        | R::RepositoryExists
        | R::PointNotFound
        | R::RepositoryStorage
        | R::SourceIo
        | R::TargetIo
        | R::PrunedMeanwhile
        | R::ConfigurationWrong
        | R::HookFailed
        | R::Internal
        | R::Unsupported => Exit::Failed,
    }
}

/// Without a reason of the agent's.
fn exit_of_status(status: &Status) -> Exit {
    // Only a status that the transport made on this side has a source, whatever its code.
    if std::error::Error::source(status).is_some() {
        return Exit::NoDaemon;
    }
    match status.code() {
        Code::Unavailable => Exit::NoDaemon,
        Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
        Code::InvalidArgument => Exit::Usage,
        Code::ResourceExhausted => Exit::Busy,
        Code::DataLoss => Exit::Integrity,
        _ => Exit::Failed,
    }
}

fn advice_for_code(code: Code) -> Option<&'static str> {
    match code {
        Code::Unavailable => Some("see whether tidemarkd runs, and `tidemark doctor`"),
        Code::Unimplemented => Some("upgrade the daemon (`tidemark doctor` shows its version)"),
        Code::PermissionDenied | Code::Unauthenticated => advice_for(ErrorReason::Permission),
        _ => None,
    }
}

/// What an operator can do about each reason; nothing where the message says it all.
fn advice_for(reason: ErrorReason) -> Option<&'static str> {
    use ErrorReason as R;
    Some(match reason {
        R::VolumeNotFound => "`tidemark volume list` shows the volumes",
        R::VolumeExists => "choose another name, or `tidemark volume detach` the old one first",
        R::SnapshotNotFound => "`tidemark snapshot list --all` shows the snapshots",
        R::GroupNotFound => "`tidemark group list` shows the groups",
        R::GroupExists => "choose another name, or delete the group first",
        R::OperationNotFound => "`tidemark job list` shows the operations",
        R::RestoreNotFound => "the restore session ended: start the push again",
        R::TrackingReset | R::CheckpointGone => {
            "take a full backup: `tidemark pull` does so by itself and says why"
        }
        R::SnapshotReleased | R::LeaseExpired => {
            "its data is gone, its checkpoint may still serve diffs: take a new snapshot"
        }
        R::SnapshotOverflowed => {
            "the snapshot store filled: give the volume a larger area, or pull sooner after the snapshot"
        }
        R::SnapshotLost => {
            "look at `tidemark events` and the area's device, then take a new snapshot"
        }
        R::OriginInUse => "unmount the origin and close what has it open, then attach again",
        R::AreaOnVolume => "put the area on another file system than the volume",
        R::AreaInUse => "another volume uses this area: give this one its own",
        R::AreaCorrupt => {
            "name another area file, or remove this one if its snapshots are not needed"
        }
        R::AreaNoSpace => "free space where the area lies, or ask for a smaller one",
        R::FreezeFailed => "see the message; `--freeze none` gives a crash-consistent snapshot",
        R::CutTimeout => "the origin is slow to finish writes: try again, look at its device",
        R::VolumeServerUnavailable => "see `tidemark status` and the volume's log",
        R::VolumeBusy => {
            "see the message; `tidemark job list` and `tidemark snapshot list` show what is under way"
        }
        R::LimitReached => "release snapshots or delete checkpoints that are no longer needed",
        R::Permission => "run as root, or as a member of the daemon's group",
        R::DigestMismatch | R::DataCorrupt => {
            "do not trust the copy: take it again, and check memory and disks; of a repository, `tidemark check` tells all that is damaged"
        }
        R::ShuttingDown => "try again when the daemon is back",
        R::Unsupported => "`tidemark doctor` says why",
        R::RepositoryNotFound => {
            "`tidemark repo list` shows the repositories; `tidemark repo add` makes one known"
        }
        R::RepositoryExists => {
            "choose another name or place; `tidemark repo add` makes one known that is there"
        }
        R::PointNotFound => "`tidemark snapshots` shows the recovery points",
        R::RepositoryKey => {
            "name the right key; `tidemark repo list` shows where that of a known repository is taken from"
        }
        R::RepositoryStorage => "run it again when the storage works: it goes on where it was",
        R::RepositoryAppendOnly => "run it where deleting is allowed",
        R::SourceIo => "see the kernel's log for errors of the device under it",
        R::TargetIo => "make room or mend the target, then run it again",
        R::PrunedMeanwhile => "run it again: it stores anew only what was pruned",
        R::ConfigurationWrong => "mend the file; `tidemark config check` tells whether it is right",
        R::HookFailed => "see the daemon's log for what the hook said",
        R::RequestIdReused
        | R::Unspecified
        | R::InvalidField
        | R::OriginUnsuitable
        | R::OutOfRange
        | R::OperationCancelled
        | R::Internal => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use anyhow::Context;
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(reason: &str, domain: &str) -> Status {
        let metadata = HashMap::from([("cause".to_owned(), "resize".to_owned())]);
        let details = ErrorDetails::with_error_info(reason, domain, metadata);
        Status::with_error_details(Code::FailedPrecondition, "no diff", details)
    }

    #[test]
    fn the_reason_decides_the_code() {
        let error = anyhow::Error::new(status("TRACKING_RESET", "tidemark")).context("pull v");
        let report = Report::of(&error);
        assert_eq!(report.exit, Exit::FullRequired);
        assert_eq!(report.message, "pull v: no diff");
        assert_eq!(report.reason.as_deref(), Some("TRACKING_RESET"));
        assert_eq!(report.metadata["cause"], "resize");
        assert!(report.advice.is_some());
    }

    #[test]
    fn reasons_of_others_are_not_ours() {
        assert_eq!(reason_of(&status("TRACKING_RESET", "example.com")), None);
        assert_eq!(reason_of(&status("NEW_AND_UNKNOWN", "tidemark")), None);
        let report = Report::of(&anyhow::Error::new(Status::unavailable("gone")));
        assert_eq!(report.exit, Exit::NoDaemon);
    }

    #[test]
    fn a_fault_under_context_keeps_its_code() {
        let error = Err::<(), _>(Fault::new(Exit::Integrity, "bad").advise("again"))
            .context("image")
            .unwrap_err();
        let report = Report::of(&error);
        assert_eq!(report.exit, Exit::Integrity);
        assert_eq!(report.message, "image: bad");
        assert_eq!(report.json()["error"]["exit_code"], 14);
    }

    #[test]
    fn an_older_daemon_is_a_sentence() {
        let report = Report::of(&anyhow::Error::new(Status::unimplemented("")));
        assert_eq!(report.exit, Exit::Failed);
        assert_eq!(
            report.message,
            "the daemon is older than this command and cannot do that"
        );
        assert!(report.advice.is_some());
    }

    #[test]
    fn a_failed_operation_tells_its_reason() {
        let fault = Fault::of_reason(ErrorReason::RepositoryKey, "no key opens it");
        let report = Report::of(&fault.into());
        assert_eq!(report.exit, Exit::Denied);
        assert_eq!(report.json()["error"]["reason"], "REPOSITORY_KEY");
        assert!(report.advice.is_some());
    }

    #[test]
    fn a_denied_file_is_denied() {
        let io = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(Report::of(&anyhow::Error::new(io)).exit, Exit::Denied);
    }
}
