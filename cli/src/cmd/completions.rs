//! `tidemark completions SHELL`.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;

/// Prints the completion script of `shell`.
pub(crate) fn run(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "tidemark", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}
