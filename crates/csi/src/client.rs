//! A driver behind its unix socket. Every call has a deadline, and is logged with its question, without the
//! values of secrets.

use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use grpc::{CallError, Channel, Connection, Dial, Settings};
use prost::Message;
use tokio::net::UnixStream;

/// The kubelet's limit for a call to a driver (upstream's `csiTimeout`).
pub const DEADLINE: Duration = Duration::from_secs(2 * 60);
/// [`DEADLINE`] as the driver is told it.
const HEADERS: &[(&str, &str)] = &[("grpc-timeout", "120S")];
/// Time for the socket to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes: grpc-go's limit.
const MESSAGE_MAX: usize = 4 << 20;

/// A unix socket, by its path.
#[derive(Debug, Clone)]
pub struct Socket(pub PathBuf);

impl Dial for Socket {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>> {
        Box::pin(async {
            let at = |why: &dyn std::fmt::Display| format!("{}: {why}", self.0.display());
            let connected = tokio::time::timeout(CONNECT, UnixStream::connect(&self.0)).await;
            let stream = connected.map_err(|_| at(&"no connection in time"))?;
            Connection::open(stream.map_err(|e| at(&e))?, None).await
        })
    }
}

/// Calls to one driver. Its methods have the names of the services' methods.
#[derive(Debug)]
pub struct Client {
    channel: Channel<Socket>,
}

impl Client {
    /// Connects with the first call.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        let settings = Settings {
            peer: "the CSI driver",
            origin: "http://localhost".into(),
            headers: HEADERS,
            decorate: None,
            deadline: DEADLINE,
            message_max: MESSAGE_MAX,
        };
        Client { channel: Channel::new(Socket(socket.into()), settings) }
    }

    pub fn socket(&self) -> &Path {
        &self.channel.dialer().0
    }

    /// Ends the connection; the next call makes another one.
    pub async fn close(&self) {
        self.channel.close().await;
    }

    pub(crate) async fn call<Q, A>(&self, path: &'static str, question: &Q) -> Result<A, CallError>
    where
        Q: Message + Debug,
        A: Message + Default + Debug,
    {
        tracing::debug!(socket = %self.socket().display(), path, ?question, "CSI call");
        let answer = self.channel.call(path, question).await;
        match &answer {
            Ok(answer) => tracing::trace!(path, ?answer, "CSI answer"),
            Err(error) => tracing::debug!(path, error = error.go_text(), "CSI call failed"),
        }
        answer
    }
}
