//! Where repositories are, and their storage.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tidemark_store::repository::backend::{AppendOnly, Backend, Directory};

use super::s3;
use crate::manager::{Error, ErrorReason};

/// Options of an object service, as the catalog keeps them.
const S3_KEYS: &str = "s3.";

/// Where a repository is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// A directory of this host.
    Directory(PathBuf),
    /// A bucket and prefix.
    S3 {
        /// `s3://BUCKET/PREFIX`.
        url: String,
        /// How the service is reached.
        options: S3Options,
    },
}

/// How an object service is reached.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct S3Options {
    /// Its URL; empty: that of the region.
    pub endpoint: String,
    /// The bucket's region; may be empty.
    pub region: String,
    /// Buckets are paths.
    pub path_style: bool,
    /// Plain http will do.
    pub allow_http: bool,
    /// A file with the access key; empty: the environment.
    pub credentials_file: String,
    /// The machine's metadata service lends an access key.
    pub instance_credentials: bool,
}

impl Location {
    /// A location as it is written.
    pub fn parse(text: &str, options: S3Options) -> Result<Self, Error> {
        let wrong = |why: &str| Error::invalid("repository.location", format!("\"{text}\" {why}"));
        if text.starts_with("s3://") {
            let place = text.parse::<s3::Place>();
            place.map_err(|why| Error::invalid("repository.location", why))?;
            let url = text.trim_end_matches('/').to_owned();
            return Ok(Self::S3 { url, options });
        }
        if text.contains("://") {
            return Err(wrong("is neither an absolute path nor s3://BUCKET/PREFIX"));
        }
        if options != S3Options::default() {
            return Err(wrong(
                "is a directory, and options of an object service are given",
            ));
        }
        let path = PathBuf::from(text);
        if !path.is_absolute() {
            return Err(wrong("is no absolute path"));
        }
        // One place, one name.
        Ok(Self::Directory(path.components().collect()))
    }

    /// As it is written.
    pub fn text(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::S3 { url, .. } => url.clone(),
        }
    }

    /// What the catalog keeps beside the text.
    pub(super) fn to_options(&self) -> BTreeMap<String, String> {
        let Self::S3 { options, .. } = self else {
            return BTreeMap::new();
        };
        let flag = |set: bool| if set { "yes" } else { "" }.to_owned();
        let words = [
            ("endpoint", options.endpoint.clone()),
            ("region", options.region.clone()),
            ("path-style", flag(options.path_style)),
            ("allow-http", flag(options.allow_http)),
            ("credentials-file", options.credentials_file.clone()),
            ("instance-credentials", flag(options.instance_credentials)),
        ];
        let set = words.into_iter().filter(|(_, value)| !value.is_empty());
        set.map(|(key, value)| (format!("{S3_KEYS}{key}"), value))
            .collect()
    }

    /// What [`Location::text`] and [`Location::to_options`] gave.
    pub(super) fn of_options(
        text: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let word = |key: &str| {
            options
                .get(&format!("{S3_KEYS}{key}"))
                .cloned()
                .unwrap_or_default()
        };
        let flag = |key: &str| !word(key).is_empty();
        let options = S3Options {
            endpoint: word("endpoint"),
            region: word("region"),
            path_style: flag("path-style"),
            allow_http: flag("allow-http"),
            credentials_file: word("credentials-file"),
            instance_credentials: flag("instance-credentials"),
        };
        Self::parse(text, options)
    }

    /// Its storage. May block.
    pub(super) fn backend(&self, append_only: bool) -> Result<Arc<dyn Backend>, Error> {
        let backend: Arc<dyn Backend> = match self {
            Self::Directory(path) => Arc::new(Directory::new(path)),
            Self::S3 { url, options } => {
                let failed = |why: &dyn std::fmt::Display| {
                    Error::new(ErrorReason::RepositoryStorage, format!("{url}: {why}"))
                };
                let settings = options.settings(url).map_err(|why| failed(&why))?;
                Arc::new(s3::S3::open(&settings).map_err(|why| failed(&why))?)
            }
        };
        Ok(match append_only {
            true => Arc::new(AppendOnly::new(backend)),
            false => backend,
        })
    }
}

impl S3Options {
    fn settings(&self, url: &str) -> Result<s3::Settings, s3::SettingsError> {
        let set = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let credentials = match set(&self.credentials_file) {
            _ if self.instance_credentials => s3::Credentials::Instance,
            Some(path) => s3::Credentials::Key(s3::AccessKey::from_file(path.as_ref())?),
            None => s3::Credentials::Key(s3::AccessKey::from_environment()?),
        };
        let mut settings = s3::Settings::new(url.parse()?, credentials);
        settings.endpoint = set(&self.endpoint);
        settings.region = set(&self.region);
        settings.allow_http = self.allow_http;
        settings.path_style = self.path_style.then_some(true);
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_kept_as_words() {
        let parse = |text: &str| Location::parse(text, S3Options::default());
        let directory = parse("/srv//backups/").unwrap();
        assert_eq!(directory.text(), "/srv/backups");
        let options = S3Options {
            endpoint: "http://localhost:9000".to_owned(),
            allow_http: true,
            ..S3Options::default()
        };
        let bucket = Location::parse("s3://bucket/some/prefix/", options).unwrap();
        for location in [directory, bucket] {
            let kept = (location.text(), location.to_options());
            assert_eq!(Location::of_options(&kept.0, &kept.1).unwrap(), location);
        }
        for wrong in ["", "backups", "ftp://host/x", "s3://"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
