//! Admission policies by expression, and their bindings.

use api::names;
use serde_json::Value;

use super::rules::{changing_operations, is_blank, match_conditions, match_resources};
use crate::check::At;
use crate::shared::{LabelRules, conditions, label_selector, texts};
use crate::value::{items_mut, set_default};
use crate::{Kind, PLAIN};

pub(crate) static VALIDATING: Kind = Kind {
    default: |object| default_rules(object, "matchConstraints"),
    create: validating,
    update: validating,
    status: |policy| {
        let status = policy.get("status");
        let checking = status.get("typeChecking");
        for warning in checking.get("expressionWarnings").items() {
            warning.get("warning").need();
            warning.get("fieldRef").need();
        }
        conditions(&status.get("conditions"));
    },
    again: true,
    ..PLAIN
};
pub(crate) static MUTATING: Kind = Kind {
    default: |object| default_rules(object, "matchConstraints"),
    create: mutating,
    update: mutating,
    again: true,
    ..PLAIN
};
pub(crate) static BINDING: Kind = Kind {
    default: |object| default_rules(object, "matchResources"),
    create: |b| binding(b, true),
    update: |b| binding(b, true),
    again: true,
    ..PLAIN
};
pub(crate) static MUTATING_BINDING: Kind = Kind {
    default: |object| default_rules(object, "matchResources"),
    create: |b| binding(b, false),
    update: |b| binding(b, false),
    again: true,
    ..PLAIN
};

fn default_rules(object: &mut Value, field: &str) {
    let Some(at) = object.pointer_mut(&format!("/spec/{field}")).filter(|m| m.is_object()) else {
        return;
    };
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in items_mut(at, list) {
            set_default(rule, "scope", "*");
        }
    }
}

/// What both sorts of policies have.
fn common(spec: &At<'_>) {
    let failure = spec.get("failurePolicy");
    if failure.is_absent() {
        failure.required("");
    } else {
        failure.one_of(&["Fail", "Ignore"]);
    }
    let param = spec.get("paramKind");
    if !param.is_absent() {
        param_kind(&param);
    }
    let constraints = spec.get("matchConstraints");
    if constraints.is_absent() {
        constraints.required("");
    } else {
        match_resources(&constraints);
        constraints.get("resourceRules").need();
    }
}

fn param_kind(at: &At<'_>) {
    let (version, kind) = (at.get("apiVersion"), at.get("kind"));
    if version.need() {
        let parts: Vec<&str> = version.text().split('/').collect();
        let (group, number) = match parts[..] {
            [number] => ("", number),
            [group, number] => (group, number),
            _ => {
                version.invalid(&format!("unexpected GroupVersion string: {}", version.text()));
                ("", "v1")
            }
        };
        let faults = names::dns_subdomain(group);
        if !group.is_empty() && !faults.is_empty() {
            version.invalid_as(&group.into(), &faults.join(","));
        }
        let faults = names::dns1035_label(number);
        if number.is_empty() {
            version.invalid("version must be specified");
        } else if !faults.is_empty() {
            version.invalid_as(&number.into(), &faults.join(","));
        }
    }
    if kind.need() {
        let faults = names::dns1035_label(&kind.text().to_lowercase());
        if !faults.is_empty() {
            let detail =
                format!("may have mixed case, but should otherwise match: {}", faults.join(","));
            kind.invalid(&detail);
        }
    }
}

fn variables(list: &At<'_>) {
    for variable in list.items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if is_blank(name.value()) {
            name.required("name is not specified");
        } else if !is_identifier(name.text()) {
            name.invalid("must be a valid CEL identifier");
        }
        if is_blank(expression.value()) {
            expression.required("expression is not specified");
        }
    }
}

fn is_identifier(name: &str) -> bool {
    crate::formats::c_identifier(name).is_empty() && !cel::is_reserved(name)
}

fn validating(policy: &At<'_>) {
    const ONE: &str = "validations or auditAnnotations must contain at least one item";
    let (meta, spec) = (policy.get("metadata"), policy.get("spec"));
    common(&spec);
    match_conditions(&spec.get("matchConditions"));
    variables(&spec.get("variables"));
    let (validations, audits) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.len() + audits.len() == 0 {
        validations.required(ONE);
        return audits.required(ONE);
    }
    validations.items().for_each(|at| validation(&at));
    if audits.len() > 20 {
        audits.invalid("must not have more than 20 auditAnnotations");
    }
    let all = audits.value().as_array().map_or(&[][..], Vec::as_slice);
    let name = meta.get("name");
    for (at, audit) in audits.items().enumerate() {
        audit_annotation(&audit, name.text());
        let key = audit.get("key");
        if all[..at].iter().any(|before| before["key"] == *key.value()) {
            key.duplicate();
        }
    }
}

fn validation(at: &At<'_>) {
    let (expression, message, by) =
        (at.get("expression"), at.get("message"), at.get("messageExpression"));
    if is_blank(expression.value()) {
        expression.required("expression is not specified");
    }
    if !by.is_empty() && is_blank(by.value()) {
        by.invalid("must be non-empty if specified");
    }
    if !message.is_empty() && is_blank(message.value()) {
        message.invalid("must be non-empty if specified");
    } else if message.text().trim().contains(['\n', '\r']) {
        message.invalid("must not contain line breaks");
    }
    at.get("reason").one_of_if_set(&["Forbidden", "Invalid", "RequestEntityTooLarge"]);
}

fn audit_annotation(audit: &At<'_>, policy: &str) {
    let (key, expression) = (audit.get("key"), audit.get("valueExpression"));
    if policy.is_empty() {
        key.invalid_text("requires metadata.name be non-empty");
    } else {
        let whole = format!("{policy}/{}", key.text());
        for fault in names::qualified_name(&whole) {
            key.invalid_as(&whole.as_str().into(), &fault);
        }
    }
    if is_blank(expression.value()) {
        expression.required("valueExpression is not specified");
    } else if expression.text().trim().len() > 5 * 1024 {
        expression.required("must not exceed 5120 bytes in length");
    }
}

fn mutating(policy: &At<'_>) {
    let spec = policy.get("spec");
    common(&spec);
    let constraints = spec.get("matchConstraints");
    changing_operations(&constraints);
    match_conditions(&spec.get("matchConditions"));
    variables(&spec.get("variables"));
    let mutations = spec.get("mutations");
    if mutations.is_empty() {
        mutations.required("mutations must contain at least one item");
    }
    mutations.items().for_each(|at| mutation(&at));
    spec.get("reinvocationPolicy").need_one_of(&["IfNeeded", "Never"]);
}

fn mutation(at: &At<'_>) {
    let kind = at.get("patchType");
    let (patch, apply) = (("jsonPatch", "JSONPatch"), ("applyConfiguration", "ApplyConfiguration"));
    let (wanted, other) = match kind.text() {
        "" => return kind.required(""),
        "JSONPatch" => (patch, apply),
        "ApplyConfiguration" => (apply, patch),
        _ => return kind.not_supported(&["ApplyConfiguration", "JSONPatch"]),
    };
    let source = at.get(wanted.0);
    if source.is_absent() {
        source.required(&format!("must be specified when patchType is {}", wanted.1));
    } else if is_blank(source.get("expression").value()) {
        source.get("expression").required("");
    }
    let stray = at.get(other.0);
    if !stray.is_absent() {
        let shown = format!("{{{}}}", other.0);
        let detail = format!("must not be specified when patchType is {}", wanted.1);
        stray.invalid_as(&shown.into(), &detail);
    }
}

fn binding(binding: &At<'_>, validating: bool) {
    let spec = binding.get("spec");
    let name = spec.get("policyName");
    if name.need() {
        name.named(names::dns_subdomain);
    }
    param_ref(&spec.get("paramRef"));
    let resources = spec.get("matchResources");
    if !resources.is_absent() {
        match_resources(&resources);
    }
    if validating {
        actions(&spec.get("validationActions"));
    } else {
        changing_operations(&resources);
    }
}

fn actions(list: &At<'_>) {
    let all = texts(Some(list.value()), None);
    for (at, action) in list.items().enumerate() {
        action.one_of(&["Audit", "Deny", "Warn"]);
        if all[..at].contains(&action.text()) {
            action.duplicate();
        }
    }
    if all.contains(&"Deny") && all.contains(&"Warn") {
        list.invalid("must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
    if all.is_empty() {
        list.required("at least one validation action is required");
    }
}

fn param_ref(at: &At<'_>) {
    const BOTH: &str = "name and selector are mutually exclusive";
    if at.is_absent() {
        return;
    }
    let (name, selector, missing) =
        (at.get("name"), at.get("selector"), at.get("parameterNotFoundAction"));
    if !name.is_empty() {
        name.named(names::path_segment);
        if !selector.is_absent() {
            name.forbidden(BOTH);
        }
    }
    label_selector(&selector, LabelRules::default());
    if !selector.is_absent() && !name.is_empty() {
        selector.forbidden(BOTH);
    }
    if name.is_empty() && selector.is_absent() {
        at.required("one of name or selector must be specified");
    }
    missing.need_one_of(&["Deny", "Allow"]);
}
