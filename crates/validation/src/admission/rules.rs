//! Which requests webhooks and policies look at.

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::shared::{LabelRules, label_selector, texts};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// A rule with the operations it is for.
pub(super) fn rule(rule: &At<'_>) {
    let operations = rule.get("operations");
    operations.need();
    let all = texts(Some(operations.value()), None);
    if all.len() > 1 && all.contains(&"*") {
        operations.invalid("if '*' is present, must not specify other operations");
    }
    for operation in operations.items() {
        operation.one_of(&OPERATIONS);
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = rule.get(field);
        list.need();
        let all = texts(Some(list.value()), None);
        if all.len() > 1 && all.contains(&"*") {
            list.invalid(&format!("if '*' is present, must not specify other {what}"));
        }
        if field == "apiVersions" {
            for version in list.items() {
                version.need();
            }
        }
    }
    resources(&rule.get("resources"));
    rule.get("scope").one_of_if_set(&["*", "Cluster", "Namespaced"]);
}

fn resources(list: &At<'_>) {
    list.need();
    let all = texts(Some(list.value()), None);
    let (mut whole, mut by_sub): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut plain = false;
    for (at, name) in all.iter().enumerate() {
        let place = list.index(at);
        if name.is_empty() {
            place.required("");
            continue;
        }
        let Some((resource, sub)) = name.split_once('/') else {
            plain = *name != "*";
            continue;
        };
        if whole.contains(&resource) {
            place.invalid(&format!("if '{resource}/*' is present, must not specify {name}"));
        }
        if by_sub.contains(&sub) {
            place.invalid(&format!("if '*/{sub}' is present, must not specify {name}"));
        }
        if sub == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            by_sub.push(sub);
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        list.invalid("if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && plain {
        list.invalid("if '*' is present, must not specify other resources without subresources");
    }
}

/// `MatchResources` of policies and their bindings.
pub(super) fn match_resources(at: &At<'_>) {
    let policy = at.get("matchPolicy");
    if policy.is_absent() {
        policy.required("");
    } else {
        policy.one_of(&["Equivalent", "Exact"]);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = at.get(field);
        if selector.is_absent() {
            selector.required("");
        }
        label_selector(&selector, LabelRules::default());
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        at.get(field).items().for_each(|at| named_rule(&at));
    }
}

fn named_rule(at: &At<'_>) {
    let list = at.get("resourceNames");
    let all = texts(Some(list.value()), None);
    for (index, name) in list.items().enumerate() {
        name.named(names::path_segment);
        if all[..index].contains(&name.text()) {
            name.duplicate();
        }
    }
    rule(at);
}

/// Operations that change objects; deletions do not.
pub(super) fn changing_operations(at: &At<'_>) {
    let rules = at.get("resourceRules");
    let told = rules.get("operations");
    for rule in rules.value().as_array().into_iter().flatten() {
        for operation in rule["operations"].as_array().into_iter().flatten() {
            let known = ["*", "CONNECT", "CREATE", "UPDATE"];
            if !known.contains(&operation.as_str().unwrap_or("")) {
                told.not_supported_as(operation, &known);
            }
        }
    }
}

/// Conditions by expression; their names differ.
pub(super) fn match_conditions(list: &At<'_>) {
    if list.len() > 64 {
        list.too_many(64);
    }
    let all = list.value().as_array().map_or(&[][..], Vec::as_slice);
    for (at, condition) in list.items().enumerate() {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        if expression.text().trim().is_empty() {
            expression.required("");
        }
        if name.need() {
            name.named(names::qualified_name);
            if all[..at].iter().any(|before| before["name"] == *name.value()) {
                name.duplicate();
            }
        }
    }
}

/// Text of an expression, empty when there is none but white space.
pub(super) fn is_blank(value: &Value) -> bool {
    value.as_str().unwrap_or("").trim().is_empty()
}
