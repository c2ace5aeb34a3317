//! Trees to messages. Fields go out in the order of their numbers, and fields that are no pointers
//! even when empty, as upstream's generated code does.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::JSON_SCHEMA;
use super::wire::Writer;
use crate::schema::{Alternative, Field, Schema, Shape, TypeId};

pub(super) fn message(schema: &Schema, shape: &Shape, value: &Value) -> Vec<u8> {
    let encoder = Encoder { schema };
    match (shape, value) {
        (Shape::Struct(id), Value::Object(map)) => encoder.fields(*id, map),
        _ => Vec::new(),
    }
}

struct Encoder<'a> {
    schema: &'a Schema,
}

impl Encoder<'_> {
    fn fields(&self, id: TypeId, map: &Map<String, Value>) -> Vec<u8> {
        let mut by_path: BTreeMap<&[u32], &Field> = BTreeMap::new();
        for field in self.schema.get(id).fields.iter().filter(|f| !f.tags.is_empty()) {
            by_path.insert(&field.tags, field);
        }
        let ordered: Vec<(&[u32], &Field)> = by_path.into_iter().collect();
        let mut writer = Writer::default();
        self.level(&ordered, 0, map, &mut writer);
        writer.written().to_vec()
    }

    /// Fields whose paths agree up to `depth`: leaves are written, the rest grouped into messages.
    fn level(
        &self,
        fields: &[(&[u32], &Field)],
        depth: usize,
        map: &Map<String, Value>,
        writer: &mut Writer,
    ) {
        let mut at = 0;
        while at < fields.len() {
            let (path, field) = fields[at];
            if path.len() == depth + 1 {
                self.field(path[depth], field, map.get(field.name.as_ref()), writer);
                at += 1;
                continue;
            }
            let end = fields[at..].iter().take_while(|(p, _)| p[depth] == path[depth]).count() + at;
            let mut inner = Writer::default();
            self.level(&fields[at..end], depth + 1, map, &mut inner);
            writer.bytes(path[depth], inner.written());
            at = end;
        }
    }

    fn field(&self, tag: u32, field: &Field, value: Option<&Value>, writer: &mut Writer) {
        let present = value.filter(|v| !v.is_null());
        match (&field.shape, present) {
            (Shape::List(inner), Some(Value::Array(items))) => {
                items.iter().for_each(|item| self.value(tag, inner, item, writer));
            }
            (Shape::Map(inner), Some(Value::Object(entries))) => {
                for (key, value) in entries {
                    let mut entry = Writer::default();
                    entry.bytes(1, key.as_bytes());
                    self.value(2, inner, value, &mut entry);
                    writer.bytes(tag, entry.written());
                }
            }
            (Shape::List(_) | Shape::Map(_), _) => {}
            (shape, Some(value)) => self.value(tag, shape, value, writer),
            (_, None) if field.presence.pointer => {}
            (Shape::Bytes | Shape::Any | Shape::SchemaOr(_), None) => {}
            (shape @ (Shape::Time | Shape::MicroTime), None) => {
                self.value(tag, shape, &Value::Null, writer)
            }
            (shape, None) => self.value(tag, shape, &self.schema.zero(shape), writer),
        }
    }

    fn value(&self, tag: u32, shape: &Shape, value: &Value, writer: &mut Writer) {
        let text = value.as_str().unwrap_or("");
        match shape {
            Shape::String => writer.bytes(tag, text.as_bytes()),
            Shape::Bool => writer.varint(tag, u64::from(value.as_bool().unwrap_or(false))),
            Shape::Int32 | Shape::Int64 => writer.varint(tag, value.as_i64().unwrap_or(0) as u64),
            Shape::Double => writer.fixed64(tag, value.as_f64().unwrap_or(0.0).to_bits()),
            Shape::Bytes => writer.bytes(tag, &STANDARD.decode(text).unwrap_or_default()),
            Shape::Quantity => nested(tag, writer, |w| w.bytes(1, text.as_bytes())),
            Shape::IntOrString => nested(tag, writer, |w| {
                w.varint(1, u64::from(value.is_string()));
                w.varint(2, value.as_i64().unwrap_or(0) as u64);
                w.bytes(3, text.as_bytes());
            }),
            Shape::Time | Shape::MicroTime => nested(tag, writer, |w| {
                if let Ok(at) = text.parse::<Timestamp>() {
                    let nanos = if *shape == Shape::MicroTime { at.subsec_nanosecond() } else { 0 };
                    w.varint(1, at.as_second() as u64);
                    w.varint(2, nanos as u64);
                }
            }),
            Shape::Any => nested(tag, writer, |w| w.bytes(1, value.to_string().as_bytes())),
            Shape::SchemaOr(other) => {
                nested(tag, writer, |w| self.schema_or(*other, value, w));
            }
            Shape::Struct(id) => {
                let empty = Map::new();
                let bytes = self.fields(*id, value.as_object().unwrap_or(&empty));
                writer.bytes(tag, &bytes);
            }
            Shape::List(inner) => nested(tag, writer, |w| {
                value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .for_each(|item| self.value(1, inner, item, w));
            }),
            Shape::Map(_) => {}
        }
    }
}

impl Encoder<'_> {
    /// apiextensions `JSONSchemaPropsOrBool`, `…OrArray`, `…OrStringArray`.
    fn schema_or(&self, other: Alternative, value: &Value, writer: &mut Writer) {
        let Some(id) = self.schema.find(JSON_SCHEMA) else { return };
        let schema = Shape::Struct(id);
        match (other, value) {
            (Alternative::Bool, Value::Object(_)) => {
                writer.varint(1, 1);
                self.value(2, &schema, value, writer);
            }
            (Alternative::Bool, _) => writer.varint(1, u64::from(value == &Value::Bool(true))),
            (_, Value::Object(_)) => self.value(1, &schema, value, writer),
            (Alternative::Schemas, _) => {
                value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .for_each(|v| self.value(2, &schema, v, writer));
            }
            (Alternative::Strings, _) => {
                let words = value.as_array().into_iter().flatten();
                words.for_each(|v| self.value(2, &Shape::String, v, writer));
            }
        }
    }
}

fn nested(tag: u32, writer: &mut Writer, fill: impl FnOnce(&mut Writer)) {
    let mut inner = Writer::default();
    fill(&mut inner);
    writer.bytes(tag, inner.written());
}
