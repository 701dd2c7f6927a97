//! Who we are to the service.

use std::{fmt, fs::File, io::Read, os::unix::fs::PermissionsExt, path::Path};

use zeroize::Zeroizing;

use super::error::SettingsError;

/// More than any key id, secret and token together.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// A key id and its secret. Their memory is wiped when they are dropped; the client keeps a copy while
/// it lives, which is not.
#[derive(Clone)]
pub struct AccessKey {
    /// The key's name.
    pub id: String,
    /// What proves it.
    pub secret: Zeroizing<String>,
    /// Goes with keys that are lent for a time.
    pub token: Option<Zeroizing<String>>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({})", self.id)
    }
}

/// Where the key comes from.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Given.
    Key(AccessKey),
    /// The machine's metadata service lends them, and new ones when they expire. Never asked unless this is
    /// chosen: elsewhere anybody could answer at its address.
    Instance,
}

impl AccessKey {
    /// A key of one's own, as against one that is lent.
    pub fn new(id: String, secret: String) -> Self {
        Self {
            id,
            secret: Zeroizing::new(secret),
            token: None,
        }
    }

    /// From `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where it is set, `AWS_SESSION_TOKEN`.
    pub fn from_environment() -> Result<Self, SettingsError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let get = |name: &'static str| get(name).filter(|value| !value.is_empty());
        let need = |name: &'static str| get(name).ok_or(SettingsError::Unset(name));
        Ok(Self {
            id: need("AWS_ACCESS_KEY_ID")?,
            secret: Zeroizing::new(need("AWS_SECRET_ACCESS_KEY")?),
            token: get("AWS_SESSION_TOKEN").map(Zeroizing::new),
        })
    }

    /// From a file as the service's own tools have it, with one section at most:
    ///
    /// ```text
    /// [default]
    /// aws_access_key_id = ...
    /// aws_secret_access_key = ...
    /// aws_session_token = ...        may be missing
    /// ```
    pub fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let read = |why| SettingsError::Read {
            path: path.to_owned(),
            why,
        };
        let file = File::open(path).map_err(read)?;
        let mode = file.metadata().map_err(read)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(SettingsError::Open(path.to_owned()));
        }
        let mut text = Zeroizing::new(String::with_capacity(4096));
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(read)?;
        Self::parse(&text).map_err(|(line, why)| SettingsError::File {
            path: path.to_owned(),
            line,
            why,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let (mut id, mut secret, mut token) = (None, None, None);
        let mut sections = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') {
                sections += 1;
                if sections > 1 || id.is_some() {
                    return Err((number, "there is more than one section: keep one"));
                }
                continue;
            }
            let (name, value) = line.split_once('=').ok_or((number, "there is no ="))?;
            let value = value.trim();
            if value.is_empty() {
                return Err((number, "there is nothing behind the ="));
            }
            match name.trim() {
                "aws_access_key_id" => id = Some(value.to_owned()),
                "aws_secret_access_key" => secret = Some(Zeroizing::new(value.to_owned())),
                "aws_session_token" => token = Some(Zeroizing::new(value.to_owned())),
                // Files of other tools also have a region or a format of output.
                _ => {}
            }
        }
        Ok(Self {
            id: id.ok_or((0, "there is no aws_access_key_id"))?,
            secret: secret.ok_or((0, "there is no aws_secret_access_key"))?,
            token,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::Permissions};

    use super::*;

    #[test]
    fn a_file_gives_a_key_and_debug_hides_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let text = "# mine\n[default]\naws_access_key_id=ID\naws_secret_access_key = SE=CRET\nregion = x\n";
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let open = AccessKey::from_file(&path).unwrap_err().to_string();
        assert!(open.contains("chmod o= "), "{open}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let key = AccessKey::from_file(&path).unwrap();
        assert_eq!((key.id.as_str(), key.secret.as_str()), ("ID", "SE=CRET"));
        assert!(key.token.is_none());
        let shown = format!("{:?}", Credentials::Key(key));
        assert!(shown.contains("ID") && !shown.contains("CRET"), "{shown}");
        let none = AccessKey::from_file(&folder.path().join("none"));
        assert!(matches!(none, Err(SettingsError::Read { .. })));
    }

    #[test]
    fn a_file_that_is_none_says_where() {
        for (text, line, why) in [
            ("", 0, "aws_access_key_id"),
            ("aws_access_key_id = a", 0, "aws_secret_access_key"),
            ("aws_access_key_id = a\nsecret", 2, "no ="),
            ("aws_access_key_id =", 1, "nothing behind"),
            ("[a]\nx = y\n[b]", 3, "more than one"),
        ] {
            let told = AccessKey::parse(text).unwrap_err();
            assert!(told.0 == line && told.1.contains(why), "{text}: {told:?}");
        }
    }

    #[test]
    fn the_environment_gives_a_key() {
        let all = |name: &str| Some(name.to_lowercase());
        let key = AccessKey::from_variables(all).unwrap();
        assert_eq!(key.id, "aws_access_key_id");
        assert_eq!(key.token.unwrap().as_str(), "aws_session_token");
        let empty = AccessKey::from_variables(|_| Some(String::new())).unwrap_err();
        assert!(empty.to_string().contains("AWS_ACCESS_KEY_ID is not set"));
    }
}
