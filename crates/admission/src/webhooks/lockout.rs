//! Webhooks that lock their cluster out: one that fails closed, and is asked about the very pods that would
//! answer it. Once none of these runs, none starts again. Pure.

use api::registry::Registry;
use serde_json::{Value, json};
use validation::items;

use crate::attributes::Operation;
use crate::matching::Constraints;

/// Namespace and name of the service that a webhook is reached through.
pub fn service_of(client_config: &Value) -> Option<(&str, &str)> {
    let service = &client_config["service"];
    Some((service["namespace"].as_str()?, service["name"].as_str()?))
}

/// Whether a webhook of a configuration is asked about new pods of its own service, and refuses them when it
/// does not answer. `namespace` and `service` are null where they are not there yet.
pub fn guards_itself(webhook: &Value, namespace: &Value, service: &Value) -> bool {
    let Some((name, _)) = service_of(&webhook["clientConfig"]) else { return false };
    // A condition may well be what keeps it away from its own pods.
    if webhook["failurePolicy"] == "Ignore" || items(webhook, "matchConditions").next().is_some() {
        return false;
    }
    let pods = Registry::built_in().find("", "v1", "pods", "").expect("pods are built in");
    let constraints = Constraints::of_webhook(webhook);
    let is_asked = constraints
        .rules()
        .iter()
        .any(|rule| rule.covers(pods) && rule.covers_operation(Operation::Create));
    let named = json!({"metadata": {"labels": {"kubernetes.io/metadata.name": name}}});
    let namespace = if namespace.is_null() { &named } else { namespace };
    let pod = json!({"metadata": {"labels": service["spec"]["selector"]}});
    is_asked && constraints.selects(namespace, &pod)
}

/// Whether a pod serves a service.
pub fn serves(pod: &Value, service: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object().filter(|labels| !labels.is_empty());
    let labels = &pod["metadata"]["labels"];
    selector.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

/// What is wrong, and the command that frees the cluster.
pub fn advice(
    kind: &str,
    configuration: &str,
    webhook: &str,
    (namespace, service): (&str, &str),
) -> String {
    let resource = kind.to_lowercase();
    format!(
        "webhook {webhook:?} of {kind} {configuration:?} refuses the pods of its own service {namespace}/{service} while none of them answers; exclude namespace {namespace:?} in its namespaceSelector, or free the cluster with: kubectl delete {resource} {configuration}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook() -> Value {
        json!({"name": "w", "clientConfig": {"service": {"namespace": "n", "name": "s"}},
            "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]})
    }

    #[test]
    fn a_webhook_over_everything_guards_its_own_pods() {
        let service = json!({"spec": {"selector": {"app": "hook"}}});
        assert!(guards_itself(&webhook(), &Value::Null, &service));
        for (key, value) in [
            ("failurePolicy", json!("Ignore")),
            ("clientConfig", json!({"url": "https://elsewhere"})),
            ("matchConditions", json!([{"name": "c", "expression": "true"}])),
            (
                "rules",
                json!([{"operations": ["DELETE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]),
            ),
            (
                "rules",
                json!([{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["*"], "resources": ["*"]}]),
            ),
            (
                "namespaceSelector",
                json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["n"]}]}),
            ),
            (
                "objectSelector",
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["hook"]}]}),
            ),
        ] {
            let mut other = webhook();
            other[key] = value;
            assert!(!guards_itself(&other, &Value::Null, &service), "{key}");
        }
    }

    #[test]
    fn pods_serve_what_selects_them() {
        let pod = json!({"metadata": {"labels": {"app": "hook", "a": "b"}}});
        assert!(serves(&pod, &json!({"spec": {"selector": {"app": "hook"}}})));
        assert!(!serves(&pod, &json!({"spec": {"selector": {"app": "other"}}})));
        assert!(!serves(&pod, &json!({"spec": {}})) && !serves(&pod, &Value::Null));
    }
}
