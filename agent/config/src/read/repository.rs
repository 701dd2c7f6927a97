//! `[repository.NAME]`

use toml::de::DeValue;

use super::{
    Table,
    value::{self, Wrong},
};
use crate::{Key, Location, Repository, S3};

/// How a key is read from its value.
type ReadKey = fn(&DeValue<'_>) -> Result<Key, Wrong>;

const KEYS: [(&str, ReadKey); 5] = [
    ("password-file", |value| {
        value::path(value).map(Key::PasswordFile)
    }),
    ("password-command", |value| {
        value::word(value).map(Key::PasswordCommand)
    }),
    ("password-credential", |value| {
        credential(value).map(Key::PasswordCredential)
    }),
    ("key-file", |value| value::path(value).map(Key::KeyFile)),
    ("key-credential", |value| {
        credential(value).map(Key::KeyCredential)
    }),
];

/// Keys of an object service.
const SERVICE: [&str; 6] = [
    "endpoint",
    "region",
    "path-style",
    "allow-http",
    "credentials-file",
    "instance-credentials",
];

pub(super) fn read(mut table: Table<'_>) -> Option<Repository> {
    let example = "\"/backup/vault\", or \"s3://bucket/prefix\"";
    let location = table.required("location", example, location);
    let s3 = s3(&mut table);
    let location = match location {
        Some(Location::S3(url, _)) => Some(Location::S3(url, s3)),
        directory @ Some(Location::Directory(_)) => {
            for key in SERVICE.iter().filter(|key| table.has(key)) {
                let why =
                    format!("\"{key}\" is for object services, and this is a directory; remove it");
                table.complain_of(key, why);
            }
            directory
        }
        None => None,
    };
    let key = key(&mut table);
    let append_only = table.or("append-only", value::flag, false);
    table.finish();
    Some(Repository {
        location: location?,
        key,
        append_only,
    })
}

fn location(value: &DeValue<'_>) -> Result<Location, Wrong> {
    let text = value::text(value)?;
    if let Some(place) = text.strip_prefix("s3://") {
        let bucket = place.split('/').next().unwrap_or_default();
        let letters = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-');
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(letters) {
            let why = "a bucket's name has 3 to 63 small letters, digits, dots and hyphens";
            return Err(format!("\"{bucket}\" is no bucket; {why}").into());
        }
        let url = text.trim_end_matches('/').to_owned();
        return Ok(Location::S3(url, S3::default()));
    }
    value::absolute(&text)
        .map(Location::Directory)
        .ok_or_else(|| {
            let what = "is neither an absolute path nor s3://BUCKET/PREFIX";
            format!("\"{text}\" {what}; write one of them").into()
        })
}

fn s3(table: &mut Table<'_>) -> S3 {
    let read = S3 {
        endpoint: table.or("endpoint", value::word, String::new()),
        region: table.or("region", value::word, String::new()),
        path_style: table.or("path-style", value::flag, false),
        allow_http: table.or("allow-http", value::flag, false),
        credentials_file: table.optional("credentials-file", value::path),
        instance_credentials: table.or("instance-credentials", value::flag, false),
    };
    if read.credentials_file.is_some() && read.instance_credentials {
        let why = "there are instance-credentials too; keep one of the two";
        table.complain_of("credentials-file", why.to_owned());
    }
    if read.endpoint.contains('@') {
        let why = "secrets do not belong in this file; use credentials-file";
        table.complain_of("endpoint", why.to_owned());
    } else if read.endpoint.starts_with("http://") && !read.allow_http {
        let why = "this is not encrypted; use https://, or set allow-http = true";
        table.complain_of("endpoint", why.to_owned());
    }
    read
}

/// At most one.
fn key(table: &mut Table<'_>) -> Option<Key> {
    let mut found: Option<(&str, Key)> = None;
    for (name, read) in KEYS {
        let Some(key) = table.optional(name, read) else {
            continue;
        };
        if let Some((first, _)) = &found {
            let why = format!(
                "\"{first}\" is there too; a repository has one key here: keep one of them"
            );
            table.complain_of(name, why);
            continue;
        }
        found = Some((name, key));
    }
    found.map(|(_, key)| key)
}

/// The name of a systemd credential.
fn credential(value: &DeValue<'_>) -> Result<String, Wrong> {
    let name = value::word(value)?;
    match name.contains('/') || name.starts_with('.') {
        true => Err(
            format!("\"{name}\" is no credential's name; write it as in LoadCredential=").into(),
        ),
        false => Ok(name),
    }
}
