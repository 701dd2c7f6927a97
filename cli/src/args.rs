//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    cmd::{checkpoint, demo, events, group, job, pull, push, snapshot, volume},
    exit::EXIT_CODES,
};

/// Snapshots, exact diffs, pulls and restores of volumes.
#[derive(Parser, Debug)]
#[command(name = "tidemark", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        env = "TIDEMARK_SOCKET",
        default_value = "/run/tidemark/tidemark.sock",
        value_name = "PATH"
    )]
    pub(crate) socket: PathBuf,
    /// Print JSON: one document, or one a line where a command streams; errors too, on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// No progress bars (there are none off a terminal)
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Attach, detach and look at volumes
    #[command(subcommand)]
    Volume(volume::Command),
    /// Take, list, compare and release snapshots
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Sets of volumes that are cut at one moment
    #[command(subcommand)]
    Group(group::Command),
    /// Points that diffs are asked against
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Copy a volume or snapshot to an image: full the first time, then only what changed
    Pull(pull::PullArgs),
    /// Restore an image to a volume, a device or a file on the agent's host
    Push(push::PushArgs),
    /// What happened
    Events(events::EventsArgs),
    /// Volumes, trust, stores, snapshots, leases and operations on one page
    Status,
    /// Operations: long work of the agent
    #[command(subcommand)]
    Job(job::Command),
    /// What this host can do, and why not the rest
    Doctor,
    /// Completions for a shell, on standard output
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Show the whole job on a throw-away volume, and prove each step
    Demo(demo::DemoArgs),
}
