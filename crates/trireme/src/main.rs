//! Trireme: Kubernetes in one static binary. This crate wires the parts together: roles, flags,
//! files, and the one-command cluster. How any part works is not known here.

mod control_plane;
mod logging;
mod pki_files;
mod roles;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Kubernetes v1.36 in one static binary.
#[derive(Debug, Parser)]
#[command(name = "trireme", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The API server alone, with the original's flags.
    KubeApiserver(roles::apiserver::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start();
    let outcome = match cli.command {
        Command::KubeApiserver(args) => roles::apiserver::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trireme: {error:#}");
            ExitCode::FAILURE
        }
    }
}
