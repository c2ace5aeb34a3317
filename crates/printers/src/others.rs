//! Cells of volumes, policies and all other kinds.

use api::registry::Resource;
use serde_json::Value;

use super::selectors::{debug_selector, labels};
use super::{Cells, age, containers, human, name, number, or_text};
use validation::{items, text};

pub(super) fn cells(row: &Resource) -> Option<Cells> {
    Some(match row.name {
        "podtemplates" => |o| {
            let (names, images) = containers(&o["template"]["spec"]);
            let labels = labels(&o["template"]["metadata"]["labels"]);
            vec![name(o), names.into(), images.into(), labels.into()]
        },
        "poddisruptionbudgets" => |o| {
            let spec = &o["spec"];
            let allowed = number(&o["status"]["disruptionsAllowed"]);
            let bound = |field: &str| either(&spec[field], "N/A");
            vec![name(o), bound("minAvailable"), bound("maxUnavailable"), allowed.into(), age(o)]
        },
        "persistentvolumes" => volume,
        "persistentvolumeclaims" => claim,
        "horizontalpodautoscalers" => super::autoscaler::cells,
        "certificatesigningrequests" => request,
        "storageclasses" => |o| {
            let expands = o["allowVolumeExpansion"] == true;
            let reclaim = or_text(&o["reclaimPolicy"], "Delete").into();
            let binding = or_text(&o["volumeBindingMode"], "Immediate").into();
            let name = or_default(o, "storageclass.kubernetes.io/is-default-class");
            vec![name, text(&o["provisioner"]).into(), reclaim, binding, expands.into(), age(o)]
        },
        "volumeattributesclasses" => |o| vec![name(o), text(&o["driverName"]).into(), age(o)],
        "controllerrevisions" => |o| {
            let owner = items(&o["metadata"], "ownerReferences").find(|r| r["controller"] == true);
            vec![
                name(o),
                owner.map_or("<none>".into(), owned_by).into(),
                number(&o["revision"]).into(),
                age(o),
            ]
        },
        "resourcequotas" => quota,
        "runtimeclasses" => |o| vec![name(o), text(&o["handler"]).into(), age(o)],
        "volumeattachments" => |o| {
            let (spec, attached) = (&o["spec"], o["status"]["attached"] == true);
            let volume = text(&spec["source"]["persistentVolumeName"]);
            let [attacher, node] = ["attacher", "nodeName"].map(|f| text(&spec[f]).into());
            vec![name(o), attacher, volume.into(), node, attached.into(), age(o)]
        },
        "csinodes" => |o| vec![name(o), items(&o["spec"], "drivers").count().into(), age(o)],
        "csidrivers" => driver,
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            |o| vec![name(o), items(o, "webhooks").count().into(), age(o)]
        }
        "validatingadmissionpolicies" => |o| policy(o, "validations"),
        "mutatingadmissionpolicies" => |o| policy(o, "mutations"),
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => policy_binding,
        "flowschemas" => flow_schema,
        "prioritylevelconfigurations" => |o| {
            let limited = &o["spec"]["limited"];
            let queuing = &limited["limitResponse"]["queuing"];
            let none = |v: &Value| if v.is_null() { "<none>".into() } else { v.clone() };
            vec![
                name(o),
                text(&o["spec"]["type"]).into(),
                none(&limited["nominalConcurrencyShares"]),
                none(&queuing["queues"]),
                none(&queuing["handSize"]),
                none(&queuing["queueLengthLimit"]),
                age(o),
            ]
        },
        "resourceclaims" => |o| vec![name(o), claim_state(o).into(), age(o)],
        "resourceslices" => |o| {
            let spec = &o["spec"];
            let node = text(&spec["nodeName"]);
            let [driver, pool] = [&spec["driver"], &spec["pool"]["name"]].map(|v| text(v).into());
            vec![name(o), node.into(), driver, pool, age(o)]
        },
        "apiservices" => api_service,
        _ => return None,
    })
}

/// The value as text, or what stands for none.
fn either(value: &Value, none: &str) -> Value {
    match value {
        Value::Null => none.into(),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

fn list(value: &Value, key: &str) -> String {
    let all: Vec<&str> = items(value, key).map(text).collect();
    all.join(",")
}

/// The name, marked when an annotation makes it the default.
fn or_default(object: &Value, annotation: &str) -> Value {
    let marks = &object["metadata"]["annotations"];
    let beta = annotation.replacen("class.", "class.beta.", 1);
    match marks[annotation] == "true" || marks[&beta] == "true" {
        true => format!("{} (default)", text(&object["metadata"]["name"])).into(),
        false => name(object),
    }
}

/// Access modes, shortened.
fn modes(value: &Value) -> String {
    let all = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| items(value, "accessModes").any(|m| m == mode);
    let shown: Vec<&str> = all.iter().filter(|(mode, _)| has(mode)).map(|(_, s)| *s).collect();
    shown.join(",")
}

fn phase(object: &Value) -> &str {
    match object["metadata"]["deletionTimestamp"].is_string() {
        true => "Terminating",
        false => text(&object["status"]["phase"]),
    }
}

fn class_of(object: &Value) -> &str {
    let old = object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    old.unwrap_or_else(|| text(&object["spec"]["storageClassName"]))
}

fn volume(pv: &Value) -> Vec<Value> {
    let (spec, bound) = (&pv["spec"], &pv["spec"]["claimRef"]);
    let claim = match bound.is_object() {
        true => format!("{}/{}", text(&bound["namespace"]), text(&bound["name"])),
        false => String::new(),
    };
    vec![
        name(pv),
        either(&spec["capacity"]["storage"], "0"),
        modes(spec).into(),
        text(&spec["persistentVolumeReclaimPolicy"]).into(),
        phase(pv).into(),
        claim.into(),
        class_of(pv).into(),
        either(&spec["volumeAttributesClassName"], "<unset>"),
        text(&pv["status"]["reason"]).into(),
        age(pv),
        either(&spec["volumeMode"], "<unset>"),
    ]
}

fn claim(pvc: &Value) -> Vec<Value> {
    let (spec, status) = (&pvc["spec"], &pvc["status"]);
    let volume = text(&spec["volumeName"]);
    let (capacity, access) = match volume.is_empty() {
        true => ("".into(), String::new()),
        false => (either(&status["capacity"]["storage"], "0"), modes(status)),
    };
    vec![
        name(pvc),
        phase(pvc).into(),
        volume.into(),
        capacity,
        access.into(),
        class_of(pvc).into(),
        either(&spec["volumeAttributesClassName"], "<unset>"),
        age(pvc),
        either(&spec["volumeMode"], "<unset>"),
    ]
}

fn request(csr: &Value) -> Vec<Value> {
    let (spec, status) = (&csr["spec"], &csr["status"]);
    let is = |kind: &str| items(status, "conditions").any(|c| c["type"] == kind);
    let mut state = match (is("Denied"), is("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_owned();
    if is("Failed") {
        state += ",Failed";
    }
    if !text(&status["certificate"]).is_empty() {
        state += ",Issued";
    }
    let duration = spec["expirationSeconds"].as_i64().map_or("<none>".into(), human);
    let user = text(&spec["username"]);
    vec![
        name(csr),
        age(csr),
        or_text(&spec["signerName"], "<none>").into(),
        user.into(),
        duration.into(),
        state.into(),
    ]
}

/// `Kind.group/name`, as `kubectl` takes it.
fn owned_by(owner: &Value) -> String {
    let kind = text(&owner["kind"]).to_lowercase();
    match text(&owner["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{}/{}", group.to_lowercase(), text(&owner["name"])),
        None => format!("{kind}/{}", text(&owner["name"])),
    }
}

fn quota(quota: &Value) -> Vec<Value> {
    let status = &quota["status"];
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in status["hard"].as_object().into_iter().flatten() {
        let used = either(&status["used"][resource], "0");
        let shown = format!("{resource}: {}/{}", text(&used), text(&either(hard, "0")));
        if resource.starts_with("limits.") { limits.push(shown) } else { requests.push(shown) }
    }
    vec![name(quota), requests.join(", ").into(), limits.join(", ").into(), age(quota)]
}

fn driver(driver: &Value) -> Vec<Value> {
    let spec = &driver["spec"];
    let is = |field: &str| Value::from(spec[field] == true);
    let modes = list(spec, "volumeLifecycleModes");
    let tokens: Vec<&str> = items(spec, "tokenRequests").map(|t| text(&t["audience"])).collect();
    vec![
        name(driver),
        (spec["attachRequired"] != false).into(),
        is("podInfoOnMount"),
        is("storageCapacity"),
        if spec["tokenRequests"].is_array() { tokens.join(",").into() } else { "<unset>".into() },
        is("requiresRepublish"),
        if modes.is_empty() { "<none>".into() } else { modes.into() },
        age(driver),
    ]
}

fn policy(policy: &Value, rules: &str) -> Vec<Value> {
    let (spec, kind) = (&policy["spec"], &policy["spec"]["paramKind"]);
    let shown = match kind.is_object() {
        true => format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"])),
        false => "<unset>".into(),
    };
    vec![name(policy), items(spec, rules).count().into(), shown.into(), age(policy)]
}

fn policy_binding(binding: &Value) -> Vec<Value> {
    let reference = &binding["spec"]["paramRef"];
    let shown = match (text(&reference["namespace"]), text(&reference["name"])) {
        _ if !reference.is_object() => "<unset>".into(),
        (_, "") if reference["selector"].is_object() => debug_selector(&reference["selector"]),
        (_, "") => "<unset>".into(),
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    vec![name(binding), text(&binding["spec"]["policyName"]).into(), shown.into(), age(binding)]
}

fn flow_schema(schema: &Value) -> Vec<Value> {
    let spec = &schema["spec"];
    let dangling = items(&schema["status"], "conditions").find(|c| c["type"] == "Dangling");
    vec![
        name(schema),
        text(&spec["priorityLevelConfiguration"]["name"]).into(),
        number(&spec["matchingPrecedence"]).into(),
        either(&spec["distinguisherMethod"]["type"], "<none>"),
        age(schema),
        dangling.map_or("?", |c| text(&c["status"])).into(),
    ]
}

fn claim_state(claim: &Value) -> String {
    let deleted = claim["metadata"]["deletionTimestamp"].is_string();
    let allocated = claim["status"]["allocation"].is_object();
    let reserved = items(&claim["status"], "reservedFor").next().is_some();
    let states = [
        (deleted, "deleted"),
        (!deleted && !allocated, "pending"),
        (allocated, "allocated"),
        (allocated && reserved, "reserved"),
    ];
    let states: Vec<&str> = states.iter().filter(|s| s.0).map(|s| s.1).collect();
    states.join(",")
}

fn api_service(service: &Value) -> Vec<Value> {
    let backend = &service["spec"]["service"];
    let shown = match backend.is_object() {
        true => format!("{}/{}", text(&backend["namespace"]), text(&backend["name"])),
        false => "Local".into(),
    };
    let available = items(&service["status"], "conditions").find(|c| c["type"] == "Available");
    let available = match available {
        Some(c) if c["status"] == "True" => "True".into(),
        Some(c) => format!("{} ({})", text(&c["status"]), text(&c["reason"])),
        None => "Unknown".to_owned(),
    };
    vec![name(service), shown.into(), available.into(), age(service)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn access_modes_are_shown_once_and_in_order() {
        let spec = json!({"accessModes": ["ReadWriteOncePod", "ReadOnlyMany", "ReadWriteOnce", "ReadOnlyMany"]});
        assert_eq!(modes(&spec), "RWO,ROX,RWOP");
    }

    #[test]
    fn an_empty_class_annotation_hides_the_class() {
        let key = "volume.beta.kubernetes.io/storage-class";
        let mut claim =
            json!({"metadata": {"annotations": {key: ""}}, "spec": {"storageClassName": "c"}});
        assert_eq!(class_of(&claim), "");
        claim["metadata"]["annotations"] = Value::Null;
        assert_eq!(class_of(&claim), "c");
    }

    #[test]
    fn parameters_are_shown_by_name_or_selector() {
        let shown =
            |reference: Value| policy_binding(&json!({"spec": {"paramRef": reference}}))[2].clone();
        assert_eq!(shown(json!({"name": "n"})), "*/n");
        assert_eq!(shown(json!({"namespace": "x", "name": "n"})), "x/n");
        assert_eq!(shown(json!({"namespace": "x"})), "<unset>");
        assert!(text(&shown(json!({"selector": {}}))).starts_with("&LabelSelector{"));
    }
}
