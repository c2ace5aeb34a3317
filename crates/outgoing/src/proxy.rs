//! Connections through a proxy: HTTP's CONNECT, over plain TCP or TLS, and SOCKS5.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stream::Transport;
use crate::{DIAL_TIMEOUT, TLS_TIMEOUT, Trust, client_config, machine_roots, timed_out};

/// Longest head of a proxy's answer.
const HEAD_MAX: usize = 16 << 10;

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Https,
    Socks5,
}

/// A proxy, as `proxy-url` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    /// `user:password`.
    credentials: Option<String>,
}

/// A proxy's URL that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("invalid proxy URL {url:?}: {why}")]
pub struct ProxyError {
    url: String,
    why: &'static str,
}

impl Proxy {
    /// `http`, `https` and `socks5`, as client-go; user and password may not be escaped.
    pub fn parse(url: &str) -> Result<Proxy, ProxyError> {
        let failed = |why| ProxyError { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|_| failed("not a URL"))?;
        let (kind, default) = match uri.scheme_str() {
            Some("http") => (Kind::Http, 80),
            Some("https") => (Kind::Https, 443),
            Some("socks5") => (Kind::Socks5, 1080),
            _ => return Err(failed("the scheme must be http, https or socks5")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| failed("no host"))?;
        let authority = uri.authority().map_or("", |a| a.as_str());
        let credentials = authority.rsplit_once('@').map(|(user, _)| user.to_owned());
        if credentials.as_ref().is_some_and(|c| c.contains('%')) {
            return Err(failed("escapes in user or password are not supported"));
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Proxy { kind, host, port: uri.port_u16().unwrap_or(default), credentials })
    }

    /// A connection through the proxy to a host, whose name the proxy resolves.
    pub(crate) async fn tunnel(&self, host: &str, port: u16) -> io::Result<Box<dyn Transport>> {
        let tunnel = tokio::time::timeout(DIAL_TIMEOUT, self.open(host, port)).await;
        tunnel.map_err(|_| timed_out("the proxy does not answer in time"))?
    }

    async fn open(&self, host: &str, port: u16) -> io::Result<Box<dyn Transport>> {
        let tcp = crate::connect(&self.host, self.port).await?;
        let mut io: Box<dyn Transport> = match self.kind {
            Kind::Https => Box::new(self.secured(tcp).await?),
            Kind::Http | Kind::Socks5 => Box::new(tcp),
        };
        match self.kind {
            Kind::Socks5 => self.socks(&mut io, host, port).await?,
            Kind::Http | Kind::Https => self.ask(&mut io, host, port).await?,
        }
        Ok(io)
    }

    async fn secured(
        &self,
        tcp: tokio::net::TcpStream,
    ) -> io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        let config = client_config(Trust::Authorities(machine_roots()), None);
        let connector =
            tokio_rustls::TlsConnector::from(Arc::new(config.map_err(io::Error::other)?));
        let name = rustls::pki_types::ServerName::try_from(self.host.clone());
        let greeted = connector.connect(name.map_err(io::Error::other)?, tcp);
        let greeted = tokio::time::timeout(TLS_TIMEOUT, greeted).await;
        greeted.map_err(|_| timed_out("TLS handshake timeout"))?
    }

    async fn ask(&self, io: &mut Box<dyn Transport>, host: &str, port: u16) -> io::Result<()> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(credentials) = &self.credentials {
            request += &format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(credentials));
        }
        io.write_all(format!("{request}\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD_MAX {
                return Err(io::Error::other("the proxy's answer is too long"));
            }
            // What follows the head is the server's: byte by byte, nothing of it is taken.
            head.push(io.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let line = head.lines().next().unwrap_or_default().to_owned();
        match line.split_whitespace().nth(1) {
            Some("200") => Ok(()),
            _ => Err(io::Error::other(format!("the proxy refused: {line}"))),
        }
    }

    /// RFC 1928, with the user and password of RFC 1929.
    async fn socks(&self, io: &mut Box<dyn Transport>, host: &str, port: u16) -> io::Result<()> {
        let refused = |why: &str| io::Error::other(format!("SOCKS5 proxy: {why}"));
        let method = if self.credentials.is_some() { 2 } else { 0 };
        io.write_all(&[5, 1, method]).await?;
        let mut answer = [0; 2];
        io.read_exact(&mut answer).await?;
        if answer != [5, method] {
            return Err(refused("no acceptable authentication method"));
        }
        if let Some(credentials) = &self.credentials {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let mut message = vec![1];
            for text in [user, password] {
                message.push(u8::try_from(text.len()).map_err(|_| refused("user is too long"))?);
                message.extend_from_slice(text.as_bytes());
            }
            io.write_all(&message).await?;
            io.read_exact(&mut answer).await?;
            if answer[1] != 0 {
                return Err(refused("user and password are not accepted"));
            }
        }
        let mut message = vec![5, 1, 0];
        match host.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(ip)) => {
                message.push(1);
                message.extend(ip.octets());
            }
            Ok(std::net::IpAddr::V6(ip)) => {
                message.push(4);
                message.extend(ip.octets());
            }
            Err(_) => {
                let length = u8::try_from(host.len()).map_err(|_| refused("name is too long"))?;
                message.extend([3, length]);
                message.extend_from_slice(host.as_bytes());
            }
        }
        message.extend(port.to_be_bytes());
        io.write_all(&message).await?;
        let mut head = [0; 4];
        io.read_exact(&mut head).await?;
        if head[1] != 0 {
            return Err(refused(&format!("connecting failed with code {}", head[1])));
        }
        let length = match head[3] {
            1 => 4,
            4 => 16,
            3 => usize::from(io.read_u8().await?),
            _ => return Err(refused("unknown kind of address")),
        };
        let mut rest = vec![0; length + 2];
        io.read_exact(&mut rest).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    #[test]
    fn urls_are_read_and_others_refused() {
        let proxy = Proxy::parse("http://u:p@proxy.example:3128").expect("a proxy");
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.credentials.as_deref(), Some("u:p"));
        assert_eq!(Proxy::parse("socks5://[::1]").expect("a proxy").port, 1080);
        for refused in ["ftp://h", "h:1", "http://", "http://a%40:b@h"] {
            assert!(Proxy::parse(refused).is_err(), "{refused}");
        }
    }

    /// A proxy that answers with `script`: reads so many bytes, writes these.
    async fn scripted(script: Vec<(usize, Vec<u8>)>) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let served = tokio::spawn(async move {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.expect("a client");
            let mut all = Vec::new();
            for (read, write) in script {
                let mut piece = vec![0; read];
                stream.read_exact(&mut piece).await.expect("asked");
                all.extend(piece);
                stream.write_all(&write).await.expect("answered");
            }
            all
        });
        (port, served)
    }

    #[tokio::test]
    async fn connect_leads_to_the_server_and_a_refusal_is_told() {
        let asked = "CONNECT api.example:6443 HTTP/1.1\r\nHost: api.example:6443\r\n\
            Proxy-Authorization: Basic dTpw\r\n\r\n";
        let answer = b"HTTP/1.1 200 OK\r\n\r\nserver".to_vec();
        let (port, served) = scripted(vec![(asked.len(), answer)]).await;
        let proxy = Proxy::parse(&format!("http://u:p@127.0.0.1:{port}")).expect("a proxy");
        let mut io = proxy.tunnel("api.example", 6443).await.expect("a tunnel");
        let mut first = [0; 6];
        io.read_exact(&mut first).await.expect("the server's bytes");
        assert_eq!(&first, b"server");
        assert_eq!(served.await.expect("served"), asked.as_bytes());
        let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".to_vec();
        let (port, _served) = scripted(vec![(10, answer)]).await;
        let proxy = Proxy::parse(&format!("http://127.0.0.1:{port}")).expect("a proxy");
        let told = proxy.tunnel("h", 1).await.err().expect("refused").to_string();
        assert!(told.contains("407 Proxy Authentication Required"), "{told}");
    }

    #[tokio::test]
    async fn socks_leads_to_the_server() {
        let request = [&[5, 1, 0, 3, 3][..], b"api", &[0x19, 0x2b]].concat();
        let granted = vec![5, 0, 0, 1, 127, 0, 0, 1, 0, 0];
        let script = vec![(3, vec![5, 0]), (request.len(), [granted, b"x".to_vec()].concat())];
        let (port, served) = scripted(script).await;
        let proxy = Proxy::parse(&format!("socks5://127.0.0.1:{port}")).expect("a proxy");
        let mut io = proxy.tunnel("api", 6443).await.expect("a tunnel");
        assert_eq!(io.read_u8().await.expect("the server's byte"), b'x');
        assert_eq!(served.await.expect("served"), [&[5, 1, 0][..], &request].concat());
        let (port, _served) = scripted(vec![(3, vec![5, 0xff])]).await;
        let proxy = Proxy::parse(&format!("socks5://127.0.0.1:{port}")).expect("a proxy");
        assert!(proxy.tunnel("api", 6443).await.is_err());
    }
}
