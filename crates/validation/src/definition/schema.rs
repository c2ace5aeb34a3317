//! Schemas of custom resources: what they may say, and that they are structural.

use std::collections::HashSet;

use serde_json::Value;

use crate::check::At;
use crate::value::text;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What a value may be without a type.
const UNTYPED: [&str; 2] = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
const UNSUPPORTED: [&str; 5] =
    ["id", "additionalItems", "patternProperties", "definitions", "dependencies"];

/// Fields that the root may have beside a status.
const ROOT: [&str; 24] = [
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
    "nullable",
    "default",
];

pub(super) fn check(root: &At<'_>, has_status: bool) {
    let Some(map) = root.value().as_object() else { return };
    if has_status {
        let kind = root.get("type");
        if !kind.is_empty() && kind.text() != "object" {
            kind.invalid_text("only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled");
        } else if map.keys().any(|key| !ROOT.contains(&key.as_str())) {
            root.invalid("only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled");
        }
    }
    if root.get("nullable").is_true() {
        root.get("nullable").forbidden("nullable cannot be true at the root");
    }
    structural(root, Place::Root);
    standard(root);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

/// Every value has a type that its schema tells.
fn structural(schema: &At<'_>, place: Place) {
    if !schema.value().is_object() {
        return;
    }
    let kind = schema.get("type");
    let untyped = UNTYPED.iter().any(|mark| schema.get(mark).is_true());
    match place {
        Place::Root if kind.is_empty() => kind.required("must not be empty at the root"),
        Place::Root if kind.text() != "object" => kind.invalid_text("must be object at the root"),
        Place::Field if kind.is_empty() && !untyped => {
            kind.required("must not be empty for specified object fields");
        }
        Place::Item if kind.is_empty() && !untyped => {
            kind.required("must not be empty for specified array items");
        }
        _ => {}
    }
    if schema.get("x-kubernetes-embedded-resource").is_true() && kind.text() != "object" {
        match kind.is_empty() {
            true => kind.required("must be object if x-kubernetes-embedded-resource is true"),
            false => kind.invalid_text("must be object if x-kubernetes-embedded-resource is true"),
        }
    }
    if kind.text() == "array" && schema.get("items").is_absent() {
        schema.get("items").required("must be specified");
    }
    let items = schema.get("items");
    structural(&items, Place::Item);
    let additional = schema.get("additionalProperties");
    structural(&additional, Place::Field);
    let properties = schema.get("properties");
    properties.entries().for_each(|(_, property)| structural(&property, Place::Field));
}

/// What no schema may say, everywhere.
fn standard(schema: &At<'_>) {
    if !schema.value().is_object() {
        return;
    }
    let kind = schema.get("type");
    if !kind.is_empty() && !TYPES.contains(&kind.text()) {
        kind.not_supported(&TYPES);
    }
    for field in UNSUPPORTED {
        let at = schema.get(field);
        if !at.is_absent() {
            at.forbidden(&format!("{field} is not supported"));
        }
    }
    if !schema.get("$ref").is_absent() {
        schema.get("$ref").forbidden("$ref is not supported");
    }
    if kind.text() == "null" {
        kind.forbidden("type cannot be set to null, use nullable as an alternative");
    }
    let items = schema.get("items");
    if items.value().is_array() {
        items.forbidden("items must be a schema object and not an array");
    }
    let unique = schema.get("uniqueItems");
    if unique.is_true() {
        unique.forbidden(
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    let (additional, properties) = (schema.get("additionalProperties"), schema.get("properties"));
    if !additional.is_absent() && !properties.is_empty() && additional.value() != true {
        additional.forbidden("additionalProperties and properties are mutual exclusive");
    }
    standard(&additional);
    properties.entries().for_each(|(_, property)| standard(&property));
    standard(&schema.get("not"));
    for field in ["allOf", "oneOf", "anyOf"] {
        schema.get(field).items().for_each(|one| standard(&one));
    }
    standard(&items);
    lists(schema, &kind);
}

/// Marks of lists and maps fit the type.
fn lists(schema: &At<'_>, kind: &At<'_>) {
    let (list, keys) =
        (schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys"));
    if !list.is_absent() {
        if kind.text() != "array" {
            match kind.is_empty() {
                true => kind.required("must be array if x-kubernetes-list-type is specified"),
                false => kind.invalid_text("must be array if x-kubernetes-list-type is specified"),
            }
        } else {
            list.one_of(&["atomic", "map", "set"]);
        }
    }
    if list.text() == "map" {
        if keys.is_empty() {
            keys.required("must not be empty if x-kubernetes-list-type is map");
        }
    } else if !keys.is_empty() {
        list.invalid("must be map if x-kubernetes-list-map-keys is non-empty");
    }
    let map = schema.get("x-kubernetes-map-type");
    if !map.is_absent() {
        if kind.text() != "object" {
            match kind.is_empty() {
                true => kind.required("must be object if x-kubernetes-map-type is specified"),
                false => kind.invalid_text("must be object if x-kubernetes-map-type is specified"),
            }
        } else {
            map.one_of(&["atomic", "granular"]);
        }
    }
}

/// Most fields that a version may be selected by.
const SELECTABLE_MAX: usize = 8;

/// Selectors ask for simple fields.
pub(super) fn selectable(fields: &At<'_>, schema: &Value) {
    let mut seen: HashSet<&str> = HashSet::new();
    for field in fields.items() {
        let path = field.get("jsonPath");
        if !path.need() {
            continue;
        }
        let Some(names) = path.text().strip_prefix('.') else {
            path.invalid_text("is an invalid path: must start with a dot");
            continue;
        };
        if names.split('.').next() == Some("metadata") {
            path.invalid_text("must not point to fields in metadata");
        }
        let found = names.split('.').try_fold(schema, |at, name| at["properties"].get(name));
        match found {
            None => {
                path.invalid_text("is an invalid path: does not refer to a valid field");
                continue;
            }
            Some(found) if !matches!(text(&found["type"]), "string" | "boolean" | "integer") => {
                path.invalid_text("must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.");
            }
            Some(_) => {}
        }
        let known = text(&field.value()["jsonPath"]);
        if seen.contains(&known) {
            path.duplicate();
        } else {
            seen.insert(known);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        fields.too_many(SELECTABLE_MAX);
    }
}
