//! Zero values and declared defaults.
//!
//! Encoding an object the way upstream does means giving it the fields its Go structs always
//! print (`status: {}`, `containers: null`). Defaults that hold wherever a type is used are data
//! (`schema/defaults.txt`); those that depend on other fields are hooks of their kind.

use serde_json::{Map, Value};

use super::{Field, Schema, Shape, Type, TypeId};

/// `Type.field = json`, one a line.
const DEFAULTS: &str = include_str!("../../schema/defaults.txt");

pub(super) fn apply_known_defaults(schema: &mut Schema) {
    for line in DEFAULTS.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (path, json) = line.split_once(" = ").expect("a default is `Type.field = json`");
        let (ty, field) = path.rsplit_once('.').expect("a default names a field");
        let id = schema.find(ty).unwrap_or_else(|| panic!("defaults.txt: no type {ty}"));
        let fields = &mut schema.types[id as usize].fields;
        let found = fields.iter_mut().find(|f| f.name.as_ref() == field);
        let field = found.unwrap_or_else(|| panic!("defaults.txt: no field {path}"));
        field.default = Some(serde_json::from_str(json).expect("a default is JSON"));
    }
}

impl Schema {
    /// What an absent field reads as when it is printed all the same.
    pub fn zero(&self, shape: &Shape) -> Value {
        match shape {
            Shape::String | Shape::IntOrString => Value::from(""),
            Shape::Quantity => Value::from("0"),
            Shape::Bool => Value::from(false),
            Shape::Int32 | Shape::Int64 => Value::from(0),
            Shape::Double => Value::from(0),
            Shape::Struct(id) => Value::Object(self.zero_struct(*id)),
            _ => Value::Null,
        }
    }

    fn zero_struct(&self, id: TypeId) -> Map<String, Value> {
        let mut map = Map::new();
        self.complete(id, &mut map);
        map
    }

    /// Adds the fields that are always printed.
    pub(super) fn complete(&self, id: TypeId, map: &mut Map<String, Value>) {
        for field in &self.get(id).fields {
            if self.always_printed(field) && !map.contains_key(field.name.as_ref()) {
                let zero =
                    if field.presence.pointer { Value::Null } else { self.zero(&field.shape) };
                map.insert(field.name.to_string(), zero);
            }
        }
    }

    fn always_printed(&self, field: &Field) -> bool {
        let plain_struct = matches!(field.shape, Shape::Struct(_))
            && !field.presence.pointer
            && !field.presence.omit_zero;
        field.presence.always || plain_struct
    }

    /// True when Go's `omitempty`/`omitzero` would leave the value out.
    pub(super) fn is_omitted(&self, field: &Field, value: &Value) -> bool {
        let presence = field.presence;
        if presence.always || (presence.pointer && !value.is_null()) {
            return false;
        }
        match value {
            Value::Null => true,
            Value::String(s) => s.is_empty(),
            Value::Bool(b) => !b,
            Value::Number(n) => n.as_f64() == Some(0.0),
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => match field.shape {
                Shape::Map(_) => o.is_empty(),
                Shape::Struct(id) => presence.omit_zero && *o == self.zero_struct(id),
                _ => false,
            },
        }
    }

    /// Finds where defaults are, so that filling them in passes over all other fields.
    pub fn index(&mut self) {
        self.defaulted = vec![Box::default(); self.types.len()];
        loop {
            let index = |ty: &Type| {
                let fields = ty.fields.iter().enumerate();
                fields.filter(|(_, f)| self.has_defaults(f)).map(|(at, _)| at).collect()
            };
            let found: Vec<Box<[usize]>> = self.types.iter().map(index).collect();
            if found == self.defaulted {
                return;
            }
            self.defaulted = found;
        }
    }

    /// By what is known so far of the types below.
    fn has_defaults(&self, field: &Field) -> bool {
        let mut shape = &field.shape;
        while let Shape::List(inner) | Shape::Map(inner) = shape {
            shape = inner;
        }
        let below = matches!(shape, Shape::Struct(id) if !self.defaulted[*id as usize].is_empty());
        field.default.is_some() || below
    }

    /// Makes empty lists null where lists are always printed: what upstream stores does not tell
    /// the two apart.
    pub fn settle(&self, shape: &Shape, value: &mut Value) {
        match (shape, value) {
            (Shape::List(inner), Value::Array(items)) => {
                items.iter_mut().for_each(|item| self.settle(inner, item));
            }
            (Shape::Map(inner), Value::Object(map)) => {
                map.values_mut().for_each(|item| self.settle(inner, item));
            }
            (Shape::Struct(id), Value::Object(map)) => {
                for (key, value) in map {
                    if !value.is_object() && !value.is_array() {
                        continue;
                    }
                    let Some(field) = self.get(*id).field(key) else { continue };
                    if field.presence.always && value.as_array().is_some_and(Vec::is_empty) {
                        *value = Value::Null;
                    } else {
                        self.settle(&field.shape, value);
                    }
                }
            }
            _ => {}
        }
    }

    /// Fills declared defaults, everywhere in `value`, where a field is absent or empty.
    pub fn apply_defaults(&self, shape: &Shape, value: &mut Value) {
        match (shape, value) {
            (Shape::List(inner), Value::Array(items)) => {
                items.iter_mut().for_each(|item| self.apply_defaults(inner, item));
            }
            (Shape::Map(inner), Value::Object(map)) => {
                map.values_mut().for_each(|item| self.apply_defaults(inner, item));
            }
            (Shape::Struct(id), Value::Object(map)) => self.default_struct(*id, map),
            _ => {}
        }
    }

    fn default_struct(&self, id: TypeId, map: &mut Map<String, Value>) {
        let fields = &self.get(id).fields;
        for field in self.defaulted[id as usize].iter().map(|&at| &fields[at]) {
            if let Some(default) = &field.default {
                let unset = match map.get(field.name.as_ref()) {
                    None | Some(Value::Null) => true,
                    Some(Value::String(s)) => s.is_empty() && !field.presence.pointer,
                    _ => false,
                };
                if unset {
                    map.insert(field.name.to_string(), default.clone());
                }
            }
            if let Some(value) = map.get_mut(field.name.as_ref()) {
                self.apply_defaults(&field.shape, value);
            }
        }
    }
}
