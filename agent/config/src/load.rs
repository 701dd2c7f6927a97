//! A configuration from its file.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Calendar, Configuration, Problem, Problems, calendar};

/// Where the configuration is unless something else is said.
pub const DEFAULT_PATH: &str = "/etc/tidemark/tidemark.toml";

/// Ten thousand volumes fit; more is another file.
const MAX_BYTES: u64 = 4 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no file.
    #[error("{}: there is no such file; name another, or leave it out for an empty configuration", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
    /// Its hooks and commands run as root, so nobody else may change it.
    #[error(
        "{}: others than its owner may change it, and what it names runs as root: chmod go-w {}",
        .0.display(), .0.display()
    )]
    Writable(PathBuf),
    /// It is understood in part at most.
    #[error(transparent)]
    Wrong(#[from] Problems),
}

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Configuration, LoadError> {
    load_with(path, &calendar::plain)
}

/// The same, where `calendar` says what is wrong with a schedule.
pub fn load_with(path: &Path, calendar: &Calendar<'_>) -> Result<Configuration, LoadError> {
    let bytes = read(path)?;
    let wrong = |problems| {
        let path = path.to_owned();
        LoadError::Wrong(Problems { path, problems })
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let (valid, _) = bytes.split_at(error.valid_up_to());
        let valid = String::from_utf8_lossy(valid);
        let message = "this is not UTF-8; save the file as UTF-8".to_owned();
        wrong(vec![Problem::at(&valid, valid.len(), message)])
    })?;
    Configuration::parse_with(text, calendar).map_err(wrong)
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => LoadError::Missing(path.to_owned()),
        _ => LoadError::Io(path.to_owned(), error),
    };
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.is_file() && found.mode() & 0o022 != 0 {
        return Err(LoadError::Writable(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        let why = format!("it has more than {MAX_BYTES} bytes");
        return Err(LoadError::Io(path.to_owned(), io::Error::other(why)));
    }
    Ok(bytes)
}
