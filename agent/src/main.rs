//! `tidemarkd`: one binary, several roles.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidemark_agent::{host, rpc, server};

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
    /// The data plane of one volume; started by `serve`
    Volume(server::VolumeArgs),
    /// Freezes file systems and thaws them again, whatever becomes of its parent; started by `serve`
    #[command(hide = true)]
    Freeze(host::freeze::FreezeArgs),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().role {
        Role::Serve(args) => rpc::serve(args),
        Role::Volume(args) => server::run(args),
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
