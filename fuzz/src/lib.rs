//! A whole API server in memory that fuzz targets send their inputs to. Whatever they send, it must
//! answer, with a Status when it refuses, and never with a fault of its own (5xx).

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use apiserver::{
    Authenticator, AuthorizationModes, Component, Config, Limits, NoNodes, Server, ServiceNetwork,
    TokenReviews, User,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use store::{MemoryEngine, Store};

/// What inputs are sent to.
pub struct World {
    runtime: tokio::runtime::Runtime,
    server: Server,
    admin: User,
}

/// An object of each of these is there, to be patched.
pub const OBJECTS: [(&str, &str); 5] = [
    ("/api/v1/namespaces/default/configmaps/fuzz", include_str!("objects/configmap.json")),
    ("/api/v1/namespaces/default/services/fuzz", include_str!("objects/service.json")),
    ("/apis/apps/v1/namespaces/default/deployments/fuzz", include_str!("objects/deployment.json")),
    ("/api/v1/namespaces/default/secrets/fuzz", include_str!("objects/secret.json")),
    (
        "/apis/fuzz.example.com/v1/namespaces/default/gadgets/fuzz",
        include_str!("objects/gadget.json"),
    ),
];

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The one world of this process.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::new)
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let server = runtime.block_on(serve());
        let admin = User::new("admin", &["system:masters", "system:authenticated"]);
        let world = World { runtime, server, admin };
        world.furnish();
        world
    }

    fn furnish(&self) {
        let json = "application/json";
        let definition = include_str!("objects/definition.json");
        assert_eq!(self.code("POST", DEFINITIONS, json, definition), 201);
        let served = "/apis/fuzz.example.com/v1/gadgets";
        while self.code("GET", served, json, "") != 200 {
            std::thread::yield_now();
        }
        for (path, object) in OBJECTS {
            let (collection, _) = path.rsplit_once('/').expect("a path");
            let (code, answer) = self.ask("POST", collection, json, object.as_bytes());
            assert_eq!(code, 201, "{path}: {answer}");
        }
    }

    fn code(&self, method: &str, path: &str, content_type: &str, body: &str) -> u16 {
        self.ask(method, path, content_type, body.as_bytes()).0
    }

    /// Asks for the head of an answer; its body is read unless it may be endless.
    pub fn ask(&self, method: &str, uri: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", content_type)
            .body(Full::new(Bytes::copy_from_slice(body)));
        // What HTTP itself refuses never comes to the server.
        let Ok(request) = request else { return (400, Value::Null) };
        let endless = uri.contains("watch") || uri.contains("follow");
        self.runtime.block_on(async {
            let response = self.server.serve_as(self.admin.clone(), request).await;
            let code = response.status().as_u16();
            // A refusal ends, whatever was asked for.
            if endless && code < 400 {
                return (code, Value::Null);
            }
            let bytes = response.into_body().collect().await.expect("never fails").to_bytes();
            (code, serde_json::from_slice(&bytes).unwrap_or_default())
        })
    }

    /// Asks as somebody from the network, and fails unless the server knew what to say.
    pub fn check_outside(&self, path: &str, headers: &[(&str, &[u8])]) {
        let mut request = http::Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Ok(request) = request.body(Full::new(Bytes::new())) else { return };
        let (code, bytes) = self.runtime.block_on(async {
            let response = self.server.serve(request, None).await;
            let code = response.status().as_u16();
            let bytes = response.into_body().collect().await.expect("never fails").to_bytes();
            (code, bytes)
        });
        assert!(code < 500, "{path} {headers:?}: {code} {}", String::from_utf8_lossy(&bytes));
    }

    /// Asks, and fails unless the server knew what to say.
    pub fn check(&self, method: &str, uri: &str, content_type: &str, body: &[u8]) {
        let (code, answer) = self.ask(method, uri, content_type, body);
        assert!(code < 500 || is_the_originals(&answer), "{method} {uri}: {code} {answer}");
    }
}

/// Faults that upstream has too: an applied object that does not fit its schema is a 500 there.
/// And what needs a node has none here.
fn is_the_originals(answer: &Value) -> bool {
    let message = answer["message"].as_str().unwrap_or("");
    [
        "failed to create typed patch object",
        "failed to create manager",
        "resourceVersion should not be set",
        "no way to ",
        // A revision that has not come yet is a 504 there, too.
        "Too large resource version",
    ]
    .iter()
    .any(|known| message.contains(known))
}

/// The status of the next TokenReviews.
static REVIEW: Mutex<Value> = Mutex::new(Value::Null);

/// Lets a token's review have this status from now on.
pub fn review_tokens_with(status: Value) {
    *REVIEW.lock().expect("no panic") = status;
}

struct Reviews;

impl TokenReviews for Reviews {
    fn review<'a>(
        &'a self,
        _token: &'a str,
        _audiences: &'a [String],
    ) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>> {
        let status = REVIEW.lock().expect("no panic").clone();
        Box::pin(std::future::ready(Ok(status)))
    }
}

async fn serve() -> Server {
    let store = Store::open(Box::<MemoryEngine>::default(), apiserver::collections());
    let key = pki::TokenIssuer::generate_key().expect("a key");
    let tokens = Arc::new(pki::TokenIssuer::new("https://fuzz", &key).expect("an issuer"));
    let config = Config {
        authenticator: Arc::new(
            Authenticator::new(tokens.clone()).with_webhook(Arc::new(Reviews), Duration::ZERO),
        ),
        service_network: ServiceNetwork::parse("10.43.0.0/16").expect("a range"),
        node_dialer: Arc::new(NoNodes),
        advertise: (IpAddr::from([192, 0, 2, 1]), 6443),
        tokens,
        authorization: AuthorizationModes::usual(),
        event_ttl: Duration::from_secs(3600),
        admission: apiserver::AdmissionOptions::default(),
        front_proxy: None,
        limits: Limits::default(),
        auditor: None,
        tracer: None,
        legacy: false,
        resource_metrics: false,
        component: Component::default(),
        health_checks: Vec::new(),
        components: Vec::new(),
        figures: Vec::new(),
    };
    let server = Server::new(store.expect("a store"), config).expect("a server");
    server.bootstrap(&client::Tasks::new()).await.expect("bootstrap objects");
    server
}

/// Collections that bodies are sent to: the first byte of an input chooses.
pub const COLLECTIONS: [&str; 12] = [
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/services",
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/nodes",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/batch/v1/namespaces/default/cronjobs",
    "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/fuzz.example.com/v1/namespaces/default/gadgets",
    "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
];

/// Sends an input as the body of a creation that is not stored.
pub fn create(input: &[u8], content_type: &str) {
    let Some((choice, body)) = input.split_first() else { return };
    let collection = COLLECTIONS[usize::from(*choice) % COLLECTIONS.len()];
    world().check("POST", &format!("{collection}?dryRun=All"), content_type, body);
}
