//! The commands, one module each.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod checkpoint;
mod completions;
pub(crate) mod config;
pub(crate) mod copy;
pub(crate) mod demo;
pub(crate) mod diagnostics;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod follow;
pub(crate) mod forget;
pub(crate) mod group;
pub(crate) mod job;
mod manual;
pub(crate) mod outcome;
pub(crate) mod points;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod repair;
pub(crate) mod repo;
pub(crate) mod restore;
pub(crate) mod schedule;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod volume;

#[cfg(test)]
mod tests;

use crate::{args::Command, context::Context};

/// Runs one command. Those that must put something right before they end watch for signals
/// themselves; the others are dropped where they stand.
pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let interrupt = context.interrupt.clone();
    match command {
        Command::Pull(args) => pull::run(args, context).await,
        Command::Push(args) => push::run(args, context).await,
        Command::Demo(args) => demo::run(args, context).await,
        Command::Repo(command) => repo::run(command, context).await,
        Command::Backup(args) => backup::run(*args, context).await,
        Command::Restore(args) => restore::run(*args, context).await,
        Command::Prune(args) => prune::run(args, context).await,
        Command::Check(args) => check::run(args, context).await,
        Command::Repair(args) => repair::run(args, context).await,
        Command::Copy(args) => copy::run(*args, context).await,
        Command::Schedule(command) => schedule::run(command, context).await,
        Command::Status(args) => status::run(args, context).await,
        other => interrupt.guard(run_simple(other, context)).await,
    }
}

async fn run_simple(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::Volume(command) => volume::run(command, context).await,
        Command::Snapshot(command) => snapshot::run(command, context).await,
        Command::Group(command) => group::run(command, context).await,
        Command::Checkpoint(command) => checkpoint::run(command, context).await,
        Command::Events(args) => events::run(args, context).await,
        Command::Job(command) => job::run(command, context).await,
        Command::Snapshots(args) => points::run(args, context).await,
        Command::Forget(args) => forget::run(*args, context).await,
        Command::Config(command) => config::run(command, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Diagnostics(args) => diagnostics::run(args, context).await,
        Command::Completions { shell } => completions::run(shell),
        Command::Manual { directory } => manual::run(&directory),
        Command::Pull(_)
        | Command::Push(_)
        | Command::Demo(_)
        | Command::Repo(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::Prune(_)
        | Command::Check(_)
        | Command::Repair(_)
        | Command::Copy(_)
        | Command::Schedule(_)
        | Command::Status(_) => unreachable!("run() takes these itself"),
    }
}
