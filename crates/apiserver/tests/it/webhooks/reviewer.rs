//! An admission webhook on this machine's loopback, with a behaviour a path.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::hook::authority;

/// One question: its path and query, the review, and its headers.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) uri: String,
    pub(crate) review: Value,
    pub(crate) headers: http::HeaderMap,
}

type Seen = Arc<Mutex<Vec<Asked>>>;

pub(crate) struct Reviewer {
    pub(crate) address: SocketAddr,
    /// PEM of the authority, base64.
    pub(crate) bundle: String,
    seen: Seen,
}

impl Reviewer {
    /// One for the service `hook` in `default`, or at `localhost`.
    pub(crate) async fn start() -> Reviewer {
        let (bundle, issuer) = authority();
        let key = KeyPair::generate().expect("a key");
        let names = vec!["hook.default.svc".to_owned(), "localhost".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        let own = params.signed_by(&key, &issuer).expect("signs");
        let own = CertificateDer::from(own.der().to_vec());
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(vec![own], key)
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let seen = Seen::default();
        let address = listener.local_addr().expect("bound");
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let told = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tls.clone(), told.clone()));
            }
        });
        Reviewer { address, bundle, seen }
    }

    /// What was asked since the last time.
    pub(crate) fn take_seen(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.seen.lock().expect("sound"))
    }
}

async fn serve(stream: TcpStream, tls: tokio_rustls::TlsAcceptor, seen: Seen) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let uri = request.uri().to_string();
            let path = request.uri().path().to_owned();
            let headers = request.headers().clone();
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let review: Value = serde_json::from_slice(&body).expect("a review");
            seen.lock().expect("sound").push(Asked { uri, review: review.clone(), headers });
            if path == "/hang" || is_hanging(&review["request"]["object"]) {
                std::future::pending::<()>().await;
            }
            let mut response = Response::new(Full::new(Bytes::new()));
            if path == "/broken" {
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                *response.body_mut() = Full::new(Bytes::from_static(b"broken"));
            } else {
                *response.body_mut() = Full::new(answer(&path, &review).to_string().into());
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    drop(connection.serve_connection(TokioIo::new(stream), service).await);
}

fn is_hanging(object: &Value) -> bool {
    object["metadata"]["labels"]["webhook-e2e-test"] == "wait-forever"
}

fn answer(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let mut response = match path {
        "/no-response" => Value::Null,
        _ => respond(path, request),
    };
    if response.is_object() && response["uid"].is_null() {
        response["uid"] = request["uid"].clone();
    }
    json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})
}

fn allow() -> Value {
    json!({"allowed": true})
}

fn deny(message: &str) -> Value {
    json!({"allowed": false, "status": {"message": message}})
}

fn patched(operations: &Value) -> Value {
    let patch = STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

fn respond(path: &str, request: &Value) -> Value {
    let object =
        if request["object"].is_null() { &request["oldObject"] } else { &request["object"] };
    match path {
        "/allow" => allow(),
        "/always-deny" => deny("this webhook denies all requests"),
        "/unexplained" => json!({"allowed": false}),
        "/teapot" => json!({"allowed": false,
            "status": {"code": 418, "reason": "Teapot", "message": "short and stout"}}),
        "/other-uid" => json!({"allowed": true, "uid": "other"}),
        "/warn" => json!({"allowed": true, "warnings": ["be careful", ""]}),
        "/pods" => pods(object),
        "/configmaps" | "/custom-resource" => data(object),
        "/attach" => deny(&format!(
            "attaching to pod '{}' is not allowed",
            request["name"].as_str().unwrap_or("")
        )),
        "/crd" => deny("the crd contains unwanted label"),
        "/stage-1" => stage(object, "mutation-start", "mutation-stage-1"),
        "/stage-2" => stage(object, "mutation-stage-1", "mutation-stage-2"),
        "/init-container" => patched(&json!([{"op": "add", "path": "/spec/initContainers",
            "value": [{"image": "webhook-added-image", "name": "webhook-added-init-container", "resources": {}}]}])),
        "/add-label" => add_label(object, "webhook-added"),
        "/count" => count(object),
        "/autoscaler" => patched(
            &json!([{"op": "replace", "path": "/spec/metrics/0/resource/target/averageUtilization", "value": 33}]),
        ),
        "/bad-patch" => patched(&json!({"not": "a list"})),
        "/missing-path" => patched(&json!([{"op": "remove", "path": "/data/absent"}])),
        "/patch-without-type" => json!({"allowed": true, "patch": STANDARD.encode("[]")}),
        other => deny(&format!("no behaviour {other}")),
    }
}

fn pods(pod: &Value) -> Value {
    let named = pod["spec"]["containers"].as_array().into_iter().flatten();
    let is_bad =
        |c: &Value| c["name"].as_str().is_some_and(|name| name.contains("webhook-disallow"));
    match named.into_iter().any(is_bad) {
        true => deny("the pod contains unwanted container name"),
        false => allow(),
    }
}

fn data(object: &Value) -> Value {
    match object["data"]["webhook-e2e-test"] == "webhook-disallow" {
        true => deny("the configmap contains unwanted key and value"),
        false => allow(),
    }
}

fn stage(object: &Value, before: &str, after: &str) -> Value {
    match object["data"][before] == "yes" {
        true => patched(&json!([{"op": "add", "path": format!("/data/{after}"), "value": "yes"}])),
        false => allow(),
    }
}

fn add_label(object: &Value, label: &str) -> Value {
    let labels = &object["metadata"]["labels"];
    let operation = match labels.is_object() {
        true => json!({"op": "add", "path": format!("/metadata/labels/{label}"), "value": "yes"}),
        false => json!({"op": "add", "path": "/metadata/labels", "value": {label: "yes"}}),
    };
    patched(&json!([operation]))
}

/// Counts how often it was asked about the object.
fn count(object: &Value) -> Value {
    let seen = object["data"]["count"].as_str().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    patched(&json!([{"op": "add", "path": "/data/count", "value": (seen + 1).to_string()}]))
}
