//! Trireme: Kubernetes in one static binary. This crate wires the parts together: roles, flags,
//! files, and the one-command cluster. How any part works is not known here.

mod at_rest;
mod authentication;
mod authorization;
mod certificates;
mod cluster;
mod component_checks;
mod config_reloads;
mod control;
mod control_plane;
mod demo;
mod doctor;
mod durations;
mod flags;
mod hooks;
mod image;
mod kubeconfig;
mod logging;
mod loops;
mod pki_files;
mod roles;
mod runtime_flags;
mod span_export;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Kubernetes v1.36 in one static binary.
#[derive(Debug, Parser)]
#[command(name = "trireme", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    logging: logging::LoggingFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster on this machine and keep it running until Ctrl-C.
    Up(cluster::UpArgs),
    /// Start a cluster on the host's own network and keep it running until Ctrl-C.
    Server(cluster::ServerArgs),
    /// End a cluster; its data is kept.
    Down(cluster::NameArg),
    /// Show a running cluster.
    Status {
        #[command(flatten)]
        cluster: cluster::NameArg,
        /// `json` for a machine.
        #[arg(short, long, value_parser = ["json"])]
        output: Option<String>,
    },
    /// End a cluster and delete everything about it.
    Reset {
        #[command(flatten)]
        cluster: cluster::NameArg,
        /// Really do it.
        #[arg(long)]
        yes: bool,
    },
    /// Build images; import, export, list, pin, pull, push and remove those of a running cluster.
    Image(image::ImageArgs),
    /// Check this machine and say how to fix what is missing.
    Doctor {
        /// Check a running cluster, too: webhooks that lock it out.
        #[arg(long)]
        name: Option<String>,
    },
    /// The echo server of the demo image.
    Demo(demo::DemoArgs),
    /// The API server alone, with upstream's flags.
    KubeApiserver(Box<roles::apiserver::Args>),
    /// The controllers alone, with upstream's flags.
    KubeControllerManager(roles::controller_manager::Args),
    /// The scheduler alone, with upstream's flags.
    KubeScheduler(roles::scheduler::Args),
    /// The service proxy alone, on the host's own network, with upstream's flags.
    KubeProxy(roles::kube_proxy::Args),
    /// The node agent alone, on the host's own network, with upstream's flags.
    Kubelet(Box<roles::kubelet::Args>),
    /// The container runtime alone, for other kubelets and crictl: CRI v1 on a socket.
    Cri(roles::cri::Args),
    /// Nodes without containers, for tests of a control plane at scale.
    Hollow(roles::hollow::Args),
}

/// Writes make thousands of small allocations; glibc's allocator was half of their time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives what this thread's heap has free back to the kernel.
fn release_memory() {
    // SAFETY: takes no pointers, and may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

fn main() -> ExitCode {
    // The supervisor is started by the runtime, once a node, and must stay small: no async
    // runtime, no logging set up.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|a| a == "supervisor") {
        runtime::supervisor::main(args);
    }
    let command = Cli::command();
    let matches = command.clone().get_matches();
    flags::keep(&command, &matches);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    logging::start(&cli.logging);
    apiserver::release_memory_by(release_memory);
    telemetry::add_process_source(roles::gates::figures);
    let outcome = match cli.command {
        Command::Up(args) => cluster::up(args),
        Command::Server(args) => cluster::server(args),
        Command::Down(cluster) => cluster::down(&cluster.name),
        Command::Status { cluster, output } => cluster::status(&cluster.name, output.is_some()),
        Command::Reset { cluster, yes } => cluster::reset(&cluster.name, yes),
        Command::Image(args) => image::run(args),
        Command::Doctor { name } => {
            let kubeconfig = name.as_deref().map(cluster::kubeconfig_of).transpose();
            kubeconfig.and_then(|path| doctor::doctor(path.as_deref()))
        }
        Command::Demo(args) => demo::run(&args),
        Command::KubeApiserver(args) => roles::apiserver::run(*args),
        Command::KubeControllerManager(args) => roles::controller_manager::run(args),
        Command::KubeScheduler(args) => roles::scheduler::run(args),
        Command::KubeProxy(args) => roles::kube_proxy::run(args),
        Command::Kubelet(args) => roles::kubelet::run(*args),
        Command::Cri(args) => roles::cri::run(args),
        Command::Hollow(args) => roles::hollow::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trireme: {error:#}");
            ExitCode::FAILURE
        }
    }
}
