//! `tidemark doctor`: what is missing, and the command that mends it.
//!
//! Every check looks at the host by itself, so that the doctor works where the daemon does not; what only
//! the daemon knows is asked of it where it answers.

mod check;
mod daemon;
mod files;
mod kernel;
mod schedules;
mod service;

use std::path::PathBuf;

use serde_json::{Value, json};
use tidemark_config::Configuration;

use super::status::{
    StatusArgs,
    overview::{Daemon, Memory, Overview},
};
use crate::{
    context::Context,
    exit::{Exit, Fault},
    json as as_json,
    output::counted,
    text::plain,
};
use check::{Check, Level};

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Each line is OK, ADVICE (it works without, or will not for long) or MISSING, and what is not OK has the command
that mends it. Exit code 0: nothing is missing. 15: something is. 10: the daemon does not answer.")]
pub(crate) struct DoctorArgs {
    /// The configuration; without the option, the daemon's
    #[arg(long, value_name = "FILE", env = "TIDEMARK_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where the daemon keeps its catalog
    #[arg(
        long,
        value_name = "DIR",
        env = "TIDEMARK_STATE_DIR",
        default_value = "/var/lib/tidemark"
    )]
    pub(crate) state_dir: PathBuf,
}

/// What was found.
pub(crate) struct Findings {
    checks: Vec<Check>,
    overview: Overview,
}

/// Looks at everything, and prints it.
pub(crate) async fn run(args: DoctorArgs, context: &Context) -> anyhow::Result<()> {
    let findings = examine(&args, context).await;
    context.out.document(&findings.json());
    for line in findings.checks.iter().flat_map(Check::lines) {
        context.out.line(line);
    }
    findings.verdict(context)
}

/// All checks, in the order in which things depend on each other.
pub(crate) async fn examine(args: &DoctorArgs, context: &Context) -> Findings {
    let places = StatusArgs::of_places(args.config.clone(), args.state_dir.clone());
    let overview = Overview::gather(&places, context, &mut Memory::default()).await;
    let configuration = tidemark_config::load(&overview.config);
    let group = configuration.as_ref().map_or_else(
        |_| Configuration::default().daemon.group,
        |read| read.daemon.group.clone(),
    );
    let mut checks = kernel::checks().await;
    checks.extend(service::checks(&context.socket, &group, &overview).await);
    checks.extend(files::checks(&configuration, &args.state_dir, &overview));
    checks.extend(schedules::checks(&overview).await);
    checks.extend(daemon::checks(&overview, configuration.is_ok(), context).await);
    Findings { checks, overview }
}

impl Findings {
    /// All of it.
    pub(crate) fn json(&self) -> Value {
        let info = self.overview.told().map(|told| &told.info);
        json!({
            "checks": self.checks.iter().map(Check::json).collect::<Vec<_>>(),
            "server": info.map(as_json::server_info),
        })
    }

    fn verdict(&self, context: &Context) -> anyhow::Result<()> {
        let count = |level| self.checks.iter().filter(|one| one.level == level).count() as u64;
        let missing = count(Level::Missing);
        match &self.overview.daemon {
            Daemon::Silent(report) => {
                let message = format!("{}; {} missing", report.message, counted(missing, "thing"));
                Err(Fault::new(report.exit, plain(&message))
                    .advise("mend what is marked MISSING above")
                    .into())
            }
            Daemon::Told(_) if missing > 0 => {
                let message = format!("{} missing", counted(missing, "thing"));
                Err(Fault::new(Exit::Attention, message)
                    .advise("mend what is marked MISSING above")
                    .into())
            }
            Daemon::Told(_) => {
                let advice = count(Level::Advice);
                context.out.say(match advice {
                    0 => "\nnothing is missing".to_owned(),
                    _ => format!("\nnothing is missing; {advice} lines of advice"),
                });
                Ok(())
            }
        }
    }
}
