//! The client against a server on the loopback address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Every service is at one address.
struct At(SocketAddr);

impl Services for At {
    fn connect<'a>(
        &'a self,
        _: (&'a str, &'a str),
        _: u16,
    ) -> BoxFuture<'a, Result<TcpStream, String>> {
        Box::pin(async move { TcpStream::connect(self.0).await.map_err(|e| e.to_string()) })
    }
}

struct Nowhere;

impl Services for Nowhere {
    fn connect<'a>(
        &'a self,
        (_, name): (&'a str, &'a str),
        _: u16,
    ) -> BoxFuture<'a, Result<TcpStream, String>> {
        Box::pin(async move { Err(format!("service {name:?} not found")) })
    }
}

/// A server that answers each connection's first request with `answer`, and tells its head.
struct Hook {
    address: SocketAddr,
    bundle: String,
    heads: tokio::sync::mpsc::UnboundedReceiver<String>,
}

async fn hook(name: &str, answer: &'static str) -> Hook {
    let signed = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.expect("a key"))
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let (told, heads) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, told) = (acceptor.clone(), told.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let mut read = vec![0; 65536];
                let length = tls.read(&mut read).await.unwrap_or(0);
                told.send(String::from_utf8_lossy(&read[..length]).into_owned()).ok();
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
                tls.write_all(answer.as_bytes()).await.ok();
                tls.shutdown().await.ok();
            });
        }
    });
    Hook { address, bundle: STANDARD.encode(signed.cert.pem()), heads }
}

fn service(hook: &Hook) -> Endpoint {
    let config = json!({"service": {"namespace": "n", "name": "s", "path": "p"},
        "caBundle": hook.bundle});
    Endpoint::of_client_config(&config).expect("an endpoint")
}

async fn ask(endpoint: Endpoint, services: Arc<dyn Services>) -> Result<Value, Failure> {
    let client = Client::new(endpoint, services).expect("a client");
    client.post(&json!({"a": 1}), Duration::from_millis(2500)).await
}

const YES: &str = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"yes\":true}";

#[tokio::test]
async fn a_service_is_asked_with_credentials_headers_and_the_time_limit() {
    let mut hook = hook("s.n.svc", YES).await;
    let endpoint = service(&hook)
        .with_credentials(client::Credentials::Basic { username: "u".into(), password: "p".into() })
        .with_header(http::HeaderName::from_static("x-more"), "m".parse().expect("a value"));
    let answer = ask(endpoint, Arc::new(At(hook.address))).await;
    assert_eq!(answer.expect("an answer"), json!({"yes": true}));
    let head = hook.heads.recv().await.expect("asked").to_lowercase();
    assert!(head.starts_with("post /p?timeout=3s http/1.1"), "{head}");
    assert!(head.contains("authorization: basic dtpw") && head.contains("x-more: m"), "{head}");
}

#[tokio::test]
async fn failures_read_like_those_of_upstreams_client() {
    let wrong = hook("other.n.svc", YES).await;
    let failure = ask(service(&wrong), Arc::new(At(wrong.address))).await.expect_err("wrong name");
    assert_eq!(
        failure.message,
        "Post \"https://s.n.svc:443/p?timeout=3s\": tls: failed to verify certificate: x509: certificate is valid for other.n.svc, not s.n.svc"
    );
    let failure = ask(service(&wrong), Arc::new(Nowhere)).await.expect_err("no service");
    assert!(failure.message.ends_with("service \"s\" not found"), "{failure}");
    let broken = hook("s.n.svc", "HTTP/1.1 500 X\r\ncontent-length: 3\r\n\r\nbad").await;
    let failure = ask(service(&broken), Arc::new(At(broken.address))).await.expect_err("500");
    assert_eq!(failure.code, Some(500));
    assert_eq!(
        failure.message,
        "an error on the server (\"bad\") has prevented the request from succeeding"
    );
    let silent = hook("s.n.svc", "").await;
    let client = Client::new(service(&silent), Arc::new(At(silent.address))).expect("a client");
    let failure = client.post(&json!({}), Duration::from_millis(300)).await.expect_err("silence");
    assert!(failure.message.ends_with("context deadline exceeded"), "{failure}");
}

#[tokio::test]
async fn a_kubeconfig_names_url_trust_and_credentials() {
    let mut hook = hook("named", YES).await;
    let ca = STANDARD.decode(&hook.bundle).expect("base64");
    let server = format!("https://127.0.0.1:{}/authorize", hook.address.port());
    let mut config = client::HttpsConfig::new(server, ca, client::Credentials::Token("t".into()));
    config.tls_server_name = Some("named".into());
    let endpoint = Endpoint::of_kubeconfig(config.clone()).expect("an endpoint");
    assert_eq!(endpoint.host_and_port(), format!("127.0.0.1:{}", hook.address.port()));
    assert!(ask(endpoint, Arc::new(Nowhere)).await.is_ok());
    let head = hook.heads.recv().await.expect("asked").to_lowercase();
    assert!(head.contains("authorization: bearer t") && head.starts_with("post /authorize?"));
    (config.ca_pem, config.insecure_skip_tls_verify) = (Vec::new(), true);
    config.tls_server_name = Some("other".into());
    let endpoint = Endpoint::of_kubeconfig(config.clone()).expect("an endpoint");
    assert!(ask(endpoint, Arc::new(Nowhere)).await.is_ok(), "any certificate is accepted");
    config.proxy_url = Some("http://p".into());
    assert!(Endpoint::of_kubeconfig(config).is_err(), "a proxy is refused");
}
