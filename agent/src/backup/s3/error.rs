//! What is wrong with settings.

use std::{io, path::PathBuf};

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The location does not parse.
    #[error("{text} is not s3://BUCKET/PREFIX: {why}")]
    Place {
        /// What was given.
        text: String,
        /// Why not.
        why: &'static str,
    },
    /// The endpoint does not parse.
    #[error("{text} is not an endpoint: {why}")]
    Endpoint {
        /// What was given.
        text: String,
        /// Why not.
        why: &'static str,
    },
    /// The environment has no credentials.
    #[error("{0} is not set: set the key id and secret in the environment, or name a file")]
    Unset(&'static str),
    /// The file with the credentials cannot be read.
    #[error("cannot read credentials from {}: {why}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        why: io::Error,
    },
    /// Others can read the file with the credentials.
    #[error("{} may be read by everybody: take that away (chmod o= FILE)", .0.display())]
    Open(PathBuf),
    /// The file with the credentials is not one.
    #[error("{}, line {line}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1; 0: none in particular.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// The client cannot be made of them.
    #[error("these settings make no client: {0}")]
    Client(String),
}
