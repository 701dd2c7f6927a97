//! `tidemark demo`: the whole job on a throw-away volume, under load, each step proven.
//!
//! A private agent, an image file, ext4 mounted through the interposer, real files and a database
//! at work; a full pull, changes, an incremental pull, a restore, proofs. [`undo`] knows of every
//! step before it is taken, so that nothing stays behind however the demo ends.

mod host;
mod load;
mod proof;
mod report;
mod stage;
mod tree;
mod undo;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tokio::process::Command;

use stage::Stage;
use undo::Undo;

use crate::{
    client::Client,
    context::Context,
    exit::{Exit, Fault},
    units,
};

/// An ext4 below this has no room for a tree and a database.
const MIN_SIZE: u64 = 64 << 20;
/// How long the agent may take to answer.
const AGENT_START: Duration = Duration::from_secs(30);

#[derive(clap::Args, Debug)]
pub(crate) struct DemoArgs {
    /// Keep the images and the agent's log
    #[arg(long)]
    keep: bool,
    /// Where the picture of what changed is drawn
    #[arg(long, value_name = "FILE", default_value = "tidemark-demo.svg")]
    svg: PathBuf,
    /// Size of the volume
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "256M")]
    size: u64,
    /// Directory tree to copy onto it, as much as fits; one of the usual ones otherwise
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
}

/// Runs the demo, puts everything away, and fails unless every claim was proven.
pub(crate) async fn run(args: DemoArgs, context: &Context) -> anyhow::Result<()> {
    if args.size < MIN_SIZE {
        let message = format!("--size is at least {}", units::bytes(MIN_SIZE));
        return Err(Fault::new(Exit::Usage, message).into());
    }
    let agent = host::check()?;
    let mut undo = Undo::new();
    let outcome = prepare(&args, agent, context, &mut undo).await;
    let outcome = match outcome {
        Ok(stage) => stage.play(&args, &mut undo).await,
        Err(error) => Err(error),
    };
    if outcome.is_err() {
        context.out.note("putting everything away");
    }
    for left in undo.unwind().await {
        context.out.note(format!("not put away: {left}"));
    }
    let report = outcome?;
    let drawn = std::fs::write(&args.svg, report.svg());
    report.print(&context.out, &args.svg);
    context.out.document(&report.json(&args.svg));
    drawn.with_context(|| args.svg.display().to_string())?;
    if report.holds() {
        context.out.line("\nverdict: identical, clean and sound");
        return Ok(());
    }
    Err(Fault::new(Exit::Integrity, "not every claim of the demo holds").into())
}

/// Makes the directories and starts the agent.
async fn prepare(
    args: &DemoArgs,
    agent: PathBuf,
    context: &Context,
    undo: &mut Undo,
) -> anyhow::Result<Stage> {
    let work = host::make_work_dir(args.size)?;
    undo.root(work.clone());
    if args.keep {
        undo.keep(work.clone());
        context
            .out
            .note(format!("everything stays in {}", work.display()));
    }
    let runtime = host::make_runtime_dir(&work)?;
    undo.root(runtime.clone());
    let log = File::create(work.join("agent.log")).context("the agent's log")?;
    let child = Command::new(agent)
        .arg("serve")
        .arg("--runtime-dir")
        .arg(&runtime)
        .arg("--state-dir")
        .arg(work.join("state"))
        // Not the host's own volumes.
        .args(["--config", "/dev/null"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("starting the agent")?;
    undo.agent = Some(child);
    let socket = runtime.join("tidemark.sock");
    let connect = context.interrupt.guard(wait_for_agent(&socket, undo));
    let client = connect.await.with_context(|| agent_log(&work))?;
    let context = Context {
        socket,
        out: context.out.twin(),
        interrupt: context.interrupt.clone(),
    };
    Ok(Stage {
        work,
        client,
        context,
    })
}

async fn wait_for_agent(socket: &Path, undo: &mut Undo) -> anyhow::Result<Client> {
    let work = async {
        loop {
            if let Some(agent) = &mut undo.agent
                && let Some(status) = agent.try_wait()?
            {
                anyhow::bail!("the agent ended with {status}");
            }
            if let Ok(client) = Client::connect(socket).await {
                return Ok(client);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(AGENT_START, work)
        .await
        .context("the agent does not answer")?
}

/// What the agent said last, for a failure of its start.
fn agent_log(work: &Path) -> String {
    let text = std::fs::read_to_string(work.join("agent.log")).unwrap_or_default();
    format!(
        "agent: {}",
        text.trim().lines().last().unwrap_or("it said nothing")
    )
}
