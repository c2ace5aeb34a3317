//! Devices that are claimed: claims and their templates, classes, and what drivers have to offer.

use std::collections::HashSet;

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::golang;
use crate::value::{items, items_mut, set_default, text};
use crate::{Kind, PLAIN};

pub(crate) static CLAIM: Kind = Kind {
    default: |claim| default_requests(&mut claim["spec"]),
    create: |object| claim(&object.get("spec").get("devices")),
    update: |object| immutable(&object.get("spec"), "resource.ResourceClaimSpec"),
    again: true,
    ..PLAIN
};

pub(crate) static TEMPLATE: Kind = Kind {
    default: |template| {
        if template["spec"].is_object() {
            default_requests(&mut template["spec"]["spec"]);
        }
    },
    create: |object| claim(&object.get("spec").get("spec").get("devices")),
    update: |object| immutable(&object.get("spec"), "resource.ResourceClaimTemplateSpec"),
    anew: true,
    ..PLAIN
};

pub(crate) static CLASS: Kind = Kind { create: class, update: class, again: true, ..PLAIN };

pub(crate) static SLICE: Kind = Kind {
    create: |object| slice(&object.get("spec")),
    update: |object| slice(&object.get("spec")),
    ..PLAIN
};

const SELECTORS_MAX: usize = 32;
const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const EXPRESSION_MAX: usize = 10 * 1024;
const DEVICES_MAX: usize = 128;
/// Where devices have taints or consume counters.
const DEVICES_MAX_ADVANCED: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const DRIVER_MAX: usize = 63;

fn default_requests(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices").filter(|d| d.is_object()) else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|e| e.is_object()) {
            default_amount(exactly);
        }
        if request.get("firstAvailable").is_some() {
            items_mut(request, "firstAvailable").for_each(default_amount);
        }
    }
}

fn default_amount(request: &mut Value) {
    set_default(request, "allocationMode", "ExactCount");
    if request["allocationMode"] == "ExactCount" {
        set_default(request, "count", 1);
    }
}

fn immutable(at: &At<'_>, ty: &str) {
    if at.old().is_some_and(|old| !golang::same(old, at.value())) {
        at.invalid_struct(ty, "field is immutable");
    }
}

/// Items of a list, no more than allowed, whose names differ.
fn set<'b>(list: &'b At<'_>, max: usize, key: &str) -> Vec<At<'b>> {
    if list.len() > max {
        list.too_many(max);
    }
    let mut seen: HashSet<&str> = HashSet::new();
    let all: Vec<At<'b>> = list.items().collect();
    for item in &all {
        let name = if key.is_empty() { text(item.value()) } else { text(&item.value()[key]) };
        if seen.contains(&name) {
            item.duplicate_as(&name.into());
        }
        seen.insert(name);
    }
    all
}

fn claim(devices: &At<'_>) {
    let known = request_names(devices.value());
    let requests = devices.get("requests");
    set(&requests, REQUESTS_MAX, "name").iter().for_each(request);
    let constraints = devices.get("constraints");
    for constraint in set_of_any(&constraints, CONSTRAINTS_MAX) {
        references(&constraint.get("requests"), &known);
        let (same, distinct) =
            (constraint.get("matchAttribute"), constraint.get("distinctAttribute"));
        match (same.is_absent(), distinct.is_absent()) {
            (false, _) => qualified(&same),
            (_, false) => qualified(&distinct),
            _ => constraint.required("exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set"),
        }
    }
    let configs = devices.get("config");
    for config in set_of_any(&configs, CONFIGS_MAX) {
        references(&config.get("requests"), &known);
        configuration(&config);
    }
}

fn set_of_any<'b>(list: &'b At<'_>, max: usize) -> impl Iterator<Item = At<'b>> {
    if list.len() > max {
        list.too_many(max);
    }
    list.items()
}

/// Names of requests, and of their alternatives after a slash.
fn request_names(devices: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for request in items(devices, "requests") {
        let name = text(&request["name"]);
        all.push(name.to_owned());
        all.extend(
            items(request, "firstAvailable").map(|sub| format!("{name}/{}", text(&sub["name"]))),
        );
    }
    all
}

fn references(list: &At<'_>, known: &[String]) {
    const DETAIL: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    for name in set(list, REQUESTS_MAX, "") {
        if name.text().matches('/').count() > 1 {
            name.invalid_text(DETAIL);
            continue;
        }
        for fault in name.text().split('/').flat_map(names::dns_label) {
            name.invalid_text(&fault);
        }
        if !known.iter().any(|k| k == name.text()) {
            name.invalid_text(DETAIL);
        }
    }
}

fn label(at: &At<'_>) {
    for fault in names::dns_label(at.text()) {
        at.invalid_text(&fault);
    }
}

fn request(request: &At<'_>) {
    label(&request.get("name"));
    let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    match (!exactly.is_absent(), !first.is_empty()) {
        (false, false) => request.required(ONE),
        (true, true) => {
            request.invalid_as(&Value::Null, &format!("{ONE}, but multiple fields are set"));
        }
        (true, false) => amount(&exactly),
        (false, true) => {
            for alternative in set(&first, ALTERNATIVES_MAX, "name") {
                label(&alternative.get("name"));
                amount(&alternative);
            }
        }
    }
}

fn amount(request: &At<'_>) {
    let class = request.get("deviceClassName");
    if class.need() {
        class.named(names::dns_subdomain);
    }
    selectors(&request.get("selectors"));
    let (mode, count) = (request.get("allocationMode"), request.get("count"));
    match mode.text() {
        "All" if count.number() != 0 => {
            count.invalid("must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count.number() <= 0 => count.invalid_number("must be greater than zero"),
        "All" | "ExactCount" => {}
        _ => mode.not_supported(&["All", "ExactCount"]),
    }
    request.get("tolerations").items().for_each(|at| toleration(&at));
}

fn toleration(at: &At<'_>) {
    let (key, operator, value) = (at.get("key"), at.get("operator"), at.get("value"));
    if !key.is_empty() {
        key.named(names::qualified_name);
    }
    match operator.text() {
        "Exists" if !value.is_empty() => {
            value.invalid("must be empty for operator `Exists`");
        }
        "Equal" => value.named(names::label_value),
        "Exists" => {}
        "" => operator.required(""),
        _ => operator.not_supported(&["Equal", "Exists"]),
    }
    at.get("effect").one_of_if_set(&["NoExecute", "NoSchedule"]);
}

fn selectors(list: &At<'_>) {
    for selector in set_of_any(list, SELECTORS_MAX) {
        let rule = selector.get("cel");
        if rule.is_absent() {
            rule.required("");
            continue;
        }
        let expression = rule.get("expression");
        if expression.text().len() > EXPRESSION_MAX {
            expression.too_long(EXPRESSION_MAX);
        } else if expression.text().trim().is_empty() {
            expression.required("");
        }
    }
}

fn configuration(config: &At<'_>) {
    let opaque = config.get("opaque");
    if opaque.is_absent() {
        return opaque.required("");
    }
    driver(&opaque.get("driver"));
    let parameters = opaque.get("parameters");
    if parameters.is_absent() {
        parameters.required("");
    } else if !parameters.value().is_object() {
        parameters.invalid_as(&"<value omitted>".into(), "parameters must be a valid JSON object");
    }
}

/// `domain/name`.
fn qualified(at: &At<'_>) {
    if !at.text().contains('/') {
        return at.invalid_text("must include a domain");
    }
    at.named(names::qualified_name);
}

fn driver(at: &At<'_>) {
    if !at.need() {
        return;
    }
    if at.text().len() > DRIVER_MAX {
        at.too_long(DRIVER_MAX);
    }
    let lower = at.text().to_lowercase();
    for fault in names::dns_subdomain(&lower) {
        at.invalid_text(&fault);
    }
}

fn class(object: &At<'_>) {
    let spec = object.get("spec");
    selectors(&spec.get("selectors"));
    let configs = spec.get("config");
    set_of_any(&configs, CONFIGS_MAX).for_each(|config| configuration(&config));
    let resource = spec.get("extendedResourceName");
    let is_extended = |name: &str| {
        name.contains('/')
            && !name.contains("kubernetes.io/")
            && !name.starts_with("requests.")
            && names::qualified_name(&format!("requests.{name}")).is_empty()
    };
    if !resource.is_absent() && !is_extended(resource.text()) {
        resource.invalid("must be a valid extended resource name");
    }
}

fn slice(spec: &At<'_>) {
    driver(&spec.get("driver"));
    pool(&spec.get("pool"));
    for (first, then) in [("pool", "name"), ("driver", ""), ("nodeName", "")] {
        let outer = spec.get(first);
        if then.is_empty() { outer.immutable() } else { outer.get(then).immutable() }
    }
    whose(spec);
    let (devices, counters) = (spec.get("devices"), spec.get("sharedCounters"));
    if !devices.is_absent() && !counters.is_absent() {
        spec.invalid_as(&"".into(), "only one of `sharedCounters` or `devices` is allowed");
    }
    let advanced = items(spec.value(), "devices").any(|device| {
        ["taints", "consumesCounters"].iter().any(|list| items(device, list).next().is_some())
    });
    let most = if advanced { DEVICES_MAX_ADVANCED } else { DEVICES_MAX };
    for device in set(&devices, most, "name") {
        label(&device.get("name"));
        for taint in device.get("taints").items() {
            taint.get("key").named(names::qualified_name);
            taint.get("effect").need_one_of(&["NoExecute", "NoSchedule", "None"]);
        }
    }
    for counter_set in set(&counters, COUNTER_SETS_MAX, "name") {
        if counter_set.get("name").need() {
            label(&counter_set.get("name"));
        }
        let all = counter_set.get("counters");
        if all.is_empty() {
            all.required("");
        }
    }
}

fn pool(pool: &At<'_>) {
    let (name, count, generation) =
        (pool.get("name"), pool.get("resourceSliceCount"), pool.get("generation"));
    if name.need() {
        if name.text().len() > 253 {
            name.too_long(253);
        }
        for fault in name.text().split('/').flat_map(names::dns_subdomain) {
            name.invalid_text(&fault);
        }
    }
    if count.number() <= 0 {
        count.invalid_number("must be greater than zero");
    }
    if generation.number() < 0 {
        generation.invalid("must be greater than or equal to zero");
    }
}

/// The devices are one node's, or those of some in exactly one other way.
fn whose(spec: &At<'_>) {
    const WAYS: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut ways: Vec<&str> = Vec::new();
    let (node, selector) = (spec.get("nodeName"), spec.get("nodeSelector"));
    if !node.is_absent() {
        if node.text().is_empty() {
            node.invalid("must be either unset or set to a non-empty string");
        } else {
            ways.push("`nodeName`");
            node.named(names::dns_subdomain);
        }
    }
    if !selector.is_absent() {
        ways.push("`nodeSelector`");
        let terms = selector.get("nodeSelectorTerms");
        if terms.len() != 1 {
            terms.invalid("must have exactly one node selector term");
        }
    }
    for (field, shown) in
        [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        let at = spec.get(field);
        match at.value() {
            Value::Bool(true) => ways.push(shown),
            Value::Bool(false) => at.invalid("must be either unset or set to true"),
            _ => {}
        }
    }
    match ways.len() {
        0 => spec.required(WAYS),
        1 => {}
        _ => spec.invalid_as(
            &format!("{{{}}}", ways.join(", ")).into(),
            &format!("{WAYS}, but multiple fields are set"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use api::registry::Registry;
    use serde_json::{Value, json};

    fn faults(resource: &str, spec: Value) -> Vec<(String, String)> {
        let rows = Registry::built_in();
        let row = rows.find("resource.k8s.io", "v1", resource, "").expect("known");
        let mut object = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": spec});
        (crate::of(row).default)(&mut object);
        let found = crate::validate_create(row, &object);
        found.into_iter().map(|c| (c.field, c.reason)).collect()
    }

    #[test]
    fn a_request_is_exact_or_has_alternatives() {
        let both = json!({"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "c"}}, {"name": "a"}]}});
        assert_eq!(
            faults("resourceclaims", both),
            [
                ("spec.devices.requests[1]", "FieldValueDuplicate"),
                ("spec.devices.requests[1]", "FieldValueRequired"),
            ]
            .map(|(field, reason)| (field.to_owned(), reason.to_owned()))
        );
    }

    #[test]
    fn constraints_name_requests() {
        let spec = json!({"devices": {
            "requests": [{"name": "a", "firstAvailable": [{"name": "b", "deviceClassName": "c"}]}],
            "constraints": [{"requests": ["a/b", "a/c"], "matchAttribute": "d.e/f"}]}});
        let found = faults("resourceclaims", spec);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "spec.devices.constraints[0].requests[1]");
    }

    #[test]
    fn a_slice_is_of_some_nodes() {
        let pool = json!({"name": "p", "resourceSliceCount": 1});
        let good = json!({"driver": "d", "pool": pool, "nodeName": "n"});
        assert_eq!(faults("resourceslices", good), []);
        let bad = json!({"driver": "d", "pool": pool, "nodeName": "n", "allNodes": true});
        assert_eq!(faults("resourceslices", bad)[0].0, "spec");
    }
}
