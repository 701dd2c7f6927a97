//! `tidemark status`: for whoever is called at night. Whether all is well, what is not, and what to do.
//!
//! ```text
//! daemon, host ──> overview ──> attention ──> page, or JSON
//!                      └──────> watch: the same again and again, with rates
//! ```

pub(crate) mod attention;
pub(crate) mod overview;
pub(crate) mod page;
pub(crate) mod watch;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use tidemark_config::DEFAULT_PATH;
use tidemark_proto::v1::GetServerInfoResponse;

use crate::{
    context::Context,
    exit::{Exit, Fault},
};
use overview::{Daemon, Memory, Overview};

/// What to tell, and from where.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Exit code 0: all is well. 15: something needs the operator, and the page says what and which command is
next. 10: the daemon does not answer; what can be told without it is told. Where the daemon's
configuration or its directory may not be read, schedules are left out, and the page says so.")]
pub(crate) struct StatusArgs {
    /// A live view, drawn again and again until Ctrl-C; off a terminal a view after the other
    #[arg(long)]
    watch: bool,
    /// With --watch: seconds from one view to the next
    #[arg(long, value_name = "SECONDS", requires = "watch", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    interval: u32,
    /// The configuration with the schedules; without the option, the daemon's
    #[arg(long, value_name = "FILE", env = "TIDEMARK_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where it is kept how schedules went, below the daemon's directory
    #[arg(
        long,
        value_name = "DIR",
        env = "TIDEMARK_STATE_DIR",
        default_value = "/var/lib/tidemark"
    )]
    pub(crate) state_dir: PathBuf,
}

impl StatusArgs {
    /// Only where to look, for other commands.
    pub(crate) fn of_places(config: Option<PathBuf>, state_dir: PathBuf) -> Self {
        Self {
            watch: false,
            interval: 1,
            config,
            state_dir,
        }
    }

    /// The configuration file: the one that was named, the daemon's, or the usual one.
    pub(crate) fn config_of(&self, info: Option<&GetServerInfoResponse>) -> PathBuf {
        let theirs = info
            .and_then(|info| info.configuration.as_ref())
            .filter(|status| !status.path.is_empty());
        match (&self.config, theirs) {
            (Some(named), _) => named.clone(),
            (None, Some(status)) => PathBuf::from(&status.path),
            (None, None) => PathBuf::from(DEFAULT_PATH),
        }
    }
}

/// Tells how everything stands, once or again and again.
pub(crate) async fn run(args: StatusArgs, context: &Context) -> anyhow::Result<()> {
    if args.watch {
        return watch::run(&args, context).await;
    }
    let interrupt = context.interrupt.clone();
    interrupt.guard(once(&args, context)).await
}

async fn once(args: &StatusArgs, context: &Context) -> anyhow::Result<()> {
    let overview = Overview::gather(args, context, &mut Memory::default()).await;
    let attention = attention::of(&overview);
    context.out.document(&overview.json());
    for line in page::lines(&overview, &attention) {
        context.out.line(line);
    }
    let exit = match &overview.daemon {
        Daemon::Silent(report) => report.exit,
        Daemon::Told(_) if attention.is_empty() => return Ok(()),
        Daemon::Told(_) => Exit::Attention,
    };
    let first = page::verdict(&overview, &attention);
    let first = first.trim_end_matches(':');
    Err(Fault::new(exit, format!("{first}; see above")).into())
}
