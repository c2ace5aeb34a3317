//! Accepting within the limits.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::gate::{Gate, Slot};

/// Pause after a failed accept: usually descriptors are out, and some must close first.
const PAUSE: Duration = Duration::from_millis(50);

/// The next connection that there is room for. Refused ones are closed.
pub async fn accept(listener: &TcpListener, gate: &Gate) -> (TcpStream, SocketAddr, Slot) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(slot) = gate.admit(peer.ip()) {
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
