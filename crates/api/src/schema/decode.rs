//! Schema-directed decoding: one pass over the input that checks types, detects unknown and
//! duplicate fields, drops what the schema does not know, and leaves the object as upstream's
//! typed round trip would.
//!
//! Works on anything serde can read, so JSON text, a patched tree and YAML take the same path.
//! Error sentences are those of Go's `encoding/json` and of `sigs.k8s.io/json`.

use std::fmt::{self, Write as _};
use std::mem;
use std::sync::LazyLock;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Alternative, Field, Schema, Shape, TypeId, go};
use crate::limits::{self, Budget, DEPTH_MAX, Findings, TOO_DEEP};
use crate::quantity::Quantity;
use crate::time;

/// A decoded tree and what was found wrong but not fatal.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "spec.x"` and `duplicate field "spec.x"`, in order of appearance.
    pub strict: Vec<String>,
}

/// Reads JSON text of any shape, within the limits of all bodies.
pub fn read_json(json: &[u8]) -> Result<Value, String> {
    let decoder = Decoder { schema: Schema::built_in(), shape: &Shape::Any };
    decoder.decode_slice(json).map(|decoded| decoded.value)
}

/// Decodes values of one schema.
#[derive(Debug, Clone, Copy)]
pub struct Decoder<'a> {
    pub schema: &'a Schema,
    pub shape: &'a Shape,
}

impl<'a> Decoder<'a> {
    /// Reads JSON text. The error is Go's sentence, to stand after "cannot be handled as a Pod: ".
    pub fn decode_slice(&self, json: &[u8]) -> Result<Decoded, String> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let decoded = self.decode(&mut deserializer)?;
        deserializer.end().map_err(|e| e.to_string())?;
        Ok(decoded)
    }

    pub fn decode_value(&self, value: Value) -> Result<Decoded, String> {
        self.decode(value)
    }

    pub fn decode<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Decoded, String>
    where
        D::Error: fmt::Display,
    {
        let root = match self.shape {
            Shape::Struct(id) => Some(*id),
            _ => None,
        };
        let mut state = State::new(root);
        let seed = Seed { schema: self.schema, shape: self.shape, owner: None, state: &mut state };
        let value = seed.deserialize(deserializer).map_err(|e| e.to_string())?;
        match state.fatal {
            Some(fault) => Err(fault),
            None => Ok(Decoded { value, strict: state.strict.into_list() }),
        }
    }
}

struct State {
    root: Option<TypeId>,
    path: Vec<Segment>,
    fatal: Option<String>,
    strict: Findings,
    memory: Budget,
}

enum Segment {
    Field(String),
    /// A map's key: Go leaves it out of its path.
    Key(String),
    Index(usize),
}

impl State {
    fn new(root: Option<TypeId>) -> State {
        let memory = Budget::of_tree();
        State { root, path: Vec::new(), fatal: None, strict: Findings::default(), memory }
    }

    /// Charges the tree's memory, before it is allocated.
    fn charge<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.memory.take(bytes).map_err(E::custom)
    }

    /// Go's path: fields only.
    fn fields(&self) -> impl Iterator<Item = &str> {
        self.path.iter().filter_map(|segment| match segment {
            Segment::Field(name) => Some(name.as_str()),
            Segment::Key(_) | Segment::Index(_) => None,
        })
    }

    /// Lists and maps between the last field and here.
    fn depth(&self) -> usize {
        self.path.iter().rev().take_while(|s| !matches!(s, Segment::Field(_))).count()
    }

    fn find(&mut self, what: &str, field: &str) {
        let mut strict = mem::take(&mut self.strict);
        strict.add(|| format!("{what} field {:?}", self.full_path(field)));
        self.strict = strict;
    }

    fn full_path(&self, last: &str) -> String {
        let mut out = String::new();
        for segment in &self.path {
            match segment {
                Segment::Field(name) | Segment::Key(name) if out.is_empty() => out.push_str(name),
                Segment::Field(name) | Segment::Key(name) => {
                    write!(out, ".{name}").expect("writing to a String")
                }
                Segment::Index(i) => write!(out, "[{i}]").expect("writing to a String"),
            }
        }
        if !out.is_empty() {
            out.push('.');
        }
        out + last
    }
}

/// A JSON schema, where one stands that might also be something else.
static JSON_SCHEMA: LazyLock<Shape> = LazyLock::new(|| {
    let id = Schema::built_in().find("apiextensions.v1.JSONSchemaProps");
    id.map_or(Shape::Any, Shape::Struct)
});

struct Seed<'s, 'a> {
    schema: &'a Schema,
    shape: &'a Shape,
    /// The struct whose field this is, for error sentences.
    owner: Option<TypeId>,
    state: &'s mut State,
}

impl<'s, 'a> Seed<'s, 'a> {
    fn child<'t>(&'t mut self, shape: &'a Shape, owner: Option<TypeId>) -> Seed<'t, 'a> {
        Seed { schema: self.schema, shape, owner, state: self.state }
    }

    fn mismatch(&mut self, found: &str) -> Value {
        let schema = self.schema;
        let place = match (self.owner, self.state.fields().last()) {
            (Some(id), Some(field)) => {
                let own = go::type_of(schema, id, field, self.state.depth());
                let ty = own.map_or_else(|| self.shape.go_name(schema), str::to_owned);
                let path = go::path(schema, self.state.root, self.state.fields());
                format!("Go struct field {}.{path} of type {ty}", schema.get(id).short())
            }
            _ => format!("Go value of type {}", self.shape.go_name(schema)),
        };
        let sentence = format!("json: cannot unmarshal {found} into {place}");
        self.fail(sentence)
    }

    fn fail(&mut self, sentence: String) -> Value {
        self.state.fatal.get_or_insert(sentence);
        Value::Null
    }

    fn integer(&mut self, n: i128, number: Number) -> Value {
        match self.shape {
            Shape::Int32 if i32::try_from(n).is_err() => self.mismatch(&format!("number {n}")),
            Shape::Int64 if i64::try_from(n).is_err() => self.mismatch(&format!("number {n}")),
            Shape::IntOrString if i32::try_from(n).is_err() => {
                self.mismatch(&format!("number {n}"))
            }
            Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString | Shape::Any => {
                Value::Number(number)
            }
            Shape::Quantity => self.text(&n.to_string()),
            _ => self.mismatch("number"),
        }
    }

    fn text(&mut self, text: &str) -> Value {
        match self.shape {
            Shape::String | Shape::Any | Shape::IntOrString => Value::from(text),
            Shape::Bytes => match crate::base64_canonical(text) {
                Ok(canonical) => Value::from(canonical),
                Err(at) => self.fail(format!("illegal base64 data at input byte {at}")),
            },
            Shape::Quantity => match Quantity::parse(text) {
                Ok(quantity) => Value::from(quantity.to_string()),
                Err(sentence) => self.fail(sentence.to_string()),
            },
            Shape::Time => match time::canonical_seconds(text) {
                Ok(canonical) => Value::from(canonical),
                Err(sentence) => self.fail(sentence),
            },
            Shape::MicroTime => match time::canonical_micros(text) {
                Ok(canonical) => Value::from(canonical),
                Err(sentence) => self.fail(sentence),
            },
            _ => self.mismatch("string"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(mut self, b: bool) -> Result<Value, E> {
        Ok(match self.shape {
            Shape::Bool | Shape::Any | Shape::SchemaOr(Alternative::Bool) => Value::Bool(b),
            _ => self.mismatch("bool"),
        })
    }

    fn visit_i64<E>(mut self, n: i64) -> Result<Value, E> {
        Ok(self.integer(n.into(), n.into()))
    }

    fn visit_u64<E>(mut self, n: u64) -> Result<Value, E> {
        Ok(self.integer(n.into(), n.into()))
    }

    fn visit_f64<E>(mut self, n: f64) -> Result<Value, E> {
        let whole = n.fract() == 0.0 && n.abs() < 9e15;
        Ok(match self.shape {
            Shape::Double | Shape::Any => Number::from_f64(n).map_or(Value::Null, Value::Number),
            Shape::Quantity => self.text(&n.to_string()),
            Shape::Int32 | Shape::Int64 if whole => self.integer(n as i128, (n as i64).into()),
            Shape::Int32 | Shape::Int64 => self.mismatch(&format!("number {n}")),
            _ => self.mismatch("number"),
        })
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<Value, E> {
        self.state.charge(text.len())?;
        Ok(self.text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let inner = match self.shape {
            Shape::List(inner) => inner,
            Shape::Any => &Shape::Any,
            Shape::SchemaOr(Alternative::Strings) => &Shape::String,
            Shape::SchemaOr(_) => &*JSON_SCHEMA,
            _ => {
                self.mismatch("array");
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Value::Null);
            }
        };
        let mut list = Vec::new();
        loop {
            self.enter(Segment::Index(list.len()))?;
            self.state.charge(limits::VALUE)?;
            let owner = self.owner;
            let item = items.next_element_seed(self.child(inner, owner))?;
            self.state.path.pop();
            match item {
                // Go decodes a null element of a struct list as the zero struct.
                Some(Value::Null) => list.push(self.schema.zero(inner)),
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let schema = matches!(self.shape, Shape::SchemaOr(_)).then(|| &*JSON_SCHEMA);
        match schema.unwrap_or(self.shape) {
            Shape::Struct(id) => self.visit_struct(*id, entries),
            Shape::Map(inner) => self.visit_entries(inner, entries),
            Shape::Any => self.visit_entries(&Shape::Any, entries),
            _ => {
                self.mismatch("object");
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Null)
            }
        }
    }
}

impl<'a> Seed<'_, 'a> {
    fn enter<E: serde::de::Error>(&mut self, segment: Segment) -> Result<(), E> {
        self.state.path.push(segment);
        if self.state.path.len() > DEPTH_MAX {
            return Err(E::custom(TOO_DEEP));
        }
        Ok(())
    }

    fn charge_entry<E: serde::de::Error>(&mut self, key: &str, first: bool) -> Result<(), E> {
        let map = if first { limits::MAP } else { 0 };
        self.state.charge(map + limits::ENTRY + key.len())
    }

    fn visit_entries<'de, A: MapAccess<'de>>(
        &mut self,
        inner: &'a Shape,
        mut entries: A,
    ) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                self.state.find("duplicate", &key);
            }
            self.charge_entry(&key, map.is_empty())?;
            self.enter(Segment::Key(key.clone()))?;
            let owner = self.owner;
            let value = entries.next_value_seed(self.child(inner, owner))?;
            self.state.path.pop();
            let value = if value.is_null() { self.schema.zero(inner) } else { value };
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    fn visit_struct<'de, A: MapAccess<'de>>(
        &mut self,
        id: TypeId,
        mut entries: A,
    ) -> Result<Value, A::Error> {
        let schema = self.schema;
        let ty = schema.get(id);
        let mut map = Map::new();
        let mut seen: Vec<&str> = Vec::new();
        // Completion leaves no struct without entries, or hardly any.
        self.state.charge(limits::MAP)?;
        while let Some(key) = entries.next_key::<String>()? {
            let Some(field) = ty.field(&key) else {
                self.state.find("unknown", &key);
                entries.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen.contains(&field.name.as_ref()) {
                self.state.find("duplicate", &key);
            }
            seen.push(&field.name);
            self.enter(Segment::Field(key))?;
            let value = entries.next_value_seed(self.child(&field.shape, Some(id)))?;
            if let Some(Segment::Field(key)) = self.state.path.pop() {
                keep(schema, &mut map, (key, field), value);
            }
        }
        schema.complete(id, &mut map);
        Ok(Value::Object(map))
    }
}

fn keep(
    schema: &Schema,
    map: &mut Map<String, Value>,
    (key, field): (String, &Field),
    value: Value,
) {
    if value.is_null() || schema.is_omitted(field, &value) {
        map.remove(&key);
    } else {
        map.insert(key, value);
    }
}
