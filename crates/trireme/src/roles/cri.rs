//! `trireme cri`: the embedded container runtime for others, as CRI v1 on a unix socket.

use std::path::PathBuf;
use std::sync::Arc;

use ::network::ipnet::IpNet;
use ::runtime::{Config as RuntimeConfig, Embedded, ImageService, RuntimeService};
use anyhow::{Context, Result, bail};
use client::Tasks;
use tokio::net::TcpListener;

use super::component::block_on;
use super::kubelet::below;
use super::kubelet::network::{LateNetwork, Ranges};
use crate::cluster::folder::make_private;
use crate::runtime_flags::RuntimeFlags;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The socket that a kubelet or crictl is given as its endpoint.
    #[arg(long, default_value = "unix:///run/trireme/cri.sock", value_name = "ENDPOINT")]
    listen: String,
    /// Containers, images and their records.
    #[arg(long, default_value = "/var/lib/trireme/cri", value_name = "DIR")]
    root_dir: PathBuf,
    /// Range that pods get their addresses from.
    #[arg(long, value_delimiter = ',', default_value = "10.88.0.0/16", value_name = "CIDRS")]
    pod_cidr: Vec<IpNet>,
    /// Cgroup below which the runtime's own are made; the machine's root when absent.
    #[arg(long, default_value = "", value_name = "PATH")]
    cgroup_root: String,
    #[command(flatten)]
    runtime: RuntimeFlags,
}

/// Runs until interrupted. Containers go on: the next one finds them.
pub(crate) fn run(args: Args) -> Result<()> {
    let socket = args.listen.strip_prefix("unix://").map(PathBuf::from);
    let Some(socket) = socket.filter(|path| path.is_absolute()) else {
        bail!("--listen {}: expected unix:///path/of/socket", args.listen);
    };
    crate::doctor::require()?;
    block_on(async move |tasks| serve(args, socket, &tasks).await)
}

async fn serve(args: Args, socket: PathBuf, tasks: &Tasks) -> Result<()> {
    make_private(&args.root_dir)?;
    let network =
        LateNetwork::new(Ranges::Given(args.pod_cidr), args.root_dir.join("ipam.json"), tasks);
    let mut folders = RuntimeConfig::new(args.root_dir.join("runtime"), args.root_dir.join("run"));
    // Callers name seccomp profiles by absolute paths, each below its own folder.
    folders.seccomp_dir = PathBuf::from("/");
    folders.cgroup_parent = below(&args.cgroup_root, "trireme");
    args.runtime.read()?.apply(&mut folders);
    let runtime = Embedded::open(folders, Arc::new(network)).await;
    let runtime = Arc::new(runtime.context("open the container runtime")?);
    // `trireme image` reaches it: `--name` is the last part of the root folder, `TRIREME_ROOT` the rest.
    crate::control::serve(&args.root_dir.join("control.sock"), vec![runtime.clone()], tasks)?;
    let (service, images): (Arc<dyn RuntimeService>, Arc<dyn ImageService>) =
        (runtime.clone(), runtime);
    // Whoever knows a session's URL may open it: it is for this machine.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listen on 127.0.0.1")?;
    let streaming = ::cri::Streaming::serve(listener, service.clone(), tasks)?;
    let methods = Arc::new(::cri::methods(&service, &images, &streaming));
    let listener =
        grpc::server::bind(&socket).with_context(|| format!("listen on {}", socket.display()))?;
    tasks.spawn("container runtime interface", grpc::server::listen(listener, methods));
    eprintln!("CRI v1 on unix://{}", socket.display());
    Ok(())
}
