//! Proxying reaches what the requester may reach, and shows its certificate to kubelets alone.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apiserver::{KubeletTls, NodeDialer, User};
use pki::{Authority, CertSpec, KeyPairPem};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::harness::World;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("PEM")
}

fn key(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key")
}

fn roots(authority: &Authority) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let all = certificates(&authority.pem().cert_pem);
    all.into_iter().for_each(|c| roots.add(c).expect("a CA"));
    roots
}

/// Everything leads to one TLS server; dials are counted.
struct Line {
    to: SocketAddr,
    tls: KubeletTls,
    dialed: Arc<AtomicUsize>,
}

impl NodeDialer for Line {
    fn dial(
        &self,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>> {
        self.dialed.fetch_add(1, Ordering::SeqCst);
        Box::pin(TcpStream::connect(self.to))
    }

    fn kubelet_tls(&self) -> KubeletTls {
        self.tls.clone()
    }
}

/// Answers each TLS connection with whether a client certificate came, and the request's head.
async fn serve(listener: TcpListener, own: KeyPairPem, clients: rustls::RootCertStore) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider.clone())
        .allow_unauthenticated()
        .build()
        .expect("a verifier");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&own.cert_pem), key(&own.key_pem))
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    while let Ok((tcp, _)) = listener.accept().await {
        let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
        let shown = stream.get_ref().1.peer_certificates().is_some();
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).await.expect("a request");
        let body = format!("certificate: {shown}\n{}", String::from_utf8_lossy(&head[..length]));
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nAccess-Control-Allow-Origin: *\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n{body}",
            body.len()
        );
        drop(stream.write_all(answer.as_bytes()).await);
        drop(stream.shutdown().await);
    }
}

struct Net {
    world: World,
    dialed: Arc<AtomicUsize>,
}

/// A server whose certificate is of `serving`, towards which `trusted` is the kubelets' authority.
async fn net(serving: &Authority, trusted: &Authority) -> Net {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = listener.local_addr().expect("bound");
    let own = serving.issue(&CertSpec::server("n", &["n"], &["10.9.0.1".parse().expect("an IP")]));
    let shown = trusted.issue(&CertSpec::client("kube-apiserver-kubelet-client", None));
    let shown = shown.expect("issued");
    tokio::spawn(serve(listener, own.expect("issued"), roots(trusted)));
    let identity = (certificates(&shown.cert_pem), key(&shown.key_pem));
    let tls = KubeletTls::new(Some(identity), Some(roots(trusted))).expect("TLS");
    let dialed = Arc::new(AtomicUsize::new(0));
    let line = Line { to, tls, dialed: dialed.clone() };
    let world = World::with_dialer(Arc::new(line)).await;
    world
        .make(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        )
        .await;
    Net { world, dialed }
}

impl Net {
    async fn node(&self, name: &str, addresses: Value) {
        let node = json!({"metadata": {"name": name}, "status": {"addresses": addresses}});
        self.world.make("/api/v1/nodes", &node).await;
    }

    async fn pod(&self, name: &str, ip: &str) {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": "n1",
            "containers": [{"name": "c", "image": "i"}]}});
        self.world.make(PODS, &pod).await;
        let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
        self.world.set(&format!("{PODS}/{name}/status"), &status).await;
    }

    /// A service with one endpoint.
    async fn service(&self, name: &str, ip: &str, target: Value) {
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [
            {"name": "https", "port": 443}]}});
        self.world.make(SERVICES, &service).await;
        let mut endpoint = json!({"addresses": [ip]});
        if !target.is_null() {
            endpoint["targetRef"] = target;
        }
        let slice = json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": [endpoint],
            "ports": [{"name": "https", "port": 6443}]});
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        self.world.make(path, &slice).await;
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.world.ask("GET", path, &Value::Null).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        match answer.code {
            200 => (200, text),
            _ => answer.told(),
        }
    }
}

fn authorities() -> (Authority, Authority) {
    let make = |name| Authority::create(name).expect("a CA");
    (make("kubelets"), make("pods"))
}

#[tokio::test]
async fn only_kubelets_addressed_as_nodes_see_the_certificate() {
    let (kubelets, _) = authorities();
    let net = net(&kubelets, &kubelets).await;
    net.node("n1", json!([{"type": "InternalIP", "address": "10.9.0.1"}])).await;
    net.pod("p", "10.9.0.1").await;
    let target = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    net.service("s", "10.9.0.1", target).await;
    for (path, shown) in [
        ("/api/v1/nodes/n1/proxy/healthz".to_owned(), true),
        ("/api/v1/nodes/n1:10250/proxy/healthz".into(), true),
        ("/api/v1/nodes/https:n1:6443/proxy/api".into(), false),
        (format!("{PODS}/p/log"), true),
        (format!("{PODS}/https:p:10250/proxy/pods"), false),
        (format!("{PODS}/https:p:/proxy/pods"), false),
        (format!("{SERVICES}/https:s:https/proxy/api"), false),
        (format!("{SERVICES}/https:s:443/proxy/api"), false),
    ] {
        let (code, text) = net.get(&path).await;
        assert_eq!(code, 200, "{path}: {text}");
        assert!(text.starts_with(&format!("certificate: {shown}\n")), "{path}: {text}");
    }
}

#[tokio::test]
async fn kubelets_are_checked_against_their_authority_and_pods_against_none() {
    let (kubelets, pods) = authorities();
    let net = net(&pods, &kubelets).await;
    net.node("n1", json!([{"type": "InternalIP", "address": "10.9.0.1"}])).await;
    net.node("n2", json!([{"type": "InternalIP", "address": "10.9.0.2"}])).await;
    net.pod("p", "10.9.0.1").await;
    let (code, text) = net.get(&format!("{PODS}/https:p:443/proxy/")).await;
    assert_eq!((code, text.lines().next()), (200, Some("certificate: false")));
    for path in ["/api/v1/nodes/n1/proxy/healthz", "/api/v1/nodes/n2/proxy/healthz"] {
        let (code, text) = net.get(path).await;
        assert!(code == 503 && text.contains("invalid peer certificate"), "{code} {text}");
    }
    let (code, text) = net.get(&format!("{PODS}/p/log")).await;
    assert!(code == 500 && text.contains("error dialing backend: "), "{code} {text}");
    // Who asks so reads logs all the same.
    let (code, _) = net.get(&format!("{PODS}/p/log?insecureSkipTLSVerifyBackend=true")).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_kubelet_has_the_address_that_its_certificate_is_for() {
    let (kubelets, _) = authorities();
    let net = net(&kubelets, &kubelets).await;
    net.node("n2", json!([{"type": "InternalIP", "address": "10.9.0.2"}])).await;
    let (code, text) = net.get("/api/v1/nodes/n2/proxy/healthz").await;
    assert!(code == 503 && text.contains("invalid peer certificate"), "{code} {text}");
    net.node("n3", json!([])).await;
    let told = (500, "no preferred addresses found; known addresses: []".to_owned());
    let (code, text) = net.get("/api/v1/nodes/n3/proxy/healthz").await;
    assert!(code == told.0 && text.ends_with(&told.1), "{text}");
}

#[tokio::test]
async fn addresses_of_the_servers_own_machine_are_never_dialed() {
    let (kubelets, _) = authorities();
    let net = net(&kubelets, &kubelets).await;
    let told = (400, "address not allowed".to_owned());
    let own = [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
    ];
    for (at, ip) in own.into_iter().enumerate() {
        let node = format!("bad-{at}");
        net.node(&node, json!([{"type": "InternalIP", "address": ip}])).await;
        for path in [
            format!("/api/v1/nodes/{node}/proxy/healthz"),
            format!("/api/v1/nodes/{node}:80/proxy/healthz"),
        ] {
            assert_eq!(net.get(&path).await, told, "{ip} {path}");
        }
    }
    net.node("named", json!([{"type": "Hostname", "address": "localhost"}])).await;
    assert_eq!(net.get("/api/v1/nodes/named/proxy/healthz").await, told);
    for (at, ip) in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1"].into_iter().enumerate() {
        let pod = format!("p{at}");
        net.pod(&pod, ip).await;
        assert_eq!(net.get(&format!("{PODS}/{pod}:80/proxy/")).await, told, "{ip}");
    }
    assert_eq!(net.dialed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn endpoints_are_pods_of_the_services_namespace() {
    let (kubelets, _) = authorities();
    let net = net(&kubelets, &kubelets).await;
    net.pod("p", "10.9.0.1").await;
    let pod =
        |namespace: &str, name: &str| json!({"kind": "Pod", "namespace": namespace, "name": name});
    net.pod("own", "127.0.0.1").await;
    for (name, ip, target) in [
        ("bare", "10.9.0.1", Value::Null),
        ("elsewhere", "10.9.0.1", pod("kube-system", "p")),
        ("other", "10.9.0.9", pod("default", "p")),
        ("gone", "10.9.0.1", pod("default", "gone")),
    ] {
        net.service(name, ip, target).await;
        let told = format!("no endpoints available for service \"https:{name}:https\"");
        let path = format!("{SERVICES}/https:{name}:https/proxy/");
        assert_eq!(net.get(&path).await, (503, told), "{name}");
    }
    let path = format!("{SERVICES}/https:bare:80/proxy/");
    let told = "no service port 80 found for service \"bare\"".to_owned();
    assert_eq!(net.get(&path).await, (503, told));
    assert_eq!(net.dialed.load(Ordering::SeqCst), 0);
}

/// What is refused where endpoints are written need not be looked for where they are used.
#[tokio::test]
async fn endpoints_are_never_of_the_machine_itself() {
    let (kubelets, _) = authorities();
    let net = net(&kubelets, &kubelets).await;
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    for (family, ip, why) in [
        ("IPv4", "127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (
            "IPv4",
            "169.254.169.254",
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ),
        ("IPv6", "::1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("IPv6", "::ffff:127.0.0.1", "must not be an IPv4-mapped IPv6 address"),
    ] {
        let slice = json!({"metadata": {"name": "s"}, "addressType": family, "ports": [],
            "endpoints": [{"addresses": [ip]}]});
        let (code, text) = net.world.ask("POST", path, &slice).await.told();
        assert!(code == 422 && text.contains(why), "{ip}: {code} {text}");
    }
    let endpoints = json!({"metadata": {"name": "s"}, "subsets": [
        {"addresses": [{"ip": "::ffff:127.0.0.1"}], "ports": [{"port": 80}]}]});
    let path = "/api/v1/namespaces/default/endpoints";
    let (code, text) = net.world.ask("POST", path, &endpoints).await.told();
    assert!(code == 422 && text.contains("may not be in the loopback range"), "{text}");
}

#[tokio::test]
async fn names_in_the_path_are_well_formed() {
    let (kubelets, _) = authorities();
    let net = net(&kubelets, &kubelets).await;
    for (path, kind) in [
        (format!("{PODS}/ftp:p:80/proxy/"), "pod request \"ftp:p:80\""),
        (format!("{SERVICES}/a:b:c:d/proxy/"), "service request \"a:b:c:d\""),
        ("/api/v1/nodes/gopher:n:1/proxy/".into(), "node request \"gopher:n:1\""),
    ] {
        assert_eq!(net.get(&path).await, (400, format!("invalid {kind}")));
    }
}

#[tokio::test]
async fn credentials_and_hop_by_hop_headers_end_here() {
    let (kubelets, _) = authorities();
    let net = net(&kubelets, &kubelets).await;
    net.pod("p", "10.9.0.1").await;
    let path = format!("{PODS}/https:p:443/proxy/x");
    let headers = [
        ("authorization", "Bearer secret-one"),
        ("impersonate-user", "secret-two"),
        ("x-remote-user", "secret-three"),
        ("connection", "x-hop"),
        ("x-hop", "secret-four"),
        ("x-kept", "kept"),
    ];
    net.world
        .grant(
            "secret-two",
            &json!([{"verbs": ["get"], "apiGroups": [""],
            "resources": ["pods/proxy"]}]),
        )
        .await;
    let answer = net.world.ask_as(&net.world.admin, ("GET", &path), &headers, "").await;
    let text = String::from_utf8_lossy(&answer.bytes).into_owned();
    assert!(answer.code == 200 && text.contains("x-kept: kept"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    for name in ["access-control-allow-origin", "connection", "x-hop"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn running_something_needs_create_whatever_the_method() {
    let (kubelets, _) = authorities();
    let net = net(&kubelets, &kubelets).await;
    net.node("n1", json!([{"type": "InternalIP", "address": "10.9.0.1"}])).await;
    net.pod("p", "10.9.0.1").await;
    let streams = ["pods/exec", "pods/attach", "pods/portforward"];
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": streams}]);
    net.world.grant("reader", &rules).await;
    let reader = User::new("reader", &["system:authenticated"]);
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    for stream in ["exec", "attach", "portforward"] {
        let path = format!("{PODS}/p/{stream}?command=id&stdout=1&ports=80");
        let refused = net.world.ask_as(&reader, ("GET", &path), &upgrade, "").await;
        let why = format!(
            "pods \"p\" is forbidden: User \"reader\" cannot create resource \"pods/{stream}\" in API group \"\" in the namespace \"default\""
        );
        assert_eq!(refused.told(), (403, why));
        assert_eq!(net.dialed.load(Ordering::SeqCst), 0);
        let plain = net.world.ask_as(&net.world.admin, ("GET", &path), &[], "").await;
        assert_eq!(plain.told(), (400, "Upgrade request required".into()));
        for method in ["PUT", "PATCH", "DELETE"] {
            let odd = net.world.ask_as(&net.world.admin, (method, &path), &upgrade, "").await;
            assert_eq!(odd.code, 405, "{method} {stream}");
        }
    }
    for (method, path) in [("POST", "log"), ("TRACE", "proxy/")] {
        let path = format!("{PODS}/p/{path}");
        let odd = net.world.ask_as(&net.world.admin, (method, &path), &[], "").await;
        assert_eq!(odd.code, 405, "{method} {path}");
    }
    assert_eq!(net.dialed.load(Ordering::SeqCst), 0);
}
