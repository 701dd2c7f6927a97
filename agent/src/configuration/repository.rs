//! Repositories as the configuration has them.

use std::path::Path;

use tidemark_config as config;
use tidemark_store::units::Id;

use crate::{
    backup::{Known, Location, S3Options, SecretSource},
    manager::Error,
};

/// What a repository is to be known as.
pub(super) fn wanted(name: &str, repository: &config::Repository) -> Result<Known, Error> {
    let location = match &repository.location {
        config::Location::Directory(path) => Location::parse(&text(path), S3Options::default()),
        config::Location::S3(url, s3) => Location::parse(url, options(s3)),
    };
    let key = repository.key.as_ref().map(|key| match key.clone() {
        config::Key::PasswordFile(path) => SecretSource::PasswordFile(path),
        config::Key::PasswordCommand(command) => SecretSource::PasswordCommand(command),
        config::Key::PasswordCredential(name) => SecretSource::PasswordCredential(name),
        config::Key::KeyFile(path) => SecretSource::KeyFile(path),
        config::Key::KeyCredential(name) => SecretSource::KeyCredential(name),
    });
    Ok(Known::new(
        name.to_owned(),
        location?,
        key,
        repository.append_only,
    ))
}

/// Whether one that is known is that.
pub(super) fn same(known: &Known, wanted: &Known) -> bool {
    let known = Known {
        id: Id::NIL,
        ..known.clone()
    };
    known == *wanted
}

fn options(s3: &config::S3) -> S3Options {
    let file = s3.credentials_file.as_deref();
    S3Options {
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        path_style: s3.path_style,
        allow_http: s3.allow_http,
        credentials_file: file.map(text).unwrap_or_default(),
        instance_credentials: s3.instance_credentials,
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
