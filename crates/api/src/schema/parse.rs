//! The schema's text form.
//!
//! ```text
//! package core.v1
//!
//! type Container
//!   name! +string #1 default=zero
//!   ports [ContainerPort] #6 list=map:containerPort,protocol patch=merge:containerPort
//! ```
//!
//! `!` required; `*` pointer, `+` present even when empty, `~` left out when zero; `[T]` list,
//! `{T}` map of strings to T; `#n` protobuf field number (`#2.1`: field 1 of the message that is field 2); then `key=value` words. A name without a package
//! is local. `opaque` types are any JSON, but for the few with a syntax of their own.

use super::{Alternative, Field, ListKind, Patch, Presence, Schema, Shape, Type, TypeId};

macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(include_str!(concat!("../../schema/", $name, ".schema"))),*] };
}

const FILES: [&str; 29] = files![
    "admissionregistration.v1",
    "apiextensions.v1",
    "apiregistration.v1",
    "apps.v1",
    "apps.v1beta1",
    "authentication.v1",
    "authorization.v1",
    "autoscaling.v1",
    "autoscaling.v2",
    "autoscaling.v2beta1",
    "batch.v1",
    "certificates.v1",
    "coordination.v1",
    "core.v1",
    "discovery.v1",
    "events.v1",
    "extensions.v1beta1",
    "flowcontrol.v1",
    "meta.v1",
    "networking.v1",
    "networking.v1beta1",
    "node.v1",
    "policy.v1",
    "rbac.v1",
    "resource.v1",
    "scheduling.v1",
    "storage.v1",
    "unserved",
    "version",
];

/// Parses the embedded files; they are ours, so a fault in them is a bug found by the first test.
pub(super) fn built_in() -> Schema {
    let mut schema = Schema::default();
    for text in FILES {
        declare(&mut schema, text);
    }
    for text in FILES {
        define(&mut schema, text);
    }
    super::zero::apply_known_defaults(&mut schema);
    schema.index();
    schema
}

fn package_of(text: &str) -> &str {
    text.lines()
        .next()
        .and_then(|l| l.strip_prefix("package "))
        .expect("a schema names its package")
}

fn declare(schema: &mut Schema, text: &str) {
    let package = package_of(text);
    for line in text.lines().filter_map(|l| l.strip_prefix("type ")) {
        let mut words = line.split(' ');
        let name = format!("{package}.{}", words.next().unwrap_or(""));
        let mut ty =
            Type { name: name.as_str().into(), fields: Vec::new(), kind: None, atomic: false };
        for word in words {
            match word.split_once('=') {
                Some(("kind", gvk)) => ty.kind = Some(gvk.into()),
                _ => ty.atomic |= word == "atomic",
            }
        }
        schema.by_name.insert(name.into(), schema.types.len() as TypeId);
        schema.types.push(ty);
    }
}

fn define(schema: &mut Schema, text: &str) {
    let package = package_of(text);
    let mut current = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("type ") {
            let name = rest.split(' ').next().unwrap_or("");
            current = schema.find(&format!("{package}.{name}"));
        } else if let (Some(id), Some(field)) = (current, line.strip_prefix("  ")) {
            let field = parse_field(schema, package, field);
            schema.types[id as usize].fields.push(field);
        }
    }
    for ty in &mut schema.types {
        ty.fields.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

fn parse_field(schema: &Schema, package: &str, line: &str) -> Field {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or("");
    let ty = words.next().unwrap_or("");
    let bare = ty.trim_start_matches(['*', '+', '~']);
    let marks = &ty[..ty.len() - bare.len()];
    let mut field = Field {
        name: name.trim_end_matches('!').into(),
        shape: parse_shape(schema, package, bare),
        tags: Box::default(),
        required: name.ends_with('!'),
        presence: Presence {
            pointer: marks.contains('*'),
            always: marks.contains('+'),
            omit_zero: marks.contains('~'),
        },
        default: None,
        zero_default: false,
        values: Box::default(),
        list: ListKind::default(),
        atomic: false,
        patch: Patch::default(),
    };
    for word in words {
        parse_word(&mut field, word);
    }
    field
}

fn parse_word(field: &mut Field, word: &str) {
    if let Some(tags) = word.strip_prefix('#') {
        field.tags = tags.split('.').map(|t| t.parse().expect("a tag is a number")).collect();
        return;
    }
    match word.split_once('=') {
        Some(("default", "zero")) => field.zero_default = true,
        Some(("default", json)) => field.default = serde_json::from_str(json).ok(),
        Some(("enum", values)) => field.values = values.split('|').map(Box::from).collect(),
        Some(("list", "set")) => field.list = ListKind::Set,
        Some(("list", kind)) => {
            if let Some(keys) = kind.strip_prefix("map:") {
                field.list = ListKind::Map(keys.split(',').map(Box::from).collect());
            }
        }
        Some(("patch", strategy)) => parse_patch(&mut field.patch, strategy),
        _ => field.atomic |= word == "atomic",
    }
}

fn parse_patch(patch: &mut Patch, strategy: &str) {
    let (strategy, key) = strategy.split_once(':').unwrap_or((strategy, ""));
    patch.merge = strategy.split(',').any(|s| s == "merge");
    patch.retain_keys = strategy.split(',').any(|s| s == "retainKeys");
    patch.merge_key = key.into();
}

fn parse_shape(schema: &Schema, package: &str, ty: &str) -> Shape {
    if let Some(inner) = ty.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return Shape::List(Box::new(parse_shape(schema, package, inner)));
    }
    if let Some(inner) = ty.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return Shape::Map(Box::new(parse_shape(schema, package, inner)));
    }
    match ty {
        "string" => Shape::String,
        "bool" => Shape::Bool,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "Quantity" => Shape::Quantity,
        "IntOrString" => Shape::IntOrString,
        "meta.v1.Time" => Shape::Time,
        "meta.v1.MicroTime" => Shape::MicroTime,
        "Time" if package == "meta.v1" => Shape::Time,
        _ => named(schema, package, ty),
    }
}

fn named(schema: &Schema, package: &str, ty: &str) -> Shape {
    let found = schema.find(&format!("{package}.{ty}")).or_else(|| schema.find(ty));
    match (alternative(ty), found) {
        (Some(other), _) => Shape::SchemaOr(other),
        (None, Some(id)) if !is_opaque(ty) => Shape::Struct(id),
        _ => Shape::Any,
    }
}

fn alternative(ty: &str) -> Option<Alternative> {
    Some(match ty.rsplit('.').next()? {
        "JSONSchemaPropsOrArray" => Alternative::Schemas,
        "JSONSchemaPropsOrBool" => Alternative::Bool,
        "JSONSchemaPropsOrStringArray" => Alternative::Strings,
        _ => return None,
    })
}

/// Types whose JSON is free.
fn is_opaque(ty: &str) -> bool {
    let short = ty.rsplit('.').next().unwrap_or(ty);
    matches!(short, "FieldsV1" | "JSON" | "RawExtension" | "Patch")
}
