//! SPDY/3.1 and WebSocket, and the Kubernetes streaming protocols on top of them.
//!
//! `spdy` and `websocket` frame and multiplex. `remote` joins either to a process (exec, attach),
//! `forward` to ports (port-forward), `client` is the other side of both, `messages` sends one byte stream or one event a message to a
//! WebSocket client, and `relay` joins two upgraded connections. Callers answer the HTTP request with
//! the [`Upgrade`]'s response and run its session in a task of their own.
//!
//! This crate does not know pods, nor who may open a stream.

pub mod client;
pub mod forward;
mod handshake;
pub mod messages;
mod relay;
pub mod remote;
mod spdy;
mod websocket;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;

pub use handshake::{Refusal, is_upgrade, is_websocket};
pub use relay::relay;

/// Bytes from a process or a connection.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// Bytes to a process or a connection; shutting it down or dropping it ends the input there.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An accepted upgrade: the answer to send, and the session that follows on the connection.
pub struct Upgrade {
    pub response: http::Response<()>,
    pub session: BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upgrade({:?})", self.response)
    }
}

/// Chunks that wait for a peer; the producer waits while the queue is full.
const QUEUE: usize = 16;
/// Bytes read at once from a process or a socket.
const CHUNK: usize = 32 << 10;
/// After the last byte was sent, the peer's unread input is discarded for this long at most. A socket
/// that is closed with unread input is reset, and the peer then loses what it has not read yet.
const LINGER: Duration = Duration::from_secs(10);

/// Bytes out on one stream of a connection; `None` ends the stream.
#[derive(Debug)]
struct Outgoing {
    stream: u32,
    data: Option<Bytes>,
}

type Out = mpsc::Sender<Outgoing>;
type In = mpsc::Receiver<Bytes>;

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection is closed")
}

/// Reads and discards until the peer ends its side, within [`LINGER`].
async fn discard(reader: &mut (impl AsyncRead + Unpin)) {
    let all = async {
        let mut scrap = vec![0; CHUNK];
        while let Ok(1..) = reader.read(&mut scrap).await {}
    };
    if tokio::time::timeout(LINGER, all).await.is_err() {
        tracing::debug!("the peer did not close a finished stream in time");
    }
}

#[cfg(test)]
mod tests;
