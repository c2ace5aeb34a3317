//! What is known of JSON data before it is seen: its type for the checker, its greatest size for the
//! estimates, and how its values are read (apiserver `pkg/cel/types.go`, `DeclType`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::types::Type;

/// A place in declared data.
#[derive(Debug, Clone, PartialEq)]
pub struct Decl {
    pub ty: Type,
    /// The most characters, items or entries a value can have; 0 for objects.
    pub max: u64,
    /// The fewest bytes a value takes in JSON.
    pub min_bytes: u64,
    pub nullable: bool,
    pub shape: Shape,
}

/// How JSON at a place is read.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Scalar(Scalar),
    List(Arc<Decl>, ListKind),
    /// Values under any keys.
    Map(Arc<Decl>),
    /// Fields by the names that rules spell.
    Object(BTreeMap<Box<str>, Field>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    Bool,
    Int,
    Double,
    String,
    /// Base64 in JSON.
    Bytes,
    Duration,
    Date,
    DateTime,
    IntOrString,
    /// Whatever it is: JSON without a declaration, read by its own types.
    Any,
}

/// How a list's items are told apart: whether order matters when lists are compared and added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    /// By the values of these fields.
    Map(Vec<Box<str>>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The name in JSON.
    pub name: Box<str>,
    pub decl: Arc<Decl>,
}

impl Decl {
    pub fn scalar(scalar: Scalar, max: u64, min_bytes: u64) -> Decl {
        let ty = match scalar {
            Scalar::Bool => Type::Bool,
            Scalar::Int => Type::Int,
            Scalar::Double => Type::Double,
            Scalar::String => Type::String,
            Scalar::Bytes => Type::Bytes,
            Scalar::Duration => Type::Duration,
            Scalar::Date | Scalar::DateTime => Type::Timestamp,
            Scalar::IntOrString | Scalar::Any => Type::Dyn,
        };
        Decl { ty, max, min_bytes, nullable: false, shape: Shape::Scalar(scalar) }
    }

    /// `[]` is the smallest.
    pub fn list(item: Decl, kind: ListKind, max: u64) -> Decl {
        let ty = Type::list(item.ty.clone());
        let shape = Shape::List(Arc::new(item), kind);
        Decl { ty, max, min_bytes: 2, nullable: false, shape }
    }

    /// `{}` is the smallest.
    pub fn map(value: Decl, max: u64) -> Decl {
        let ty = Type::map(Type::String, value.ty.clone());
        Decl { ty, max, min_bytes: 2, nullable: false, shape: Shape::Map(Arc::new(value)) }
    }

    /// The name must be the object's alone.
    pub fn object(name: &str, fields: BTreeMap<Box<str>, Field>, min_bytes: u64) -> Decl {
        let shape = Shape::Object(fields);
        Decl { ty: Type::object(name), max: 0, min_bytes, nullable: false, shape }
    }

    /// Nothing is declared: the JSON says by itself what it is.
    pub(crate) fn is_any(&self) -> bool {
        self.shape == Shape::Scalar(Scalar::Any)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Arc<Decl>> {
        match &self.shape {
            Shape::Object(fields) => fields.get(name).map(|field| &field.decl),
            _ => None,
        }
    }
}

/// Objects by the names of their types.
#[derive(Debug, Default, Clone)]
pub struct Objects(HashMap<Arc<str>, HashMap<Box<str>, Type>>);

impl Objects {
    /// All objects in a declaration.
    pub fn of(decl: &Decl) -> Objects {
        let mut objects = Objects::default();
        objects.collect(decl);
        objects
    }

    fn collect(&mut self, decl: &Decl) {
        match &decl.shape {
            Shape::Scalar(_) => {}
            Shape::List(below, _) | Shape::Map(below) => self.collect(below),
            Shape::Object(fields) => {
                fields.values().for_each(|field| self.collect(&field.decl));
                let types = fields.iter().map(|(name, f)| (name.clone(), f.decl.ty.clone()));
                if let Type::Object(name) = &decl.ty {
                    self.0.insert(name.clone(), types.collect());
                }
            }
        }
    }

    /// Adds an object of which only the fields' types are known.
    pub fn insert(&mut self, name: &str, fields: impl IntoIterator<Item = (Box<str>, Type)>) {
        self.0.insert(name.into(), fields.into_iter().collect());
    }

    /// Adds a field, or gives it another type.
    pub fn set_field(&mut self, object: &str, field: &str, ty: Type) {
        if let Some(fields) = self.0.get_mut(object) {
            fields.insert(field.into(), ty);
        }
    }

    pub fn has_field(&self, object: &str, field: &str) -> bool {
        self.0.get(object).is_some_and(|fields| fields.contains_key(field))
    }

    /// Adds the objects of another set.
    pub fn extend(&mut self, other: &Objects) {
        self.0.extend(other.0.iter().map(|(name, fields)| (name.clone(), fields.clone())));
    }

    /// The type of an object's field; the outer `None` says there is no such object.
    pub(crate) fn field(&self, object: &str, field: &str) -> Option<Option<&Type>> {
        Some(self.0.get(object)?.get(field))
    }
}
