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

/// A peer that lost power is noticed by the kernel: after 15 s of silence it is asked every 15 s, and
/// given up after nine questions without an answer (the defaults of Go's net package).
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 9;

/// Returns the next connection that there is room for. Refused ones are closed.
pub async fn accept(listener: &TcpListener, gate: &Gate) -> (TcpStream, SocketAddr, Slot) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(slot) = gate.admit(peer.ip()) {
                    // Fails only for a connection that is already gone, which its first read tells.
                    drop(configure(&stream));
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

fn configure(stream: &TcpStream) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_notsent_lowat(UNSENT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[tokio::test]
    async fn accepted_connections_ask_for_a_silent_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let _client = TcpStream::connect(address).await.expect("connected");
        let (stream, _, _slot) = accept(&listener, &Gate::new(Limits::new(4))).await;
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().expect("known"));
        assert_eq!(socket.tcp_keepalive_time().expect("known"), KEEPALIVE);
    }
}
