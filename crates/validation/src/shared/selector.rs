//! Label selectors and node selectors.

use api::names;
use serde_json::Value;

use crate::check::At;

/// How strict a label selector is checked.
#[derive(Clone, Copy, Default)]
pub(crate) struct LabelRules {
    /// Values that are no labels are let through: they were there before.
    pub(crate) any_value: bool,
}

/// `metav1.LabelSelector`.
pub(crate) fn label_selector(selector: &At<'_>, rules: LabelRules) {
    if selector.is_absent() {
        return;
    }
    selector.get("matchLabels").labels();
    for requirement in selector.get("matchExpressions").items() {
        let values = requirement.get("values");
        match requirement.get("operator").text() {
            "In" | "NotIn" if values.is_empty() => {
                values.required("must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => values
                .forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => requirement.get("operator").invalid_text("not a valid selector operator"),
        }
        requirement.get("key").named(names::qualified_name);
        if !rules.any_value {
            label_values(&values);
        }
    }
}

fn label_values(values: &At<'_>) {
    for value in values.items() {
        value.named(names::label_value);
    }
}

/// `core.NodeSelector`; with `any_value`, values need not be labels.
pub(crate) fn node_selector(selector: &At<'_>, any_value: bool) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.is_empty() {
        return terms.required("must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(&term, any_value);
    }
}

pub(crate) fn node_selector_term(term: &At<'_>, any_value: bool) {
    for requirement in term.get("matchExpressions").items() {
        node_requirement(&requirement, any_value);
    }
    for requirement in term.get("matchFields").items() {
        node_field_requirement(&requirement);
    }
}

fn node_requirement(requirement: &At<'_>, any_value: bool) {
    let values = requirement.get("values");
    match requirement.get("operator").text() {
        "In" | "NotIn" if values.is_empty() => {
            values.required("must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            values.required("must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => requirement.get("operator").invalid_text("not a valid selector operator"),
    }
    requirement.get("key").named(names::qualified_name);
    if !any_value {
        label_values(&values);
    }
}

fn node_field_requirement(requirement: &At<'_>) {
    let values = requirement.get("values");
    match requirement.get("operator").text() {
        "In" | "NotIn" if values.len() != 1 => values.required(
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        "In" | "NotIn" => {}
        _ => requirement.get("operator").invalid_text("not a valid selector operator"),
    }
    let key = requirement.get("key");
    if key.text() != "metadata.name" {
        return key.invalid_text("not a valid field selector key");
    }
    for value in values.items() {
        value.named(names::dns_subdomain);
    }
}

/// Does a selector (as JSON) select these labels? None when it is malformed.
pub(crate) fn selector_matches(selector: &Value, labels: &Value) -> Option<bool> {
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let mut all = true;
    for (key, value) in pairs {
        let is_label = names::label_value(value.as_str().unwrap_or("")).is_empty();
        if !names::qualified_name(key).is_empty() || !is_label {
            return None;
        }
        all &= &labels[key] == value;
    }
    for requirement in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = requirement["key"].as_str().unwrap_or("");
        let label = labels.get(key).filter(|l| !l.is_null());
        let values = requirement["values"].as_array().map_or(&[][..], Vec::as_slice);
        let listed = label.is_some_and(|l| values.contains(l));
        let is_label = |v: &Value| names::label_value(v.as_str().unwrap_or("")).is_empty();
        if !names::qualified_name(key).is_empty() || !values.iter().all(is_label) {
            return None;
        }
        all &= match requirement["operator"].as_str() {
            Some("In") if !values.is_empty() => listed,
            Some("NotIn") if !values.is_empty() => !listed,
            Some("Exists") if values.is_empty() => label.is_some(),
            Some("DoesNotExist") if values.is_empty() => label.is_none(),
            _ => return None,
        };
    }
    Some(all)
}
