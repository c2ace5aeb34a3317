//! Binding a pod to a node, once (registry `BindingREST`).

use api::Status;
use auth::RequestInfo;
use serde_json::{Value, json};
use validation::set_default;

use super::done;
use crate::call::Call;
use crate::verbs::Answer;
use crate::verbs::update::{Operation, change};
use strategy::meta;

/// Sets `spec.nodeName`; the body's annotations and labels go into the pod.
pub(super) async fn bind(call: &Call<'_>, binding: Value) -> Result<Answer, Status> {
    let named = meta::text(&binding, "name");
    // The form without a pod in its path takes the name from its body.
    let name =
        if call.context.info.name.is_empty() { named } else { call.context.info.name.as_str() }
            .to_owned();
    check(call, &binding, &name)?;
    let info = RequestInfo { name, ..call.context.info.clone() };
    let bound = call.about(&info, call.pods_row())?;
    change(&bound, Operation::Internal, |pod| assigned(call, &binding, pod)).await?;
    Ok(done())
}

fn check(call: &Call<'_>, binding: &Value, name: &str) -> Result<(), Status> {
    let (named, home) = (meta::text(binding, "name"), meta::text(binding, "namespace"));
    if named != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    if !home.is_empty() && home != call.context.info.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let text = |key: &str| binding["target"][key].as_str().unwrap_or("");
    let mut faults = Vec::new();
    if !matches!(text("kind"), "" | "Node") {
        faults.push(format!(
            "target.kind: Unsupported value: {:?}: supported values: \"Node\", \"<empty>\"",
            text("kind")
        ));
    }
    if text("name").is_empty() {
        faults.push("target.name: Required value".to_owned());
    }
    match faults.as_slice() {
        [] => Ok(()),
        // Upstream returns these as plain errors.
        [one] => Err(Status::failure(500, "", one.clone())),
        more => Err(Status::failure(500, "", format!("[{}]", more.join(", ")))),
    }
}

/// The pod at its node, if it is the one that was meant and still free.
fn assigned(call: &Call<'_>, binding: &Value, pod: &Value) -> Result<Value, Status> {
    let name = meta::text(pod, "name");
    let conflict = |why: String| Err(Status::conflict("", "pods/binding", name, &why));
    precondition(binding, pod)?;
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let now = pod["spec"]["nodeName"].as_str().unwrap_or("");
    if !now.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {now:?}"));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    for part in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][part].as_object().into_iter().flatten() {
            set_default(&mut pod["metadata"], part, json!({}));
            pod["metadata"][part][key] = value.clone();
        }
    }
    set_scheduled(&mut pod, &call.context.now_text());
    meta::of(&mut pod).remove("resourceVersion");
    Ok(pod)
}

/// Uid and revision of the body are those that the pod must have.
fn precondition(binding: &Value, pod: &Value) -> Result<(), Status> {
    for (key, called) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (asked, found) = (meta::text(binding, key), meta::text(pod, key));
        if !asked.is_empty() && asked != found {
            let (home, name) = (meta::text(pod, "namespace"), meta::text(pod, "name"));
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: /registry/pods/{home}/{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {called} in precondition: {asked}, {called} in object meta: {found}"
            );
            return Err(Status::conflict("", "pods", name, &why));
        }
    }
    Ok(())
}

fn set_scheduled(pod: &mut Value, now: &str) {
    set_default(&mut pod["status"], "conditions", json!([]));
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    });
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(condition);
    }
}
