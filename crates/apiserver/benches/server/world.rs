//! A server over a durable store, asked without sockets, and what the asking costs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apiserver::audit::Auditor;
use apiserver::{Authenticator, AuthorizationModes, Config, NoNodes, Server, ServiceNetwork, User};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use store::{LogEngine, Store};

pub(crate) const CLIENTS: usize = 32;

pub(crate) fn pod(name: &str) -> String {
    let env: Vec<String> = (0..20)
        .map(|n| format!(r#"{{"name":"VARIABLE_{n}","value":"a value of some length {n}"}}"#))
        .collect();
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"default","labels":{{"app":"web","tier":"front"}}}},"spec":{{"containers":[{{"name":"web","image":"registry.example.com/team/web:1.2.3","env":[{}],"ports":[{{"containerPort":8080}}],"resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}},"limits":{{"memory":"128Mi"}}}},"livenessProbe":{{"httpGet":{{"path":"/healthz","port":8080}}}}}}]}}}}"#,
        env.join(",")
    )
}

/// CPU time of this process so far.
pub(crate) fn cpu() -> Duration {
    // The process's own schedstat is that of its first thread only, so threads are summed.
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let one = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(one).sum())
}

pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) user: User,
}

impl Bench {
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: String,
    ) -> (u16, Bytes) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        let response = self.server.serve_as(self.user.clone(), request).await;
        let code = response.status().as_u16();
        // Frame by frame, as a connection sends it; the last one is kept for error messages.
        let (mut body, mut last) = (response.into_body(), Bytes::new());
        while let Some(frame) = body.frame().await {
            last = frame.expect("a body never fails").into_data().unwrap_or_default();
        }
        (code, last)
    }

    /// Runs `count` requests from [`CLIENTS`] tasks; CPU per request and requests per second.
    pub(crate) async fn measure(
        self: &Arc<Self>,
        what: &str,
        yardstick: Duration,
        count: usize,
        request: impl Fn(usize) -> (&'static str, String, &'static str, String) + Send + Sync + 'static,
    ) {
        let request = Arc::new(request);
        let (cpu_before, start) = (cpu(), std::time::Instant::now());
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let (bench, request) = (self.clone(), request.clone());
            clients.spawn(async move {
                for n in (client..count).step_by(CLIENTS) {
                    let (method, path, content_type, body) = request(n);
                    let (code, answer) = bench.ask(method, &path, content_type, body).await;
                    assert!(code < 300, "{code} {}", String::from_utf8_lossy(&answer));
                }
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("a client never fails");
        }
        let (spent, elapsed) = (cpu() - cpu_before, start.elapsed());
        let each = spent / count as u32;
        println!(
            "{what:<34} {:>9.1} µs CPU  {:>7.2} × yardstick  {:>9.0} /s",
            each.as_secs_f64() * 1e6,
            each.as_secs_f64() / yardstick.as_secs_f64(),
            count as f64 / elapsed.as_secs_f64()
        );
    }
}

pub(crate) fn yardstick() -> Duration {
    let text = pod("yardstick");
    let before = cpu();
    for _ in 0..20_000 {
        let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        std::hint::black_box(parsed);
    }
    (cpu() - before) / 20_000
}

pub(crate) async fn server(folder: &std::path::Path) -> Bench {
    server_with(folder, None).await
}

/// With an audit.
pub(crate) async fn server_with(folder: &std::path::Path, auditor: Option<Arc<Auditor>>) -> Bench {
    let engine = LogEngine::open(folder).expect("a store");
    let store = Store::open(Box::new(engine), apiserver::collections()).expect("a store");
    let key = pki::TokenIssuer::generate_key().expect("a key");
    let tokens = Arc::new(pki::TokenIssuer::new("https://bench", &key).expect("an issuer"));
    let config = Config {
        authenticator: Arc::new(Authenticator::new(tokens.clone())),
        service_network: ServiceNetwork::parse("10.43.0.0/16").expect("a range"),
        node_dialer: Arc::new(NoNodes),
        advertise: (IpAddr::from([127, 0, 0, 1]), 6443),
        tokens,
        authorization: AuthorizationModes::usual(),
        resource_metrics: false,
        legacy: false,
        event_ttl: Duration::from_secs(3600),
        auditor,
        tracer: None,
        health_checks: Vec::new(),
        components: Vec::new(),
        figures: Vec::new(),
        component: apiserver::Component::default(),
        admission: apiserver::AdmissionOptions::default(),
        front_proxy: None,
        limits: apiserver::Limits::default(),
    };
    let server = Server::new(store, config).expect("a server");
    server.bootstrap(&client::Tasks::new()).await.expect("bootstrap");
    let user = User::new("admin", &["system:masters", "system:authenticated"]);
    let bench = Bench { server, user };
    let account = r#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#;
    let path = "/api/v1/namespaces/default/serviceaccounts";
    bench.ask("POST", path, "application/json", account.into()).await;
    bench
}
