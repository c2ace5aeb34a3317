//! Which scopes an object is in.

use serde_json::Value;
use validation::{items, text};

/// What a quota's scopes ask of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scopes {
    Pod {
        terminating: bool,
        best_effort: bool,
        /// At most one.
        priority_class: Vec<String>,
        cross_namespace: bool,
    },
    /// By volume attributes classes.
    Claim(Vec<String>),
    /// In no scope at all.
    None,
}

impl Scopes {
    pub(super) fn of(group: &str, resource: &str, object: &Value) -> Scopes {
        match (group, resource) {
            ("", "pods") => Scopes::Pod {
                terminating: terminating(object),
                best_effort: validation::qos_class(&object["spec"]) == "BestEffort",
                priority_class: named(&object["spec"]["priorityClassName"]).into_iter().collect(),
                cross_namespace: cross_namespace(&object["spec"]["affinity"]),
            },
            ("", "persistentvolumeclaims") => Scopes::Claim(volume_classes(object)),
            _ => Scopes::None,
        }
    }

    /// Whether the object is in every scope that a quota's spec names.
    pub(super) fn fit(&self, spec: &Value) -> bool {
        let plain = items(spec, "scopes").all(|scope| self.is_in(text(scope), &Value::Null));
        plain
            && items(&spec["scopeSelector"], "matchExpressions")
                .all(|requirement| self.is_in(text(&requirement["scopeName"]), requirement))
    }

    fn is_in(&self, scope: &str, requirement: &Value) -> bool {
        match (self, scope) {
            (Scopes::Pod { terminating, .. }, "Terminating") => *terminating,
            (Scopes::Pod { terminating, .. }, "NotTerminating") => !terminating,
            (Scopes::Pod { best_effort, .. }, "BestEffort") => *best_effort,
            (Scopes::Pod { best_effort, .. }, "NotBestEffort") => !best_effort,
            (Scopes::Pod { cross_namespace, .. }, "CrossNamespacePodAffinity") => *cross_namespace,
            (Scopes::Pod { priority_class, .. }, "PriorityClass") => {
                selects(requirement, priority_class)
            }
            (Scopes::Claim(classes), "VolumeAttributesClass") => selects(requirement, classes),
            _ => false,
        }
    }
}

/// A requirement on names; one of them must satisfy it, or the lack of any.
fn selects(requirement: &Value, names: &[String]) -> bool {
    let listed = |name: &String| items(requirement, "values").any(|v| v == name.as_str());
    match text(&requirement["operator"]) {
        "In" => names.iter().any(listed),
        "NotIn" => names.is_empty() || names.iter().any(|name| !listed(name)),
        "DoesNotExist" => names.is_empty(),
        _ => !names.is_empty(),
    }
}

fn named(value: &Value) -> Option<String> {
    value.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

pub(super) fn terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

fn cross_namespace(affinity: &Value) -> bool {
    let beyond = |term: &Value| {
        items(term, "namespaces").next().is_some() || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let part = &affinity[kind];
        items(part, "requiredDuringSchedulingIgnoredDuringExecution").any(beyond)
            || items(part, "preferredDuringSchedulingIgnoredDuringExecution")
                .any(|weighted| beyond(&weighted["podAffinityTerm"]))
    })
}

/// The volume attributes classes a claim has, wants, or is on its way to.
pub(super) fn volume_classes(claim: &Value) -> Vec<String> {
    let status = &claim["status"];
    let all = [
        &claim["spec"]["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    let mut names: Vec<String> = all.into_iter().filter_map(named).collect();
    names.sort();
    names.dedup();
    names
}
