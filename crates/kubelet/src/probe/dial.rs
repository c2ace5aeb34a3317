//! Connections to what probes and hooks name: an address, or a name that the node resolves. Errors read as
//! Go's do, which operators know.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

use crate::config::Dialer;

/// `host:port`, with brackets around a host that has colons.
pub(crate) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(crate) async fn tcp(dialer: &dyn Dialer, host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => outgoing::resolve(host).await.unwrap_or_default(),
    };
    let mut failed = format!("dial tcp: lookup {host}: no such host");
    for ip in addresses {
        let to = SocketAddr::new(ip, port);
        match dialer.tcp(to).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = format!("dial tcp {to}: connect: {}", errno(&error)),
        }
    }
    Err(failed)
}

/// The kernel's words for an error, without its number.
pub(crate) fn errno(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PlainDialer;

    #[tokio::test]
    async fn what_does_not_listen_is_refused_in_gos_words() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failed = tcp(&PlainDialer, "127.0.0.1", free.port()).await.unwrap_err();
        assert_eq!(failed, format!("dial tcp {free}: connect: connection refused"));
        let failed = tcp(&PlainDialer, "no host", 80).await.unwrap_err();
        assert_eq!(failed, "dial tcp: lookup no host: no such host");
    }

    #[tokio::test]
    async fn names_are_resolved() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        tcp(&PlainDialer, "localhost", port).await.unwrap();
        assert_eq!((join("::1", 80), join("a", 80)), ("[::1]:80".into(), "a:80".into()));
    }
}
