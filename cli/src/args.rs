//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    cmd::{
        backup, check, checkpoint, config, copy, demo, diagnostics, doctor, events, forget, group,
        job, points, prune, pull, push, repair, repo, restore, schedule, snapshot, status, volume,
    },
    exit::EXIT_CODES,
};

/// Snapshots, exact diffs, backups and restores of volumes.
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
    /// Take, list, compare and release snapshots of volumes (for those in a repository: `snapshots`)
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
    /// Make, know and look at repositories of backups
    #[command(subcommand)]
    Repo(repo::Command),
    /// Back volumes, snapshots or an image up to a repository
    Backup(Box<backup::BackupArgs>),
    /// List the recovery points of a repository (a volume's own snapshots: `snapshot list`)
    Snapshots(points::SnapshotsArgs),
    /// Restore a recovery point to a path, a volume or standard output
    Restore(Box<restore::RestoreArgs>),
    /// Forget recovery points: chosen ones, or those that a policy does not keep
    Forget(Box<forget::ForgetArgs>),
    /// Give back the space of what no recovery point needs
    Prune(prune::PruneArgs),
    /// Look for damage in a repository
    Check(check::CheckArgs),
    /// Mend a repository where that can be done
    Repair(repair::RepairArgs),
    /// Copy recovery points to another repository
    Copy(Box<copy::CopyArgs>),
    /// Check, show and reload the configuration file
    #[command(subcommand)]
    Config(config::Command),
    /// Backups as the configuration has them: list them, or run one now
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// What happened
    Events(events::EventsArgs),
    /// Whether all is well, what is not and what to do about it, and how everything stands
    Status(status::StatusArgs),
    /// Operations: long work of the agent
    #[command(subcommand)]
    Job(job::Command),
    /// What this host lacks, and the command that mends it; asks the daemon where it answers
    Doctor(doctor::DoctorArgs),
    /// Put what whoever helps needs to know into one file, without secrets; sends it nowhere
    Diagnostics(diagnostics::DiagnosticsArgs),
    /// Completions for a shell, on standard output
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual's pages into a directory; for those who package
    #[command(hide = true)]
    Manual {
        /// The directory
        directory: PathBuf,
    },
    /// Show the whole job on a throw-away volume, and prove each step
    Demo(demo::DemoArgs),
}

#[cfg(test)]
mod guides;

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn commands_on_repositories_are_read() {
        for line in [
            "repo init r /place --password-file p --append-only",
            "repo add r s3://bucket/prefix --s3-region x --key-credential k",
            "repo list",
            "repo remove r",
            "repo key list r",
            "repo key add r --key-file k",
            "repo key remove r ab",
            "repo key export r --to file",
            "repo key export r --stdout",
            "repo stats r --svg file --force",
            "backup --to r data home --tag a --tag b --full --request-id x --detach",
            "backup --to r --group g",
            "backup --to r --snapshot ab cd --snapshot ef",
            "backup --to r --image file --name n",
            "snapshots r --name data --host h --tag a",
            "restore r latest --name data --to /file --create",
            "restore r ab --to-volume data",
            "restore r ab --stdout",
            "forget r ab cd --dry-run",
            "forget r --keep-last 3 --keep-within 30d --keep-tag a --name data",
            "prune r --grace 1h --max-waste 20 --dry-run",
            "check r --read-data",
            "check r --read-data-percent 5",
            "repair r --from r2",
            "copy r --to r2 ab cd",
            "copy r --to r2 --name data",
            "job show ab",
            "config check",
            "config check file --json",
            "config show file",
            "config reload",
            "schedule list",
            "schedule run nightly --config file",
            "volume detach data --force",
            "volume detach --all",
            "volume hand-over --all",
        ] {
            let words = ["tidemark"].into_iter().chain(line.split(' '));
            assert!(Args::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use ErrorKind::{ArgumentConflict as Conflict, MissingRequiredArgument as Missing};
        for (line, kind) in [
            ("volume detach", Missing),
            ("volume hand-over data --all", Conflict),
            ("backup data", Missing),
            ("backup --to r", Missing),
            ("backup --to r data --group g", Conflict),
            ("backup --to r --snapshot ab --image f", Conflict),
            ("backup --to r data --name n", Conflict),
            ("restore r ab", Missing),
            ("restore r ab --stdout --to x", Conflict),
            ("restore r ab --to-volume v --create", Conflict),
            ("repo key export r", Missing),
            ("repo key export r --to f --stdout", Conflict),
            ("repo stats r --force", Missing),
            ("check r --read-data --read-data-percent 5", Conflict),
            ("check r --read-data-percent 0", ErrorKind::ValueValidation),
            ("prune r --max-waste 101", ErrorKind::ValueValidation),
            ("copy r ab", Missing),
            ("copy r --to r2 ab --name n", Conflict),
        ] {
            let words = ["tidemark"].into_iter().chain(line.split(' '));
            let error = Args::try_parse_from(words).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}");
        }
    }
}
