//! The Node authoriser: a kubelet reads what its own pods refer to, and writes what is its own.
//!
//! Rule: kubernetes.io "Using Node Authorization". The pods of a node are few, so the question is
//! answered from them at the time it is asked, not from a graph kept for all nodes.

use serde_json::Value;
use store::Store;

use super::Attributes;

const DENIED: &str = "no relationship found between node";

/// `Err` carries the reason.
pub(super) fn check(store: &Store, node: &str, a: &Attributes<'_>) -> Result<(), String> {
    let denied = |what: &str| Err(format!("{DENIED} '{node}' and {what}"));
    let read_one = matches!(a.verb, "get" | "list" | "watch") && !a.name.is_empty();
    match (a.group, a.resource) {
        ("", "configmaps" | "secrets" | "persistentvolumeclaims") if a.subresource.is_empty() => {
            if read_one && refers(store, node, a.namespace, a.resource, a.name) {
                Ok(())
            } else {
                denied("this object")
            }
        }
        ("", "serviceaccounts") if a.subresource == "token" && a.verb == "create" => {
            if uses_account(store, node, a.namespace, a.name) {
                Ok(())
            } else {
                denied("this object")
            }
        }
        ("coordination.k8s.io", "leases") if a.namespace == "kube-node-lease" => {
            let own = a.name == node || (a.name.is_empty() && a.verb == "create");
            if own {
                Ok(())
            } else {
                Err("can only access node lease with the same name as the requesting node".into())
            }
        }
        ("storage.k8s.io", "csinodes") if a.name == node || a.verb == "create" => Ok(()),
        _ if role_allows(a) => Ok(()),
        _ => Err(String::new()),
    }
}

/// The `system:node` role: what every kubelet may do, narrowed further by NodeRestriction.
fn role_allows(a: &Attributes<'_>) -> bool {
    let read = matches!(a.verb, "get" | "list" | "watch");
    let one = |verbs: &[&str]| verbs.contains(&a.verb);
    match (a.group, a.resource, a.subresource) {
        ("", "services", "") => read,
        ("", "nodes", "") => read || one(&["create", "update", "patch"]),
        ("", "nodes", "status") => one(&["update", "patch"]),
        ("", "events", "") => one(&["create", "update", "patch"]),
        ("", "pods", "") => read || one(&["create", "delete"]),
        ("", "pods", "status") => one(&["update", "patch"]),
        ("", "pods", "eviction") => one(&["create"]),
        ("", "persistentvolumes", "") => one(&["get"]),
        ("", "persistentvolumeclaims", "status") => one(&["get", "update", "patch"]),
        ("", "endpoints", "") => one(&["get"]),
        ("authentication.k8s.io", "tokenreviews", "") => one(&["create"]),
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
            one(&["create"])
        }
        ("certificates.k8s.io", "certificatesigningrequests", "") => read || one(&["create"]),
        ("node.k8s.io", "runtimeclasses", "") => read,
        ("storage.k8s.io", "volumeattachments", "") => one(&["get"]),
        ("storage.k8s.io", "csidrivers", "") => read,
        ("discovery.k8s.io", "endpointslices", "") => read,
        _ => false,
    }
}

fn pods_of(store: &Store, node: &str, namespace: &str) -> Vec<Value> {
    let Some(pods) = store.collection("/registry/pods/") else { return Vec::new() };
    let prefix = format!("{namespace}/");
    // `spec.nodeName` is the first selectable field of pods.
    let page = pods.list(&prefix, None, 0, usize::MAX, &|o| {
        o.meta().fields.first().is_some_and(|n| n.as_ref() == node)
    });
    page.map(|p| p.objects.iter().map(|o| o.to_value()).collect()).unwrap_or_default()
}

fn uses_account(store: &Store, node: &str, namespace: &str, name: &str) -> bool {
    let uses = |pod: &Value| pod["spec"]["serviceAccountName"] == name;
    pods_of(store, node, namespace).iter().any(uses)
}

fn refers(store: &Store, node: &str, namespace: &str, resource: &str, name: &str) -> bool {
    pods_of(store, node, namespace).iter().any(|pod| pod_refers(&pod["spec"], resource, name))
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn pod_refers(spec: &Value, resource: &str, name: &str) -> bool {
    let named = |reference: &Value| reference["name"] == name;
    let in_volumes = items(spec, "volumes").any(|v| match resource {
        "configmaps" => {
            named(&v["configMap"])
                || items(&v["projected"], "sources").any(|s| named(&s["configMap"]))
        }
        "secrets" => {
            v["secret"]["secretName"] == name
                || items(&v["projected"], "sources").any(|s| named(&s["secret"]))
        }
        _ => v["persistentVolumeClaim"]["claimName"] == name,
    });
    let (env, from) = match resource {
        "configmaps" => ("configMapKeyRef", "configMapRef"),
        "secrets" => ("secretKeyRef", "secretRef"),
        _ => return in_volumes,
    };
    let pulls = resource == "secrets" && items(spec, "imagePullSecrets").any(named);
    let in_containers =
        ["containers", "initContainers", "ephemeralContainers"].iter().any(|kind| {
            items(spec, kind).any(|c| {
                items(c, "env").any(|e| named(&e["valueFrom"][env]))
                    || items(c, "envFrom").any(|e| named(&e[from]))
            })
        });
    in_volumes || in_containers || pulls
}
