//! Where a repository lies and where its key comes from, as options.
//!
//! No secret is ever an argument: options name the place of one, and the daemon fetches it.

use std::path::{Path, PathBuf};

use tidemark_proto::v1::{Repository, S3Options, SecretSource, secret_source::Source};

use crate::{
    cmd::volume,
    exit::{Exit, Fault},
};

/// What begins the location of a repository in an object service.
const S3: &str = "s3://";

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PlaceArgs {
    /// The name that it is to be known by
    pub(crate) name: String,
    /// A directory of the daemon's host, or s3://BUCKET/PREFIX
    pub(crate) location: String,
    /// The daemon may never delete from it: no forget, no prune
    #[arg(long)]
    pub(crate) append_only: bool,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) s3: S3Args,
}

/// Where a password or key file comes from; one of these.
#[derive(clap::Args, Clone, Default, Debug)]
#[group(id = "secret", multiple = false)]
#[command(next_help_heading = "Encryption key, one of these; the daemon reads it when it needs it")]
pub(crate) struct SecretArgs {
    /// A password: the first line of this file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A password: the first line that this program prints; run by sh -c
    #[arg(long, value_name = "COMMAND")]
    password_command: Option<String>,
    /// A password: a systemd credential of the daemon's unit (LoadCredential=)
    #[arg(long, value_name = "NAME")]
    password_credential: Option<String>,
    /// A file of 32 bytes to 64 KiB that nobody guesses
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Likewise, as a systemd credential
    #[arg(long, value_name = "NAME")]
    key_credential: Option<String>,
}

/// Where a repository's key comes from; one of these.
#[derive(clap::Args, Clone, Default, Debug)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    secret: SecretArgs,
    /// A file with the exported master key
    #[arg(long, value_name = "FILE", conflicts_with = "secret")]
    master_key_file: Option<PathBuf>,
}

#[derive(clap::Args, Clone, Default, Debug)]
#[command(next_help_heading = "Object service, for s3://")]
pub(crate) struct S3Args {
    /// The service's address, for example https://s3.example.org; the region's own without it
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// The region
    #[arg(long, value_name = "REGION")]
    s3_region: Option<String>,
    /// Name buckets in paths, not in host names
    #[arg(long)]
    s3_path_style: bool,
    /// Allow plain http
    #[arg(long)]
    s3_allow_http: bool,
    /// A file with `aws_access_key_id = ...`, `aws_secret_access_key = ...` and perhaps
    /// `aws_session_token = ...`; the daemon's environment without it
    #[arg(long, value_name = "FILE")]
    s3_credentials_file: Option<PathBuf>,
    /// Take credentials from the machine's metadata service
    #[arg(long, conflicts_with = "s3_credentials_file")]
    s3_instance_credentials: bool,
}

impl PlaceArgs {
    /// The repository for a request: with absolute paths, since the daemon runs elsewhere.
    pub(crate) fn into_proto(self) -> anyhow::Result<Repository> {
        let location = location(&self.location)?;
        let s3 = self.s3.into_proto()?;
        let s3 = match (location.starts_with(S3), s3) {
            (true, s3) => Some(s3),
            (false, s3) if s3 == S3Options::default() => None,
            (false, _) => {
                return Err(Fault::new(
                    Exit::Usage,
                    format!("{location} is a directory: options of object services are for s3://BUCKET/PREFIX"),
                )
                .into());
            }
        };
        Ok(Repository {
            name: self.name,
            location,
            s3,
            key: self.key.into_proto()?,
            append_only: self.append_only,
            id: String::new(),
        })
    }
}

fn location(text: &str) -> anyhow::Result<String> {
    if text.starts_with(S3) {
        return Ok(text.to_owned());
    }
    if let Some((scheme, _)) = text.split_once("://") {
        let message = format!("repositories cannot be at {scheme}://");
        return Err(Fault::new(Exit::Usage, message)
            .advise("write a directory, or s3://BUCKET/PREFIX")
            .into());
    }
    volume::absolute(Path::new(text))
}

impl SecretArgs {
    /// The source, or nothing where none was named.
    pub(crate) fn into_proto(self) -> anyhow::Result<Option<SecretSource>> {
        let path = |path: PathBuf| volume::absolute(&path);
        let password = self.password_file.map(path).transpose()?;
        let key = self.key_file.map(path).transpose()?;
        let source = password
            .map(Source::PasswordFile)
            .or(self.password_command.map(Source::PasswordCommand))
            .or(self.password_credential.map(Source::PasswordCredential))
            .or(key.map(Source::KeyFile))
            .or(self.key_credential.map(Source::KeyCredential));
        Ok(source.map(|source| SecretSource {
            source: Some(source),
        }))
    }
}

impl KeyArgs {
    fn into_proto(self) -> anyhow::Result<Option<SecretSource>> {
        let Some(path) = self.master_key_file else {
            return self.secret.into_proto();
        };
        let source = Source::MasterKeyFile(volume::absolute(&path)?);
        Ok(Some(SecretSource {
            source: Some(source),
        }))
    }
}

impl S3Args {
    fn into_proto(self) -> anyhow::Result<S3Options> {
        let credentials = self.s3_credentials_file.as_deref().map(volume::absolute);
        Ok(S3Options {
            endpoint: self.s3_endpoint.unwrap_or_default(),
            region: self.s3_region.unwrap_or_default(),
            path_style: self.s3_path_style,
            allow_http: self.s3_allow_http,
            credentials_file: credentials.transpose()?.unwrap_or_default(),
            instance_credentials: self.s3_instance_credentials,
        })
    }
}

/// Where a key comes from, in words.
pub(crate) fn key_source(key: Option<&SecretSource>) -> String {
    match key.map(|key| &key.source) {
        None => "not encrypted".to_owned(),
        Some(Some(Source::PasswordFile(path))) => format!("password in {path}"),
        Some(Some(Source::PasswordCommand(command))) => format!("password by `{command}`"),
        Some(Some(Source::PasswordCredential(name))) => format!("password in credential {name}"),
        Some(Some(Source::KeyFile(path))) => format!("key file {path}"),
        Some(Some(Source::KeyCredential(name))) => format!("key file in credential {name}"),
        Some(Some(Source::MasterKeyFile(path))) => format!("master key in {path}"),
        Some(None) => "encrypted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Parser, error::ErrorKind};

    use super::*;
    use crate::exit::Report;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        place: PlaceArgs,
    }

    fn parse(line: &str) -> Result<PlaceArgs, ErrorKind> {
        let words = std::iter::once("init").chain(line.split_whitespace());
        Line::try_parse_from(words)
            .map(|line| line.place)
            .map_err(|error| error.kind())
    }

    fn proto(line: &str) -> Repository {
        parse(line).unwrap().into_proto().unwrap()
    }

    #[test]
    fn paths_are_absolute_when_they_leave() {
        let here = std::env::current_dir().unwrap();
        let here = here.to_str().unwrap();
        let repository = proto("r some/place --password-file secret --append-only");
        assert_eq!(repository.location, format!("{here}/some/place"));
        let source = repository.key.as_ref().unwrap().source.as_ref().unwrap();
        assert_eq!(source, &Source::PasswordFile(format!("{here}/secret")));
        assert!(repository.append_only && repository.s3.is_none());
        let repository = proto(
            "r s3://bucket/prefix --s3-endpoint https://x --s3-region y --s3-path-style \
             --s3-allow-http --s3-credentials-file keys --master-key-file /m",
        );
        assert_eq!(repository.location, "s3://bucket/prefix");
        let s3 = repository.s3.unwrap();
        assert_eq!(
            (s3.endpoint.as_str(), s3.region.as_str()),
            ("https://x", "y")
        );
        assert!(s3.path_style && s3.allow_http);
        assert_eq!(s3.credentials_file, format!("{here}/keys"));
        assert_eq!(key_source(repository.key.as_ref()), "master key in /m");
    }

    #[test]
    fn there_is_one_key_at_most() {
        for line in [
            "r /p --password-file a --key-file b",
            "r /p --password-command a --key-credential b",
            "r /p --password-credential a --master-key-file b",
        ] {
            assert_eq!(
                parse(line).unwrap_err(),
                ErrorKind::ArgumentConflict,
                "{line}"
            );
        }
        assert_eq!(key_source(proto("r /p").key.as_ref()), "not encrypted");
    }

    #[test]
    fn places_that_cannot_be_are_named() {
        for line in [
            "r ftp://host/x",
            "r /p --s3-region x",
            "r /p --s3-path-style",
            "r /p --s3-instance-credentials",
        ] {
            let error = parse(line).unwrap().into_proto().unwrap_err();
            assert_eq!(Report::of(&error).exit, Exit::Usage, "{line}");
        }
    }
}
