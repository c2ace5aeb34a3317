//! Exec, attach and port-forward over upgraded connections: SPDY/3.1 and WebSocket.
//!
//! The API server only pipes bytes, so the protocols live here. `spdy` frames and multiplexes;
//! `websocket` does the handshake and messages; `remote` joins either to a process; `forward` joins
//! either to ports.

pub(crate) mod forward;
pub(crate) mod remote;
mod spdy;
mod websocket;

pub(crate) use websocket::is_upgrade as is_websocket;

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Chunks on their way to a peer; more are waited for.
const QUEUE: usize = 16;
/// Bytes read at once from a process or a socket.
const CHUNK: usize = 32 << 10;

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

#[cfg(test)]
mod tests;
