//! Definitions of custom resources: formats that are not enforced.

use std::collections::HashSet;

use serde_json::Value;

use super::Warnings;
use crate::check::At;
use crate::value::{items, text};

/// Formats of texts, without dashes.
const FORMATS: [&str; 24] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
];
/// Formats since v1.34. Upstream compares them without dashes, too.
const SINCE_1_34: [&str; 2] = ["k8sshortname", "k8slongname"];

pub(super) fn definition(warnings: &Warnings, definition: &At<'_>) {
    let before: HashSet<&str> = definition.old().map(unrecognized).into_iter().flatten().collect();
    for format in unrecognized(definition.value()) {
        if !before.contains(format) {
            warnings.add(format!("unrecognized format {format:?}"));
        }
    }
}

fn unrecognized(definition: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    for version in items(&definition["spec"], "versions") {
        walk(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    found
}

fn is_known(kind: &str, format: &str) -> bool {
    let plain = format.replace('-', "");
    match kind {
        "" | "string" => FORMATS.contains(&&*plain) || SINCE_1_34.contains(&&*plain),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Every schema below one, itself included. Bodies are limited in depth.
fn walk<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    let (kind, format) = (text(&schema["type"]), text(&schema["format"]));
    if !format.is_empty() && !is_known(kind, format) {
        found.push(format);
    }
    for key in ["not", "additionalProperties", "additionalItems"] {
        walk_some(&schema[key], found);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        items(schema, key).for_each(|below| walk(below, found));
    }
    for key in ["properties", "patternProperties", "definitions", "dependencies"] {
        let all = schema[key].as_object().into_iter().flatten();
        all.for_each(|(_, below)| walk_some(below, found));
    }
    match &schema["items"] {
        Value::Array(all) => all.iter().for_each(|below| walk(below, found)),
        one => walk_some(one, found),
    }
}

fn walk_some<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    if schema.is_object() {
        walk(schema, found);
    }
}
