//! Built-in admission: what happens to a request between decoding and validation.
//!
//! The order is the original's recommended one; each step is a function of the call and the object.

use api::Status;
use serde_json::{Value, json};

use crate::call::Call;
use crate::meta;
use kinds::{items, items_mut, set_default};

/// Seconds a pod tolerates its node being not ready or unreachable (DefaultTolerationSeconds).
const TOLERATION_SECONDS: i64 = 300;

pub(crate) fn create(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    namespace_lifecycle(call)?;
    node_restriction(call, None, object)?;
    if (call.row.group, call.row.name) == ("", "pods") {
        service_account(call, object)?;
        priority(call, object)?;
        default_tolerations(object);
    }
    Ok(())
}

pub(crate) fn update(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    node_restriction(call, Some(old), new)?;
    if (call.row.group, call.row.name, call.row.subresource) == ("", "pods", "") {
        for key in ["priority", "preemptionPolicy"] {
            if new["spec"][key].is_null() && !old["spec"][key].is_null() {
                new["spec"][key] = old["spec"][key].clone();
            }
        }
        default_tolerations(new);
    }
    Ok(())
}

/// Nothing is created in a namespace that is absent or on its way out.
fn namespace_lifecycle(call: &Call<'_>) -> Result<(), Status> {
    let row = call.row;
    if !row.namespaced {
        return Ok(());
    }
    let name = call.info.namespace.as_str();
    let namespaces = call.server.collection_of("", "v1", "namespaces");
    let Some(namespace) = namespaces.get(name) else {
        return Err(Status::not_found("", "namespaces", name));
    };
    // A deleted namespace still takes what its finalisation and its observers write.
    let exempt = row.name == "localsubjectaccessreviews";
    if namespace.meta().deletion_timestamp.is_some() && !exempt {
        let why = format!(
            "unable to create new content in namespace {name} because it is being terminated"
        );
        let cause = meta::cause(
            "NamespaceTerminating",
            "metadata.namespace",
            format!("namespace {name} is being terminated"),
        );
        let mut status = Status::forbidden(row.group, row.name, &call.info.name, &why);
        status = status.with_causes(vec![cause]);
        return Err(status);
    }
    Ok(())
}

/// A kubelet may change its own node and the pods bound to it, nothing else (NodeRestriction).
fn node_restriction(call: &Call<'_>, old: Option<&Value>, object: &Value) -> Result<(), Status> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let refuse =
        |why: String| Err(Status::forbidden(call.row.group, call.row.name, &call.info.name, &why));
    match (call.row.group, call.row.name) {
        ("", "nodes") if meta::text(object, "name") != node => {
            let other = meta::text(object, "name");
            refuse(format!("node {node:?} is not allowed to modify node {other:?}"))
        }
        ("", "pods") => {
            let bound = old.unwrap_or(object)["spec"]["nodeName"].as_str().unwrap_or("");
            if bound != node {
                return refuse(format!(
                    "node {node:?} can only create or change pods with spec.nodeName set to itself"
                ));
            }
            let mirror =
                object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
            if old.is_none() && !mirror {
                return refuse(format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                ));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Every pod runs as an account, and gets its token, CA and namespace mounted.
fn service_account(call: &Call<'_>, pod: &mut Value) -> Result<(), Status> {
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Ok(());
    }
    set_default(&mut pod["spec"], "serviceAccountName", "default");
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or("").to_owned();
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let key = format!("{}/{name}", call.info.namespace);
    let Some(account) = call.read(("", "v1", "serviceaccounts"), &key) else {
        let why =
            format!("error looking up service account {key}: serviceaccount {name:?} not found");
        return Err(Status::forbidden("", "pods", meta::text(pod, "name"), &why));
    };
    if items(&pod["spec"], "imagePullSecrets").next().is_none()
        && account["imagePullSecrets"].is_array()
    {
        pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let wanted = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or(account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if wanted {
        mount_token(&mut pod["spec"]);
    }
    Ok(())
}

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn mount_token(spec: &mut Value) {
    let volume = format!("kube-api-access-{}", meta::random_suffix());
    let mut used = false;
    for kind in ["initContainers", "containers"] {
        for container in items_mut(spec, kind) {
            if items(container, "volumeMounts").any(|m| m["mountPath"] == TOKEN_PATH) {
                continue;
            }
            set_default(container, "volumeMounts", json!([]));
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH}));
                used = true;
            }
        }
    }
    if used {
        set_default(spec, "volumes", json!([]));
        if let Some(volumes) = spec["volumes"].as_array_mut() {
            volumes.push(token_volume(&volume));
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

/// The class's number and preemption policy are written into the pod (Priority).
fn priority(call: &Call<'_>, pod: &mut Value) -> Result<(), Status> {
    let classes = call.server.collection_of("scheduling.k8s.io", "v1", "priorityclasses");
    let named =
        pod["spec"]["priorityClassName"].as_str().filter(|n| !n.is_empty()).map(str::to_owned);
    let class = match &named {
        Some(name) => {
            let found = classes.get(name).map(|c| c.to_value());
            Some(found.ok_or_else(|| {
                let why = format!("no PriorityClass with name {name} was found");
                Status::forbidden("", "pods", meta::text(pod, "name"), &why)
            })?)
        }
        None => {
            let page = classes.list("", None, 0, usize::MAX, &|_| true);
            let all = page.map(|p| p.objects).unwrap_or_default();
            all.iter().map(|c| c.to_value()).find(|c| c["globalDefault"] == true)
        }
    };
    let spec = &mut pod["spec"];
    let (value, policy) = match &class {
        Some(class) => {
            spec["priorityClassName"] = class["metadata"]["name"].clone();
            (class["value"].as_i64().unwrap_or(0), class["preemptionPolicy"].clone())
        }
        None => (0, Value::Null),
    };
    spec["priority"] = value.into();
    spec["preemptionPolicy"] =
        if policy.is_null() { "PreemptLowerPriority".into() } else { policy };
    Ok(())
}

fn default_tolerations(pod: &mut Value) {
    set_default(&mut pod["spec"], "tolerations", json!([]));
    let Some(tolerations) = pod["spec"]["tolerations"].as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = tolerations.iter().any(|t| {
            let all = t["key"].as_str().unwrap_or("").is_empty();
            let effect = t["effect"].as_str().unwrap_or("");
            (all || t["key"] == key) && matches!(effect, "" | "NoExecute")
        });
        if !covered {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
}
