//! Admission webhooks: the cases of upstream's suite (`test/e2e/apimachinery/webhook.go`), and what it leaves out.

mod cases;
mod configurations;
mod custom;
mod failures;
mod lockouts;
mod matching;
mod reviewer;
mod reviews;
mod traced;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Answer, Here, Setup, World};
use reviewer::Reviewer;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server with a webhook as the service `default/hook`.
async fn world() -> (World, Reviewer) {
    world_with(None).await
}

/// The same, whose requests are traced.
async fn world_with(tracer: Option<Arc<traces::Tracer>>) -> (World, Reviewer) {
    let hook = Reviewer::start().await;
    let dialer = Arc::new(Here(hook.address));
    let world = World::with(Setup { dialer, tracer, ..Setup::default() }).await;
    let ports = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": ports}});
    world.make("/api/v1/namespaces/default/services", &service).await;
    let slice = json!({
        "metadata": {"name": "hook", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": 8443}],
        "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}],
    });
    world.make("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await;
    let account = json!({"metadata": {"name": "default"}});
    world.make("/api/v1/namespaces/default/serviceaccounts", &account).await;
    (world, hook)
}

/// A webhook of the service, at a path, for an operation list on `group/version/resource`.
fn webhook(hook: &Reviewer, path: &str, operations: &[&str], resource: &str) -> Value {
    let parts: Vec<&str> = resource.splitn(3, '/').collect();
    let [group, version, resource] = parts[..] else { panic!("group/version/resource") };
    json!({
        "name": format!("{}.example.com", path.trim_start_matches('/')),
        "clientConfig": {"caBundle": hook.bundle,
            "service": {"namespace": "default", "name": "hook", "path": path}},
        "rules": [{"operations": operations, "apiGroups": [group], "apiVersions": [version],
            "resources": [resource]}],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    })
}

fn with(mut webhook: Value, fields: &Value) -> Value {
    for (key, value) in fields.as_object().into_iter().flatten() {
        webhook[key] = value.clone();
    }
    webhook
}

async fn register(world: &World, kind: &str, name: &str, webhooks: &[Value]) -> Value {
    let object = json!({"metadata": {"name": name}, "webhooks": webhooks});
    world.make(&format!("{GROUP}/{kind}webhookconfigurations"), &object).await
}

async fn validate(world: &World, webhook: Value) {
    register(world, "validating", "test", &[webhook]).await;
}

async fn mutate(world: &World, webhooks: &[Value]) {
    register(world, "mutating", "test", webhooks).await;
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

fn bad_data() -> Value {
    json!({"webhook-e2e-test": "webhook-disallow"})
}

fn pod(name: &str, container: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": container, "image": "i"}]}})
}

async fn create(world: &World, path: &str, object: &Value) -> Answer {
    world.ask("POST", path, object).await
}

#[track_caller]
fn refused(answer: &Answer, message: &str) {
    assert!(answer.code >= 400, "{}: {}", answer.code, answer.json());
    assert!(answer.told().1.contains(message), "{:?} has not {message:?}", answer.told());
}
