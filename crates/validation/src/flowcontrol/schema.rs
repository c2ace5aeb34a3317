//! Flow schemas: which requests go to which priority level.

use api::names;
use serde_json::{Value, json};

use super::conditions;
use crate::check::At;
use crate::golang;
use crate::shared::texts;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind =
    Kind { default, create: schema, update: schema, status: conditions, again: true, ..PLAIN };

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if spec["matchingPrecedence"].as_i64().is_none_or(|n| n == 0) {
        spec["matchingPrecedence"] = 1000.into();
    }
}

fn schema(object: &At<'_>) {
    let (meta, at) = (object.get("metadata"), object.get("spec"));
    let name = meta.get("name");
    spec(&at, name.text());
    if let Some(fixed) = mandatory(name.text())
        && !golang::same(&fixed, at.value())
    {
        let detail = format!("spec of '{}' must equal the fixed value", name.text());
        at.invalid_struct("flowcontrol.FlowSchemaSpec", &detail);
    }
    conditions(object);
}

/// Schemas that are as they are.
fn mandatory(name: &str) -> Option<Value> {
    let all = |groups: Value| {
        json!([{
            "subjects": groups,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    match name {
        "exempt" => Some(json!({
            "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1,
            "rules": all(json!([group("system:masters")])),
        })),
        "catch-all" => Some(json!({
            "priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": 10000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": all(json!([group("system:unauthenticated"), group("system:authenticated")])),
        })),
        _ => None,
    }
}

fn spec(spec: &At<'_>, name: &str) {
    let precedence = spec.get("matchingPrecedence");
    let number = precedence.number();
    if number <= 0 {
        precedence.invalid_number("must be a positive value");
    }
    if number > 10_000 {
        precedence.invalid("must not be greater than 10000");
    }
    if number == 1 && name != "exempt" {
        precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let method = spec.get("distinguisherMethod");
    if !method.is_absent() && !matches!(method.get("type").text(), "ByNamespace" | "ByUser") {
        method.get("type").with(method.value()).not_supported_struct(
            "flowcontrol.FlowDistinguisherMethod",
            &["ByNamespace", "ByUser"],
        );
    }
    let level = spec.get("priorityLevelConfiguration");
    let level = level.get("name");
    if level.is_empty() {
        level.required("must reference a priority level");
    } else {
        level.named(names::dns_subdomain);
    }
    spec.get("rules").items().for_each(|at| rule(&at));
}

fn rule(rule: &At<'_>) {
    let (subjects, resources, others) =
        (rule.get("subjects"), rule.get("resourceRules"), rule.get("nonResourceRules"));
    subjects.items().for_each(|at| subject(&at));
    if subjects.is_empty() {
        subjects.required("subjects must contain at least one value");
    }
    if resources.len() + others.len() == 0 {
        rule.required("at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    resources.items().for_each(|at| resource_rule(&at));
    others.items().for_each(|at| other_rule(&at));
}

/// Kind and field; those of other kinds are forbidden, in the order told here.
fn subject(subject: &At<'_>) {
    let kind = subject.get("kind");
    let (field, others) = match kind.text() {
        "ServiceAccount" => ("serviceAccount", [("user", "User"), ("group", "Group")]),
        "User" => ("user", [("serviceAccount", "ServiceAccount"), ("group", "Group")]),
        "Group" => ("group", [("serviceAccount", "ServiceAccount"), ("user", "User")]),
        _ => return kind.not_supported(&["Group", "ServiceAccount", "User"]),
    };
    let at = subject.get(field);
    if at.is_absent() {
        at.required(&format!("{field} is required when subject kind is '{}'", kind.text()));
    } else {
        let (name, namespace) = (at.get("name"), at.get("namespace"));
        let named = name.need();
        if field == "serviceAccount" {
            if named && name.text() != "*" {
                name.named(names::dns_subdomain);
            }
            if namespace.is_empty() {
                namespace.required("must specify namespace for service account");
            } else {
                namespace.named(names::dns_label);
            }
        }
    }
    for (field, kind) in others {
        if !subject.get(field).is_absent() {
            let detail = format!("{field} is forbidden when subject kind is not '{kind}'");
            subject.get(field).forbidden(&detail);
        }
    }
}

const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn verbs(list: &At<'_>) {
    let all = texts(Some(list.value()), None);
    if all.is_empty() {
        list.required("verbs must contain at least one value");
    } else if all.contains(&"*") {
        alone(list, &all, "verbs");
    } else if !all.iter().all(|verb| VERBS.contains(verb)) {
        list.not_supported_shown(&VERBS);
    }
}

fn alone(list: &At<'_>, all: &[&str], what: &str) {
    if all.contains(&"*") && all.len() > 1 {
        list.invalid(&format!("if '*' is present, must not specify other {what}"));
    }
}

fn resource_rule(rule: &At<'_>) {
    verbs(&rule.get("verbs"));
    for (field, one, other) in
        [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")]
    {
        let list = rule.get(field);
        let all = texts(Some(list.value()), None);
        if all.is_empty() {
            list.required(&format!("resource rules must supply at least one {one}"));
        } else {
            alone(&list, &all, other);
        }
    }
    let list = rule.get("namespaces");
    let all = texts(Some(list.value()), None);
    if all.is_empty() && !rule.get("clusterScope").is_true() {
        list.required(
            "resource rules that are not cluster scoped must supply at least one namespace",
        );
    } else if all.contains(&"*") {
        alone(&list, &all, "namespaces");
    } else {
        for namespace in list.items() {
            for fault in names::dns_label(namespace.text()) {
                let detail =
                    format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
                namespace.invalid(&detail);
            }
        }
    }
}

fn other_rule(rule: &At<'_>) {
    verbs(&rule.get("verbs"));
    let list = rule.get("nonResourceURLs");
    let all = texts(Some(list.value()), None);
    if all.is_empty() {
        list.required("nonResourceURLs must contain at least one value");
    } else if all.contains(&"*") {
        alone(&list, &all, "non-resource URLs");
    } else {
        list.items().for_each(|url| path(&url));
    }
}

fn path(url: &At<'_>) {
    let text = url.text();
    let stars = text.matches('*').count();
    let fault = if text.is_empty() {
        "must not be empty"
    } else if text == "/" {
        return;
    } else if !text.starts_with('/') {
        "must start with slash"
    } else if text.contains(' ') {
        "must not contain white-space"
    } else if text.contains("//") {
        "must not contain double slash"
    } else if stars > 1 || (stars == 1 && !text.ends_with("/*")) {
        "wildcard can only do suffix matching"
    } else {
        return;
    };
    url.invalid(fault);
}
