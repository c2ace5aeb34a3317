//! Validation of an object against its schema, worded as kube-openapi's validator words it.
//!
//! On updates, what did not change is not held against the object (KEP-4008, ratcheting).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use validation::At;

use crate::definition::{Compiled, ScalePaths, Version};
use crate::format;
use crate::node::{Bound, Node};
use crate::rules;

/// Everything a write must fulfil: the schema, lists that are sets or maps, then rules.
pub fn validate(version: &Version, compiled: &Compiled, object: &At<'_>) {
    let root = &compiled.node;
    let before = object.faults();
    place(root, object, true);
    if let Some(scale) = &version.scale {
        validate_scale(scale, object);
    }
    lists(root, object);
    // Rules may rely on types and presence, so they are run on objects that have these right.
    let blocking = object.reasons_since(before).iter().any(|reason| {
        matches!(
            reason.as_str(),
            "FieldValueNotSupported"
                | "FieldValueRequired"
                | "FieldValueTooLong"
                | "FieldValueTooMany"
                | "FieldValueTypeInvalid"
        )
    });
    if !blocking {
        rules::check(root, object);
    } else if root.ruled {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        object.report_at("<nil>", "FieldValueInvalid", format!("Invalid value: null: {detail}"));
    }
}

/// The replicas that a scale reads must be there as numbers it can show (registry/customresource
/// `validateScaleSpec`, `validateScaleStatus`).
fn validate_scale(scale: &ScalePaths, object: &At<'_>) {
    for path in [&scale.spec_replicas, &scale.status_replicas] {
        let found = path.split('.').try_fold(object.value(), |value, key| value.get(key));
        let place = format!(".{path}");
        let fault = match found {
            None | Some(Value::Null) => continue,
            Some(value) => match value.as_i64() {
                None => {
                    let (text, kind) = (go_plain(value), go_type(value));
                    let fault = format!(
                        "{place} accessor error: {text} is of the type {kind}, expected int64"
                    );
                    (0, fault)
                }
                Some(n) if n < 0 => (n, "should be a non-negative integer".to_owned()),
                Some(n) if n > i64::from(i32::MAX) => {
                    (n, format!("should be less than or equal to {}", i32::MAX))
                }
                Some(_) => continue,
            },
        };
        let message = format!("Invalid value: {}: {}", fault.0, fault.1);
        object.report_at(&place, "FieldValueInvalid", message);
    }
}

/// Go's `%v` and `%T`, as accessors print them.
fn go_plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Null => "<nil>",
    }
}

fn place(node: &Node, at: &At<'_>, root: bool) {
    if at.unchanged() && !root {
        return;
    }
    if !has_type(node, at) {
        return;
    }
    combinations(node, at);
    one_of_values(node, at);
    match at.value() {
        Value::String(text) => string(node, at, text),
        Value::Number(_) => number(node, at),
        Value::Array(_) => list(node, at),
        Value::Object(_) => object(node, at, root),
        _ => {}
    }
}

/// The JSON type's name.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(node: &Node, at: &At<'_>) -> bool {
    let value = at.value();
    let found = type_of(value);
    let whole = value.as_f64().is_some_and(|n| n.fract() == 0.0);
    let fits = match found {
        "null" => node.nullable,
        "integer" => node.types.contains(&"integer") || node.types.contains(&"number"),
        "number" => node.types.contains(&"number") || (whole && node.types.contains(&"integer")),
        other => node.types.contains(&other),
    };
    if !fits && !node.types.is_empty() {
        let wanted = node.types.join(",");
        let detail = format!("{at} in body must be of type {wanted}: \"{found}\"");
        at.type_invalid_as(&found.into(), &detail);
        return false;
    }
    !value.is_null()
}

fn combinations(node: &Node, at: &At<'_>) {
    let valid = |below: &Node| at.is_clean(|at| place(below, at, false));
    let told = |text: String| {
        at.report_at("", "FieldValueInvalid", format!("Invalid value: \"\": {text}"))
    };
    if !node.any_of.is_empty() && !node.any_of.iter().any(valid) {
        told(format!("\"{at}\" must validate at least one schema (anyOf)"));
        if let Some(first) = node.any_of.first() {
            place(first, at, false);
        }
    }
    if !node.one_of.is_empty() {
        let count = node.one_of.iter().filter(|below| valid(below)).count();
        match count {
            1 => {}
            0 => {
                told(format!(
                    "\"{at}\" must validate one and only one schema (oneOf). Found none valid"
                ));
                place(&node.one_of[0], at, false);
            }
            many => told(format!(
                "\"{at}\" must validate one and only one schema (oneOf). Found {many} valid alternatives"
            )),
        }
    }
    let failing = node.all_of.iter().filter(|below| !valid(below)).count();
    for below in &node.all_of {
        place(below, at, false);
    }
    if failing > 0 {
        let none = if failing == node.all_of.len() { ". None validated" } else { "" };
        told(format!("\"{at}\" must validate all the schemas (allOf){none}"));
    }
    if node.not.as_deref().is_some_and(valid) {
        told(format!("\"{at}\" must not validate the schema (not)"));
    }
}

fn one_of_values(node: &Node, at: &At<'_>) {
    let values = &node.checks.one_of_values;
    if values.is_empty() || values.contains(at.value()) {
        return;
    }
    let names: Vec<String> =
        values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
    at.not_supported(&names.iter().map(String::as_str).collect::<Vec<_>>());
}

fn string(node: &Node, at: &At<'_>, text: &str) {
    let checks = &node.checks;
    let length = text.chars().count() as u64;
    if let Some(max) = checks.max_length.filter(|max| length > *max) {
        return at.too_long(max as usize);
    }
    if let Some(min) = checks.min_length.filter(|min| length < *min) {
        return at.invalid(&format!("{at} in body should be at least {min} chars long"));
    }
    if let Some(pattern) = checks.pattern.as_ref().filter(|p| !p.is_match(text)) {
        return at.invalid(&format!("{at} in body should match '{}'", pattern.as_str()));
    }
    if !node.int_or_string && !format::fits(&checks.format, text) {
        let detail = format!("{at} in body must be of type {}: {text:?}", checks.format);
        at.type_invalid(&detail);
    }
}

fn number(node: &Node, at: &At<'_>) {
    let checks = &node.checks;
    let Some(n) = at.value().as_f64() else { return };
    if let Some(factor) = checks.multiple_of.filter(|f| (n / f).fract() != 0.0) {
        at.invalid(&format!("{at} in body should be a multiple of {}", plain(factor)));
    }
    let over = |b: &Bound| n > b.value || (b.exclusive && n == b.value);
    if let Some(max) = checks.maximum.filter(over) {
        let or = if max.exclusive { "" } else { " or equal to" };
        at.invalid(&format!("{at} in body should be less than{or} {}", plain(max.value)));
    }
    let under = |b: &Bound| n < b.value || (b.exclusive && n == b.value);
    if let Some(min) = checks.minimum.filter(under) {
        let or = if min.exclusive { "" } else { " or equal to" };
        at.invalid(&format!("{at} in body should be greater than{or} {}", plain(min.value)));
    }
}

fn plain(n: f64) -> String {
    if n.fract() == 0.0 && n.abs() < 1e15 { format!("{}", n as i64) } else { n.to_string() }
}

fn list(node: &Node, at: &At<'_>) {
    if let Some(below) = &node.items {
        for_items(node, at, &mut |item| place(below, item, false));
    }
    let checks = &node.checks;
    let count = at.len() as u64;
    if let Some(min) = checks.min_items.filter(|min| count < *min) {
        at.invalid_as(&count.into(), &format!("{at} in body should have at least {min} items"));
    }
    if let Some(max) = checks.max_items.filter(|max| count > *max) {
        at.too_many(max as usize);
    }
    if checks.unique_items && has_duplicates(at.value()) {
        at.invalid_as(&"".into(), &format!("{at} in body shouldn't contain duplicates"));
    }
}

fn has_duplicates(list: &Value) -> bool {
    let mut seen = BTreeSet::new();
    list.as_array().into_iter().flatten().any(|item| !seen.insert(item.to_string()))
}

/// Items, each beside the former one of the same keys where the list is a map.
pub(crate) fn for_items(node: &Node, at: &At<'_>, each: &mut dyn FnMut(&At<'_>)) {
    let former = former_by_keys(node, at);
    for item in at.items() {
        let old = match former.is_empty() {
            true => None,
            false => former.get(&keys_of(node, item.value()).to_string()).copied(),
        };
        each(&item.beside(old));
    }
}

/// The former items of a list that is a map, by their keys; of duplicates the first.
fn former_by_keys<'v>(node: &Node, at: &At<'v>) -> BTreeMap<String, &'v Value> {
    let mut former = BTreeMap::new();
    if let api::schema::ListKind::Map(_) = &node.list {
        for old in at.old().and_then(Value::as_array).into_iter().flatten() {
            former.entry(keys_of(node, old).to_string()).or_insert(old);
        }
    }
    former
}

fn object(node: &Node, at: &At<'_>, root: bool) {
    let checks = &node.checks;
    let count = at.value().as_object().map_or(0, |m| m.len()) as u64;
    if let Some(min) = checks.min_properties.filter(|min| count < *min) {
        let detail = format!("{at} in body should have at least {min} properties");
        at.invalid_as(&count.into(), &detail);
    }
    if let Some(max) = checks.max_properties.filter(|max| count > *max) {
        at.too_many(max as usize);
    }
    for name in &node.required {
        if at.value().get(&**name).is_none() {
            at.get(name).required("");
        }
    }
    for (name, _) in at.entries() {
        // Metadata has rules of its own, the same for all kinds.
        let meta = root && matches!(name, "metadata" | "apiVersion" | "kind");
        if let (false, Some(below)) = (meta, node.field(name)) {
            place(below, &at.get(name), false);
        }
    }
}

/// Lists that are sets or maps hold nothing twice.
fn lists(node: &Node, at: &At<'_>) {
    if let api::schema::ListKind::Set | api::schema::ListKind::Map(_) = &node.list
        && at.old().is_none_or(|old| at_duplicates(node, old).next().is_none())
    {
        let found: BTreeSet<usize> = at_duplicates(node, at.value()).collect();
        for (place, item) in at.items().enumerate() {
            if found.contains(&place) {
                item.duplicate_as(&keys_of(node, item.value()));
            }
        }
    }
    for (name, _) in at.entries() {
        if let Some(below) = node.field(name) {
            lists(below, &at.get(name));
        }
    }
    if let Some(below) = &node.items {
        for_items(node, at, &mut |item| lists(below, item));
    }
}

/// Places of items that stood before.
fn at_duplicates<'v>(node: &'v Node, list: &'v Value) -> impl Iterator<Item = usize> + 'v {
    let mut seen = BTreeSet::new();
    let items = list.as_array().into_iter().flatten().enumerate();
    items
        .filter_map(move |(at, item)| (!seen.insert(keys_of(node, item).to_string())).then_some(at))
}

fn keys_of(node: &Node, item: &Value) -> Value {
    match &node.list {
        api::schema::ListKind::Map(keys) => {
            let pairs =
                keys.iter().filter_map(|name| Some((name.to_string(), item.get(&**name)?.clone())));
            Value::Object(pairs.collect())
        }
        _ => item.clone(),
    }
}
