//! A client of the node API for tests: certificates, raw HTTP/1.1, WebSocket frames.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub(crate) struct Pki {
    ca: CertificateDer<'static>,
    pub(crate) server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

type Signed = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn signed(issuer: &Issuer<'_, &KeyPair>, name: &str, group: &str) -> Signed {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["node.test".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, group);
    let certificate = params.signed_by(&key, issuer).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

impl Pki {
    pub(crate) fn new() -> Pki {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, &key);
        let (chain, server_key) = signed(&issuer, "system:node:n1", "system:nodes");
        let server = kubelet::tls_config(std::slice::from_ref(&ca), chain, server_key).unwrap();
        let (chain, client_key) = signed(&issuer, "admin", "system:masters");
        let client = Pki::client(&ca, Some((chain, client_key)));
        Pki { ca, server, client }
    }

    fn client(ca: &CertificateDer<'static>, own: Option<Signed>) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        Arc::new(match own {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        })
    }

    pub(crate) async fn connect(
        &self,
        to: std::net::SocketAddr,
        known: bool,
    ) -> TlsStream<TcpStream> {
        let config = if known { self.client.clone() } else { Pki::client(&self.ca, None) };
        let stream = TcpStream::connect(to).await.unwrap();
        let name = ServerName::try_from("node.test").unwrap();
        tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap()
    }

    /// The whole answer to a GET.
    pub(crate) async fn get(&self, to: std::net::SocketAddr, path: &str, known: bool) -> String {
        self.ask(to, path, known, "").await
    }

    /// The answer to somebody who has a token and no certificate.
    pub(crate) async fn get_as(&self, to: std::net::SocketAddr, path: &str, token: &str) -> String {
        self.ask(to, path, false, &format!("Authorization: Bearer {token}\r\n")).await
    }

    async fn ask(&self, to: std::net::SocketAddr, path: &str, known: bool, more: &str) -> String {
        let mut stream = self.connect(to, known).await;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut out = Vec::new();
        // A server that closes without TLS's own farewell is no matter here.
        let _read = stream.read_to_end(&mut out).await;
        String::from_utf8(out).unwrap()
    }
}

pub(crate) async fn head(stream: &mut TlsStream<TcpStream>) -> String {
    let mut out = Vec::new();
    while !out.ends_with(b"\r\n\r\n") {
        out.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(out).unwrap()
}

/// Sends one message; fails when the server has closed, which it does when a command has ended.
pub(crate) async fn send(stream: &mut TlsStream<TcpStream>, payload: &[u8]) -> std::io::Result<()> {
    let mut frame = vec![0x82, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await
}

/// Channel and payload of the next message; `None` once the server closes.
pub(crate) async fn receive(stream: &mut TlsStream<TcpStream>) -> Option<(u8, Vec<u8>)> {
    let opcode = stream.read_u8().await.ok()? & 0x0f;
    let length = match stream.read_u8().await.ok()? {
        126 => usize::from(stream.read_u16().await.ok()?),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    if opcode == 8 {
        return None;
    }
    let data = payload.split_off(1);
    Some((payload[0], data))
}
