//! What must not leave the host.
//!
//! Two nets, since neither holds everything: keys whose values are secrets, or may be, are left out where they
//! stand; and what the configuration's files say is secret is struck out of every text, wherever it got to.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tidemark_config::{Configuration, Key, Location};
use tidemark_proto::v1::{Repository, secret_source::Source};

use crate::cmd::status::overview::Overview;

/// In the place of what is not told.
pub(super) const LEFT_OUT: &str = "[left out]";
/// Of keys whose values are secrets or may hold some.
const KEYS: [&str; 8] = [
    "password-command",
    "password_command",
    "before-freeze",
    "after-thaw",
    "after-backup",
    "on-failure",
    "labels",
    "environment",
];
/// A shorter text is found everywhere, and guessed by everybody.
const SHORTEST: usize = 6;
/// More than any password, key or file of credentials, in bytes.
const LONGEST_FILE: u64 = 64 << 10;
/// Keys whose values are paths of files with secrets.
const SECRET_FILES: [&str; 3] = ["password-file", "key-file", "credentials-file"];
/// Options of mounts that name or hold a credential.
const OPTIONS: [&str; 6] = ["pass", "secret", "key", "cred", "token", "user"];

/// The secrets of this host that can be known, to be struck out.
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Of a configuration and of the repositories that the daemon knows, with what is in the files that
    /// they name as secret, as far as these can be read.
    pub(super) fn of(overview: &Overview) -> Self {
        let repositories = overview.told().map_or(&[][..], |told| &told.repositories);
        Self::found(&overview.config, repositories)
    }

    pub(super) fn found(config: &Path, repositories: &[Repository]) -> Self {
        let (mut found, mut files) = (BTreeSet::new(), Vec::new());
        match tidemark_config::load(config) {
            Ok(read) => of_configuration(&read, &mut found, &mut files),
            Err(_) => of_text(config, &mut found, &mut files),
        }
        for one in repositories {
            of_repository(one, &mut found, &mut files);
        }
        found.extend(files.iter().flat_map(|file| words(file)));
        let mut found: Vec<_> = found
            .into_iter()
            .filter(|word| word.len() >= SHORTEST)
            .collect();
        // The longest first, so that none is left in part.
        found.sort_by_key(|word| std::cmp::Reverse(word.len()));
        Self(found)
    }

    /// A text without them, and without what URLs carry.
    pub(super) fn strike(&self, text: &str) -> String {
        let mut text = urls(text);
        for secret in &self.0 {
            if text.contains(secret) {
                text = text.replace(secret, LEFT_OUT);
            }
        }
        text
    }

    /// A document without them, and without the values of keys that may hold some.
    pub(super) fn document(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| {
                    let value = match KEYS.contains(&key.as_str()) {
                        true => hidden(value),
                        false => self.document(value),
                    };
                    (key.clone(), value)
                })
                .collect(),
            Value::Array(all) => all.iter().map(|one| self.document(one)).collect(),
            Value::String(text) => json!(self.strike(text)),
            other => other.clone(),
        }
    }
}

/// Tells that there was something, not what.
fn hidden(value: &Value) -> Value {
    match value {
        Value::Array(all) if all.is_empty() => json!([]),
        Value::Object(all) if all.is_empty() => json!({}),
        Value::Null => Value::Null,
        _ => json!(LEFT_OUT),
    }
}

fn of_configuration(read: &Configuration, found: &mut BTreeSet<String>, files: &mut Vec<PathBuf>) {
    for repository in read.repositories.values() {
        match &repository.key {
            Some(Key::PasswordCommand(command)) => of_command(command, found),
            Some(Key::PasswordFile(path) | Key::KeyFile(path)) => files.push(path.clone()),
            Some(Key::PasswordCredential(_) | Key::KeyCredential(_)) | None => {}
        }
        if let Location::S3(_, s3) = &repository.location {
            files.extend(s3.credentials_file.clone());
        }
    }
    let freeze = read
        .volumes
        .values()
        .flat_map(|one| [&one.hooks.before_freeze, &one.hooks.after_thaw]);
    let backup = read
        .backups
        .values()
        .flat_map(|one| [&one.hooks.after_backup, &one.hooks.on_failure]);
    for words in freeze.chain(backup) {
        let arguments = words.iter().skip(1);
        found.extend(arguments.filter(|word| is_bare(word)).cloned());
    }
}

/// Of a file that is wrong: whatever is quoted in it may be one.
fn of_text(config: &Path, found: &mut BTreeSet<String>, files: &mut Vec<PathBuf>) {
    let text = fs::read_to_string(config).unwrap_or_default();
    for line in text.lines() {
        let names_secret = SECRET_FILES.iter().any(|key| line.contains(key));
        let quoted = line.split(['"', '\'']).skip(1).step_by(2);
        for word in quoted {
            match (is_bare(word), names_secret) {
                (true, _) => of_command(word, found),
                (false, true) => files.push(word.into()),
                (false, false) => {}
            }
        }
    }
}

fn of_repository(repository: &Repository, found: &mut BTreeSet<String>, files: &mut Vec<PathBuf>) {
    let source = repository.key.as_ref().and_then(|key| key.source.as_ref());
    match source {
        Some(Source::PasswordCommand(command)) => of_command(command, found),
        Some(Source::PasswordFile(path) | Source::KeyFile(path) | Source::MasterKeyFile(path)) => {
            files.push(path.into())
        }
        Some(Source::PasswordCredential(_) | Source::KeyCredential(_)) | None => {}
    }
    let credentials = repository.s3.as_ref().map(|s3| &s3.credentials_file);
    files.extend(
        credentials
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
    );
}

/// The whole of it, and what of it may be a secret by itself.
fn of_command(command: &str, found: &mut BTreeSet<String>) {
    found.insert(command.to_owned());
    let words = command.split_whitespace().filter(|word| is_bare(word));
    found.extend(words.map(|word| word.trim_matches(['"', '\'']).to_owned()));
}

/// Whether a word of a command may be a secret: paths are not, and are needed to understand the rest.
fn is_bare(word: &str) -> bool {
    !word.starts_with('/')
}

/// The lines of a file, and what stands after `=` in them.
fn words(path: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut bytes));
    if read.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim);
    lines
        .flat_map(|line| {
            let value = line.split_once('=').map(|(_, value)| value.trim());
            [Some(line), value]
        })
        .flatten()
        .map(ToOwned::to_owned)
        .collect()
}

/// URLs without user, password, query and fragment.
fn urls(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        told.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`'))
            .unwrap_or(after.len());
        let (url, after) = after.split_at(end);
        told.push_str(&url_without(url));
        rest = after;
    }
    told.push_str(rest);
    told
}

/// What follows `://`.
fn url_without(url: &str) -> String {
    let path = url.find(['/', '?', '#']).unwrap_or(url.len());
    let (authority, path) = url.split_at(path);
    let query = path.find(['?', '#']).unwrap_or(path.len());
    let (path, query) = path.split_at(query);
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{LEFT_OUT}@{host}"),
        None => authority.to_owned(),
    };
    let query = match query {
        "" => "",
        _ => "?[left out]",
    };
    format!("{host}{path}{query}")
}

/// What is quoted may be a value of the file; keys and places tell enough.
pub(super) fn unquoted(text: &str) -> String {
    let told = text.split('"').enumerate();
    let told: Vec<_> = told
        .map(|(number, part)| if number % 2 == 0 { part } else { LEFT_OUT })
        .collect();
    told.join("\"")
}

/// Tables of device-mapper without keys: dmsetup shows zeros for most, and references for others.
pub(super) fn tables(text: &str) -> String {
    text.lines().map(|line| table(line) + "\n").collect()
}

/// `NAME: START LENGTH TARGET ARGUMENT...`.
fn table(line: &str) -> String {
    let mut words: Vec<_> = line.split(' ').map(ToOwned::to_owned).collect();
    let target = words.get(3).cloned().unwrap_or_default();
    match target.as_str() {
        // Cipher, key, offset, device.
        "crypt" => {
            if let Some(key) = words.get_mut(5) {
                LEFT_OUT.clone_into(key);
            }
        }
        // `internal_hash:hmac(sha256):KEY` and the like.
        "integrity" => {
            for word in &mut words {
                let parts: Vec<_> = word.split(':').collect();
                if let [what, algorithm, _key] = parts.as_slice() {
                    *word = format!("{what}:{algorithm}:{LEFT_OUT}");
                }
            }
        }
        _ => {}
    }
    words.join(" ")
}

/// /proc/mounts without options that name or hold a credential.
pub(super) fn mounts(text: &str) -> String {
    let line = |line: &str| {
        let mut words: Vec<_> = line.split(' ').map(ToOwned::to_owned).collect();
        if let Some(options) = words.get_mut(3) {
            let told: Vec<_> = options.split(',').map(option).collect();
            *options = told.join(",");
        }
        words.join(" ") + "\n"
    };
    text.lines().map(line).collect()
}

fn option(option: &str) -> String {
    match option.split_once('=') {
        Some((name, _)) if OPTIONS.iter().any(|word| name.contains(word)) && name != "user_id" => {
            format!("{name}={LEFT_OUT}")
        }
        _ => option.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_their_host_and_path_only() {
        for (text, told) in [
            ("no url", "no url"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            (
                "at https://me:pw@host:9000/a/b?token=x#y, then",
                "at https://[left out]@host:9000/a/b?[left out] then",
            ),
            (
                "\"http://u@h\" and ftp://h?q",
                "\"http://[left out]@h\" and ftp://h?[left out]",
            ),
        ] {
            assert_eq!(urls(text), told);
        }
    }

    #[test]
    fn keys_are_not_in_tables() {
        let crypt = "home: 0 2048 crypt aes-xts-plain64 0123456789abcdef 0 254:1 4096\n";
        assert_eq!(
            tables(crypt),
            "home: 0 2048 crypt aes-xts-plain64 [left out] 0 254:1 4096\n"
        );
        let integrity =
            "i: 0 8 integrity 8:0 0 32 J 2 internal_hash:hmac(sha256):abcdef fix_hmac\n";
        assert!(tables(integrity).contains("internal_hash:hmac(sha256):[left out] fix_hmac"));
        let linear = "l: 0 8 linear 8:0 2048\n";
        assert_eq!(tables(linear), linear);
    }

    #[test]
    fn credentials_are_not_in_mounts() {
        assert_eq!(
            mounts("//srv/x /mnt cifs rw,username=me,password=pw,vers=3 0 0\n"),
            "//srv/x /mnt cifs rw,username=[left out],password=[left out],vers=3 0 0\n"
        );
        assert_eq!(
            unquoted("4:1: \"hunter22\" is no size"),
            "4:1: \"[left out]\" is no size"
        );
    }

    #[test]
    fn a_wrong_file_hides_whatever_it_quotes() {
        let dir = tempfile::tempdir().unwrap();
        let (config, password) = (dir.path().join("tidemark.toml"), dir.path().join("p"));
        std::fs::write(&password, "correct horse").unwrap();
        let text = format!(
            "[repository.a]\npasswort = \"hunter22\"\npassword-file = \"{}\"\n",
            password.display()
        );
        std::fs::write(&config, text).unwrap();
        let secrets = Secrets::found(&config, &[]);
        assert_eq!(
            secrets.strike("hunter22, correct horse"),
            "[left out], [left out]"
        );
    }

    #[test]
    fn what_files_and_commands_hold_is_struck_out_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let (password, credentials) = (dir.path().join("p"), dir.path().join("c"));
        std::fs::write(&password, "correct horse\n").unwrap();
        std::fs::write(&credentials, "aws_secret_access_key = abc/def/ghi\n").unwrap();
        let config = dir.path().join("tidemark.toml");
        let text = format!(
            "[repository.a]\nlocation = \"/a\"\npassword-file = \"{}\"\n\
             [repository.b]\nlocation = \"s3://bucket/c\"\ncredentials-file = \"{}\"\npassword-command = \"pass show hunter22\"\n\
             [volume.v]\ndevice = \"/dev/v\"\narea = \"/area\"\n\
             [volume.v.hooks]\nbefore-freeze = [\"/bin/quiesce\", \"--token=tok12345\", \"/a/path\"]\n",
            password.display(),
            credentials.display()
        );
        std::fs::write(&config, text).unwrap();
        tidemark_config::load(&config).unwrap();
        let secrets = Secrets::found(&config, &[]);
        let text = "correct horse; abc/def/ghi; hunter22; --token=tok12345; /a/path";
        assert_eq!(
            secrets.strike(text),
            "[left out]; [left out]; [left out]; [left out]; /a/path"
        );
        let document = json!({
            "labels": {"ticket": "s3cret"},
            "message": ["correct horse"],
            "before-freeze": [],
            "after-thaw": ["x"],
        });
        assert_eq!(
            secrets.document(&document),
            json!({
                "labels": LEFT_OUT,
                "message": [LEFT_OUT],
                "before-freeze": [],
                "after-thaw": LEFT_OUT,
            })
        );
    }
}
