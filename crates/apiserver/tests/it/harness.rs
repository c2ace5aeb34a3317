//! A server over a store in memory, asked without sockets.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use apiserver::audit::{Auditor, LogFile, Mode, Policy, Rotation, Sink, Sinks};
use apiserver::{
    Authenticator, AuthorizationModes, Config, FrontProxy, KubeletTls, Limits, NoNodes, NodeDialer,
    Server, ServiceNetwork, User,
};
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use store::{MemoryEngine, Store};
use tokio::net::TcpStream;

/// Every address is one listener of this machine.
pub(crate) struct Here(pub(crate) SocketAddr);

impl NodeDialer for Here {
    fn dial(
        &self,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>> {
        Box::pin(TcpStream::connect(self.0))
    }

    fn kubelet_tls(&self) -> KubeletTls {
        NoNodes.kubelet_tls()
    }
}

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) admin: User,
    pub(crate) tasks: client::Tasks,
    pub(crate) tokens: Arc<pki::TokenIssuer>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        let all = self.headers.get_all(http::header::WARNING).iter();
        all.filter_map(|value| value.to_str().ok()).collect()
    }

    /// Code and message, for refusals.
    pub(crate) fn told(&self) -> (u16, String) {
        (self.code, self.json()["message"].as_str().unwrap_or("").to_owned())
    }
}

/// What a server is made of, beside what all have.
pub(crate) struct Setup {
    pub(crate) dialer: Arc<dyn NodeDialer>,
    pub(crate) limits: Limits,
    pub(crate) auditor: Option<Arc<Auditor>>,
    pub(crate) tracer: Option<Arc<traces::Tracer>>,
    pub(crate) health_checks: Vec<Arc<dyn apiserver::HealthCheck>>,
    pub(crate) components: Vec<Arc<dyn apiserver::HealthCheck>>,
    /// An empty one when absent.
    pub(crate) store: Option<Store>,
    pub(crate) authenticator: fn(Authenticator) -> Authenticator,
    pub(crate) front_proxy: Option<FrontProxy>,
    pub(crate) authorization: AuthorizationModes,
    pub(crate) resource_metrics: bool,
    pub(crate) legacy: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            dialer: Arc::new(NoNodes),
            limits: Limits::default(),
            auditor: None,
            tracer: None,
            health_checks: Vec::new(),
            components: Vec::new(),
            store: None,
            authenticator: |usual| usual,
            front_proxy: None,
            authorization: AuthorizationModes::usual(),
            resource_metrics: false,
            legacy: false,
        }
    }
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(Setup::default()).await
    }

    pub(crate) async fn with_dialer(dialer: Arc<dyn NodeDialer>) -> World {
        World::with(Setup { dialer, ..Setup::default() }).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> World {
        World::with(Setup { limits, ..Setup::default() }).await
    }

    /// One that extension servers know by this certificate.
    pub(crate) async fn with_front_proxy(
        dialer: Arc<dyn NodeDialer>,
        front_proxy: FrontProxy,
    ) -> World {
        let front_proxy = Some(front_proxy);
        World::with(Setup { dialer, front_proxy, ..Setup::default() }).await
    }

    /// With an audit that goes into a file.
    pub(crate) async fn audited(policy: &str, path: &std::path::Path) -> World {
        let file = LogFile::open(path, Rotation::default()).expect("opened");
        let sink = Sink::Log { file, mode: Mode::Blocking, truncation: None };
        let (sinks, work) = Sinks::new(vec![sink]);
        let auditor = Auditor::new(Policy::parse(policy).expect("a policy"), sinks);
        let world =
            World::with(Setup { auditor: Some(Arc::new(auditor)), ..Setup::default() }).await;
        work.into_iter().for_each(|part| world.tasks.spawn("audit", part));
        world
    }

    pub(crate) async fn with(setup: Setup) -> World {
        let empty = || {
            let made = Store::open(Box::new(MemoryEngine::default()), apiserver::collections());
            made.expect("a store")
        };
        let store = setup.store.unwrap_or_else(empty);
        let key = pki::TokenIssuer::generate_key().expect("a key");
        let tokens =
            pki::TokenIssuer::new("https://kubernetes.default.svc", &key).expect("an issuer");
        let tokens = Arc::new(tokens);
        let config = Config {
            authenticator: Arc::new((setup.authenticator)(Authenticator::new(tokens.clone()))),
            service_network: ServiceNetwork::parse("10.43.0.0/16").expect("a range"),
            node_dialer: setup.dialer,
            advertise: (IpAddr::from([192, 0, 2, 1]), 6443),
            tokens: tokens.clone(),
            event_ttl: Duration::from_secs(3600),
            admission: apiserver::AdmissionOptions::default(),
            limits: setup.limits,
            authorization: setup.authorization,
            auditor: setup.auditor,
            tracer: setup.tracer,
            resource_metrics: setup.resource_metrics,
            legacy: setup.legacy,
            health_checks: setup.health_checks,
            components: setup.components,
            figures: Vec::new(),
            component: apiserver::Component { name: "kube-apiserver".into(), ..Default::default() },
            front_proxy: setup.front_proxy,
        };
        let server = Server::new(store, config).expect("a server");
        let tasks = client::Tasks::new();
        server.bootstrap(&tasks).await.expect("bootstrap objects");
        let admin = User::new("admin", &["system:masters", "system:authenticated"]);
        World { server, admin, tasks, tokens }
    }

    /// One request with its headers, by somebody.
    pub(crate) async fn ask_as(
        &self,
        user: &User,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let response = self.server.serve_as(user.clone(), request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body never fails").to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    /// A client of the administrator's, within the process.
    pub(crate) fn client(&self) -> client::Client {
        let (user, tasks) = (self.admin.clone(), self.tasks.clone());
        client::Client::new(Arc::new(apiserver::Local::new(
            self.server.clone(),
            user,
            "test",
            tasks,
        )))
    }

    /// One JSON request by the administrator.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("content-type", "application/json")];
        self.ask_as(&self.admin, (method, path), &headers, body).await
    }

    /// One JSON request by somebody.
    pub(crate) async fn ask_by(
        &self,
        user: &User,
        (method, path): (&str, &str),
        body: &Value,
    ) -> Answer {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask_as(user, (method, path), &[("content-type", kind)], body).await
    }

    /// A request as it comes from outside: by whoever its credentials say.
    pub(crate) async fn ask_outside(
        &self,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        certificate: Option<&[u8]>,
    ) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        let response = self.server.serve(request, certificate.map(Into::into)).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body never fails").to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    /// Makes an object as the administrator; it as it is stored.
    pub(crate) async fn make(&self, path: &str, object: &Value) -> Value {
        let made = self.ask("POST", path, object).await;
        assert_eq!(made.code, 201, "{path}: {}", made.json());
        made.json()
    }

    /// Merges into an object as the administrator.
    pub(crate) async fn set(&self, path: &str, patch: &Value) -> Value {
        let done = self.ask_by(&self.admin, ("PATCH", path), patch).await;
        assert_eq!(done.code, 200, "{path}: {}", done.json());
        done.json()
    }

    /// Gives a user rights everywhere, of rules as `{verbs, apiGroups, resources}`.
    pub(crate) async fn grant(&self, user: &str, rules: &Value) {
        let group = "rbac.authorization.k8s.io";
        let roles = format!("/apis/{group}/v1/clusterroles");
        let name = user.replace(':', "-");
        let role = serde_json::json!({"metadata": {"name": name}, "rules": rules});
        self.make(&roles, &role).await;
        let binding = serde_json::json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
        });
        self.make(&format!("/apis/{group}/v1/clusterrolebindings"), &binding).await;
    }

    /// Follows a path until an event's object is as wanted; the object.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&str, &Value) -> bool) -> Value {
        let request = http::Request::get(path).body(Full::<Bytes>::default()).expect("a request");
        let mut body = self.server.serve_as(self.admin.clone(), request).await.into_body();
        let mut text = Vec::new();
        loop {
            let frame = body.frame().await.expect("the watch goes on").expect("never fails");
            text.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).expect("an event");
                if wanted(event["type"].as_str().unwrap_or(""), &event["object"]) {
                    return event["object"].clone();
                }
            }
        }
    }
}
