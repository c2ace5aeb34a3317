//! A place in the schema, and what field management makes of a value there.

use serde_json::Value;

use super::element::{Element, Scalar};
use crate::schema::{Field, ListKind, Schema, Shape, TypeId};

/// A shape with what its field says about merging.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    shape: &'a Shape,
    list: &'a ListKind,
    atomic: bool,
}

/// How a value is owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Scalar,
    /// A list, map or struct that is owned as one.
    Atomic,
    Struct(TypeId),
    Map,
    /// A list whose items are told apart by these keys; none for sets.
    List(&'a [Box<str>]),
}

static ATOMIC: ListKind = ListKind::Atomic;

impl<'a> Node<'a> {
    pub fn root(shape: &'a Shape) -> Node<'a> {
        Node { shape, list: &ATOMIC, atomic: false }
    }

    /// A field of free form is one value. What may be owned in part says so by being a map of
    /// free-form values (custom resources that preserve unknown fields).
    fn of_field(field: &'a Field) -> Node<'a> {
        let atomic = field.atomic || matches!(field.shape, Shape::Any | Shape::SchemaOr(_));
        Node { shape: &field.shape, list: &field.list, atomic }
    }

    pub(super) fn shape(&self) -> &'a Shape {
        self.shape
    }

    /// What the value is here; free-form values say it themselves.
    pub(super) fn kind(&self, schema: &Schema, values: [Option<&Value>; 2]) -> Kind<'a> {
        match self.shape {
            Shape::Struct(id) if self.atomic || schema.get(*id).atomic => Kind::Atomic,
            Shape::Struct(id) => Kind::Struct(*id),
            Shape::Map(_) if self.atomic => Kind::Atomic,
            Shape::Map(_) => Kind::Map,
            Shape::List(_) => match self.list {
                ListKind::Atomic => Kind::Atomic,
                ListKind::Set => Kind::List(&[]),
                ListKind::Map(keys) => Kind::List(keys),
            },
            Shape::SchemaOr(_) => Kind::Atomic,
            Shape::Any if self.atomic => Kind::Atomic,
            Shape::Any => {
                let present = || values.iter().flatten();
                match present().count() > 0 && present().all(|v| v.is_object() || v.is_null()) {
                    true => Kind::Map,
                    false => Kind::Atomic,
                }
            }
            _ => Kind::Scalar,
        }
    }

    /// Is `name` a field of this struct (rather than a map's key)?
    pub(super) fn declares(&self, schema: &Schema, name: &str) -> bool {
        matches!(self.shape, Shape::Struct(id) if schema.get(*id).field(name).is_some())
    }

    pub(super) fn field(&self, schema: &'a Schema, name: &str) -> Node<'a> {
        let found = match self.shape {
            Shape::Struct(id) => schema.get(*id).field(name).map(Node::of_field),
            Shape::Map(inner) => Some(Node::root(inner)),
            _ => None,
        };
        found.unwrap_or(Node::root(&Shape::Any))
    }

    /// The items of a list.
    pub(super) fn item(&self) -> Node<'a> {
        match self.shape {
            Shape::List(inner) => Node::root(inner),
            _ => Node::root(&Shape::Any),
        }
    }

    pub(super) fn child(&self, schema: &'a Schema, element: &Element) -> Node<'a> {
        match element {
            Element::Field(name) => self.field(schema, name),
            _ => self.item(),
        }
    }

    /// What tells the item from its siblings.
    pub(super) fn element(
        &self,
        schema: &Schema,
        keys: &[Box<str>],
        item: &Value,
    ) -> Result<Element, String> {
        if keys.is_empty() {
            return set_element(item);
        }
        let Some(map) = item.as_object() else {
            let what = if item.is_null() { "a null element" } else { "non-map elements" };
            return Err(format!("associative list with keys may not have {what}"));
        };
        let mut found: Vec<(Box<str>, Scalar)> = Vec::with_capacity(keys.len());
        for key in keys {
            let value = map.get(&**key).cloned().or_else(|| self.key_default(schema, key));
            found.extend(value.map(|value| (key.clone(), Scalar(value))));
        }
        if found.is_empty() {
            return Err(format!(
                "associative list with keys has an element that omits all key fields {} (and \
                 doesn't have default values for any key fields)",
                go_list(keys)
            ));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Element::Key(found.into()))
    }

    fn key_default(&self, schema: &Schema, key: &str) -> Option<Value> {
        let Shape::List(inner) = self.shape else { return None };
        let Shape::Struct(id) = **inner else { return None };
        let field = schema.get(id).field(key)?;
        let zero = || field.zero_default.then(|| schema.zero(&field.shape));
        field.default.clone().or_else(zero)
    }
}

fn set_element(item: &Value) -> Result<Element, String> {
    match item {
        Value::Object(_) => {
            Err("associative list without keys has an element that's a map type".into())
        }
        Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
        Value::Null => {
            Err("associative list without keys has an element that's an explicit null".into())
        }
        scalar => Ok(Element::Value(Scalar(scalar.clone()))),
    }
}

/// `["a" "b"]`, as Go prints a list of quoted strings.
fn go_list(words: &[Box<str>]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
