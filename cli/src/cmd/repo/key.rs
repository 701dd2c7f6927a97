//! `tidemark repo key`: what opens an encrypted repository.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};
use tidemark_proto::v1::{
    AddRepositoryKeyRequest, ExportRepositoryKeyRequest, ListRepositoryKeysRequest,
    RemoveRepositoryKeyRequest, RepositoryKey,
};
use zeroize::Zeroizing;

use super::place::SecretArgs;
use crate::{
    client::Client,
    context::Context,
    exit::{Exit, Fault},
    select::malformed,
};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the keys
    List {
        /// The repository
        repository: String,
    },
    /// Let another password or key file open the repository
    Add {
        /// The repository
        repository: String,
        #[command(flatten)]
        secret: Box<SecretArgs>,
    },
    /// Take a key away; never the last one
    Remove {
        /// The repository
        repository: String,
        /// The key's id, or a prefix that only one has
        id: String,
    },
    /// Write the master key, for escrow: who has it reads everything
    Export {
        /// The repository
        repository: String,
        /// A new file that only its owner can read
        #[arg(long, value_name = "FILE", conflicts_with = "stdout")]
        to: Option<PathBuf>,
        /// To standard output instead
        #[arg(long, required_unless_present = "to")]
        stdout: bool,
    },
}

/// Runs one of them.
pub(super) async fn run(
    command: Command,
    client: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    match command {
        Command::List { repository } => list(repository, client, context).await,
        Command::Add { repository, secret } => add(repository, *secret, client, context).await,
        Command::Remove { repository, id } => {
            let request = RemoveRepositoryKeyRequest {
                repository,
                id: id.clone(),
            };
            client.repositories().remove_repository_key(request).await?;
            context.out.document(&json!({ "removed": id }));
            context.out.say(format!("key {id} opens it no longer"));
            Ok(())
        }
        Command::Export {
            repository,
            to: Some(path),
            ..
        } => export_to(&repository, &path, client, context).await,
        Command::Export { repository, .. } => {
            let key = fetch(&repository, client).await?;
            context
                .out
                .document(&json!({ "repository": repository, "master_key": key.as_str() }));
            context.out.line(key.as_str());
            Ok(())
        }
    }
}

async fn list(repository: String, client: &Client, context: &Context) -> anyhow::Result<()> {
    let request = ListRepositoryKeysRequest { repository };
    let reply = client.repositories().list_repository_keys(request).await?;
    let keys = reply.into_inner().keys;
    context
        .out
        .document(&Value::Array(keys.iter().map(json).collect()));
    let row = |key: &RepositoryKey| vec![key.id.clone(), key.kind.clone()];
    context
        .out
        .table(&["KEY", "KIND"], &keys.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn json(key: &RepositoryKey) -> Value {
    json!({ "id": key.id, "kind": key.kind })
}

async fn add(
    repository: String,
    secret: SecretArgs,
    client: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    let key = secret.into_proto()?;
    if key.is_none() {
        return Err(Fault::new(Exit::Usage, "no key was named")
            .advise("name one with --password-file, --key-file or another of `tidemark repo key add --help`")
            .into());
    }
    let request = AddRepositoryKeyRequest { repository, key };
    let reply = client.repositories().add_repository_key(request).await?;
    let key = reply
        .into_inner()
        .key
        .ok_or_else(|| malformed("AddRepositoryKey", "key"))?;
    context.out.document(&json(&key));
    context
        .out
        .say(format!("key {} ({}) opens it too", key.id, key.kind));
    Ok(())
}

async fn fetch(repository: &str, client: &Client) -> anyhow::Result<Zeroizing<String>> {
    let request = ExportRepositoryKeyRequest {
        repository: repository.to_owned(),
    };
    let reply = client.repositories().export_repository_key(request).await?;
    Ok(Zeroizing::new(reply.into_inner().master_key))
}

/// The file is made before the key is asked for: a key that cannot be kept is not asked for.
async fn export_to(
    repository: &str,
    path: &Path,
    client: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("making {}", path.display()))?;
    let mut made = Made { path, keep: false };
    let key = fetch(repository, client).await?;
    write(file, &key).with_context(|| format!("writing {}", path.display()))?;
    made.keep = true;
    context
        .out
        .document(&json!({ "repository": repository, "file": path }));
    context.out.say(format!(
        "the master key of {repository} is in {}: keep it where the repository is not",
        path.display()
    ));
    Ok(())
}

/// A file that was made for a key, and goes unless it holds it: also when a signal ends the wait.
struct Made<'a> {
    path: &'a Path,
    keep: bool,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.keep {
            // An empty file that stays says itself that it holds no key.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn write(mut file: File, key: &str) -> std::io::Result<()> {
    file.write_all(key.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}
