//! `tidemark schedule`: backups as the configuration has them.
//!
//! systemd's timers run `tidemark schedule run NAME`; nothing else keeps the time. What a run gave is
//! written to a file, since the daemon may have been restarted before anybody asks.

mod hook;
mod record;
mod run;

use std::path::PathBuf;

use serde_json::json;
use tidemark_config::{
    Backup, Configuration, DEFAULT_PATH,
    calendar::{Verdict, ask_systemd},
};

use crate::{cmd::config, context::Context, text::plain};
use record::Records;

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

fn list(place: &PlaceArgs, context: &Context) -> anyhow::Result<()> {
    const HEADING: [&str; 6] = ["SCHEDULE", "VOLUMES", "TO", "WHEN", "NEXT", "LAST RUN"];
    let read = place.read()?;
    let records = place.records();
    let mut rows = Vec::new();
    let mut documents = Vec::new();
    for (name, backup) in &read.backups {
        let record = records.read(name)?;
        let next = next(backup);
        documents.push(json!({
            "name": name,
            "volumes": backup.volumes,
            "repository": backup.repository,
            "schedule": backup.schedule,
            "next": next,
            "last": record,
        }));
        rows.push(vec![
            name.clone(),
            backup.volumes.join(" "),
            backup.repository.clone(),
            backup
                .schedule
                .clone()
                .unwrap_or_else(|| "by hand".to_owned()),
            next.unwrap_or_else(|| "-".to_owned()),
            record.map_or_else(
                || "never".to_owned(),
                |record| plain(&record::line(&record)),
            ),
        ]);
    }
    context.out.document(&documents.into());
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
