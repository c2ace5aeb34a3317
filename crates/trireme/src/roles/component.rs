//! What every component that runs alone has in common: its connection, its lease, its end.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use client::{Client, HttpsConfig, HttpsTransport, LeaderElection, Tasks};

use super::apiserver::interrupted;
use crate::kubeconfig;

/// Where components keep their leases.
const LEASE_NAMESPACE: &str = "kube-system";

/// A checked way to the API server; every use of it makes a connection pool of its own.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    config: HttpsConfig,
}

impl Connection {
    pub(crate) fn open(kubeconfig: &Path) -> Result<Connection> {
        let config = kubeconfig::load(kubeconfig)?;
        // Keys and certificates that do not parse are found here, not in the loops.
        HttpsTransport::new(config.clone(), Tasks::new())
            .with_context(|| format!("kubeconfig {}", kubeconfig.display()))?;
        Ok(Connection { config })
    }

    pub(crate) fn server(&self) -> &str {
        &self.config.server
    }

    /// PEM of the authorities the server is verified with.
    pub(crate) fn ca_pem(&self) -> Result<String> {
        if self.config.ca_pem.is_empty() {
            anyhow::bail!(
                "the kubeconfig has no certificate-authority that pods could verify the server with"
            );
        }
        String::from_utf8(self.config.ca_pem.clone()).context("certificate-authority is not PEM")
    }

    /// A client whose follows end with `tasks`.
    pub(crate) fn client(&self, tasks: &Tasks) -> Client {
        let transport = HttpsTransport::new(self.config.clone(), tasks.clone())
            .expect("the same configuration was accepted in `open`");
        Client::new(Arc::new(transport))
    }
}

/// The name this machine has, as nodes are named.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// The address this machine would speak to `to` from.
pub(crate) fn address_towards(to: IpAddr) -> Result<IpAddr> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => [0, 0, 0, 0].into(),
        IpAddr::V6(_) => [0u16; 8].into(),
    };
    // Connecting a datagram socket chooses a route and sends nothing; the port does not matter.
    let socket = UdpSocket::bind((any, 0)).context("open a socket")?;
    socket.connect((to, 443)).with_context(|| format!("find a route to {to}"))?;
    Ok(socket.local_addr()?.ip())
}

/// The address this machine reaches the outside from.
pub(crate) fn address_of_default_route() -> Result<IpAddr> {
    // TEST-NET-3: an address that no network has, so only a default route leads there.
    address_towards([203, 0, 113, 1].into()).context("there is no default route: give --node-ip")
}

/// Runs `work` on a runtime of its own until interrupted; the tasks it started end with it.
pub(crate) fn block_on<W, F>(work: W) -> Result<()>
where
    W: FnOnce(Tasks) -> F,
    F: Future<Output = Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks = Tasks::new();
        let outcome = tokio::select! {
            outcome = async { work(tasks.clone()).await?; interrupted().await } => outcome,
            outcome = interrupted() => outcome,
        };
        tasks.shutdown().await;
        outcome
    })
}

/// Runs `lead` now, or, when there is an election, for as long as the lease is held.
pub(crate) fn lead(
    connection: &Connection,
    tasks: &Tasks,
    elect: Option<&'static str>,
    lead: impl Fn(&Tasks) + Send + Sync + 'static,
) {
    let Some(name) = elect else { return lead(tasks) };
    let election = LeaderElection {
        client: connection.client(tasks),
        namespace: LEASE_NAMESPACE.to_owned(),
        name: name.to_owned(),
        identity: identity(),
    };
    tasks.spawn("leader election", election.run(tasks.clone(), lead));
}

/// Unique among the candidates: two processes of a machine differ in number, one process and its
/// successor (of the same number, after a reboot or in a container) in the time of their start.
fn identity() -> String {
    let started = jiff::Timestamp::now().as_microsecond();
    format!("{}_{}-{started:x}", hostname(), std::process::id())
}

/// The file that most components are given.
#[derive(Debug, clap::Args)]
pub(crate) struct KubeconfigArg {
    /// Kubeconfig file with the API server's address and this component's identity.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,
}
