//! WebhookLockouts: tells who writes a webhook's configuration that it would refuse the pods that serve it. Not one
//! of upstream's.

use api::Status;
use serde_json::Value;
use validation::items;

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin};
use crate::webhooks::lockout;

pub(super) struct WebhookLockouts;

impl Plugin for WebhookLockouts {
    fn name(&self) -> &'static str {
        "WebhookLockouts"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let kinds = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];
        writes
            && request.row.group == "admissionregistration.k8s.io"
            && kinds.contains(&request.row.kind)
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a Value) -> Decision<'a> {
        for webhook in items(object, "webhooks") {
            warn(request, webhook);
        }
        Ok::<(), Status>(()).into()
    }
}

fn warn(request: &Attributes<'_>, webhook: &Value) {
    let Some((namespace, service)) = lockout::service_of(&webhook["clientConfig"]) else { return };
    let read = |resource, key: &str| request.read(("", "v1", resource), key).unwrap_or(Value::Null);
    let stored_namespace = read("namespaces", namespace);
    let stored_service = read("services", &format!("{namespace}/{service}"));
    if lockout::guards_itself(webhook, &stored_namespace, &stored_service) {
        let name = webhook["name"].as_str().unwrap_or("");
        let place = (namespace, service);
        (request.warn)(lockout::advice(request.row.kind, request.name, name, place));
    }
}
