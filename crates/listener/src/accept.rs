//! Accepting within the limits.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::gate::{Gate, Slot};

/// Pause after a failed accept: usually descriptors are out, and some must close first.
const PAUSE: Duration = Duration::from_millis(50);

/// Unsent bytes that the kernel takes from us for one connection: without a limit, those of a client that
/// does not read grow to `tcp_wmem`'s 4 MiB. What is on its way is limited by the client's window.
const UNSENT_MAX: u32 = 128 * 1024;

/// Returns the next connection that there is room for. Refused ones are closed.
pub async fn accept(listener: &TcpListener, gate: &Gate) -> (TcpStream, SocketAddr, Slot) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(slot) = gate.admit(peer.ip()) {
                    // Fails only for a connection that is already gone, which its first read tells.
                    drop(socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX));
                    return (stream, peer, slot);
                }
                tracing::debug!(%peer, "connection refused: all others are at work");
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
