//! `tidemark repo`: repositories that the agent knows, their keys, what they hold.

mod key;
mod picture;
pub(crate) mod place;
mod stats;

use clap::Subcommand;
use serde_json::{Value, json};
use tidemark_proto::v1::{
    AddRepositoryRequest, InitRepositoryRequest, ListRepositoriesRequest, RemoveRepositoryRequest,
    Repository,
};
use tonic::Code;

use place::{PlaceArgs, key_source};

use crate::{client::Client, context::Context, json as as_json, select::malformed};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a repository; encrypted when a key is named
    Init(Box<PlaceArgs>),
    /// Make a repository known that is there
    Add(Box<PlaceArgs>),
    /// Show the repositories that the daemon knows
    List,
    /// Forget a repository's name; what is stored stays where it is
    Remove {
        /// The repository
        name: String,
    },
    /// Passwords and key files that open a repository
    #[command(subcommand)]
    Key(key::Command),
    /// Show how a repository grew, and where images change
    Stats(stats::StatsArgs),
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        // It watches for signals itself.
        Command::Stats(args) => stats::run(args, context).await,
        other => context.interrupt.guard(run_simple(other, context)).await,
    }
}

async fn run_simple(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    match command {
        Command::Init(place) => init(*place, &client, context).await,
        Command::Add(place) => add(*place, &client, context).await,
        Command::List => {
            let all = list(&client).await?;
            let out = &context.out;
            out.document(&Value::Array(all.iter().map(as_json::repository).collect()));
            out.table(&HEADING, &all.iter().map(row).collect::<Vec<_>>());
            Ok(())
        }
        Command::Remove { name } => {
            let request = RemoveRepositoryRequest { name: name.clone() };
            client.repositories().remove_repository(request).await?;
            context.out.document(&json!({ "removed": name }));
            context.out.say(format!(
                "repository {name} is no longer known; what it stores stays where it is"
            ));
            Ok(())
        }
        Command::Key(command) => key::run(command, &client, context).await,
        Command::Stats(_) => unreachable!("run() takes it itself"),
    }
}

async fn init(place: PlaceArgs, client: &Client, context: &Context) -> anyhow::Result<()> {
    let repository = Some(place.into_proto()?);
    let request = InitRepositoryRequest { repository };
    let reply = client.repositories().init_repository(request).await?;
    let made = reply
        .into_inner()
        .repository
        .ok_or_else(|| malformed("InitRepository", "repository"))?;
    context.out.document(&as_json::repository(&made));
    context.out.say(format!("{} made", describe(&made)));
    if made.key.is_none() {
        context.out.note(
            "it is not encrypted: to have it so, make it with --password-file, --key-file or another key (`tidemark repo init --help`)",
        );
    }
    Ok(())
}

async fn add(place: PlaceArgs, client: &Client, context: &Context) -> anyhow::Result<()> {
    let repository = Some(place.into_proto()?);
    let request = AddRepositoryRequest { repository };
    let reply = client.repositories().add_repository(request).await?;
    let added = reply
        .into_inner()
        .repository
        .ok_or_else(|| malformed("AddRepository", "repository"))?;
    context.out.document(&as_json::repository(&added));
    context.out.say(format!("{} known", describe(&added)));
    Ok(())
}

/// The repositories that the agent knows.
pub(crate) async fn list(client: &Client) -> anyhow::Result<Vec<Repository>> {
    let request = ListRepositoriesRequest {};
    let reply = client.repositories().list_repositories(request).await?;
    Ok(reply.into_inner().repositories)
}

/// The same; none where the agent is too old to know any, or does not let the caller know.
pub(crate) async fn list_if_any(client: &Client) -> anyhow::Result<Vec<Repository>> {
    let request = ListRepositoriesRequest {};
    match client.repositories().list_repositories(request).await {
        Ok(reply) => Ok(reply.into_inner().repositories),
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::PermissionDenied) => {
            Ok(Vec::new())
        }
        Err(status) => Err(status.into()),
    }
}

/// Columns of [`row`].
const HEADING: [&str; 5] = ["REPOSITORY", "LOCATION", "KEY", "DELETING", "ID"];

fn row(repository: &Repository) -> Vec<String> {
    let deleting = if repository.append_only {
        "never"
    } else {
        "allowed"
    };
    vec![
        repository.name.clone(),
        repository.location.clone(),
        key_source(repository.key.as_ref()),
        deleting.to_owned(),
        repository.id.clone(),
    ]
}

/// A repository in a line.
pub(crate) fn describe(repository: &Repository) -> String {
    let encrypted = if repository.key.is_some() {
        "encrypted"
    } else {
        "not encrypted"
    };
    let append_only = if repository.append_only {
        ", append-only"
    } else {
        ""
    };
    format!(
        "repository {} at {} ({encrypted}{append_only})",
        repository.name, repository.location
    )
}

#[cfg(test)]
mod tests;
