//! What a server takes on: deadlines, requests at a time, and an orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::{Limits, User};
use bytes::Bytes;
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::World;

/// A body whose end never comes.
fn endless() -> impl hyper::body::Body<Data = Bytes, Error = std::io::Error> + Send + Unpin {
    StreamBody::new(futures::stream::pending())
}

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

async fn hangs(world: &World, user: &User, query: &str) -> (u16, Value) {
    let request = Request::post(format!("{REVIEWS}{query}")).body(endless()).expect("a request");
    let response = world.server.serve_as(user.clone(), request).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("never fails").to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_request_has_a_deadline() {
    let world = World::new().await;
    // The clock stands still only now: it would outrun the store's writer, which is a thread.
    tokio::time::pause();
    for (query, seconds) in [("", 60), ("?timeout=7s", 7), ("?timeout=2h", 60), ("?timeout=0", 60)]
    {
        let began = tokio::time::Instant::now();
        let (code, status) = hangs(&world, &world.admin, query).await;
        assert_eq!(code, 504, "{status}");
        assert_eq!(status["reason"], "Timeout");
        let message = "Timeout: request did not complete within the allotted timeout";
        assert_eq!(status["message"], message);
        assert_eq!(began.elapsed().as_secs(), seconds, "{query}");
    }
    let (code, status) = hangs(&world, &world.admin, "?timeout=soon").await;
    assert_eq!(code, 400);
    let message = r#"invalid timeout specified in the request URL - time: invalid duration "soon""#;
    assert_eq!(status["message"], message);
}

#[tokio::test]
async fn more_than_fit_wait_and_are_sent_away() {
    let world =
        World::with_limits(Limits { changes: 1, fairness: false, ..Limits::default() }).await;
    tokio::time::pause();
    let user = User::new("anna", &["system:authenticated"]);
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let asked = |user: User| {
        let request = Request::post(REVIEWS).body(Full::from(review.to_string()));
        world.server.serve_as(user, request.expect("a request"))
    };
    let first = hangs(&world, &user, "");
    let others = async {
        let refused = asked(user.clone()).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(asked(world.admin.clone()).await.status(), 201, "system:masters never wait");
    };
    let ((code, _), ()) = tokio::join!(first, others);
    assert_eq!(code, 504);
    assert_eq!(asked(user.clone()).await.status(), 201, "its place came free");
}

/// An authority that signed the server's certificate and the client's.
pub(crate) struct Signed {
    pub(crate) authority: pki::Authority,
    pub(crate) client: Arc<rustls::ClientConfig>,
    certificate: Vec<u8>,
}

impl Signed {
    pub(crate) fn new() -> Signed {
        let authority = pki::Authority::create("test").expect("an authority");
        let spec = pki::CertSpec::client("admin", Some("system:masters"));
        let pair = authority.issue(&spec).expect("a certificate");
        let mut roots = rustls::RootCertStore::empty();
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        roots.add(certificate(&authority.pem().cert_pem)).expect("a root");
        let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate(&pair.cert_pem)], key)
            .expect("a pair");
        client.alpn_protocols = vec![b"h2".to_vec()];
        let certificate = certificate(&pair.cert_pem).to_vec();
        Signed { authority, client: Arc::new(client), certificate }
    }

    /// The administrator's certificate.
    pub(crate) fn client_der(&self) -> Vec<u8> {
        self.certificate.clone()
    }

    pub(crate) fn server(&self) -> apiserver::TlsSetup {
        let spec = pki::CertSpec::server("localhost", &["localhost"], &[]);
        let pair = self.authority.issue(&spec).expect("a certificate");
        apiserver::TlsSetup {
            cert_pem: pair.cert_pem,
            key_pem: pair.key_pem,
            client_ca_pem: self.authority.pem().cert_pem.clone(),
            front_proxy_ca_pem: None,
        }
    }
}

type Outgoing = BoxBody<Bytes, Infallible>;

/// An HTTP/2 connection of the administrator's, over TLS.
async fn connect(at: SocketAddr, signed: &Signed) -> SendRequest<Outgoing> {
    let tcp = TcpStream::connect(at).await.expect("a connection");
    let name = "localhost".try_into().expect("a name");
    let connector = tokio_rustls::TlsConnector::from(signed.client.clone());
    let stream = connector.connect(name, tcp).await.expect("TLS");
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<Outgoing> {
    let uri = format!("https://localhost{path}");
    Request::get(uri).body(Full::default().boxed()).expect("a request")
}

#[tokio::test]
async fn it_ends_in_order() {
    let world = World::new().await;
    let signed = Signed::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let at = listener.local_addr().expect("an address");
    let tls = Arc::new(apiserver::LiveTls::new(&signed.server()).expect("TLS"));
    let listening = apiserver::listen(world.server.clone(), listener, tls);
    let running = tokio::spawn(listening.run());
    let mut client = connect(at, &signed).await;

    let watch = client.send_request(get("/api/v1/namespaces?watch=true")).await.expect("a watch");
    let mut events = watch.into_body();
    events.frame().await.expect("the present state").expect("a frame");
    // A request whose body is still on its way.
    let (body, rest) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let rest = futures::stream::unfold(rest, |mut rest| async move {
        let bytes = rest.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), rest))
    });
    let mut request = get("/api/v1/namespaces").map(|_| BodyExt::boxed(StreamBody::new(rest)));
    *request.method_mut() = http::Method::POST;
    body.send(Bytes::from_static(br#"{"metadata":"#)).expect("an open body");
    let slow = client.send_request(request);

    let ready = client.send_request(get("/readyz")).await.expect("an answer");
    assert_eq!(ready.status(), 200);
    world.server.announce_end();
    let ready = client.send_request(get("/readyz")).await.expect("an answer");
    assert_eq!(ready.status(), 500);
    let text = ready.into_body().collect().await.expect("a body").to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("[-]shutdown failed: reason withheld"));

    world.server.drain();
    while let Some(frame) = events.frame().await {
        frame.expect("a watch ends, it does not break");
    }
    body.send(Bytes::from_static(br#"{"name":"last"}}"#)).expect("an open body");
    drop(body);
    assert_eq!(slow.await.expect("an answer").status(), 201);
    running.await.expect("the listener ends by itself");
    assert!(TcpStream::connect(at).await.is_err(), "nobody listens");
}

/// A server with little memory says which requests it cannot take; what is stored can be deleted.
#[tokio::test]
async fn changes_that_do_not_fit_into_memory_are_refused_but_deletions() {
    const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";
    let world = World::with_limits(Limits::within(64 << 20)).await;
    let template = |count: usize| {
        let env: Vec<Value> = (0..count).map(|n| json!({"name": format!("A{n}")})).collect();
        json!({
            "metadata": {"name": "wide"},
            "template": {"spec": {"containers": [{"name": "c", "image": "x", "env": env}]}},
        })
    };
    let refused = |code: u16, status: &Value| {
        assert_eq!((code, &status["reason"]), (413, &"RequestEntityTooLarge".into()), "{status}");
        assert!(status["message"].as_str().is_some_and(|text| text.contains("--memory-limit")));
    };
    let answer = world.ask("POST", TEMPLATES, &template(20_000)).await;
    refused(answer.code, &answer.json());
    assert_eq!(world.ask("POST", TEMPLATES, &template(10_000)).await.code, 201);
    let path = format!("{TEMPLATES}/wide");
    let mut changed = template(1);
    changed["metadata"]["labels"] = json!({"a": "b"});
    let answer = world.ask("PUT", &path, &changed).await;
    refused(answer.code, &answer.json());
    assert_eq!(world.ask("GET", &path, &Value::Null).await.code, 200);
    assert_eq!(world.ask("DELETE", &path, &json!({})).await.code, 200);
}
