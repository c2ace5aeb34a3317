//! What is written into pods: account and token, priority, tolerations, and what their runtime class
//! costs and where it runs.

use api::{Object, Status};
use serde_json::{Value, json};
use validation::{items, items_mut, set_default};

use super::accounts;
use crate::call::Call;
use crate::meta;

/// Seconds a pod tolerates its node being not ready or unreachable (DefaultTolerationSeconds).
const TOLERATION_SECONDS: i64 = 300;

/// Every pod runs as an account, and gets its token, CA and namespace mounted.
pub(super) fn service_account(call: &Call<'_>, pod: &mut Value) -> Result<(), Status> {
    let refused =
        |why: String, pod: &Value| Status::forbidden("", "pods", meta::text(pod, "name"), &why);
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return accounts::check_mirror(pod).map_err(|why| refused(why, pod));
    }
    set_default(&mut pod["spec"], "serviceAccountName", "default");
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or("").to_owned();
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let key = format!("{}/{name}", call.info.namespace);
    let accounts = call.server.collection_of("", "v1", "serviceaccounts");
    let Some(account) = accounts.get(&key) else {
        let why =
            format!("error looking up service account {key}: serviceaccount {name:?} not found");
        return Err(refused(why, pod));
    };
    // Most accounts say nothing about their pods, which is seen without parsing them.
    let speaks = says(&account, "\"imagePullSecrets\"")
        || says(&account, "automountServiceAccountToken")
        || says(&account, "enforce-mountable-secrets");
    let account = if speaks { account.to_value() } else { Value::Null };
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
    if accounts::limits(&account) {
        accounts::check_secrets(&account, pod).map_err(|why| refused(why, pod))?;
    }
    Ok(())
}

/// Containers that are added later use the Secrets that the pod's account lets them.
pub(super) fn added_containers(call: &Call<'_>, pod: &Value) -> Result<(), Status> {
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or("");
    let key = format!("{}/{name}", call.info.namespace);
    let account = call.read(("", "v1", "serviceaccounts"), &key).ok_or_else(|| {
        let why =
            format!("error looking up service account {key}: serviceaccount {name:?} not found");
        Status::forbidden("", "pods", meta::text(pod, "name"), &why)
    })?;
    if !accounts::limits(&account) {
        return Ok(());
    }
    accounts::check_ephemeral(&account, pod).map_err(|why| Status::failure(500, "", why))
}

/// Is this text somewhere in the object's JSON?
fn says(object: &Object, text: &str) -> bool {
    memchr::memmem::find(object.json(), text.as_bytes()).is_some()
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
pub(super) fn priority(call: &Call<'_>, pod: &mut Value) -> Result<(), Status> {
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
            // Few clusters have a default class: the others' text says so without being parsed.
            let marked = all.iter().filter(|c| says(c, "\"globalDefault\":true"));
            marked.map(|c| c.to_value()).find(|c| c["globalDefault"] == true)
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

/// Who replaces a pod need not know what its class made of it.
pub(super) fn keep_priority(old: &Value, new: &mut Value) {
    for key in ["priority", "preemptionPolicy"] {
        if new["spec"][key].is_null() && !old["spec"][key].is_null() {
            new["spec"][key] = old["spec"][key].clone();
        }
    }
}

pub(super) fn default_tolerations(pod: &mut Value) {
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

/// RuntimeClass: overhead and scheduling constraints of the class go into the pod.
pub(super) fn runtime_class(call: &Call<'_>, pod: &mut Value) -> Result<(), Status> {
    let refused =
        |pod: &Value, why: &str| Err(Status::forbidden("", "pods", meta::text(pod, "name"), why));
    let Some(name) = pod["spec"]["runtimeClassName"].as_str().map(str::to_owned) else {
        if pod["spec"]["overhead"].is_object() {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return refused(pod, why);
        }
        return Ok(());
    };
    let Some(class) = call.read(("node.k8s.io", "v1", "runtimeclasses"), &name) else {
        return refused(pod, &format!("pod rejected: RuntimeClass {name:?} not found"));
    };
    let overhead = &class["overhead"]["podFixed"];
    let given = pod["spec"]["overhead"].as_object().is_some_and(|o| !o.is_empty());
    if given && pod["spec"]["overhead"] != *overhead {
        let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        return refused(pod, why);
    }
    if overhead.is_object() {
        pod["spec"]["overhead"] = overhead.clone();
    }
    for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let (key, wanted) = (key.as_str(), value.as_str().unwrap_or(""));
        if let Some(own) = pod["spec"]["nodeSelector"][key].as_str().filter(|own| *own != wanted) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            );
            return refused(pod, &why);
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    for toleration in items(&class["scheduling"], "tolerations") {
        set_default(&mut pod["spec"], "tolerations", json!([]));
        match pod["spec"]["tolerations"].as_array_mut() {
            Some(list) if !list.contains(toleration) => list.push(toleration.clone()),
            _ => {}
        }
    }
    Ok(())
}
