//! `tidemark schedule`: backups as the configuration has them.
//!
//! systemd's timers run `tidemark schedule run NAME`; nothing else keeps the time. What a run gave is
//! written to a file, since the daemon may have been restarted before anybody asks.

mod due;
mod hook;
pub(crate) mod record;
mod run;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidemark_config::{
    Backup, Configuration, DEFAULT_PATH,
    calendar::{Verdict, ask_systemd},
};

use crate::{cmd::config, context::Context, text::plain, units};
use record::{Record, Records};

/// What to do with schedules.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// List schedules: when each runs next, and how it went last
    List(PlaceArgs),
    /// Run one now, as its timer does: back up, forget, prune, check
    Run(RunArgs),
}

/// Where the configuration and the records of runs are.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PlaceArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", env = "TIDEMARK_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Where it is kept how runs went, below the daemon's directory
    #[arg(
        long,
        value_name = "DIR",
        env = "TIDEMARK_STATE_DIR",
        default_value = "/var/lib/tidemark"
    )]
    state_dir: PathBuf,
}

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
All volumes of the schedule are backed up at one moment. Of its recovery points, which have the tag
schedule:NAME, those that `keep` does not name are forgotten then; the repository is pruned when that
is due, and a sample of it checked. Exit code 3 tells that the backup is there and something after it
failed, 14 that the repository is damaged; otherwise it is that of the backup.")]
pub(crate) struct RunArgs {
    /// The schedule: NAME of [backup.NAME]
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::List(place) => list(&place, context),
        Command::Run(args) => run::run(args, context).await,
    }
}

impl PlaceArgs {
    fn read(&self) -> anyhow::Result<Configuration> {
        Ok(tidemark_config::load(&self.config).map_err(config::fault)?)
    }

    fn records(&self) -> Records {
        Records::below(&self.state_dir)
    }
}

/// A schedule, and how it went last.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// NAME of [backup.NAME].
    pub(crate) name: String,
    /// What it backs up.
    pub(crate) volumes: Vec<String>,
    /// Where to.
    pub(crate) repository: String,
    /// As OnCalendar=; nothing: it is run by hand.
    pub(crate) calendar: Option<String>,
    /// When it is due next, as systemd writes it, without its random delay; nothing where that is not known.
    pub(crate) next: Option<String>,
    /// By when the run after the last one should have begun, in seconds since the UNIX epoch; nothing where
    /// that is not known.
    pub(crate) due_by: Option<u64>,
    /// Its last run, or the one that is under way.
    pub(crate) last: Option<Record>,
    /// It runs now.
    pub(crate) running: bool,
}

impl Schedule {
    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "volumes": self.volumes,
            "repository": self.repository,
            "schedule": self.calendar,
            "next": self.next,
            "due_by": self.due_by.map(units::moment),
            "running": self.running,
            "last": self.last,
        })
    }

    /// As a row of a table.
    pub(crate) fn row(&self) -> Vec<String> {
        let last = self.last.as_ref().map(|record| match self.running {
            true => "runs now".to_owned(),
            false => plain(&record::line(record)),
        });
        vec![
            self.name.clone(),
            self.volumes.join(" "),
            self.repository.clone(),
            self.calendar
                .clone()
                .unwrap_or_else(|| "by hand".to_owned()),
            self.next.clone().unwrap_or_else(|| "-".to_owned()),
            last.unwrap_or_else(|| "never".to_owned()),
        ]
    }
}

/// Columns of [`Schedule::row`].
pub(crate) const HEADING: [&str; 6] = ["SCHEDULE", "VOLUMES", "TO", "WHEN", "NEXT", "LAST RUN"];

/// The schedules of a configuration, which is in the file `config`, with the records below `state_dir`. An
/// error: these may not be read.
pub(crate) fn known(
    configuration: &Configuration,
    config: &Path,
    state_dir: &Path,
) -> anyhow::Result<Vec<Schedule>> {
    let records = Records::below(state_dir);
    let due = due::Known::of(config);
    let backups = configuration.backups.iter();
    let schedules = backups.map(|(name, backup)| {
        let last = records.read(name)?;
        Ok(Schedule {
            name: name.clone(),
            volumes: backup.volumes.clone(),
            repository: backup.repository.clone(),
            calendar: backup.schedule.clone(),
            next: next(backup),
            due_by: due.due_by(backup, last.as_ref()),
            last,
            running: records.is_running(name),
        })
    });
    schedules.collect()
}

fn list(place: &PlaceArgs, context: &Context) -> anyhow::Result<()> {
    let all = known(&place.read()?, &place.config, &place.state_dir)?;
    context
        .out
        .document(&all.iter().map(Schedule::json).collect());
    let rows: Vec<_> = all.iter().map(Schedule::row).collect();
    context.out.table(&HEADING, &rows);
    if rows.is_empty() {
        let file = place.config.display();
        context
            .out
            .note(format!("{file} has no schedules: write [backup.NAME]"));
    }
    Ok(())
}

/// When it is due next, without its random delay; nothing where that is not known.
fn next(backup: &Backup) -> Option<String> {
    match ask_systemd(backup.schedule.as_deref()?) {
        Verdict::Good(next) => Some(next),
        Verdict::Wrong(_) | Verdict::Unchecked => None,
    }
}

#[cfg(test)]
mod tests;
