//! Aggregated APIs: an extension server on this machine's loopback (upstream's cases: `test/e2e/apimachinery/aggregator.go`).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use apiserver::{FrontProxy, User};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pki::{Authority, CertSpec};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Here, World};
use crate::hook::authority;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.wardle.example.com";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";

/// A request as the extension server saw it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    uri: String,
    headers: http::HeaderMap,
    body: Bytes,
    /// Common name of the client's certificate.
    certificate: bool,
}

struct ExtensionServer {
    address: SocketAddr,
    bundle: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    is_dead: Arc<Mutex<bool>>,
}

impl ExtensionServer {
    /// One that asks for a certificate of this authority.
    async fn start(client_ca_pem: &str) -> ExtensionServer {
        let (bundle, issuer) = authority();
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = vec!["sample.default.svc".to_owned()];
        let own = rcgen::CertificateParams::new(names).expect("names");
        let own = own.signed_by(&key, &issuer).expect("signs");
        let own = CertificateDer::from(own.der().to_vec());
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(client_ca_pem.as_bytes()).expect("PEM");
        roots.add(ca).expect("an authority");
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            provider.clone(),
        );
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_client_cert_verifier(
                verifier.allow_unauthenticated().build().expect("a verifier"),
            )
            .with_single_cert(vec![own], key)
            .expect("a pair");
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = ExtensionServer {
            address: listener.local_addr().expect("bound"),
            bundle,
            seen: Arc::default(),
            is_dead: Arc::default(),
        };
        let (seen, is_dead) = (server.seen.clone(), server.is_dead.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if !*is_dead.lock().expect("sound") {
                    tokio::spawn(serve(stream, tls.clone(), seen.clone()));
                }
            }
        });
        server
    }

    fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("sound"))
    }
}

async fn serve(stream: TcpStream, tls: tokio_rustls::TlsAcceptor, seen: Arc<Mutex<Vec<Seen>>>) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().is_some();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let upgrade = hyper::upgrade::on(&mut request);
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let uri = parts.uri.to_string();
            let is_discovery = uri == "/apis/wardle.example.com/v1alpha1";
            let is_document = uri == "/openapi/v2";
            if !is_discovery && !is_document {
                let (method, headers) = (parts.method.to_string(), parts.headers.clone());
                let uri = uri.clone();
                seen.lock().expect("sound").push(Seen { method, uri, headers, body, certificate });
            }
            if parts.headers.contains_key("upgrade") {
                tokio::spawn(echo(upgrade));
                let mut response = Response::new(Full::<Bytes>::default());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert("connection", "Upgrade".parse().expect("a value"));
                headers.insert("upgrade", "echo".parse().expect("a value"));
                return Ok::<_, Infallible>(response);
            }
            if is_document {
                return Ok(document(&parts.headers));
            }
            let answer = match is_discovery {
                true => json!({"kind": "APIResourceList", "apiVersion": "v1",
                    "groupVersion": "wardle.example.com/v1alpha1", "resources": [
                        {"name": "flunders", "singularName": "flunder", "namespaced": true,
                            "kind": "Flunder", "verbs": ["create", "get", "list"]}]}),
                false => json!({"kind": "Flunder", "path": uri}),
            };
            Ok(Response::new(Full::new(answer.to_string().into())))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    drop(connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
}

/// What the extension publishes: its own paths, others', and a type with the name of one of the server's.
fn document(headers: &http::HeaderMap) -> Response<Full<Bytes>> {
    assert_eq!(headers["x-remote-user"], "system:aggregator");
    let known = headers.get("if-none-match").is_some_and(|tag| tag == "\"1\"");
    let path = |name: &str| {
        let schema = json!({"$ref": format!("#/definitions/{name}")});
        json!({"get": {"operationId": name, "responses": {"200": {"description": "OK", "schema": schema}}}})
    };
    let text = json!({"swagger": "2.0", "paths": {
        "/apis/wardle.example.com/v1alpha1/flunders": path("com.example.Flunder"),
        "/apis/wardle.example.com/v1alpha1/pods": path("io.k8s.api.core.v1.Pod"),
        "/apis/wardle.example.com/v1beta1/flunders": path("com.example.Old"),
        "/api/v1/pods": path("com.example.Old"),
    }, "definitions": {
        "com.example.Flunder": {"type": "object"}, "com.example.Old": {"type": "object"},
        "io.k8s.api.core.v1.Pod": {"type": "string"},
    }});
    let mut response =
        Response::new(Full::new(if known { Bytes::new() } else { text.to_string().into() }));
    *response.status_mut() = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    response.headers_mut().insert("etag", "\"1\"".parse().expect("a value"));
    response
}

async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    tokio::io::copy(&mut read, &mut write).await.ok();
}

fn front_proxy() -> FrontProxy {
    let authority = Authority::create("front-proxy-ca").expect("an authority");
    let pair = authority.issue(&CertSpec::client("front-proxy-client", None)).expect("a pair");
    FrontProxy {
        ca_pem: authority.pem().cert_pem.clone(),
        cert_pem: pair.cert_pem,
        key_pem: pair.key_pem,
        allowed_names: vec!["front-proxy-client".into()],
    }
}

fn api_service(bundle: &str) -> Value {
    json!({"metadata": {"name": NAME}, "spec": {
        "group": "wardle.example.com", "version": "v1alpha1", "caBundle": bundle,
        "service": {"namespace": "default", "name": "sample", "port": 443},
        "groupPriorityMinimum": 2000, "versionPriority": 200}})
}

async fn make_service(world: &World) {
    let ports = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
    let service = json!({"metadata": {"name": "sample"}, "spec": {"ports": ports}});
    world.make("/api/v1/namespaces/default/services", &service).await;
}

async fn make_slice(world: &World) {
    let slice = json!({
        "metadata": {"name": "sample", "labels": {"kubernetes.io/service-name": "sample"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": 8443}],
        "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}],
    });
    world.make("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await;
}

/// Waits until the condition `Available` has a reason.
async fn until(world: &World, reason: &str) -> Value {
    let path = format!("{SERVICES}?watch=true&fieldSelector=metadata.name={NAME}");
    let waiting =
        world.until(&path, |_, object| object["status"]["conditions"][0]["reason"] == reason);
    let object = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await;
    object.unwrap_or_else(|_| panic!("never {reason}"))["status"]["conditions"][0].clone()
}

async fn world() -> (World, ExtensionServer) {
    world_with(front_proxy()).await
}

async fn world_with(front_proxy: FrontProxy) -> (World, ExtensionServer) {
    let extension = ExtensionServer::start(&front_proxy.ca_pem).await;
    let world = World::with_front_proxy(Arc::new(Here(extension.address)), front_proxy).await;
    make_service(&world).await;
    make_slice(&world).await;
    world.make(SERVICES, &api_service(&extension.bundle)).await;
    until(&world, "Passed").await;
    (world, extension)
}

#[tokio::test]
async fn requests_reach_the_extension_server_with_their_user() {
    let (world, extension) = world().await;
    let mut user = User::new("jane", &["system:masters", "devs"]);
    user.extra.insert("Scope/s".into(), vec!["a".into()]);
    let path = format!("{FLUNDERS}?fieldManager=m");
    let headers = [
        ("content-type", "application/json"),
        ("x-remote-user", "root"),
        ("authorization", "Bearer secret"),
        ("x-remote-extra-evil", "yes"),
    ];
    let answer = world.ask_as(&user, ("POST", &path), &headers, "{\"a\":1}").await;
    assert_eq!((answer.code, answer.json()["path"].as_str()), (200, Some(path.as_str())));
    let seen = extension.take_seen();
    let seen = &seen[0];
    assert_eq!(
        (seen.method.as_str(), seen.uri.as_str(), &seen.body[..]),
        ("POST", path.as_str(), &b"{\"a\":1}"[..])
    );
    assert!(seen.certificate, "the front proxy shows its certificate");
    let all = |name: &str| -> Vec<&str> {
        seen.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    };
    assert_eq!(
        (all("x-remote-user"), all("x-remote-group")),
        (vec!["jane"], vec!["system:masters", "devs"])
    );
    assert_eq!(all("x-remote-extra-scope%2fs"), ["a"]);
    assert!(all("authorization").is_empty() && all("x-remote-extra-evil").is_empty());
    // Rights are asked here, too.
    let nobody = world.ask_by(&User::new("nobody", &[]), ("GET", FLUNDERS), &Value::Null).await;
    assert_eq!(nobody.code, 403);
    assert!(extension.take_seen().is_empty());
}

#[tokio::test]
async fn the_certificate_of_the_day_is_shown() {
    let (first, second) = (front_proxy(), front_proxy());
    let (world, extension) = world_with(first.clone()).await;
    let code = async || world.ask("GET", FLUNDERS, &Value::Null).await.code;
    assert_eq!(code().await, 200);
    world.server.replace_front_proxy(second.clone()).expect("it is sound");
    assert_ne!(code().await, 200, "the extension server believes another authority");
    let halves = [
        FrontProxy { key_pem: first.key_pem.clone(), ..second.clone() },
        FrontProxy { cert_pem: String::new(), ..first.clone() },
        FrontProxy { key_pem: String::new(), ..first.clone() },
    ];
    for half in halves {
        world.server.replace_front_proxy(half).expect_err("half of two");
    }
    assert_ne!(code().await, 200);
    extension.take_seen();
    world.server.replace_front_proxy(first).expect("it is sound");
    assert_eq!(code().await, 200);
    assert!(extension.take_seen().iter().all(|seen| seen.certificate));
}

#[tokio::test]
async fn discovery_and_open_api_name_the_extension() {
    let (world, _extension) = world().await;
    let get = async |path: &str| world.ask("GET", path, &Value::Null).await.json();
    let groups = get("/apis").await;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    assert!(groups.iter().any(|group| group["name"] == "wardle.example.com"));
    assert_eq!(get("/apis/wardle.example.com").await["preferredVersion"]["version"], "v1alpha1");
    let resources = get("/apis/wardle.example.com/v1alpha1").await;
    assert_eq!(resources["resources"][0]["name"], "flunders");
    let accept =
        [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let aggregated = world.ask_as(&world.admin, ("GET", "/apis"), &accept, "").await.json();
    let items = aggregated["items"].as_array().cloned().unwrap_or_default();
    let item = items.iter().find(|item| item["metadata"]["name"] == "wardle.example.com");
    let version = &item.expect("the group")["versions"][0];
    assert_eq!(
        (&version["freshness"], &version["resources"][0]["resource"]),
        (&json!("Current"), &json!("flunders"))
    );
    let index = get("/openapi/v3").await;
    let url = index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].as_str();
    assert!(url.is_some_and(|url| url.starts_with("/openapi/v3/apis/wardle.example.com/v1alpha1?hash=")));
    assert_eq!(get("/openapi/v3/apis/wardle.example.com/v1alpha1").await["kind"], "Flunder");
}

#[tokio::test]
async fn what_the_extension_publishes_is_part_of_version_2() {
    let (world, _extension) = world().await;
    let own = "/apis/wardle.example.com/v1alpha1/flunders";
    let documents = async || {
        let plain = world.ask("GET", "/openapi/v2", &Value::Null).await;
        (plain.headers["etag"].clone(), plain.json())
    };
    let waiting = async {
        loop {
            let (tag, merged) = documents().await;
            if merged["paths"].get(own).is_some() {
                return (tag, merged);
            }
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(60);
    let (tag, merged) = tokio::time::timeout(limit, waiting).await.expect("it comes");
    assert!(
        merged["paths"].get("/apis/wardle.example.com/v1beta1/flunders").is_none(),
        "not its version"
    );
    assert!(merged["paths"]["/api/v1/pods"]["get"]["operationId"] != "com.example.Old");
    let definitions = &merged["definitions"];
    assert_eq!(definitions["com.example.Flunder"]["type"], "object");
    assert!(definitions.get("com.example.Old").is_none());
    assert_eq!(definitions["io.k8s.api.core.v1.Pod_v2"]["type"], "string");
    assert_eq!(definitions["io.k8s.api.core.v1.Pod"]["type"], "object");
    let renamed = &merged["paths"]["/apis/wardle.example.com/v1alpha1/pods"]["get"]["responses"];
    assert_eq!(renamed["200"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod_v2");
    let accept = [("accept", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")];
    let binary = world.ask_as(&world.admin, ("GET", "/openapi/v2"), &accept, "").await;
    let named = b"com.example.Flunder";
    assert!(binary.bytes.windows(named.len()).any(|part| part == named));
    // It goes with its APIService.
    assert_eq!(world.ask("DELETE", &format!("{SERVICES}/{NAME}"), &Value::Null).await.code, 200);
    let (without, alone) = documents().await;
    assert!(without != tag && alone["paths"].get(own).is_none());
}

#[tokio::test]
async fn a_dead_extension_is_told_and_blocks_nothing() {
    let (world, extension) = world().await;
    *extension.is_dead.lock().expect("sound") = true;
    // A change of its service is a reason to look again.
    world
        .set(
            "/api/v1/namespaces/default/services/sample",
            &json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await;
    let condition = until(&world, "FailedDiscoveryCheck").await;
    assert_eq!(condition["status"], "False");
    let refused = world.ask("GET", FLUNDERS, &Value::Null).await;
    assert_eq!((refused.code, &refused.bytes[..]), (503, &b"service unavailable\n"[..]));
    let accept =
        [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let aggregated = world.ask_as(&world.admin, ("GET", "/apis"), &accept, "").await.json();
    let items = aggregated["items"].as_array().cloned().unwrap_or_default();
    let item = items.iter().find(|item| item["metadata"]["name"] == "wardle.example.com");
    let version = &item.expect("still there")["versions"][0];
    assert_eq!(
        (&version["freshness"], &version["resources"][0]["resource"]),
        (&json!("Stale"), &json!("flunders"))
    );
    // Then it is back.
    *extension.is_dead.lock().expect("sound") = false;
    world
        .set(
            "/api/v1/namespaces/default/services/sample",
            &json!({"metadata": {"labels": {"a": "c"}}}),
        )
        .await;
    until(&world, "Passed").await;
    assert_eq!(world.ask("GET", FLUNDERS, &Value::Null).await.code, 200);
    assert_eq!(world.ask("DELETE", &format!("{SERVICES}/{NAME}"), &Value::Null).await.code, 200);
    assert_eq!(world.ask("GET", FLUNDERS, &Value::Null).await.code, 404);
    let groups = world.ask("GET", "/apis", &Value::Null).await.json();
    assert!(!groups.to_string().contains("wardle"));
}

#[tokio::test]
async fn conditions_say_what_is_missing() {
    let front_proxy = front_proxy();
    let extension = ExtensionServer::start(&front_proxy.ca_pem).await;
    let world = World::with_front_proxy(Arc::new(Here(extension.address)), front_proxy).await;
    world.make(SERVICES, &api_service(&extension.bundle)).await;
    let condition = until(&world, "ServiceNotFound").await;
    assert_eq!(condition["message"], "service/sample in \"default\" is not present");
    let service =
        json!({"metadata": {"name": "sample"}, "spec": {"ports": [{"name": "other", "port": 80}]}});
    world.make("/api/v1/namespaces/default/services", &service).await;
    let condition = until(&world, "ServicePortError").await;
    assert_eq!(condition["message"], "service/sample in \"default\" is not listening on port 443");
    let ports = json!({"spec": {"ports": [{"name": "https", "port": 443}]}});
    world.set("/api/v1/namespaces/default/services/sample", &ports).await;
    let condition = until(&world, "EndpointsNotFound").await;
    assert_eq!(
        condition["message"],
        "cannot find endpointslices for service/sample in \"default\""
    );
    make_slice(&world).await;
    until(&world, "Passed").await;
    let none = json!({"endpoints": []});
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/sample";
    world.set(slice, &none).await;
    let condition = until(&world, "MissingEndpoints").await;
    assert_eq!(
        condition["message"],
        "endpointslices for service/sample in \"default\" have no addresses with port name \"https\""
    );
}

#[tokio::test]
async fn an_untrusted_extension_is_not_asked() {
    let (world, extension) = world().await;
    let (other, _) = authority();
    world.set(&format!("{SERVICES}/{NAME}"), &json!({"spec": {"caBundle": other}})).await;
    let condition = until(&world, "FailedDiscoveryCheck").await;
    assert_eq!(condition["status"], "False");
    assert_eq!(world.ask("GET", FLUNDERS, &Value::Null).await.code, 503);
    let open = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    world.set(&format!("{SERVICES}/{NAME}"), &open).await;
    until(&world, "Passed").await;
    assert_eq!(world.ask("GET", FLUNDERS, &Value::Null).await.code, 200);
    drop(extension);
}

#[tokio::test]
async fn extension_servers_read_whose_proxies_they_may_believe() {
    let front_proxy = front_proxy();
    let world =
        World::with_front_proxy(Arc::new(Here(([127, 0, 0, 1], 1).into())), front_proxy.clone())
            .await;
    let tasks = client::Tasks::new();
    world.server.publish_client_ca("PEM of clients", &tasks).await.expect("published");
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let data = world.ask("GET", path, &Value::Null).await.json()["data"].clone();
    assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert_eq!(data["requestheader-username-headers"], "[\"X-Remote-User\"]");
    assert_eq!(
        data["requestheader-client-ca-file"].as_str().map(str::trim),
        Some(front_proxy.ca_pem.trim())
    );
    tasks.cancel();
}

#[tokio::test]
async fn upgraded_connections_are_piped() {
    let (world, extension) = world().await;
    let (near, far) = tokio::io::duplex(65536);
    let (server, admin) = (world.server.clone(), world.admin.clone());
    tokio::spawn(async move {
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (server, admin) = (server.clone(), admin.clone());
            async move { Ok::<_, Infallible>(server.serve_as(admin, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        drop(connection.serve_connection(TokioIo::new(far), service).with_upgrades().await);
    });
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(near)).await;
    let (mut sender, connection) = handshake.expect("a connection");
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let request = Request::get(format!("{FLUNDERS}/a/echo"))
        .header("host", "here")
        .header("connection", "Upgrade")
        .header("upgrade", "echo")
        .body(Full::<Bytes>::default());
    let mut response = sender.send_request(request.expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(extension.take_seen()[0].headers["x-remote-user"], "admin");
    let upgraded = hyper::upgrade::on(&mut response).await.expect("upgraded");
    let mut io = TokioIo::new(upgraded);
    io.write_all(b"ping").await.expect("written");
    let mut back = [0; 4];
    io.read_exact(&mut back).await.expect("read");
    assert_eq!(&back, b"ping");
}
