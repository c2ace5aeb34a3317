//! ServiceAccount: the account of a pod, its token, and the Secrets that it may use.
//!
//! Rule: `plugin/pkg/admission/serviceaccount`.

use api::Status;
use serde_json::{Value, json};
use validation::{items, items_mut, set_default};

use super::pods::says;
use super::secret_references as references;
use crate::attributes::{Attributes, Gvr, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

const ACCOUNTS: Gvr = ("", "v1", "serviceaccounts");

pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        matches!(
            (request.operation, request.path()),
            (Operation::Create, ("", "pods", ""))
                | (Operation::Update, ("", "pods", "ephemeralcontainers"))
        )
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a mut Value) -> Decision<'a> {
        match request.operation {
            Operation::Create => set_account(request, pod).into(),
            _ => Decision::ALLOWED,
        }
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a Value) -> Decision<'a> {
        match request.operation {
            Operation::Update => check_added(request, pod).into(),
            _ => check_new(request, pod).into(),
        }
    }
}

fn no_account(request: &Attributes<'_>, pod: &Value, key: &str, name: &str) -> Status {
    let why = format!("error looking up service account {key}: serviceaccount {name:?} not found");
    request.forbid(pod, &why)
}

fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
}

/// A new pod uses only the Secrets that its account lets it; a mirror pod none.
fn check_new(request: &Attributes<'_>, pod: &Value) -> Verdict {
    if is_mirror(pod) {
        return references::check_mirror(pod).map_err(|why| request.forbid(pod, &why));
    }
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or("");
    let key = format!("{}/{name}", request.namespace());
    let Some(account) = request.cluster.get(ACCOUNTS, &key) else {
        return Err(no_account(request, pod, &key, name));
    };
    if !says(&account, "enforce-mountable-secrets") {
        return Ok(());
    }
    let account = account.to_value();
    match references::limits(&account) {
        true => references::check_secrets(&account, pod).map_err(|why| request.forbid(pod, &why)),
        false => Ok(()),
    }
}

/// Every pod runs as an account, and gets its token, CA and namespace mounted.
fn set_account(request: &Attributes<'_>, pod: &mut Value) -> Verdict {
    if is_mirror(pod) {
        return check_new(request, pod);
    }
    set_default(&mut pod["spec"], "serviceAccountName", "default");
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or("").to_owned();
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let key = format!("{}/{name}", request.namespace());
    let Some(account) = request.cluster.get(ACCOUNTS, &key) else {
        return Err(no_account(request, pod, &key, &name));
    };
    // Most accounts say nothing about their pods, which is seen without parsing them.
    let speaks =
        says(&account, "\"imagePullSecrets\"") || says(&account, "automountServiceAccountToken");
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
    check_new(request, pod)
}

/// Containers that are added later use the Secrets that the pod's account lets them.
fn check_added(request: &Attributes<'_>, pod: &Value) -> Verdict {
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or("");
    let key = format!("{}/{name}", request.namespace());
    let account = request.read(ACCOUNTS, &key);
    let account = account.ok_or_else(|| no_account(request, pod, &key, name))?;
    if !references::limits(&account) {
        return Ok(());
    }
    references::check_ephemeral(&account, pod).map_err(|why| Status::failure(500, "", why))
}

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn mount_token(spec: &mut Value) {
    let suffix = api::names::suffix(*uuid::Uuid::new_v4().as_bytes());
    let volume = format!("kube-api-access-{suffix}");
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
