//! The gRPC channel to etcd's members: one connection, made to the next member when it breaks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(super) use grpc::CallError;
use grpc::{Connection, Dial, KeepAlive, Settings};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;

/// An answer that takes longer counts as lost.
const CALL: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);
/// A peer that answers no ping for this long is gone, whatever its connection says.
const PINGS: KeepAlive =
    KeepAlive { interval: Duration::from_secs(10), timeout: Duration::from_secs(5) };
/// Longest message taken: a page of the largest objects, with room.
const MESSAGE_MAX: usize = 256 << 20;

/// The channel to etcd. Operations are in `client`.
#[derive(Debug)]
pub(super) struct Channel(pub(super) grpc::Channel<Members>);

/// Dials one of several members, the next one each time.
pub(super) struct Members {
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// The member that is tried next.
    turn: AtomicUsize,
}

impl Channel {
    /// A channel to `endpoints`, of which there is at least one.
    pub(super) fn new(endpoints: Vec<Endpoint>, tls: Option<rustls::ClientConfig>) -> Channel {
        let settings = Settings {
            peer: "etcd",
            origin: endpoints[0].url.clone(),
            // A member cut off from its leader shall say so instead of serving old state.
            headers: &[("hasleader", "true")],
            decorate: Some(traces::inject),
            deadline: CALL,
            message_max: MESSAGE_MAX,
        };
        let members = Members { endpoints, tls: tls.map(Arc::new), turn: AtomicUsize::new(0) };
        Channel(grpc::Channel::new(members, settings))
    }

    /// One message out, one back; a span of the request that asks.
    pub(super) async fn call<Q, A>(&self, path: &'static str, question: &Q) -> Result<A, CallError>
    where
        Q: prost::Message,
        A: prost::Message + Default,
    {
        let name = path.trim_start_matches('/');
        let mut span = traces::start(name, traces::Kind::Client);
        let answer = traces::within(span.as_ref(), self.0.call(path, question)).await;
        if let Some(span) = &mut span {
            let (service, method) = name.split_once('/').unwrap_or((name, ""));
            span.set("rpc.system", "grpc");
            span.set("rpc.service", service);
            span.set("rpc.method", method);
            let code = answer.as_ref().err().map(CallError::code_name);
            span.set("rpc.grpc.status", code.as_deref().unwrap_or("OK"));
            if let Err(error) = &answer {
                span.fail(&error.to_string());
            }
        }
        answer
    }

    pub(super) async fn close(&self) {
        self.0.close().await;
    }
}

impl Dial for Members {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>> {
        Box::pin(async move {
            let mut failures = Vec::new();
            for _ in &self.endpoints {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let endpoint = &self.endpoints[turn % self.endpoints.len()];
                match tokio::time::timeout(CONNECT, self.connect(endpoint)).await {
                    Ok(Ok(made)) => return Ok(made),
                    Ok(Err(why)) => failures.push(format!("{}: {why}", endpoint.url)),
                    Err(_) => failures.push(format!("{}: no answer", endpoint.url)),
                }
            }
            Err(failures.join("; "))
        })
    }
}

impl Members {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, String> {
        let stream = TcpStream::connect(endpoint.address().await?).await;
        let stream = stream.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        match self.tls.as_ref().filter(|_| endpoint.secure) {
            None => Connection::open(stream, Some(PINGS)).await,
            Some(tls) => {
                let name = endpoint.host.clone().try_into().map_err(|_| "not a name")?;
                let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
                Connection::open(stream.map_err(|e| e.to_string())?, Some(PINGS)).await
            }
        }
    }
}
