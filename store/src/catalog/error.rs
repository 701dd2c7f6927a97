//! Why the catalog could not be used.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// The catalog could not be opened, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file is damaged, or is no catalog.
    #[error(
        "the catalog {path} is damaged or is no catalog ({detail}); stop the agent, move the file \
         away and start again: volumes go on, but names, leases and groups must be made anew"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A later version of the agent wrote it.
    #[error(
        "the catalog {path} has schema {found}, this agent knows up to {known}: run the newer agent"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this code knows.
        known: i64,
    },
    /// Another process holds it.
    #[error("the catalog {path} is in use by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A row breaks a rule of uniqueness.
    #[error("{what}: {detail}")]
    Conflict {
        /// What was tried.
        what: &'static str,
        /// Which rule.
        detail: String,
    },
    /// SQLite failed.
    #[error("{what} in catalog {path}: {source}")]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl CatalogError {
    pub(super) fn opening(path: &Path, source: rusqlite::Error) -> Self {
        Self::during("opening", path, source)
    }

    pub(super) fn during(what: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt {
                path,
                detail: source.to_string(),
            },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            Some(ErrorCode::ConstraintViolation) => Self::Conflict {
                what,
                detail: source.to_string(),
            },
            _ if is_bad_value(&source) => Self::Corrupt {
                path,
                detail: source.to_string(),
            },
            _ => Self::Sqlite { what, path, source },
        }
    }
}

/// A stored value that its type refuses.
fn is_bad_value(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
    )
}
