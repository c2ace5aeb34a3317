//! A schema as rules see it: which types its places have, and how large they can be (apiserver
//! `pkg/cel/common/schemas.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::schema;
use cel::{Decl, Field, ListKind, REQUEST_MAX, Scalar, escaped};

use crate::node::Node;

// Sizes in JSON, in bytes, quotation marks included.
const MIN_STRING: u64 = 2;
const MIN_BOOL: u64 = 4;
const MIN_NUMBER: u64 = 1;
const MIN_DURATION: u64 = 3;
const MIN_TIME: u64 = 21;
const DATE: u64 = 12;
const MAX_TIME: u64 = 32;
/// Bytes of the longest character: limits count characters, sizes bytes.
const PER_CHARACTER: u64 = 4;

/// What rules see at a place; `None` where they see nothing. The name tells its objects' types apart.
pub(crate) fn declare(node: &Node, name: &str) -> Option<Decl> {
    let decl = place(node, name)?;
    Some(Decl { nullable: node.nullable, ..decl })
}

fn place(node: &Node, name: &str) -> Option<Decl> {
    if node.int_or_string {
        let max = node.checks.max_length.map_or(REQUEST_MAX - 2, |max| max * PER_CHARACTER);
        return Some(Decl::scalar(Scalar::IntOrString, max, 1));
    }
    match node.types.first().copied() {
        Some("array") => list(node, name),
        Some("object") if node.embedded && !has_meta(node) => Some(object(node, name, true)),
        Some("object") => map(node, name).unwrap_or_else(|| Some(object(node, name, false))),
        Some("string") => Some(string(node)),
        Some("boolean") => Some(Decl::scalar(Scalar::Bool, 0, MIN_BOOL)),
        Some("number") => Some(Decl::scalar(Scalar::Double, 0, MIN_NUMBER)),
        Some("integer") => Some(Decl::scalar(Scalar::Int, 0, MIN_NUMBER)),
        _ => None,
    }
}

fn list(node: &Node, name: &str) -> Option<Decl> {
    let item = declare(node.items.as_deref()?, &format!("{name}.@idx"))?;
    let max = node.checks.max_items.unwrap_or((REQUEST_MAX - 2) / (item.min_bytes + 1));
    let kind = match &node.list {
        schema::ListKind::Set => ListKind::Set,
        schema::ListKind::Map(keys) => ListKind::Map(keys.to_vec()),
        _ => ListKind::Atomic,
    };
    Some(Decl::list(item, kind, max))
}

/// A map of declared values; the inner `None` says that its values are not seen, so neither is it.
fn map(node: &Node, name: &str) -> Option<Option<Decl>> {
    let values = node.additional.as_deref().filter(|values| !is_open(values))?;
    let value = declare(values, &format!("{name}.@elem"));
    Some(value.map(|value| {
        let max = node.checks.max_properties.unwrap_or((REQUEST_MAX - 2) / (value.min_bytes + 6));
        Decl::map(value, max)
    }))
}

/// Values of any kind: there is nothing to see in them.
fn is_open(node: &Node) -> bool {
    node.preserve && node.types.is_empty() && !node.int_or_string
}

/// An object's fields; those of a resource's root always, and with `meta` as every resource has them.
fn object(node: &Node, name: &str, meta: bool) -> Decl {
    let mut fields = BTreeMap::new();
    let mut min_bytes = 2;
    for (key, below) in &node.properties {
        if meta && matches!(&**key, "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let known = escaped(key);
        let spelt = known.as_deref().unwrap_or(key);
        let Some(decl) = declare(below, &format!("{name}.{spelt}")) else { continue };
        if node.required.contains(key) && below.default.is_none() {
            min_bytes += key.len() as u64 + decl.min_bytes + 4;
        }
        if let Some(spelt) = known {
            fields.insert(spelt.into(), field(key, decl));
        }
    }
    if meta {
        let text = || Decl::scalar(Scalar::String, REQUEST_MAX - 2, MIN_STRING);
        let named = ["name", "generateName"].map(|key| (key.into(), field(key, text())));
        let metadata = Decl::object(&format!("{name}.metadata"), BTreeMap::from(named), 2);
        fields.insert("metadata".into(), field("metadata", metadata));
        for key in ["apiVersion", "kind"] {
            fields.insert(key.into(), field(key, text()));
        }
    }
    Decl::object(name, fields, min_bytes)
}

fn field(name: &str, decl: Decl) -> Field {
    Field { name: name.into(), decl: Arc::new(decl) }
}

/// The schema says itself what every resource has.
fn has_meta(node: &Node) -> bool {
    let is = |node: Option<&Node>, ty: &str| node.is_some_and(|n| n.types.first() == Some(&ty));
    let of = |node: &'_ Node, name: &str| -> bool { is(node.properties.get(name), "string") };
    of(node, "kind")
        && of(node, "apiVersion")
        && node.properties.get("metadata").is_some_and(|meta| {
            is(Some(meta), "object") && of(meta, "name") && of(meta, "generateName")
        })
}

fn string(node: &Node) -> Decl {
    let checks = &node.checks;
    match &*checks.format {
        "byte" => {
            Decl::scalar(Scalar::Bytes, checks.max_length.unwrap_or(REQUEST_MAX - 2), MIN_STRING)
        }
        "duration" => Decl::scalar(Scalar::Duration, MAX_TIME, MIN_DURATION),
        "date" => Decl::scalar(Scalar::Date, DATE, DATE),
        "date-time" => Decl::scalar(Scalar::DateTime, MAX_TIME, MIN_TIME),
        _ => {
            let values = checks.one_of_values.iter();
            let longest = values.filter_map(|v| Some(v.as_str()?.len() as u64)).max();
            let listed = (!checks.one_of_values.is_empty()).then(|| longest.unwrap_or(0));
            let max = checks.max_length.map(|max| max * PER_CHARACTER).or(listed);
            Decl::scalar(Scalar::String, max.unwrap_or(REQUEST_MAX - 2), MIN_STRING)
        }
    }
}
