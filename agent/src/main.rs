//! `tidemarkd`: one binary, several roles.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidemark_agent::{argfile, generate, host, rpc, server};

#[derive(Parser)]
#[command(name = "tidemarkd", version, about = "Tidemark's agent")]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// The control plane: answers gRPC, starts volume servers, never carries a volume's I/O
    Serve(rpc::ServeArgs),
    /// The data plane of one volume; started by `serve`, or by its unit with `@FILE` for its arguments
    Volume(server::VolumeArgs),
    /// Writes the units of volumes and schedules for systemd, which calls it while it loads its units
    Generate(generate::GenerateArgs),
    /// Freezes file systems and thaws them again, whatever becomes of its parent; started by `serve`
    #[command(hide = true)]
    Freeze(host::freeze::FreezeArgs),
}

fn main() -> ExitCode {
    let words = match argfile::expand(std::env::args_os()) {
        Ok(words) => words,
        Err(error) => {
            eprintln!("tidemarkd: arguments: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match Args::parse_from(words).role {
        Role::Serve(args) => rpc::serve(args),
        Role::Volume(args) => server::run(args),
        Role::Generate(args) => {
            generate::run(&args);
            Ok(())
        }
        Role::Freeze(args) => host::freeze::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemarkd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
