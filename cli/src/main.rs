//! The `tidemark` command: speaks to `tidemarkd` over its public gRPC contract, and to nothing else.

mod args;
mod client;
mod cmd;
mod context;
mod digest;
mod exit;
#[cfg(test)]
mod fake;
mod heatmap;
mod host;
mod image;
mod json;
mod output;
mod select;
mod text;
mod units;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};
use serde_json::json;

use args::Args;
use context::{Context, Interrupt};
use exit::{Exit, Report};
use output::Output;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let json = args.global.json;
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let report = Report::of(&error);
            report.print(json);
            report.exit.into()
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let global = args.global;
        let context = Context {
            socket: global.socket,
            out: Output::new(global.json, global.quiet, global.no_progress),
            interrupt: Interrupt::listen()?,
        };
        cmd::run(args.command, &context).await
    });
    // A blocking read of standard input or of a dead disk must not hold the exit up.
    runtime.shutdown_background();
    outcome
}

/// Tells about a wrong command line, in JSON when that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if asked {
        // A closed pipe is the reader's choice.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|arg| arg == "--json") {
        let message = error.render().to_string();
        let code = Exit::Usage as u8;
        eprintln!(
            "{}",
            json!({ "error": { "exit_code": code, "message": message.trim_end() } })
        );
    } else {
        let _ = error.print();
    }
    Exit::Usage.into()
}
