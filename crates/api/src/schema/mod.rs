//! The schema: what every type's fields are, as data.
//!
//! Built-in types are parsed once from `schema/*.schema` (renewed by `cargo xtask schema`); custom
//! resources build the same [`Type`]s at run time. Decoding, pruning, zero values, strategic
//! merge, server-side apply, OpenAPI and protobuf all read this one table.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

mod decode;
mod go;
mod parse;
mod zero;

pub use decode::{Decoded, Decoder, read_json};

/// Index of a type in its [`Schema`].
pub type TypeId = u32;

/// A set of types that refer to each other.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
    by_name: HashMap<Box<str>, TypeId>,
    /// Of each type, the fields that have defaults in or below them.
    defaulted: Vec<Box<[usize]>>,
}

/// One struct.
#[derive(Debug, Clone)]
pub struct Type {
    /// Short name, e.g. `core.v1.PodSpec`.
    pub name: Box<str>,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// `group/version/Kind` for types that are objects.
    pub kind: Option<Box<str>>,
    /// Applied as one value (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
}

/// One field of a struct.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: Box<str>,
    pub shape: Shape,
    /// Protobuf field numbers from the outside in: several where the JSON form leaves out an
    /// embedded message; empty where there is no protobuf form.
    pub tags: Box<[u32]>,
    pub required: bool,
    pub presence: Presence,
    /// Declared default other than the zero value.
    pub default: Option<Value>,
    /// The type declares its zero value as the default (OpenAPI prints it).
    pub zero_default: bool,
    pub values: Box<[Box<str>]>,
    pub list: ListKind,
    /// A map or struct that is applied as one value.
    pub atomic: bool,
    pub patch: Patch,
}

/// When an encoded object carries the field: the semantics of upstream's Go declarations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Presence {
    /// A pointer: an explicit zero value is kept.
    pub pointer: bool,
    /// Present even when empty (no `omitempty`).
    pub always: bool,
    /// A struct that is left out when it is zero (`omitzero`).
    pub omit_zero: bool,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
    /// Any JSON: raw extensions, field sets, JSON schema fragments.
    Any,
    /// A JSON schema, or something else: any JSON, with a protobuf form of its own.
    SchemaOr(Alternative),
    List(Box<Shape>),
    Map(Box<Shape>),
    Struct(TypeId),
}

/// What may stand in the place of a JSON schema (apiextensions `JSONSchemaPropsOr…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alternative {
    Bool,
    Schemas,
    Strings,
}

/// How server-side apply merges a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    Map(Box<[Box<str>]>),
}

/// How a strategic merge patch treats the field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    pub merge: bool,
    pub retain_keys: bool,
    /// Empty for lists of scalars.
    pub merge_key: Box<str>,
}

static BUILT_IN: LazyLock<Schema> = LazyLock::new(parse::built_in);

impl Schema {
    /// The types of Kubernetes v1.36.
    pub fn built_in() -> &'static Schema {
        &BUILT_IN
    }

    /// Adds a type of a schema that is made at run time; [`Schema::index`] ends the making.
    pub fn add(&mut self, ty: Type) -> TypeId {
        self.types.push(ty);
        self.types.len() as TypeId - 1
    }

    /// Adds another schema's type and all it refers to.
    pub fn import(&mut self, from: &Schema, id: TypeId) -> TypeId {
        self.import_once(from, id, &mut HashMap::new())
    }

    fn import_once(
        &mut self,
        from: &Schema,
        id: TypeId,
        done: &mut HashMap<TypeId, TypeId>,
    ) -> TypeId {
        if let Some(known) = done.get(&id) {
            return *known;
        }
        let own = self.add(from.get(id).clone());
        done.insert(id, own);
        for at in 0..self.types[own as usize].fields.len() {
            let mut shape = self.types[own as usize].fields[at].shape.clone();
            if let Some(below) = shape.innermost() {
                *below = self.import_once(from, *below, done);
            }
            self.types[own as usize].fields[at].shape = shape;
        }
        own
    }

    /// The type of a short name such as `core.v1.Pod`.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id as usize]
    }

    pub fn types(&self) -> &[Type] {
        &self.types
    }

    /// The shape at a path of field names, through lists and maps' values.
    pub fn at<'a>(&'a self, mut shape: &'a Shape, path: &[&str]) -> Option<&'a Shape> {
        for key in path {
            shape = match shape {
                Shape::Struct(id) => &self.get(*id).field(key)?.shape,
                Shape::Map(inner) | Shape::List(inner) => inner,
                _ => return None,
            };
        }
        Some(shape)
    }
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let found = self.fields.binary_search_by(|f| f.name.as_ref().cmp(name));
        found.ok().map(|at| &self.fields[at])
    }

    /// The name without its package: `PodSpec`.
    pub fn short(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

impl Shape {
    /// The struct that lists and maps are of, if it is one.
    fn innermost(&mut self) -> Option<&mut TypeId> {
        match self {
            Shape::List(inner) | Shape::Map(inner) => inner.innermost(),
            Shape::Struct(id) => Some(id),
            _ => None,
        }
    }

    /// The Go type's name, as decoding errors print it.
    pub fn go_name(&self, schema: &Schema) -> String {
        match self {
            Shape::String => "string".into(),
            Shape::Bool => "bool".into(),
            Shape::Int32 => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Double => "float64".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::IntOrString => "intstr.IntOrString".into(),
            Shape::Time => "v1.Time".into(),
            Shape::MicroTime => "v1.MicroTime".into(),
            Shape::Any | Shape::SchemaOr(_) => "interface {}".into(),
            Shape::List(inner) => format!("[]{}", inner.go_name(schema)),
            Shape::Map(inner) => format!("map[string]{}", inner.go_name(schema)),
            Shape::Struct(id) => {
                let name = &schema.get(*id).name;
                let mut parts = name.rsplit('.');
                let (kind, version) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                format!("{version}.{kind}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
