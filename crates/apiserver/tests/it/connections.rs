//! Connections that say nothing, clients that are answered early, and a process that has no memory
//! left for more.

use std::sync::Arc;
use std::time::Duration;

use apiserver::{Limits, LiveTls, TlsSetup};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::harness::{Setup, World};
use crate::limits::Signed;

/// A server behind TLS, and how to connect to it over HTTP/1.1.
pub(crate) struct Served {
    at: std::net::SocketAddr,
    client: Arc<rustls::ClientConfig>,
    pub(crate) world: World,
    tls: TlsSetup,
    live: Arc<LiveTls>,
    signed: Signed,
}

impl Served {
    pub(crate) async fn with(limits: Limits) -> Served {
        Served::trusting(limits, None).await
    }

    /// With clients whose certificates another authority signed, when one is given.
    async fn trusting(limits: Limits, other: Option<&pki::Authority>) -> Served {
        let world = World::with(Setup {
            limits,
            authenticator: |usual| {
                let one = |name: &str| vec![name.to_owned()];
                usual.with_front_proxies(apiserver::FrontProxies {
                    username: one("X-Remote-User"),
                    groups: one("X-Remote-Group"),
                    ..apiserver::FrontProxies::default()
                })
            },
            ..Setup::default()
        })
        .await;
        let signed = Signed::new();
        let mut tls = signed.server();
        if let Some(other) = other {
            tls.client_ca_pem = other.pem().cert_pem.clone();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let at = listener.local_addr().expect("an address");
        let live = Arc::new(LiveTls::new(&tls).expect("TLS"));
        let listening = apiserver::listen(world.server.clone(), listener, live.clone());
        tokio::spawn(listening.run());
        let mut client = (*signed.client).clone();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Served { at, client: Arc::new(client), world, tls, live, signed }
    }

    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.at).await.expect("a connection");
        let name = "localhost".try_into().expect("a name");
        let connector = tokio_rustls::TlsConnector::from(self.client.clone());
        connector.connect(name, tcp).await.expect("TLS")
    }
}

/// Reads one answer; its head.
async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = Vec::new();
    let (mut head, mut length) = (0, 0);
    while head == 0 || text.len() < head + length {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.expect("an answer, not a reset");
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..count]);
        if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            head = end + 4;
            let lower = String::from_utf8_lossy(&text[..head]).to_lowercase();
            let line = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            length = line.expect("a length").parse().expect("a number");
        }
    }
    String::from_utf8_lossy(&text[..head]).to_lowercase()
}

async fn closes(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut piece = [0; 16];
    matches!(stream.read(&mut piece).await, Ok(0) | Err(_))
}

/// Also where a certificate is of no use, what else is sent counts.
#[tokio::test]
async fn a_strangers_certificate_is_not_believed_and_does_no_harm_to_a_token() {
    let other = pki::Authority::create("other").expect("an authority");
    let served = Served::trusting(Limits::default(), Some(&other)).await;
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let account = serde_json::json!({"metadata": {"name": "robot"}});
    let made = served.world.ask("POST", path, &account).await.json();
    let request = pki::TokenRequest {
        namespace: "default".into(),
        service_account: "robot".into(),
        service_account_uid: made["metadata"]["uid"].as_str().expect("a uid").into(),
        life: 600,
        ..pki::TokenRequest::default()
    };
    let now = jiff::Timestamp::now().as_second();
    let token = served.world.tokens.issue(&request, now).expect("a token");
    let mut stream = served.connect().await;
    let mut ask = async |header: &str| {
        let head = format!("GET /version HTTP/1.1\r\nhost: localhost\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        answer(&mut stream).await
    };
    assert!(ask("").await.starts_with("http/1.1 401"), "a bad credential is not none");
    assert!(ask(&format!("authorization: Bearer {token}\r\n")).await.starts_with("http/1.1 200"));
    assert!(ask("authorization: Bearer forged\r\n").await.starts_with("http/1.1 401"));
}

/// The code of the answer to a request.
async fn code(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    answer(stream).await["http/1.1 ".len()..][..3].to_owned()
}

#[tokio::test]
async fn clients_are_judged_by_the_authorities_of_the_day() {
    let served = Served::with(Limits::default()).await;
    let mut stream = served.connect().await;
    assert_eq!(code(&mut stream, "/api/v1/nodes").await, "200");
    let other = pki::Authority::create("other").expect("an authority");
    let changed = TlsSetup { client_ca_pem: other.pem().cert_pem.clone(), ..served.tls.clone() };
    served.live.replace(&changed).expect("it is sound");
    assert_eq!(code(&mut stream, "/api/v1/nodes").await, "401", "on the connection that is open");
    assert_eq!(code(&mut served.connect().await, "/api/v1/nodes").await, "401");
    served.live.replace(&served.tls).expect("it is sound");
    assert_eq!(code(&mut stream, "/api/v1/nodes").await, "200");
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_half_of_one_is_not() {
    let served = Served::with(Limits::default()).await;
    let shown = |stream: &TlsStream<TcpStream>| {
        let chain = stream.get_ref().1.peer_certificates().expect("a chain");
        chain[0].to_vec()
    };
    let before = shown(&served.connect().await);
    let signed = Signed::new().server();
    let halves = [
        TlsSetup { cert_pem: signed.cert_pem.clone(), ..served.tls.clone() },
        TlsSetup { key_pem: signed.key_pem.clone(), ..served.tls.clone() },
        TlsSetup { cert_pem: String::new(), ..served.tls.clone() },
        TlsSetup { key_pem: "-----BEGIN PRIVATE KEY-----\nAA".into(), ..served.tls.clone() },
        TlsSetup { client_ca_pem: String::new(), ..served.tls.clone() },
        TlsSetup { client_ca_pem: signed.client_ca_pem[..200].into(), ..served.tls.clone() },
    ];
    for half in &halves {
        assert!(served.live.replace(half).is_err());
        assert_eq!(shown(&served.connect().await), before);
    }
    let again = served.signed.server();
    served.live.replace(&again).expect("it is sound");
    assert_ne!(shown(&served.connect().await), before);
}

#[tokio::test]
async fn silence_after_the_handshake_ends() {
    let served = Served::with(Limits::default()).await;
    let mut silent = served.connect().await;
    let mut once = served.connect().await;
    once.write_all(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    assert!(answer(&mut once).await.starts_with("http/1.1 200"));
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    assert!(closes(&mut silent).await);
    let first = began.elapsed();
    assert!(first <= Duration::from_secs(33), "{first:?}");
    assert!(closes(&mut once).await);
    assert!(began.elapsed() <= Duration::from_secs(91), "{:?}", began.elapsed());
}

#[tokio::test]
async fn silent_connections_make_room() {
    let served = Served::with(Limits { connections: 16, ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(served.connect().await);
    }
    let mut asking = served.connect().await;
    asking.write_all(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    assert!(answer(&mut asking).await.starts_with("http/1.1 200"));
    for silent in &mut held[..36] {
        assert!(closes(silent).await, "the oldest left");
    }
}

const REFUSED: &str = "POST /api/v1/namespaces/default/none HTTP/1.1\r\nhost: localhost\r\n";

#[tokio::test]
async fn a_refusal_does_not_cost_the_next_request() {
    let served = Served::with(Limits::default()).await;
    let mut stream = served.connect().await;
    for _ in 0..60 {
        let head = format!("{REFUSED}content-length: 100000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(&[b'x'; 100_000]).await.expect("sent");
        let head = answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 404") && !head.contains("connection: close"), "{head}");
    }
}

#[tokio::test]
async fn a_refusal_of_a_long_body_says_that_it_closes() {
    let served = Served::with(Limits::default()).await;
    let mut stream = served.connect().await;
    let head = format!("{REFUSED}content-length: 3000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        // The server may close in the middle of it.
        drop(write.write_all(&vec![b'x'; 3_000_000]).await);
    };
    let reading = async {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        while !text.windows(4).any(|four| four == b"\r\n\r\n") {
            let count = read.read(&mut piece).await.expect("an answer, not a reset");
            assert!(count > 0, "an answer comes");
            text.extend_from_slice(&piece[..count]);
        }
        String::from_utf8_lossy(&text).to_lowercase()
    };
    let ((), head) = tokio::join!(sending, reading);
    assert!(head.starts_with("http/1.1 404") && head.contains("connection: close"), "{head}");
}

#[tokio::test]
async fn who_waits_for_a_word_is_told_to_close() {
    let served = Served::with(Limits::default()).await;
    let mut stream = served.connect().await;
    let head = format!("{REFUSED}content-length: 10\r\nexpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let head = answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 404") && head.contains("connection: close"), "{head}");
}

#[tokio::test]
async fn without_memory_requests_are_refused_but_for_administrators() {
    let world = World::with_limits(Limits { memory: 1, ..Limits::default() }).await;
    let request = || Request::get("/version").body(Full::<Bytes>::default()).expect("a request");
    let refused = world.server.serve(request(), None).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"1".parse().expect("a value"))
    );
    let signed = Signed::new();
    let certificate = signed.client_der();
    assert_eq!(world.server.serve(request(), Some(certificate.into())).await.status(), 200);
}

/// A proxy in front of the server says who asks; nobody else's headers are read.
#[tokio::test]
async fn a_front_proxy_is_believed_and_nobody_else() {
    const HEADERS: &str = "X-Remote-User: jim\r\nX-Remote-Group: system:masters\r\n";
    let other = pki::Authority::create("other").expect("an authority");
    let served = Served::trusting(Limits::default(), Some(&other)).await;
    let proxies = served.signed.authority.pem().cert_pem.clone();
    let with_proxies = TlsSetup { front_proxy_ca_pem: Some(proxies), ..served.tls.clone() };
    let ask = async |headers: &str| {
        let mut stream = served.connect().await;
        let head = format!("GET /api/v1/nodes HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        answer(&mut stream).await["http/1.1 ".len()..][..3].to_owned()
    };
    assert_eq!(ask(HEADERS).await, "401", "its authority is not one of front proxies");
    served.live.replace(&with_proxies).expect("it is sound");
    assert_eq!(ask(HEADERS).await, "200");
    assert_eq!(ask("").await, "401", "a proxy that names nobody is nobody");
    assert_eq!(ask("X-Remote-User: jim\r\n").await, "403", "jim has no rights of his own");
}

/// A client's own certificate says who asks, whatever its headers say.
#[tokio::test]
async fn headers_of_clients_are_not_read() {
    let served = Served::with(Limits::default()).await;
    let mut stream = served.connect().await;
    let head = "GET /api/v1/nodes HTTP/1.1\r\nhost: localhost\r\nX-Remote-User: jim\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    assert!(answer(&mut stream).await.starts_with("http/1.1 200"));
}
