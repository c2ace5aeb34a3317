//! A structural schema (apiextensions `JSONSchemaProps` of a served version), ready for use.
//!
//! Structure (types, properties, items, extensions) is what pruning, defaulting and apply walk; the
//! value checks beside it are what validation asks. Whether a definition's schema is structural at
//! all is checked when the definition is written; here what is not understood is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::schema::ListKind;
use cel::Decl;
use regex::Regex;
use serde_json::{Map, Value};

use crate::rules::Rule;

/// One place of a schema.
#[derive(Debug, Default)]
pub struct Node {
    /// Empty where any type goes.
    pub types: Vec<&'static str>,
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    pub int_or_string: bool,
    pub properties: BTreeMap<Box<str>, Node>,
    pub additional: Option<Box<Node>>,
    pub items: Option<Box<Node>>,
    pub list: ListKind,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
    pub default: Option<Value>,
    pub required: Vec<Box<str>>,
    pub checks: Checks,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
    pub rules: Vec<Rule>,
    /// What the rules see here; set where there are any.
    pub(crate) decl: Option<Arc<Decl>>,
    /// Whether there are rules here or below.
    pub(crate) ruled: bool,
}

/// What a value must be besides its type.
#[derive(Debug, Default)]
pub struct Checks {
    pub minimum: Option<Bound>,
    pub maximum: Option<Bound>,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Regex>,
    pub format: Box<str>,
    pub one_of_values: Vec<Value>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub value: f64,
    pub exclusive: bool,
}

/// JSON's type names.
const TYPES: [&str; 6] = ["object", "array", "string", "integer", "number", "boolean"];

impl Node {
    /// Reads a schema; the error says what of it cannot be used.
    pub fn parse(schema: &Value) -> Result<Node, String> {
        let Some(map) = schema.as_object() else { return Ok(Node::default()) };
        let int_or_string = is(map, "x-kubernetes-int-or-string");
        let types = match map.get("type").and_then(Value::as_str) {
            _ if int_or_string => vec!["integer", "string"],
            None | Some("") => Vec::new(),
            Some(name) => {
                vec![*TYPES.iter().find(|t| **t == name).ok_or(format!("unknown type {name:?}"))?]
            }
        };
        let node = Node {
            types,
            nullable: is(map, "nullable"),
            preserve: is(map, "x-kubernetes-preserve-unknown-fields"),
            embedded: is(map, "x-kubernetes-embedded-resource"),
            int_or_string,
            properties: properties(map)?,
            additional: additional(map)?,
            items: one(map, "items")?,
            list: list_kind(map),
            atomic: map.get("x-kubernetes-map-type").is_some_and(|t| t == "atomic"),
            default: map.get("default").cloned(),
            required: words(map, "required"),
            checks: Checks::parse(map)?,
            all_of: several(map, "allOf")?,
            any_of: several(map, "anyOf")?,
            one_of: several(map, "oneOf")?,
            not: one(map, "not")?,
            rules: rules(map),
            decl: None,
            ruled: false,
        };
        Ok(node.with_rules_known())
    }

    /// The schema of a field: declared, or that of a map's values.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// The node, knowing of its rules and those below.
    fn with_rules_known(mut self) -> Node {
        let has = |below: &Option<Box<Node>>| below.as_ref().is_some_and(|node| node.ruled);
        self.ruled = !self.rules.is_empty()
            || self.properties.values().chain(&self.all_of).any(|node| node.ruled)
            || has(&self.items)
            || has(&self.additional);
        self
    }

    /// Anything goes, and is kept.
    pub fn open() -> Node {
        Node { preserve: true, ..Node::default() }
    }
}

fn is(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key) == Some(&Value::Bool(true))
}

fn properties(map: &Map<String, Value>) -> Result<BTreeMap<Box<str>, Node>, String> {
    let declared = map.get("properties").and_then(Value::as_object).into_iter().flatten();
    declared.map(|(name, schema)| Ok((name.as_str().into(), Node::parse(schema)?))).collect()
}

/// `true` allows, and keeps, anything; `false` is the same as nothing said, as unknown fields are
/// pruned before they could be refused.
fn additional(map: &Map<String, Value>) -> Result<Option<Box<Node>>, String> {
    match map.get("additionalProperties") {
        None | Some(Value::Null | Value::Bool(false)) => Ok(None),
        Some(Value::Bool(true)) => Ok(Some(Box::new(Node::open()))),
        Some(schema) => Ok(Some(Box::new(Node::parse(schema)?))),
    }
}

fn one(map: &Map<String, Value>, key: &str) -> Result<Option<Box<Node>>, String> {
    let schema = map.get(key).filter(|s| s.is_object());
    schema.map(|schema| Ok(Box::new(Node::parse(schema)?))).transpose()
}

fn several(map: &Map<String, Value>, key: &str) -> Result<Vec<Node>, String> {
    map.get(key).and_then(Value::as_array).into_iter().flatten().map(Node::parse).collect()
}

fn rules(map: &Map<String, Value>) -> Vec<Rule> {
    let rules = map.get("x-kubernetes-validations").and_then(Value::as_array);
    rules.into_iter().flatten().map(Rule::read).collect()
}

fn words(map: &Map<String, Value>, key: &str) -> Vec<Box<str>> {
    let list = map.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|word| Some(word.as_str()?.into())).collect()
}

fn list_kind(map: &Map<String, Value>) -> ListKind {
    match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(words(map, "x-kubernetes-list-map-keys").into()),
        _ => ListKind::Atomic,
    }
}

impl Checks {
    fn parse(map: &Map<String, Value>) -> Result<Checks, String> {
        let count = |key: &str| map.get(key).and_then(Value::as_u64);
        let number = |key: &str| map.get(key).and_then(Value::as_f64);
        let bound = |key: &str, exclusive: &str| {
            number(key).map(|value| Bound { value, exclusive: is(map, exclusive) })
        };
        let pattern = map.get("pattern").and_then(Value::as_str).filter(|p| !p.is_empty());
        Ok(Checks {
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern: pattern.map(Regex::new).transpose().map_err(|e| e.to_string())?,
            format: map.get("format").and_then(Value::as_str).unwrap_or("").into(),
            one_of_values: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: is(map, "uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
        })
    }
}
