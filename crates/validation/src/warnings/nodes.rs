//! Labels of nodes that have been replaced, wherever they are selected by.

use super::{Warnings, addresses};
use crate::check::At;

/// What to use instead of a node's label.
pub(super) fn deprecated_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#,
        "beta.kubernetes.io/os" => r#"deprecated since v1.14; use "kubernetes.io/os" instead"#,
        "failure-domain.beta.kubernetes.io/region" => {
            r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#
        }
        "beta.kubernetes.io/instance-type" => {
            r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => {
            r#"use "node-role.kubernetes.io/control-plane" instead"#
        }
        _ => return None,
    })
}

/// A node selector's term. Preferences may have values that no label has; requirements may not.
pub(super) fn term(warnings: &Warnings, term: &At<'_>, check_values: bool) {
    for expression in term.get("matchExpressions").items() {
        let key = expression.get("key");
        if let Some(instead) = deprecated_label(key.text()) {
            warnings.at(&key, format!("{} is {instead}", key.text()));
        }
        if !check_values {
            continue;
        }
        for value in expression.get("values").items() {
            for fault in api::names::label_value(value.text()) {
                warnings.at(&value, format!("{} is invalid, {fault}", value.text()));
            }
        }
    }
}

/// A label selector of nodes.
pub(super) fn selector(warnings: &Warnings, selector: &At<'_>) {
    term(warnings, selector, false);
    let labels = selector.get("matchLabels");
    for (key, _) in labels.entries() {
        if let Some(instead) = deprecated_label(key) {
            warnings.at(&labels.get(key), instead);
        }
    }
}

pub(super) fn runtime_class(warnings: &Warnings, class: &At<'_>) {
    let scheduling = class.get("scheduling");
    let selector = scheduling.get("nodeSelector");
    for (key, _) in selector.entries() {
        if let Some(instead) = deprecated_label(key) {
            warnings.at(&selector, instead);
        }
    }
}

pub(super) fn node(warnings: &Warnings, node: &At<'_>) {
    let spec = node.get("spec");
    if !spec.get("configSource").is_absent() {
        warnings.add("spec.configSource: the feature is removed");
    }
    if !spec.get("externalID").is_empty() {
        warnings.add("spec.externalID: this field is deprecated, and is unused by Kubernetes");
    }
    spec.get("podCIDRs").items().for_each(|cidr| addresses::cidr(warnings, &cidr));
}
