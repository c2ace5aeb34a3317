//! A foreign runtime (containerd, CRI-O) behind its CRI socket, as the traits that the kubelet knows.
//!
//! Exec, attach and port-forward are asked for over gRPC and then opened at the runtime's streaming server
//! (`sessions`). Events are the runtime's, or found by looking where it has none (`events`).

mod events;
mod figures;
mod images;
mod runtime;
mod sessions;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::runtime::{Code as RuntimeCode, Error, Result};
use grpc::{CallError, Channel, Connection, Dial, Settings};
use prost::Message;
use tasks::Tasks;
use tokio::net::UnixStream;

/// Longest answer (upstream's limit).
const MESSAGE_MAX: usize = 16 << 20;
/// Upstream's `runtimeRequestTimeout`.
const DEADLINE: Duration = Duration::from_secs(2 * 60);
/// To connect to the socket of a process on this machine.
const CONNECT: Duration = Duration::from_secs(10);
/// Pulls: no registry is waited for longer.
const PULL: Duration = Duration::from_secs(60 * 60);
/// Commands without a timeout of their own.
const UNLIMITED: Duration = Duration::from_secs(24 * 60 * 60);

/// The socket of a runtime.
struct Socket(PathBuf);

impl Dial for Socket {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>> {
        Box::pin(async {
            let connect = UnixStream::connect(&self.0);
            let stream = tokio::time::timeout(CONNECT, connect).await;
            let stream = stream.map_err(|_| "it takes no connection".to_owned())?;
            Connection::open(stream.map_err(|e| e.to_string())?, None).await
        })
    }
}

/// A foreign runtime.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    /// Calls that take no time of their own, and those that do: a late one ends its connection.
    quick: Channel<Socket>,
    slow: Channel<Socket>,
    tasks: Tasks,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.inner.quick.dialer().0.display())
    }
}

/// The socket that an endpoint names (`unix:///path`, or a bare path as upstream still takes it).
fn socket(endpoint: &str) -> Result<PathBuf> {
    let path = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
    match path.is_absolute() {
        true => Ok(path),
        false => Err(Error::Invalid(format!(
            "endpoint {endpoint:?} is not unix:// with an absolute path"
        ))),
    }
}

/// Whether an endpoint names a socket; nothing is connected.
///
/// # Errors
/// The fault in its form.
pub fn check_endpoint(endpoint: &str) -> Result<()> {
    socket(endpoint).map(drop)
}

impl Client {
    /// Nothing is sent yet. The tasks move the bytes of exec, attach and port-forward.
    pub fn new(endpoint: &str, tasks: &Tasks) -> Result<Client> {
        let path = socket(endpoint)?;
        let channel = || {
            let settings = Settings {
                peer: "the container runtime",
                origin: "http://localhost".into(),
                headers: &[],
                decorate: Some(traces::inject),
                deadline: DEADLINE,
                message_max: MESSAGE_MAX,
            };
            Channel::new(Socket(path.clone()), settings)
        };
        let inner = Inner { quick: channel(), slow: channel(), tasks: tasks.clone() };
        Ok(Client { inner: Arc::new(inner) })
    }

    async fn ask<Q: Message, A: Message + Default>(&self, path: &'static str, q: &Q) -> Result<A> {
        self.inner.quick.call(path, q).await.map_err(|error| refused(path, error))
    }

    /// For calls that last as long as something else does.
    async fn wait<Q, A>(&self, path: &'static str, q: &Q, limit: Duration) -> Result<A>
    where
        Q: Message,
        A: Message + Default,
    {
        let called = self.inner.slow.call_within(path, q, limit).await;
        called.map_err(|error| refused(path, error))
    }
}

/// The runtime's refusal in its own words.
fn refused(path: &'static str, error: CallError) -> Error {
    let code = match &error {
        CallError::Unreachable(_) | CallError::Lost(_) => RuntimeCode::Unavailable,
        CallError::Late(_) => RuntimeCode::DeadlineExceeded,
        CallError::Refused { code, .. } => RuntimeCode::of(*code),
    };
    tracing::debug!(path, error = error.go_text(), "the container runtime refused");
    Error::Foreign { code, message: error.to_string() }
}

/// What is gone already is as it should be.
fn gone_is_fine(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if error.code() == RuntimeCode::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::socket;

    #[test]
    fn endpoints_are_unix_sockets() {
        for endpoint in
            ["unix:///run/containerd/containerd.sock", "/run/containerd/containerd.sock"]
        {
            assert_eq!(socket(endpoint).unwrap().to_str(), Some("/run/containerd/containerd.sock"));
        }
        for endpoint in ["", "tcp://127.0.0.1:1", "unix://run/x", "npipe:////./pipe/x"] {
            let refused = socket(endpoint).unwrap_err().to_string();
            assert!(refused.contains("is not unix:// with an absolute path"), "{refused}");
        }
    }
}
