//! Resizing a pod in place: only cpu and memory of the pod and its containers change.

use serde_json::{Value, json};

use super::metadata_and_spec;
use crate::check::At;
use crate::golang;
use crate::value::items_mut;

const ONLY: &str = "only cpu and memory resources are mutable";

pub(super) fn resize(pod: &At<'_>) {
    metadata_and_spec(pod);
    let (spec, status) = (pod.get("spec"), pod.get("status"));
    let Some(old) = spec.old() else { return };
    if old["os"]["name"] == "windows" {
        return pod.report_at(
            "",
            "FieldValueForbidden",
            "Forbidden: windows pods cannot be resized",
        );
    }
    pod_level(&spec, old);
    if is_unsupported(pod.old().unwrap_or(&Value::Null)) {
        spec.forbidden("Pod running on node without support for resize");
    }
    let class = |spec: &Value| super::super::qos::class(spec);
    if class(old) != class(spec.value()) {
        let shown = status.get("qosClass").text().into();
        spec.invalid_as(&shown, "Pod QOS Class may not change as a result of resizing");
    }
    if !same_order(&spec, old) {
        return;
    }
    for kind in ["initContainers", "containers"] {
        for (container, before) in spec.get(kind).items().zip(list(old, kind)) {
            kept(&container.get("resources"), &before["resources"]);
        }
    }
    let before = spec.faults();
    if let Some(masked) = unchanged_but_resources(&spec, old)
        && spec.faults() == before
        && !golang::same(&masked, old)
    {
        spec.forbidden(ONLY);
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn same_order(spec: &At<'_>, old: &Value) -> bool {
    spec.sound(|| {
        for kind in ["containers", "initContainers"] {
            let now = spec.get(kind);
            if now.len() != list(old, kind).len() {
                now.forbidden(&format!("{kind} may not be added or removed on resize"));
                continue;
            }
            for (container, before) in now.items().zip(list(old, kind)) {
                if *container.get("name").value() != before["name"] {
                    let detail = format!("{kind} may not be renamed or reordered on resize");
                    container.get("name").forbidden(&detail);
                }
            }
        }
    })
}

/// No amount may vanish.
fn kept(resources: &At<'_>, old: &Value) {
    for (what, word) in [("requests", "requests"), ("limits", "limits")] {
        let at = resources.get(what);
        let mut before = old[what].as_object().into_iter().flatten();
        if before.any(|(name, _)| at.value().get(name).is_none()) {
            at.forbidden(&format!("resource {word} cannot be removed"));
        }
    }
}

/// The new spec with the old amounts of cpu and memory.
fn unchanged_but_resources(spec: &At<'_>, old: &Value) -> Option<Value> {
    let mut masked = spec.value().clone();
    if let Some(map) = masked.as_object_mut() {
        // Checked apart.
        match old.get("resources") {
            Some(resources) => drop(map.insert("resources".into(), resources.clone())),
            None => drop(map.remove("resources")),
        }
    }
    for kind in ["containers", "initContainers"] {
        for (at, container) in items_mut(&mut masked, kind).enumerate() {
            let before = &old[kind][at];
            let resized = *container != *before;
            restore(container, &before["resources"]);
            let place = spec.get(kind);
            if !golang::same(container, before) {
                match kind {
                    "containers" => spec.forbidden(ONLY),
                    _ => place.index(at).forbidden(
                        "only cpu and memory resources for init or sidecar containers are mutable",
                    ),
                }
            }
            let sidecar = container["restartPolicy"] == "Always";
            let restarts = list(container, "resizePolicy")
                .iter()
                .any(|p| p["restartPolicy"] == "RestartContainer");
            if kind == "initContainers" && resized && !sidecar && restarts {
                place.index(at).forbidden("non-sidecar init containers with a resize policy of RestartContainer cannot be resized");
            }
        }
    }
    Some(masked)
}

fn restore(container: &mut Value, old: &Value) {
    restore_amounts(&mut container["resources"], old);
}

/// Amounts of cpu and memory as they were.
fn restore_amounts(resources: &mut Value, old: &Value) {
    for what in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            let list = &mut resources[what];
            if let Some(map) = list.as_object_mut() {
                map.remove(name);
            }
            if let Some(amount) = old[what].get(name) {
                if !list.is_object() {
                    *list = json!({});
                }
                list[name] = amount.clone();
            }
        }
        // A list that held nothing else and was not there before is no change.
        let is_empty = |list: &Value| list.as_object().is_none_or(serde_json::Map::is_empty);
        if let Some(resources) = resources.as_object_mut()
            && resources.get(what).is_some_and(is_empty)
            && old.get(what).is_none_or(Value::is_null)
        {
            resources.remove(what);
        }
    }
}

/// A node whose running containers report no resources cannot resize.
fn is_unsupported(pod: &Value) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let mut running = statuses.filter(|status| status["state"]["running"].is_object());
    running.next().is_some_and(|status| status["resources"].is_null())
}

/// Resources of the pod as a whole: the same rules as those of a container.
fn pod_level(spec: &At<'_>, old: &Value) {
    let resources = spec.get("resources");
    let is_set = |resources: &Value| {
        let has = |what: &str| resources[what].as_object().is_some_and(|list| !list.is_empty());
        has("requests") || has("limits")
    };
    let before = &old["resources"];
    if !is_set(before) && !is_set(resources.value()) {
        return;
    }
    if before.is_object() && resources.is_absent() {
        return resources.forbidden("pod-level resources cannot be removed");
    }
    for what in ["requests", "limits"] {
        let at = resources.get(what);
        let mut names = before[what].as_object().into_iter().flatten();
        if names.any(|(name, _)| at.value().get(name).is_none()) {
            at.forbidden(&format!("pod-level resource {what} cannot be removed"));
        }
    }
    let mut masked = resources.value().clone();
    restore_amounts(&mut masked, before);
    let unset = json!({});
    let before = if before.is_object() { before } else { &unset };
    if !golang::same(&masked, before) {
        spec.forbidden("only cpu and memory resources are mutable at pod-level");
    }
}

#[cfg(test)]
mod tests {
    use api::registry::Registry;

    use super::*;

    fn pod(container: Value, resources: Value) -> Value {
        json!({"metadata": {"name": "p", "namespace": "n", "resourceVersion": "1"}, "spec": {
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
            "resources": resources,
            "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
                "resources": container}]}})
    }

    fn faults(new: &Value, old: &Value) -> Vec<String> {
        let row = Registry::built_in().find("", "v1", "pods", "resize").expect("built in");
        let causes = crate::validate_update(row, new, old);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn limits_may_be_added_where_there_were_none() {
        let old = pod(json!({"requests": {"cpu": "1"}}), Value::Null);
        let new = pod(
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}),
            Value::Null,
        );
        assert_eq!(faults(&new, &old), [""; 0]);
        let back = faults(&old, &new);
        assert_eq!(
            back[0],
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"
        );
        let storage = pod(
            json!({"requests": {"cpu": "1"}, "limits": {"ephemeral-storage": "1Gi"}}),
            Value::Null,
        );
        assert_eq!(
            faults(&storage, &old),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
    }

    #[test]
    fn a_pod_as_a_whole_is_resized_by_the_same_rules() {
        let container = json!({"requests": {"cpu": "1"}});
        let with = |resources: Value| pod(container.clone(), resources);
        let old = with(json!({"requests": {"cpu": "1"}}));
        let new = with(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "3"}}));
        assert_eq!(faults(&new, &old), [""; 0]);
        assert_eq!(
            faults(&old, &new),
            ["spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"]
        );
        let none = faults(&with(Value::Null), &old);
        assert_eq!(none[0], "spec.resources: Forbidden: pod-level resources cannot be removed");
    }

    #[test]
    fn nodes_that_report_no_resources_cannot_resize() {
        let mut old = pod(json!({"requests": {"cpu": "1"}}), Value::Null);
        old["status"] = json!({"containerStatuses": [{"state": {"running": {}}}]});
        let mut new = pod(json!({"requests": {"cpu": "2"}}), Value::Null);
        new["status"] = old["status"].clone();
        assert_eq!(
            faults(&new, &old),
            ["spec: Forbidden: Pod running on node without support for resize"]
        );
        old["status"]["containerStatuses"][0]["resources"] = json!({});
        assert_eq!(faults(&new, &old), [""; 0]);
    }
}
