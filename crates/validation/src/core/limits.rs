//! Limit ranges and resource quotas.

use std::collections::HashSet;

use api::names;
use api::quantity::Quantity;
use serde_json::{Value, json};

use crate::check::At;
use crate::shared::quantity::{self, parse};
use crate::value::{items_mut, set_default};
use crate::{Kind, PLAIN};

pub(crate) static LIMIT_RANGE: Kind =
    Kind { default, create: ranges, update: ranges, again: true, ..PLAIN };
pub(crate) static QUOTA: Kind = Kind {
    create: |quota| {
        hard(&quota.get("spec"));
        amounts(&quota.get("status"));
    },
    update: |quota| {
        let spec = quota.get("spec");
        hard(&spec);
        scopes_stay(&spec.get("scopes"));
    },
    status: |quota| amounts(&quota.get("status")),
    ..PLAIN
};

/// A container's defaults follow from its extremes.
fn default(object: &mut Value) {
    for limit in items_mut(&mut object["spec"], "limits").filter(|l| l["type"] == "Container") {
        let mut made = [limit["default"].clone(), limit["defaultRequest"].clone()];
        for part in &mut made {
            if !part.is_object() {
                *part = json!({});
            }
        }
        let [all, requests] = &mut made;
        fill(all, &limit["max"]);
        fill(requests, all);
        fill(requests, &limit["min"]);
        for (key, part) in ["default", "defaultRequest"].into_iter().zip(made) {
            if part.as_object().is_some_and(|m| !m.is_empty()) {
                limit[key] = part;
            } else {
                limit.as_object_mut().map(|l| l.remove(key));
            }
        }
    }
}

fn fill(into: &mut Value, from: &Value) {
    for (name, amount) in from.as_object().into_iter().flatten() {
        set_default(into, name, amount.clone());
    }
}

fn ranges(object: &At<'_>) {
    let spec = object.get("spec");
    let mut seen: HashSet<String> = HashSet::new();
    for limit in spec.get("limits").items() {
        let kind = limit.get("type");
        type_name(&kind);
        if seen.contains(kind.text()) {
            kind.duplicate_as(&kind.text().into());
        }
        seen.insert(kind.text().to_owned());
        limit_names(&limit, kind.text());
        let storage = |what: &str| !limit.value()[what]["storage"].is_null();
        if kind.text() == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
            limit.get("limits").required(
                "either minimum or maximum storage value is required, but neither was provided",
            );
        }
        names_of(&limit.get("maxLimitRequestRatio"), kind.text());
        compare_all(&limit);
    }
}

fn type_name(kind: &At<'_>) {
    kind.named(names::qualified_name);
    let known = matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim");
    let sound = names::qualified_name(kind.text()).is_empty();
    if sound && !known && !kind.text().contains('/') {
        kind.invalid("must be a standard limit type or fully qualified");
    }
}

fn names_of(list: &At<'_>, kind: &str) {
    for (name, at) in list.entries() {
        match kind {
            "Pod" | "Container" => quantity::container_resource_name(&at, name),
            _ => quantity::resource_name(&at, name),
        }
    }
}

fn limit_names(limit: &At<'_>, kind: &str) {
    names_of(&limit.get("max"), kind);
    names_of(&limit.get("min"), kind);
    for field in ["default", "defaultRequest"] {
        let list = limit.get(field);
        if kind != "Pod" {
            names_of(&list, kind);
        } else if !list.is_empty() {
            list.forbidden("may not be specified when `type` is 'Pod'");
        }
    }
}

fn compare_all(limit: &At<'_>) {
    let mut names: Vec<String> = Vec::new();
    let pod = limit.get("type").text() == "Pod";
    for what in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        if pod && what.starts_with("default") {
            continue;
        }
        let list = limit.value()[what].as_object().into_iter().flatten();
        names.extend(list.map(|(name, _)| name.clone()));
    }
    names.sort_unstable();
    names.dedup();
    for name in &names {
        compare(limit, name, pod);
    }
}

/// Amounts of one resource: from the least to the most.
fn compare(limit: &At<'_>, name: &str, pod: bool) {
    let amount = |what: &str| parse(&limit.value()[what][name]);
    let (min, max) = (amount("min"), amount("max"));
    let whole = |what: &str| if pod { None } else { amount(what) };
    let (default, request) = (whole("default"), whole("defaultRequest"));
    let tell =
        |at: &str, low: Option<Quantity>, high: Option<Quantity>, shown: bool, words: [&str; 2]| {
            if let (Some(low), Some(high)) = (low, high)
                && low > high
            {
                let detail =
                    format!("{} value {low} is greater than {} value {high}", words[0], words[1]);
                let value = if shown { low } else { high };
                limit.get(at).key(name).invalid_as(&value.to_string().into(), &detail);
            }
        };
    tell("min", min, max, true, ["min", "max"]);
    tell("defaultRequest", min, request, false, ["min", "default request"]);
    tell("defaultRequest", request, max, true, ["default request", "max"]);
    tell("defaultRequest", request, default, true, ["default request", "default limit"]);
    tell("default", min, default, true, ["min", "default"]);
    tell("default", default, max, false, ["default", "max"]);
    ratio(limit, name, min, max);
    if let (false, Some(default), Some(request)) =
        (quantity::is_overcommit_allowed(name), default, request)
        && default.partial_cmp(&request) != Some(std::cmp::Ordering::Equal)
    {
        let detail = format!(
            "default value {default} must equal to defaultRequest value {request} in {name}"
        );
        limit.get("defaultRequest").key(name).invalid_as(&request.to_string().into(), &detail);
    }
}

fn ratio(limit: &At<'_>, name: &str, min: Option<Quantity>, max: Option<Quantity>) {
    let ratios = limit.get("maxLimitRequestRatio");
    let at = ratios.key(name);
    let Some(ratio) = parse(at.value()) else { return };
    let shown = Value::from(ratio.to_string());
    if ratio < Quantity::from_units(1) {
        at.invalid_as(&shown, &format!("ratio {ratio} is less than 1"));
    }
    let (Some(min), Some(max)) = (min, max) else { return };
    let small = |q: &Quantity| q.value() < i64::MAX / 1000;
    let (asked, most) = if [&ratio, &min, &max].into_iter().all(small) {
        let most = max.milli_value() as f64 / min.milli_value() as f64;
        (ratio.milli_value() as f64 / 1000.0, most)
    } else {
        (ratio.value() as f64, max.value() as f64 / min.value() as f64)
    };
    if asked > most {
        at.invalid_as(&shown, &format!("ratio {ratio} is greater than max/min = {most:.6}"));
    }
}

fn amounts_in(list: &At<'_>) {
    for (name, amount) in list.entries() {
        quantity::quota_resource_name(&amount, name);
        quantity::amount(&amount, name);
    }
}

fn amounts(status: &At<'_>) {
    amounts_in(&status.get("hard"));
    amounts_in(&status.get("used"));
}

fn hard(spec: &At<'_>) {
    let limits = spec.get("hard");
    amounts_in(&limits);
    let names: Vec<&str> =
        limits.value().as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    scopes(&spec.get("scopes"), &names);
    let selector = spec.get("scopeSelector");
    if !selector.is_absent() {
        selected_scopes(spec, &selector, &names);
    }
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

/// Can a scope narrow the count of this resource?
fn fits(scope: &str, resource: &str) -> bool {
    let compute =
        ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ if SCOPES.contains(&scope) => resource == "pods" || compute.contains(&resource),
        _ => true,
    }
}

fn conflicts(at: &At<'_>, shown: &Value, scopes: &[&str]) {
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&a) && scopes.contains(&b) {
            at.invalid_as(shown, "conflicting scopes");
        }
    }
}

fn scopes(list: &At<'_>, hard: &[&str]) {
    let names = crate::shared::texts(Some(list.value()), None);
    for scope in &names {
        if !SCOPES.contains(scope) {
            list.invalid("unsupported scope");
        }
        for _ in hard.iter().filter(|n| quantity::is_quota_name(n) && !fits(scope, n)) {
            list.invalid("unsupported scope applied to resource");
        }
    }
    conflicts(list, list.value(), &names);
}

fn selected_scopes(spec: &At<'_>, selector: &At<'_>, hard: &[&str]) {
    let at = selector.get("matchExpressions");
    let names = crate::shared::texts(Some(at.value()), Some("scopeName"));
    for requirement in at.items() {
        let (scope, operator, values) =
            (requirement.get("scopeName"), requirement.get("operator"), requirement.get("values"));
        let name = scope.text();
        if !SCOPES.contains(&name) {
            at.get("scopeName").invalid_as(&name.into(), "unsupported scope");
        }
        for _ in hard.iter().filter(|n| quantity::is_quota_name(n) && !fits(name, n)) {
            at.with(selector.value())
                .invalid_struct("core.ScopeSelector", "unsupported scope applied to resource");
        }
        let told = at.get("operator");
        let plain =
            !matches!(name, "PriorityClass" | "VolumeAttributesClass") && SCOPES.contains(&name);
        if plain && operator.text() != "Exists" {
            told.invalid_as(&operator.text().into(), "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => at.get("values").required(
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => at.get("values").invalid_as(
                values.value(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => told.invalid_as(&other.into(), "not a valid selector operator"),
        }
    }
    conflicts(&at, spec.value().get("scopes").unwrap_or(&Value::Null), &names);
}

fn scopes_stay(list: &At<'_>) {
    let sorted = |value: Option<&Value>| {
        let mut names: Vec<String> =
            crate::shared::texts(value, None).into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    if list.old().is_some() && sorted(list.old()) != sorted(Some(list.value())) {
        list.invalid("field is immutable");
    }
}
