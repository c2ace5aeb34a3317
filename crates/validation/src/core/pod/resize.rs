//! Resizing a pod in place: only cpu and memory of containers change.

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
    for what in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            let list = &mut container["resources"][what];
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
    }
}
