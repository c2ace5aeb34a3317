//! Pods: conditional defaults, quality of service, grace, and what may change after creation.

use api::Status;
use api::names;
use api::quantity::Quantity;
use api::status::Cause;
use serde_json::{Value, json};

use super::{DEFAULT, Hooks, items, items_mut, set_default};
use crate::call::Call;
use crate::meta;

pub(super) static HOOKS: Hooks = Hooks {
    default: default_pod,
    prepare_create,
    prepare_update,
    validate,
    grace,
    returns_deleted: true,
    ..DEFAULT
};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn default_pod(object: &mut Value) {
    // Pods only: in a template it is left for the pod to decide.
    set_default(&mut object["spec"], "enableServiceLinks", true);
    default_spec(&mut object["spec"]);
}

/// Defaults of a pod spec that depend on other fields; also used for templates.
pub(super) fn default_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    let host_network = spec["hostNetwork"] == true;
    for kind in CONTAINERS {
        for container in items_mut(spec, kind) {
            default_container(container, host_network);
        }
    }
    for volume in items_mut(spec, "volumes") {
        let sources = volume.as_object().map_or(0, |v| v.len());
        if sources == 1 {
            volume["emptyDir"] = json!({});
        }
    }
    // The deprecated alias follows the name.
    if let Some(account) = spec["serviceAccountName"].as_str().map(str::to_owned) {
        spec["serviceAccount"] = account.into();
    } else if let Some(account) = spec["serviceAccount"].as_str().map(str::to_owned) {
        spec["serviceAccountName"] = account.into();
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    let image = container["image"].as_str().unwrap_or("");
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    set_default(container, "imagePullPolicy", policy);
    if host_network {
        for port in items_mut(container, "ports") {
            let number = port["containerPort"].clone();
            set_default(port, "hostPort", number);
        }
    }
    let resources = &mut container["resources"];
    let limits = resources["limits"].as_object().cloned().unwrap_or_default();
    for (name, limit) in limits {
        set_default(resources, "requests", json!({}));
        set_default(&mut resources["requests"], &name, limit);
    }
}

/// No tag, or `latest`, and no digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or("");
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn prepare_create(_: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    default_spec(&mut object["spec"]);
    let class = qos_class(&object["spec"]);
    object["status"] = json!({"phase": "Pending", "qosClass": class});
    Ok(())
}

/// Guaranteed, Burstable or BestEffort (KEP-24 rules of cpu and memory).
fn qos_class(spec: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for container in items(spec, "containers").chain(items(spec, "initContainers")) {
        for resource in ["cpu", "memory"] {
            let amount = |what: &str| {
                let text = container["resources"][what][resource].as_str()?;
                Quantity::parse(text).ok().filter(|q| !q.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            let equal = limit.is_some() && request.is_none_or(|r| Some(r) == limit);
            guaranteed &= equal;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn prepare_update(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    if call.row.subresource == "status" {
        set_default(&mut new["status"], "qosClass", old["status"]["qosClass"].clone());
    }
    Ok(())
}

fn grace(object: &Value, asked: Option<i64>) -> i64 {
    let spec = &object["spec"];
    let finished = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    // Nobody runs it: nothing to wait for.
    if spec["nodeName"].as_str().unwrap_or("").is_empty() || finished {
        return 0;
    }
    asked.unwrap_or_else(|| spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(30)).max(0)
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = validate_spec(&object["spec"], "spec");
    if let Some(old) = old {
        causes.extend(validate_update(&object["spec"], &old["spec"]));
    }
    causes
}

/// Only images, tolerations (added), grace and deadlines may change.
fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut masked = new.clone();
    for kind in ["containers", "initContainers"] {
        for (at, container) in items_mut(&mut masked, kind).enumerate() {
            let before = &old[kind][at];
            container["image"] = before["image"].clone();
            container["resources"] = before["resources"].clone();
        }
    }
    for key in [
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "ephemeralContainers",
        "nodeName",
        "schedulingGates",
        "resources",
    ] {
        masked[key] = old[key].clone();
    }
    let mut old = old.clone();
    // Indexing writes nulls where a key is absent; the comparison must not see them.
    strip_nulls(&mut masked);
    strip_nulls(&mut old);
    if masked == old {
        return Vec::new();
    }
    let why = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    vec![meta::cause("FieldValueForbidden", "spec", why)]
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// The checks that keep a pod from being unrunnable; the rest of the original's come per field.
pub(super) fn validate_spec(spec: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if items(spec, "containers").next().is_none() {
        causes.push(meta::required(format!("{path}.containers"), ""));
    }
    let mut names_seen: Vec<&str> = Vec::new();
    for kind in CONTAINERS {
        for (at, container) in items(spec, kind).enumerate() {
            let field = format!("{path}.{kind}[{at}]");
            let name = container["name"].as_str().unwrap_or("");
            if names_seen.contains(&name) && !name.is_empty() {
                let message = format!("Duplicate value: {name:?}");
                causes.push(meta::cause("FieldValueDuplicate", format!("{field}.name"), message));
            }
            names_seen.push(name);
            validate_container(container, &field, &mut causes);
        }
    }
    validate_volumes(spec, path, &mut causes);
    let policy = spec["restartPolicy"].as_str().unwrap_or("");
    if !matches!(policy, "Always" | "OnFailure" | "Never") {
        let message = format!(
            "Unsupported value: {policy:?}: supported values: \"Always\", \"OnFailure\", \"Never\""
        );
        causes.push(meta::cause(
            "FieldValueNotSupported",
            format!("{path}.restartPolicy"),
            message,
        ));
    }
    causes
}

fn validate_container(container: &Value, field: &str, causes: &mut Vec<Cause>) {
    let name = container["name"].as_str().unwrap_or("");
    if name.is_empty() {
        causes.push(meta::required(format!("{field}.name"), ""));
    } else {
        for fault in names::dns_label(name) {
            causes.push(meta::invalid(format!("{field}.name"), &name.into(), &fault));
        }
    }
    if container["image"].as_str().unwrap_or("").is_empty() {
        causes.push(meta::required(format!("{field}.image"), ""));
    }
    for (at, port) in items(container, "ports").enumerate() {
        let number = port["containerPort"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            let field = format!("{field}.ports[{at}].containerPort");
            if number == 0 {
                causes.push(meta::required(field, ""));
            } else {
                causes.push(meta::invalid(
                    field,
                    &number.into(),
                    "must be between 1 and 65535, inclusive",
                ));
            }
        }
    }
    for (resource, limit) in container["resources"]["limits"].as_object().into_iter().flatten() {
        let parse = |v: &Value| v.as_str().and_then(|t| Quantity::parse(t).ok());
        let request = &container["resources"]["requests"][resource];
        if let (Some(request_amount), Some(limit_amount)) = (parse(request), parse(limit))
            && request_amount > limit_amount
        {
            let field = format!("{field}.resources.requests");
            let detail =
                format!("must be less than or equal to {resource} limit of {limit_amount}");
            causes.push(meta::invalid(field, request, &detail));
        }
    }
}

fn validate_volumes(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let volumes: Vec<&str> = items(spec, "volumes").filter_map(|v| v["name"].as_str()).collect();
    for (at, name) in volumes.iter().enumerate() {
        if volumes[..at].contains(name) {
            let field = format!("{path}.volumes[{at}].name");
            causes.push(meta::cause(
                "FieldValueDuplicate",
                field,
                format!("Duplicate value: {name:?}"),
            ));
        }
    }
    for kind in CONTAINERS {
        for (c, container) in items(spec, kind).enumerate() {
            for (m, mount) in items(container, "volumeMounts").enumerate() {
                let name = mount["name"].as_str().unwrap_or("");
                if !volumes.contains(&name) {
                    let field = format!("{path}.{kind}[{c}].volumeMounts[{m}].name");
                    let message = format!("Not found: {name:?}");
                    causes.push(meta::cause("FieldValueNotFound", field, message));
                }
            }
        }
    }
}
