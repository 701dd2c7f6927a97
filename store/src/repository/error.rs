//! What goes wrong with a repository.

use std::io;

use super::id::Digest;
use crate::units::Id;

/// Why an object is not what its name says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    /// Shorter or longer than it must be.
    #[error("has the wrong length")]
    Length,
    /// Begins with something else.
    #[error("is not of a Tidemark repository")]
    Magic,
    /// Written by a later program.
    #[error("has version {0}, and this program reads version 1: update it")]
    Version(u32),
    /// Its bytes are not those that were written.
    #[error("does not match its checksum")]
    Checksum,
    /// Whole, but of another repository or another name.
    #[error("belongs to another repository or name")]
    Foreign,
    /// Whole, but its fields contradict each other.
    #[error("is malformed")]
    Malformed,
    /// Encrypted where it must not be, or the other way round.
    #[error("is encrypted, or not, unlike the repository")]
    Sealing,
}

/// What goes wrong with a repository.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage failed.
    #[error("cannot {what} {name}: {why}")]
    Storage {
        /// What was tried.
        what: &'static str,
        /// With which object.
        name: String,
        /// The storage's own reason.
        why: io::Error,
    },
    /// A stored object is damaged; `check` tells what it affects, `repair` can mend it.
    #[error("{name} {damage}; run check, and repair from a second copy")]
    Damaged {
        /// Which object.
        name: String,
        /// How.
        damage: Damage,
    },
    /// A blob within a pack is damaged.
    #[error(
        "pack {pack}, {len} bytes at {offset}: blob {blob} {damage}; run check, and repair from a second copy"
    )]
    DamagedBlob {
        /// Which pack.
        pack: Digest,
        /// First byte in the pack.
        offset: u64,
        /// Stored bytes.
        len: u32,
        /// Which blob should be there.
        blob: Digest,
        /// How.
        damage: Damage,
    },
    /// A blob that is needed is in no pack.
    #[error("blob {0} is in no pack; run check to see what it affects")]
    Missing(Digest),
    /// There is no such recovery point.
    #[error("there is no recovery point {0}")]
    NoPoint(String),
    /// There is no repository there.
    #[error("{0} holds no repository: make one with repo init")]
    NoRepository(String),
    /// There is a repository already.
    #[error("{0} holds a repository already")]
    Exists(String),
    /// The repository is encrypted and no key was given.
    #[error("the repository is encrypted: give a password or key file")]
    KeyNeeded,
    /// No key object opens with what was given.
    #[error("the password or key file opens none of the repository's {0} keys")]
    WrongKey(usize),
    /// A key was given for a repository that says it is not encrypted.
    #[error(
        "a key was given, but the repository is not encrypted: if it was, somebody replaced its configuration"
    )]
    NotEncrypted,
    /// The key does not fit: its file is too short or too long, or its parameters are out of bounds.
    #[error("the key is not usable: {0}")]
    BadKey(&'static str),
    /// The image does not fit its geometry.
    #[error("the image cannot be stored: {0}")]
    BadImage(&'static str),
    /// Reading the source of a backup failed.
    #[error("cannot read {len} bytes at {offset} of the source: {why}")]
    Source {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The source's own reason.
        why: io::Error,
    },
    /// Writing to the target of a restore failed.
    #[error("cannot write {len} bytes at {offset} of the target: {why}")]
    Target {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The target's own reason.
        why: io::Error,
    },
    /// What a compressor made does not decode to what went in.
    #[error(
        "a new chunk at {offset} of the image did not decode to itself: distrust this machine's memory"
    )]
    BadEncoding {
        /// Where it begins in the image.
        offset: u64,
    },
    /// Packs that a backup relied on were pruned while it ran.
    #[error(
        "{0} blobs that this backup relied on were pruned meanwhile: run it again, it goes on where it was"
    )]
    Pruned(usize),
    /// A point came too late for what it relies on, and it could not be withdrawn.
    #[error(
        "recovery point {point} came so late that what it needs may be pruned, and it cannot be withdrawn: \
         forget it from where deleting is allowed, and run the backup again ({why})"
    )]
    Unsettled {
        /// Which point.
        point: Id,
        /// Why it is still there.
        why: Box<Error>,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The operating system has no randomness.
    #[error("no random numbers from the system: {0}")]
    Random(String),
}

impl Error {
    /// Whether an object was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Storage { why, .. } if why.kind() == io::ErrorKind::NotFound)
    }

    /// Whether an object of that name was there already.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Storage { why, .. } if why.kind() == io::ErrorKind::AlreadyExists)
    }

    /// Whether stored bytes are damaged or missing.
    pub fn is_integrity(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::DamagedBlob { .. } | Self::Missing(_)
        )
    }

    pub(super) fn damaged(name: impl Into<String>, damage: Damage) -> Self {
        Self::Damaged {
            name: name.into(),
            damage,
        }
    }
}

/// As [`std::result::Result`], with this module's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
