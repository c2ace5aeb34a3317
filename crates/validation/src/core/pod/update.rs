//! Changes of pods: what may change once a pod exists.

use serde_json::Value;

use super::{annotations, metadata_and_spec, tolerations};
use crate::check::At;
use crate::golang;
use crate::value::items_mut;

pub(super) fn update(pod: &At<'_>) {
    match pod.subresource() {
        "ephemeralcontainers" => return ephemeral(pod),
        "resize" => return super::resize::resize(pod),
        _ => {}
    }
    metadata_and_spec(pod);
    let (meta, spec) = (pod.get("metadata"), pod.get("spec"));
    annotation_changes(&meta, &spec);
    if !same_containers(&spec, "containers") || !same_containers(&spec, "initContainers") {
        return;
    }
    if !deadline(&spec.get("activeDeadlineSeconds")) {
        return;
    }
    added_tolerations(&spec.get("tolerations"));
    removed_gates(&spec.get("schedulingGates"));
    rest_is_same(&spec);
}

fn annotation_changes(meta: &At<'_>, spec: &At<'_>) {
    let at = meta.get("annotations");
    annotations::updates(&at);
    annotations::specific(&at, spec);
}

fn list_of<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn same_containers(spec: &At<'_>, kind: &str) -> bool {
    let Some(old) = spec.old() else { return true };
    let list = spec.get(kind);
    if list.len() != list_of(old, kind).len() {
        list.forbidden("pod updates may not add or remove containers");
        return false;
    }
    for container in list.items() {
        container.get("image").need();
        super::containers::only_for_pod(&container);
    }
    true
}

/// A deadline may come nearer, not move away.
fn deadline(at: &At<'_>) -> bool {
    let before = at.old().and_then(Value::as_i64);
    match (at.int(), before) {
        (Some(now), _) if !(0..=i64::from(i32::MAX)).contains(&now) => {
            at.invalid("must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(now), Some(before)) if before < now => {
            at.invalid("must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            at.invalid("must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn added_tolerations(list: &At<'_>) {
    let now = list.value().as_array().map_or(&[][..], Vec::as_slice);
    let before = list.old().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let apart_from_seconds = |t: &Value| {
        let mut t = t.clone();
        t.as_object_mut().map(|t| t.remove("tolerationSeconds"));
        t
    };
    let kept = |old: &Value| {
        now.contains(old) || {
            let old = apart_from_seconds(old);
            now.iter().any(|new| apart_from_seconds(new) == old)
        }
    };
    if !before.iter().all(kept) {
        return list
            .forbidden("existing toleration can not be modified except its tolerationSeconds");
    }
    tolerations(list);
}

fn removed_gates(list: &At<'_>) {
    let before = list.old().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for gate in list.items() {
        let name = gate.get("name");
        if !before.iter().any(|old| old["name"] == *name.value()) {
            name.forbidden(&format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                name.text()
            ));
        }
    }
}

const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn rest_is_same(spec: &At<'_>) {
    let Some(old) = spec.old().filter(|old| *old != spec.value()) else { return };
    let mut masked = spec.value().clone();
    for kind in ["containers", "initContainers"] {
        for (at, container) in items_mut(&mut masked, kind).enumerate() {
            container["image"] = old[kind][at]["image"].clone();
        }
    }
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        carry(&mut masked, old, key);
    }
    if !list_of(old, "schedulingGates").is_empty() {
        gated(spec, old, &mut masked);
    }
    if !golang::same(&masked, old) {
        let diff = golang::diff("core.PodSpec", old, &masked);
        spec.forbidden(&format!("{RULE}\n{diff}"));
    }
}

fn carry(into: &mut Value, from: &Value, key: &str) {
    let Some(map) = into.as_object_mut() else { return };
    match from.get(key) {
        Some(value) => drop(map.insert(key.into(), value.clone())),
        None => drop(map.remove(key)),
    }
}

/// While a pod is gated, where it may run can be narrowed.
fn gated(spec: &At<'_>, old: &Value, masked: &mut Value) {
    let selector = spec.get("nodeSelector");
    let mut before = old["nodeSelector"].as_object().into_iter().flatten();
    if before.any(|(key, value)| selector.value().get(key) != Some(value)) {
        selector
            .invalid("only additions to spec.nodeSelector are allowed (no mutations or deletions)");
    }
    carry(masked, old, "nodeSelector");
    let affinity = spec.get("affinity");
    node_affinity(&affinity.get("nodeAffinity"));
    let before = &old["affinity"]["nodeAffinity"];
    if masked["affinity"].is_object() {
        if before.is_null() {
            masked["affinity"].as_object_mut().map(|a| a.remove("nodeAffinity"));
        } else {
            masked["affinity"]["nodeAffinity"] = before.clone();
        }
        let bare = masked["affinity"].as_object().is_some_and(|a| a.is_empty());
        if bare && old["affinity"].is_null() {
            masked.as_object_mut().map(|s| s.remove("affinity"));
        }
    } else if !before.is_null() {
        masked["affinity"] = serde_json::json!({"nodeAffinity": before});
    }
}

fn node_affinity(at: &At<'_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let required = at.get(REQUIRED);
    let terms = required.get("nodeSelectorTerms");
    let old = at.old().map_or(&Value::Null, |old| &old[REQUIRED]["nodeSelectorTerms"]);
    let old = old.as_array().map_or(&[][..], Vec::as_slice);
    if old.is_empty() {
        return;
    }
    if old.len() != terms.len() {
        return terms
            .invalid("no additions/deletions to non-empty NodeSelectorTerms list are allowed");
    }
    for (term, before) in terms.items().zip(old) {
        let fields = ["matchExpressions", "matchFields"];
        let starts_with =
            |field: &str| list_of(term.value(), field).starts_with(list_of(before, field));
        let was_empty = fields.iter().all(|f| list_of(before, f).is_empty());
        let is_empty = fields.iter().all(|f| list_of(term.value(), f).is_empty());
        if !fields.into_iter().all(starts_with) || (was_empty && !is_empty) {
            term.invalid("only additions are allowed (no mutations or deletions)");
        }
    }
}

fn ephemeral(pod: &At<'_>) {
    metadata_and_spec(pod);
    let (meta, spec) = (pod.get("metadata"), pod.get("spec"));
    annotation_changes(&meta, &spec);
    let list = spec.get("ephemeralContainers");
    let before = list.old().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for old in before {
        let name = old["name"].as_str().unwrap_or("");
        let now = list.value().as_array().into_iter().flatten().find(|c| c["name"] == old["name"]);
        match now {
            None => list
                .forbidden(&format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if !golang::same(now, old) => {
                let diff = golang::diff("core.EphemeralContainer", old, now);
                list.forbidden(&format!(
                    "existing ephemeral containers {name:?} may not be changed\n{diff}"
                ));
            }
            Some(_) => {}
        }
    }
}
