//! TCP connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::{DIAL_TIMEOUT, resolve, timed_out};

/// A silent peer is asked this often whether it is still there, and given up after so many questions
/// without an answer (client-go's dialer, and Go's count).
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_RETRIES: u32 = 9;

/// A connection to a host given by name or address: the first of its addresses that takes one.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let connecting = tokio::time::timeout(DIAL_TIMEOUT, first(host, port));
    connecting.await.map_err(|_| timed_out("i/o timeout"))?
}

async fn first(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = resolve(host).await?;
    // Several addresses share the time, so that one that swallows packets does not use it up.
    let share = DIAL_TIMEOUT / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = io::Error::other(format!("{host} has no address"));
    for ip in addresses {
        let dialed = tokio::time::timeout(share, TcpStream::connect(SocketAddr::new(ip, port)));
        match dialed.await.map_err(|_| timed_out("i/o timeout")).flatten() {
            Ok(stream) => {
                configure(&stream);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// No delay for small writes; a peer that lost power is noticed.
pub fn configure(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(KEEPALIVE_RETRIES);
    // Fails only for a connection that is gone, which its first use tells.
    drop(socket.set_tcp_keepalive(&keepalive));
    drop(socket.set_tcp_nodelay(true));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_asks_for_its_silent_peer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let stream = connect("localhost", port).await.expect("IPv4 is tried");
        let socket = socket2::SockRef::from(&stream);
        assert_eq!(socket.tcp_keepalive_time().expect("set"), KEEPALIVE);
        assert!(socket.tcp_nodelay().expect("set"));
        drop((listener, stream));
        let refused = connect("127.0.0.1", port).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
