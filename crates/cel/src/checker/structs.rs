//! Messages that expressions make: `Object{…}`, whose types are named after the fields they are the value of
//! (`Object.spec.template`), and `JSONPatch{…}` (apiserver `pkg/cel/mutation`).

use super::Checker;
use crate::ast::{Id, Struct, StructField};
use crate::types::Type;

const OBJECT: &str = "Object";
const JSON_PATCH: &str = "JSONPatch";

/// Whether messages of a type of this name can be made.
pub(super) fn is_constructed(name: &str) -> bool {
    name == JSON_PATCH
        || name.strip_prefix(OBJECT).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The type of a message's field; objects have fields of any name and type.
pub(super) fn field_type(name: &str, field: &str) -> Option<Type> {
    match (name, field) {
        (JSON_PATCH, "op" | "path" | "from") => Some(Type::String),
        (JSON_PATCH, "value") => Some(Type::Dyn),
        (JSON_PATCH, _) => None,
        _ => Some(Type::Dyn),
    }
}

impl Checker<'_> {
    /// The type that a name stands for, where the environment has types of messages.
    pub(super) fn constructed(&self, name: &str) -> Option<Type> {
        (self.env.patches && is_constructed(name)).then(|| Type::object(name))
    }

    pub(super) fn structure(&mut self, id: Id, made: &mut Struct) -> Type {
        if let Some(plain) = made.name.strip_prefix('.') {
            made.name = plain.into();
        }
        let name = made.name.clone();
        if let Some(ty) = self.variable(&name) {
            self.fault(id, format!("'{}' is not a type", ty.name()));
            return Type::Error;
        }
        let Some(ty) = self.constructed(&name) else {
            return match crate::functions::type_named(&name) {
                Some(other) => {
                    self.fault(id, format!("'{}' is not a message type", other.name()));
                    Type::Error
                }
                None => self.undeclared(id, &name),
            };
        };
        made.fields.iter_mut().for_each(|field| self.structure_field(&name, field));
        ty
    }

    fn structure_field(&mut self, name: &str, field: &mut StructField) {
        let found = self.expr(&mut field.value);
        let found = if field.optional { self.unwrapped(field.value.id, found) } else { found };
        let Some(wanted) = field_type(name, &field.name) else {
            return self.fault(field.id, format!("undefined field '{}'", field.name));
        };
        if !self.bindings.assignable(&wanted, &found) {
            let found = self.bindings.resolved(&found, true);
            let text = format!(
                "expected type of field '{}' is '{wanted}' but provided type is '{found}'",
                field.name
            );
            self.fault(field.id, text);
        }
    }
}
