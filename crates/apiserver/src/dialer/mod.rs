//! The way to nodes, pods and services: connections, TLS towards kubelets, and which addresses may be reached.

pub(crate) mod reach;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use auth::Authorizer;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub(crate) use reach::is_proxyable;
pub use tls::{Identity, KubeletTls};

/// Opens connections into the node network, which may be another network namespace.
pub trait NodeDialer: Send + Sync + 'static {
    fn dial(
        &self,
        to: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>>;

    /// TLS towards kubelets: the client certificate and the CA that signed theirs.
    fn kubelet_tls(&self) -> KubeletTls;
}

/// The way to nodes of a server that has none.
#[derive(Debug, Clone, Copy)]
pub struct NoNodes;

impl NodeDialer for NoNodes {
    fn dial(
        &self,
        to: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>> {
        Box::pin(async move { Err(std::io::Error::other(format!("no way to {to}"))) })
    }

    fn kubelet_tls(&self) -> KubeletTls {
        let nobody = Some(rustls::RootCertStore::empty());
        KubeletTls::new(None, nobody).expect("ring has the usual protocols")
    }
}

/// What the proxies need: the way to nodes, who may use it, and when streams end.
pub(crate) struct NodeAccess {
    pub(crate) dialer: Arc<dyn NodeDialer>,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) closing: CancellationToken,
}
