//! LimitPodHardAntiAffinityTopology and ExtendedResourceToleration.
//!
//! Rules: `plugin/pkg/admission/{antiaffinity,extendedresourcetoleration}`.

use std::collections::BTreeSet;

use api::Status;
use serde_json::{Value, json};
use validation::items;

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin};

const HOST: &str = "kubernetes.io/hostname";

fn is_pod_write(request: &Attributes<'_>) -> bool {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    writes && request.path() == ("", "pods", "")
}

/// Pods keep each other away from nodes only, not from zones.
pub(crate) struct LimitPodHardAntiAffinityTopology;

impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        is_pod_write(request)
    }

    fn validate<'a>(&'a self, _: &'a Attributes<'a>, pod: &'a Value) -> Decision<'a> {
        const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
        let terms = items(&pod["spec"]["affinity"]["podAntiAffinity"], REQUIRED);
        let mut keys = terms.map(|term| term["topologyKey"].as_str().unwrap_or(""));
        let Some(other) = keys.find(|key| *key != HOST) else { return Decision::ALLOWED };
        let why = format!(
            "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {other} but only key {HOST} is allowed"
        );
        let name = api::tree::metadata_text(pod, "name");
        Err(Status::forbidden("", "pods", name, &why)).into()
    }
}

/// Pods that ask for extended resources tolerate the taints that keep others off their nodes.
pub(crate) struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        is_pod_write(request)
    }

    fn mutate<'a>(&'a self, _: &'a Attributes<'a>, pod: &'a mut Value) -> Decision<'a> {
        for resource in extended(pod) {
            tolerate(pod, &resource);
        }
        Decision::ALLOWED
    }
}

/// The extended resources that containers ask for, in order.
fn extended(pod: &Value) -> BTreeSet<String> {
    let lists = ["containers", "initContainers"].into_iter();
    let containers = lists.flat_map(|list| items(&pod["spec"], list));
    let requests = containers.filter_map(|c| c["resources"]["requests"].as_object());
    let names = requests.flat_map(|requests| requests.keys());
    names.filter(|name| is_extended(name)).cloned().collect()
}

fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Replaces tolerations of the same key, effect, operator and value, or adds one.
fn tolerate(pod: &mut Value, resource: &str) {
    let toleration = json!({"key": resource, "operator": "Exists", "effect": "NoSchedule"});
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("").to_owned();
    let is_same = |other: &Value| {
        ["key", "operator", "effect", "value"]
            .iter()
            .all(|key| text(other, key) == text(&toleration, key))
    };
    let spec = &mut pod["spec"];
    if !spec["tolerations"].is_array() {
        spec["tolerations"] = json!([]);
    }
    let Some(list) = spec["tolerations"].as_array_mut() else { return };
    match list.iter_mut().find(|other| is_same(other)) {
        Some(found) => *found = toleration,
        None => list.push(toleration),
    }
}
