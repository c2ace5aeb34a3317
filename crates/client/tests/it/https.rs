//! HTTP/2 where the server speaks it; peers that are gone, silent, or not whom they should be.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Credentials, HttpsConfig, HttpsTransport, Request, Tasks};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

struct Served {
    port: u16,
    ca_pem: String,
    acceptor: tokio_rustls::TlsAcceptor,
    listener: TcpListener,
}

async fn served(name: &str, alpn: &[&str]) -> Served {
    let authority = pki::Authority::create("test").expect("an authority");
    let pair = authority.issue(&pki::CertSpec::server(name, &[name], &[])).expect("issued");
    let chain = vec![CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let ca_pem = authority.pem().cert_pem.clone();
    Served { port, ca_pem, acceptor: Arc::new(config).into(), listener }
}

impl Served {
    fn config(&self, host: &str) -> HttpsConfig {
        let server = format!("https://{host}:{}", self.port);
        HttpsConfig::new(server, self.ca_pem.clone().into(), Credentials::Token("t".into()))
    }

    /// Reads one HTTP/1.1 request and answers it.
    async fn answer(&self, answer: &str) -> String {
        let (tcp, _) = self.listener.accept().await.expect("a client");
        let Ok(mut stream) = self.acceptor.accept(tcp).await else { return String::new() };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return String::new() };
            head.push(byte);
        }
        stream.write_all(answer.as_bytes()).await.expect("sent");
        // The connection stays: silence is not an end.
        std::mem::forget(stream);
        String::from_utf8_lossy(&head).into_owned()
    }
}

async fn get(config: HttpsConfig) -> Result<Vec<u8>, String> {
    let transport = HttpsTransport::new(config, Tasks::new()).map_err(|e| e.to_string())?;
    let request = Request { target: "/version".into(), ..Request::default() };
    let answer = Client::new(Arc::new(transport)).call(request).await;
    answer.map(|a| a.body.to_vec()).map_err(|e| {
        let mut text = e.to_string();
        let mut source = std::error::Error::source(&e);
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        text
    })
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test]
async fn names_are_resolved_and_certificates_checked() {
    let served = served("localhost", &["http/1.1"]).await;
    let (got, asked) = tokio::join!(get(served.config("localhost")), served.answer(ANSWER));
    assert_eq!(got.expect("an answer"), b"{}");
    assert!(asked.to_lowercase().contains("authorization: bearer t"), "{asked}");
    // The certificate is for a name, not for this address.
    let (got, _) = tokio::join!(get(served.config("127.0.0.1")), served.answer(ANSWER));
    assert!(got.expect_err("refused").contains("certificate"));
    let mut config = served.config("127.0.0.1");
    config.tls_server_name = Some("localhost".into());
    assert!(tokio::join!(get(config), served.answer(ANSWER)).0.is_ok());
    let mut config = served.config("127.0.0.1");
    config.insecure_skip_tls_verify = true;
    assert!(get(config.clone()).await.expect_err("refused").contains("insecure"));
    config.ca_pem.clear();
    assert!(tokio::join!(get(config), served.answer(ANSWER)).0.is_ok());
}

/// A peer whose machine lost power: the connection stands, and nothing comes.
#[tokio::test]
async fn an_http2_peer_that_is_gone_is_noticed() {
    let served = served("localhost", &["h2"]).await;
    let asking = tokio::spawn(get(served.config("localhost")));
    let (tcp, _) = served.listener.accept().await.expect("a client");
    let mut stream = served.acceptor.accept(tcp).await.expect("TLS");
    // SETTINGS and their acknowledgement; after that, silence.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]).await.expect("sent");
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.expect("HTTP/2");
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    asking.await.expect("no panic").expect_err("nobody answers");
    assert!(began.elapsed() < Duration::from_secs(60), "by the pings, not by the deadline");
}
