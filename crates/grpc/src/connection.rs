//! One HTTP/2 connection, with the tasks that move its bytes.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

use crate::Tasks;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Pings of a peer that may lose its power without a word.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    pub interval: Duration,
    /// A peer that answers no ping for this long is gone.
    pub timeout: Duration,
}

/// An open connection. Its tasks, and the calls on it, end with it.
pub struct Connection {
    pub(crate) sender: SendRequest<Body>,
    ended: watch::Receiver<()>,
    _tasks: Tasks,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Speaks HTTP/2 on a stream. Without `keep_alive` nothing is sent that nobody asked for: many servers
    /// (grpc-go's default) close connections that ping.
    pub async fn open<S>(stream: S, keep_alive: Option<KeepAlive>) -> Result<Connection, String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let tasks = Tasks::default();
        let mut builder = http2::Builder::new(tasks.spawner("bodies of gRPC calls"));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20);
        if let Some(keep_alive) = keep_alive {
            builder
                .keep_alive_interval(keep_alive.interval)
                .keep_alive_timeout(keep_alive.timeout)
                .keep_alive_while_idle(true);
        }
        let made = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|e| e.to_string())?;
        let (alive, ended) = watch::channel(());
        tasks.spawn("gRPC connection", async move {
            let _alive = alive;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a gRPC connection ended");
            }
        });
        Ok(Connection { sender, ended, _tasks: tasks })
    }

    /// Waits until the peer has ended the connection, or was lost.
    pub async fn closed(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}
