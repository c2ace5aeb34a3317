//! Changes that the server makes to pods on their way into the store (upstream's pod strategy).

use serde_json::{Map, Value, json};

use crate::value::{items, items_mut, set_default, text};

use super::annotations::app_armor_profile;

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Prepares a new pod at a time; returns what to warn of.
pub fn prepare_pod(pod: &mut Value, now: &str) -> Vec<String> {
    let class = super::super::qos::class(&pod["spec"]);
    pod["status"] = json!({"phase": "Pending", "qosClass": class});
    if items(&pod["spec"], "schedulingGates").next().is_some() {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": now,
        }]);
    }
    merge_label_keys(pod);
    sync_app_armor(pod)
}

/// Keys of the pod's own labels become requirements of affinity and spread: the scheduler and later
/// changes of the labels then need not be asked.
fn merge_label_keys(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if labels.is_empty() {
        return;
    }
    let spec = &mut pod["spec"];
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec["affinity"].get_mut(kind).filter(|a| a.is_object()) else {
            continue;
        };
        for term in items_mut(affinity, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = term.get_mut("podAffinityTerm") {
                merge_keys(term, &labels);
            }
        }
        for term in items_mut(affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge_keys(term, &labels);
        }
    }
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        merge_keys(constraint, &labels);
    }
}

fn merge_keys(term: &mut Value, labels: &Map<String, Value>) {
    let mut added = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in items(term, list).map(text) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    // No selector selects nothing, whatever else it requires.
    let Some(selector) = term.get_mut("labelSelector").filter(|s| s.is_object()) else { return };
    if added.is_empty() {
        return;
    }
    set_default(selector, "matchExpressions", json!([]));
    if let Some(expressions) = selector["matchExpressions"].as_array_mut() {
        expressions.extend(added);
    }
}

/// Annotations about AppArmor become fields where there are none.
fn sync_app_armor(pod: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let annotations = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    if annotations.is_empty() || pod["spec"]["os"]["name"] == "windows" {
        return warnings;
    }
    let of_pod = pod["spec"]["securityContext"]["appArmorProfile"].clone();
    for list in LISTS {
        for container in items_mut(&mut pod["spec"], list) {
            let key = format!("{APP_ARMOR}{}", text(&container["name"]));
            let Some(annotation) = annotations.get(&key).map(text) else { continue };
            if !container["securityContext"]["appArmorProfile"].is_null() {
                continue;
            }
            let profile = app_armor_profile(annotation).filter(is_sound);
            if profile.as_ref() == Some(&of_pod) {
                continue;
            }
            if let Some(profile) = profile {
                set_default(container, "securityContext", json!({}));
                container["securityContext"]["appArmorProfile"] = profile;
            }
            warnings.push(format!("metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
        }
    }
    warnings
}

/// Upstream's limit of a path less its ending zero.
fn is_sound(profile: &Value) -> bool {
    let name = text(&profile["localhostProfile"]);
    name.trim() == name && name.len() <= 4095
}

/// Prepares a pod's changed status: its class, and generations that older kubelets do not report.
pub fn prepare_pod_status(pod: &mut Value, old: &Value) {
    let (status, old) = (&mut pod["status"], &old["status"]);
    if !status.is_object() {
        return;
    }
    set_default(status, "qosClass", old["qosClass"].clone());
    keep_generation(status, old);
    let before: Vec<&Value> = items(old, "conditions").collect();
    let mut used = vec![false; before.len()];
    for condition in items_mut(status, "conditions") {
        let same = |at: &usize| before[*at]["type"] == condition["type"] && !used[*at];
        let Some(at) = (0..before.len()).find(same) else { continue };
        used[at] = true;
        keep_generation(condition, before[at]);
    }
    pod_ips(status);
}

fn keep_generation(new: &mut Value, old: &Value) {
    let unset = new["observedGeneration"].as_i64().unwrap_or(0) == 0;
    if unset && old["observedGeneration"].as_i64().is_some_and(|n| n != 0) {
        new["observedGeneration"] = old["observedGeneration"].clone();
    }
}

/// The first address and the list of all agree; older kubelets know the first only.
fn pod_ips(status: &mut Value) {
    let (one, first) = (text(&status["podIP"]), text(&status["podIPs"][0]["ip"]));
    if !one.is_empty() && one != first {
        status["podIPs"] = json!([{"ip": one}]);
    } else if one.is_empty() && !first.is_empty() {
        status["podIP"] = first.into();
    }
}

/// A resize changes nothing but resources; what else was sent is ignored. Containers that are added,
/// removed or renamed are left for validation to refuse.
pub fn prepare_resize(pod: &mut Value, old: &Value) {
    let (new, before) = (&pod["spec"], &old["spec"]);
    let names = |spec: &Value, list: &str| -> Vec<Value> {
        items(spec, list).map(|c| c["name"].clone()).collect()
    };
    let same = |list: &str| names(new, list).len() == names(before, list).len();
    if !same("containers") || !same("initContainers") {
        return;
    }
    let mut spec = before.clone();
    set_or_remove(&mut spec, "resources", new.get("resources"));
    for list in ["containers", "initContainers"] {
        if names(new, list) != names(before, list) {
            set_or_remove(&mut spec, list, new.get(list));
            continue;
        }
        let sent: Vec<&Value> = items(new, list).collect();
        for (container, sent) in items_mut(&mut spec, list).zip(sent) {
            for key in ["resources", "resizePolicy"] {
                set_or_remove(container, key, sent.get(key));
            }
        }
    }
    replace_all_but(pod, old, spec);
}

/// Ephemeral containers are all that their subresource changes.
pub fn prepare_ephemeral(pod: &mut Value, old: &Value) {
    let mut spec = old["spec"].clone();
    set_or_remove(&mut spec, "ephemeralContainers", pod["spec"].get("ephemeralContainers"));
    replace_all_but(pod, old, spec);
}

/// The old pod with this spec, and the new one's field managers and revision.
fn replace_all_but(pod: &mut Value, old: &Value, spec: Value) {
    pod["spec"] = spec;
    set_or_remove(pod, "status", old.get("status"));
    for key in [
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        set_or_remove(&mut pod["metadata"], key, old["metadata"].get(key));
    }
}

fn set_or_remove(object: &mut Value, key: &str, value: Option<&Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) => drop(map.insert(key.into(), value.clone())),
        None => drop(map.remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(mut pod: Value) -> (Value, Vec<String>) {
        let warnings = prepare_pod(&mut pod, "2026-01-01T00:00:00Z");
        (pod, warnings)
    }

    #[test]
    fn label_keys_become_requirements() {
        let term = json!({"labelSelector": {}, "matchLabelKeys": ["a", "none"], "mismatchLabelKeys": ["b"]});
        let pod = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {
            "affinity": {
                "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term}]},
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
            "topologySpreadConstraints": [
                {"labelSelector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}, "matchLabelKeys": ["a"]},
                {"matchLabelKeys": ["a"]}]}});
        let (pod, _) = prepared(pod);
        let both = json!([{"key": "a", "operator": "In", "values": ["1"]}, {"key": "b", "operator": "NotIn", "values": ["2"]}]);
        let affinity = &pod["spec"]["affinity"];
        let preferred =
            &affinity["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(preferred["podAffinityTerm"]["labelSelector"]["matchExpressions"], both);
        let required =
            &affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(required["labelSelector"]["matchExpressions"], both);
        let spread = &pod["spec"]["topologySpreadConstraints"];
        assert_eq!(spread[0]["labelSelector"]["matchExpressions"][1]["key"], "a");
        assert_eq!(spread[1], json!({"matchLabelKeys": ["a"]}));
    }

    #[test]
    fn gated_pods_say_so() {
        let (pod, _) = prepared(
            json!({"spec": {"schedulingGates": [{"name": "g"}]}, "status": {"phase": "Running"}}),
        );
        assert_eq!(pod["status"]["phase"], "Pending");
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
        let (pod, _) = prepared(json!({"spec": {}}));
        assert!(pod["status"].get("conditions").is_none());
    }

    #[test]
    fn annotations_become_app_armor_profiles() {
        let pod = |annotation: &str, of_pod: Value| {
            prepared(json!({"metadata": {"annotations": {format!("{APP_ARMOR}c"): annotation}},
                "spec": {"securityContext": {"appArmorProfile": of_pod}, "containers": [{"name": "c"}]}}))
        };
        let of = |pod: &Value| {
            pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"].clone()
        };
        let (made, warnings) = pod("localhost/p", Value::Null);
        assert_eq!(of(&made), json!({"type": "Localhost", "localhostProfile": "p"}));
        assert_eq!(warnings.len(), 1);
        let (made, warnings) = pod("unconfined", json!({"type": "Unconfined"}));
        assert!(of(&made).is_null() && warnings.is_empty());
        let (made, warnings) = pod("localhost/ p", Value::Null);
        assert!(of(&made).is_null() && warnings.len() == 1);
    }

    #[test]
    fn a_status_keeps_generations_and_addresses_agree() {
        let old = json!({"status": {"qosClass": "Burstable", "observedGeneration": 3,
            "conditions": [{"type": "A", "observedGeneration": 2}]}});
        let mut pod = json!({"status": {"podIP": "1.1.1.1", "podIPs": [{"ip": "2.2.2.2"}],
            "conditions": [{"type": "A"}, {"type": "A"}]}});
        prepare_pod_status(&mut pod, &old);
        let status = &pod["status"];
        assert_eq!(
            (&status["qosClass"], &status["observedGeneration"]),
            (&json!("Burstable"), &json!(3))
        );
        assert_eq!(
            status["conditions"],
            json!([{"type": "A", "observedGeneration": 2}, {"type": "A"}])
        );
        assert_eq!(status["podIPs"], json!([{"ip": "1.1.1.1"}]));
        let mut pod = json!({"status": {"podIPs": [{"ip": "2.2.2.2"}]}});
        prepare_pod_status(&mut pod, &old);
        assert_eq!(pod["status"]["podIP"], "2.2.2.2");
    }

    #[test]
    fn a_resize_changes_resources_only() {
        let old = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"nodeName": "n",
            "containers": [{"name": "c", "image": "i", "resources": {}}]}});
        let mut new = json!({"metadata": {"managedFields": [1]}, "spec": {"nodeName": "m",
            "containers": [{"name": "c", "image": "j", "resources": {"limits": {"cpu": "1"}}}]}});
        prepare_resize(&mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"labels": {"a": "1"}, "managedFields": [1]}, "spec": {"nodeName": "n",
            "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}]}})
        );
        let mut renamed = json!({"metadata": {}, "spec": {"containers": [{"name": "d"}]}});
        prepare_resize(&mut renamed, &old);
        assert_eq!(renamed["spec"]["containers"][0]["name"], "d");
        let mut debugged = json!({"metadata": {}, "spec": {"nodeName": "m", "ephemeralContainers": [{"name": "e"}]}});
        prepare_ephemeral(&mut debugged, &old);
        assert_eq!(
            (&debugged["spec"]["nodeName"], &debugged["spec"]["ephemeralContainers"][0]["name"]),
            (&json!("n"), &json!("e"))
        );
    }
}
