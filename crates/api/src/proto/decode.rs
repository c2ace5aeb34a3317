//! Messages to trees.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::JSON_SCHEMA;
use super::wire::{Malformed, Reader, Wire};
use crate::limits::DEPTH_MAX;
use crate::schema::{Alternative, Field, Schema, Shape, TypeId};

pub(super) fn message(schema: &Schema, shape: &Shape, bytes: &[u8]) -> Result<Value, Malformed> {
    Decoder { schema }.value(shape, Wire::Bytes(bytes), 0)
}

struct Decoder<'a> {
    schema: &'a Schema,
}

impl Decoder<'_> {
    fn value(&self, shape: &Shape, wire: Wire<'_>, depth: usize) -> Result<Value, Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::Depth);
        }
        Ok(match shape {
            Shape::String => wire.text()?.into(),
            Shape::Bool => (wire.varint()? != 0).into(),
            Shape::Int32 => (wire.varint()? as i32).into(),
            Shape::Int64 => (wire.varint()? as i64).into(),
            Shape::Double => match wire {
                Wire::Fixed64(bits) => f64::from_bits(bits).into(),
                _ => return Err(Malformed::Mismatch),
            },
            Shape::Bytes => STANDARD.encode(wire.bytes()?).into(),
            Shape::Quantity => first_text(wire.bytes()?)?.into(),
            Shape::IntOrString => int_or_string(wire.bytes()?)?,
            Shape::Time => time(wire.bytes()?, false)?,
            Shape::MicroTime => time(wire.bytes()?, true)?,
            Shape::Any => raw(wire.bytes()?)?,
            Shape::SchemaOr(other) => self.schema_or(*other, wire.bytes()?, depth)?,
            Shape::Struct(id) => {
                let mut map = Map::new();
                self.fields(*id, &mut Vec::new(), wire.bytes()?, &mut map, depth)?;
                Value::Object(map)
            }
            // A list within a map is a message with the items in field 1.
            Shape::List(inner) => {
                let mut items = Vec::new();
                let mut reader = Reader::new(wire.bytes()?);
                while let Some((_, item)) = reader.next()? {
                    items.push(self.value(inner, item, depth + 1)?);
                }
                items.into()
            }
            Shape::Map(_) => return Err(Malformed::Mismatch),
        })
    }

    /// Fields of a message that is `path` deep within the struct's own.
    fn fields(
        &self,
        id: TypeId,
        path: &mut Vec<u32>,
        bytes: &[u8],
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let ty = self.schema.get(id);
        let mut reader = Reader::new(bytes);
        while let Some((tag, wire)) = reader.next()? {
            path.push(tag);
            if let Some(field) = ty.fields.iter().find(|f| f.tags.as_ref() == path.as_slice()) {
                self.field(field, wire, map, depth)?;
            } else if ty.fields.iter().any(|f| f.tags.starts_with(path)) {
                self.fields(id, path, wire.bytes()?, map, depth)?;
            }
            path.pop();
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        wire: Wire<'_>,
        map: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let name = field.name.to_string();
        match &field.shape {
            Shape::List(inner) => {
                let slot = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(items) = slot else { return Ok(()) };
                match (inner.as_ref(), wire) {
                    // Packed numbers: valid proto2 input, though nobody sends it.
                    (Shape::Int32 | Shape::Int64 | Shape::Bool, Wire::Bytes(packed)) => {
                        let mut reader = Reader::new(packed);
                        while !reader.is_empty() {
                            let number = Wire::Varint(reader.varint()?);
                            items.push(self.value(inner, number, depth + 1)?);
                        }
                    }
                    _ => items.push(self.value(inner, wire, depth + 1)?),
                }
            }
            Shape::Map(inner) => {
                let (key, value) = self.entry(inner, wire.bytes()?, depth)?;
                let slot = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(entries) = slot {
                    entries.insert(key, value);
                }
            }
            shape => drop(map.insert(name, self.value(shape, wire, depth + 1)?)),
        }
        Ok(())
    }

    /// apiextensions `JSONSchemaPropsOrBool`, `…OrArray`, `…OrStringArray`.
    fn schema_or(
        &self,
        other: Alternative,
        bytes: &[u8],
        depth: usize,
    ) -> Result<Value, Malformed> {
        let id = self.schema.find(JSON_SCHEMA).ok_or(Malformed::Mismatch)?;
        let schema = Shape::Struct(id);
        let (mut one, mut allows, mut items) = (None, false, Vec::new());
        let mut reader = Reader::new(bytes);
        while let Some((tag, wire)) = reader.next()? {
            match (other, tag) {
                (Alternative::Bool, 1) => allows = wire.varint()? != 0,
                (Alternative::Bool, 2) | (_, 1) => {
                    one = Some(self.value(&schema, wire, depth + 1)?)
                }
                (Alternative::Schemas, 2) => items.push(self.value(&schema, wire, depth + 1)?),
                (Alternative::Strings, 2) => items.push(wire.text()?.into()),
                _ => {}
            }
        }
        Ok(one.unwrap_or(match other {
            Alternative::Bool => allows.into(),
            _ => items.into(),
        }))
    }

    fn entry(
        &self,
        inner: &Shape,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(String, Value), Malformed> {
        let (mut key, mut value) = (String::new(), self.schema.zero(inner));
        let mut reader = Reader::new(bytes);
        while let Some((tag, wire)) = reader.next()? {
            match tag {
                1 => key = wire.text()?.to_owned(),
                2 => value = self.value(inner, wire, depth + 1)?,
                _ => {}
            }
        }
        Ok((key, value))
    }
}

fn first_text(bytes: &[u8]) -> Result<String, Malformed> {
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        if tag == 1 {
            return Ok(wire.text()?.to_owned());
        }
    }
    Ok("0".into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Malformed> {
    let (mut kind, mut number, mut text) = (0, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        match tag {
            1 => kind = wire.varint()?,
            2 => number = wire.varint()? as i32,
            3 => text = wire.text()?.to_owned(),
            _ => {}
        }
    }
    Ok(if kind == 0 { number.into() } else { text.into() })
}

fn time(bytes: &[u8], micros: bool) -> Result<Value, Malformed> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut any = false;
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        any = true;
        match tag {
            1 => seconds = wire.varint()? as i64,
            2 => nanos = wire.varint()? as i32,
            _ => {}
        }
    }
    if !any {
        return Ok(Value::Null);
    }
    let at = Timestamp::new(seconds, nanos).map_err(|_| Malformed::Overflow)?;
    let format = if micros { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(at.strftime(format).to_string().into())
}

/// `RawExtension` and `FieldsV1`: JSON in field 1.
fn raw(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        if tag == 1 {
            return serde_json::from_slice(wire.bytes()?).map_err(|_| Malformed::Mismatch);
        }
    }
    Ok(Value::Null)
}
