//! Where keys are taken from: files, programs, systemd credentials. Never from arguments, and never kept.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tidemark_store::repository::crypto::{Credential, Secret};
use zeroize::Zeroizing;

use crate::{
    host::child,
    manager::{Error, ErrorReason},
};

/// Longest secret in bytes: a key file's.
const MAX_BYTES: usize = 64 << 10;
/// A program that prints a password and takes longer is ended: 60 s.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Where systemd puts a unit's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Where a repository's key is taken from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecretSource {
    /// A password: the first line of a file.
    PasswordFile(PathBuf),
    /// A password: the first line that a program prints, which `sh -c` runs.
    PasswordCommand(String),
    /// A password: a systemd credential of this unit, by its name.
    PasswordCredential(String),
    /// A key file.
    KeyFile(PathBuf),
    /// A key file as a systemd credential.
    KeyCredential(String),
    /// A file with the exported master key.
    MasterKeyFile(PathBuf),
}

impl SecretSource {
    /// Its kind and its place, as the catalog keeps them.
    pub(super) fn to_words(&self) -> (&'static str, String) {
        let path = |path: &Path| path.display().to_string();
        match self {
            Self::PasswordFile(file) => ("password-file", path(file)),
            Self::PasswordCommand(command) => ("password-command", command.clone()),
            Self::PasswordCredential(name) => ("password-credential", name.clone()),
            Self::KeyFile(file) => ("key-file", path(file)),
            Self::KeyCredential(name) => ("key-credential", name.clone()),
            Self::MasterKeyFile(file) => ("master-key-file", path(file)),
        }
    }

    /// What [`SecretSource::to_words`] gave.
    pub(super) fn of_words(kind: &str, place: &str) -> Option<Self> {
        let place = place.to_owned();
        Some(match kind {
            "password-file" => Self::PasswordFile(place.into()),
            "password-command" => Self::PasswordCommand(place),
            "password-credential" => Self::PasswordCredential(place),
            "key-file" => Self::KeyFile(place.into()),
            "key-credential" => Self::KeyCredential(place),
            "master-key-file" => Self::MasterKeyFile(place.into()),
            _ => return None,
        })
    }

    /// Refuses what can never be read.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Self::PasswordFile(path) | Self::KeyFile(path) | Self::MasterKeyFile(path)
                if !path.is_absolute() =>
            {
                Err(Error::invalid("key", "the file's path must be absolute"))
            }
            Self::PasswordCredential(name) | Self::KeyCredential(name)
                if name.is_empty() || name.contains('/') || name.starts_with('.') =>
            {
                Err(Error::invalid("key", "this is no credential's name"))
            }
            Self::PasswordCommand(command) if command.trim().is_empty() => {
                Err(Error::invalid("key", "the command is empty"))
            }
            _ => Ok(()),
        }
    }

    /// Takes the secret. May block.
    pub(super) fn read(&self) -> Result<Credential, Error> {
        let bytes = match self {
            Self::PasswordFile(path) | Self::KeyFile(path) | Self::MasterKeyFile(path) => {
                from_file(path)?
            }
            Self::PasswordCredential(name) | Self::KeyCredential(name) => {
                from_file(&credential(name)?)?
            }
            Self::PasswordCommand(command) => from_command(command)?,
        };
        match self {
            Self::PasswordFile(_) | Self::PasswordCommand(_) | Self::PasswordCredential(_) => {
                password(&bytes)
            }
            Self::KeyFile(_) | Self::KeyCredential(_) => Ok(Credential::KeyFile(bytes)),
            Self::MasterKeyFile(path) => master(path, &bytes),
        }
    }
}

fn bad(why: String) -> Error {
    Error::new(ErrorReason::RepositoryKey, why)
}

fn credential(name: &str) -> Result<PathBuf, Error> {
    let directory = std::env::var_os(CREDENTIALS).ok_or_else(|| {
        bad(format!(
            "there is no systemd credential \"{name}\": the agent was not started with \
             LoadCredential={name}:PATH"
        ))
    })?;
    Ok(PathBuf::from(directory).join(name))
}

fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |why: io::Error| bad(format!("the key {} cannot be read: {why}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && metadata.mode() & 0o004 != 0 {
        return Err(bad(format!(
            "the key {} can be read by everybody: run chmod 600 on it",
            path.display()
        )));
    }
    bounded(file).map_err(failed)
}

/// In memory that never moves, so that all of it is wiped.
fn bounded(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(io::Error::other("it is longer than 64 KiB"));
    }
    Ok(bytes)
}

fn from_command(command: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |why: &dyn std::fmt::Display| bad(format!("the password command failed: {why}"));
    let mut running = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .map_err(|why| failed(&why))?;
    let printed = running.stdout.take();
    let printed = printed.map(|pipe| child::collect(pipe, bounded));
    let Some(status) = child::wait(&mut running, COMMAND_WITHIN).map_err(|why| failed(&why))?
    else {
        child::end(running);
        return Err(failed(&"it did not end within 60 s"));
    };
    let printed = child::collected(printed)
        .ok_or_else(|| failed(&"a process that it left behind still has its output open"))?
        // Before its status: nobody read on, of which it may have died.
        .map_err(|why| failed(&why))?;
    if !status.success() {
        return Err(failed(&format!(
            "{status}; the agent's log has what it said"
        )));
    }
    Ok(printed)
}

fn password(bytes: &[u8]) -> Result<Credential, Error> {
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line)
        .map_err(|_| bad("the password is not UTF-8: take a key file for any bytes".to_owned()))?;
    if text.is_empty() {
        return Err(bad("the password is empty".to_owned()));
    }
    Ok(Credential::Password(Zeroizing::new(text.to_owned())))
}

fn master(path: &Path, bytes: &[u8]) -> Result<Credential, Error> {
    let text = std::str::from_utf8(bytes).ok();
    let secret = text.and_then(Secret::import).ok_or_else(|| {
        bad(format!(
            "{} has no master key as it is exported: 72 hex digits",
            path.display()
        ))
    })?;
    Ok(Credential::Master(secret))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn read(source: &SecretSource) -> Result<String, String> {
        match source.read() {
            Ok(Credential::Password(password)) => Ok(password.to_string()),
            Ok(other) => Ok(format!("{other:?}")),
            Err(error) => Err(error.message),
        }
    }

    #[test]
    fn a_password_is_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "one two\r\nthree\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let file = SecretSource::PasswordFile(path.clone());
        assert_eq!(read(&file).unwrap(), "one two");
        let command = SecretSource::PasswordCommand(format!("cat {}", path.display()));
        assert_eq!(read(&command).unwrap(), "one two");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&file).unwrap_err().contains("chmod 600"));
        assert!(read(&SecretSource::PasswordCommand("echo".to_owned())).is_err());
        assert!(read(&SecretSource::PasswordCommand("exit 3".to_owned())).is_err());
        let endless = SecretSource::PasswordCommand("head -c 70000 /dev/zero".to_owned());
        assert!(read(&endless).unwrap_err().contains("64 KiB"));
    }

    #[test]
    fn sources_are_kept_as_words() {
        let sources = [
            SecretSource::PasswordFile("/a".into()),
            SecretSource::PasswordCommand("b c".into()),
            SecretSource::PasswordCredential("d".into()),
            SecretSource::KeyFile("/e".into()),
            SecretSource::KeyCredential("f".into()),
            SecretSource::MasterKeyFile("/g".into()),
        ];
        for source in sources {
            let (kind, place) = source.to_words();
            source.check().unwrap();
            assert_eq!(SecretSource::of_words(kind, &place), Some(source));
        }
        assert_eq!(SecretSource::of_words("password", "hunter2"), None);
        assert!(SecretSource::KeyCredential("../x".into()).check().is_err());
        assert!(SecretSource::KeyFile("x".into()).check().is_err());
    }
}
