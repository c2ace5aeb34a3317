//! Types for expressions out of an OpenAPI v3 document (apiserver `pkg/cel/common/schemas.go`).

use std::collections::HashSet;

use cel::{Objects, Type, escaped};
use serde_json::{Map, Value};

/// The type of a kind's objects, and those it is made of.
#[derive(Debug, Clone)]
pub(super) struct SchemaTypes {
    pub(super) root: Type,
    pub(super) objects: Objects,
}

impl SchemaTypes {
    pub(super) fn parts(&self) -> (&Type, &Objects) {
        (&self.root, &self.objects)
    }

    /// `None` if the document does not describe the kind.
    pub(super) fn of(
        document: &Value,
        (group, version, kind): (&str, &str, &str),
    ) -> Option<SchemaTypes> {
        let schemas = document["components"]["schemas"].as_object()?;
        let is_kind = |schema: &Value| {
            validation::items(schema, "x-kubernetes-group-version-kind").any(|known| {
                known["group"] == group && known["version"] == version && known["kind"] == kind
            })
        };
        let (name, _) = schemas.iter().find(|(_, schema)| is_kind(schema))?;
        let mut reader = Reader { schemas, objects: Objects::default(), seen: HashSet::new() };
        let root = reader.named(name)?;
        reader.with_object_meta(&root);
        Some(SchemaTypes { root, objects: reader.objects })
    }
}

struct Reader<'d> {
    schemas: &'d Map<String, Value>,
    objects: Objects,
    seen: HashSet<String>,
}

impl Reader<'_> {
    /// The type of a component. One that is under way or done is known by its name.
    fn named(&mut self, name: &str) -> Option<Type> {
        let schema = self.schemas.get(name)?;
        if name.ends_with(".Quantity") {
            return Some(Type::String);
        }
        self.place(schema, name)
    }

    /// The type at a place; `None` where expressions see nothing.
    fn place(&mut self, schema: &Value, name: &str) -> Option<Type> {
        if let Some(reference) = reference(schema) {
            let name = reference.rsplit('/').next().unwrap_or(reference);
            return self.named(name);
        }
        if schema["x-kubernetes-int-or-string"] == true || schema["format"] == "int-or-string" {
            return Some(Type::Dyn);
        }
        match schema["type"].as_str()? {
            "array" => Some(Type::list(self.place(&schema["items"], &format!("{name}.@idx"))?)),
            "object" if schema["additionalProperties"].is_object() => {
                let value =
                    self.place(&schema["additionalProperties"], &format!("{name}.@elem"))?;
                Some(Type::map(Type::String, value))
            }
            "object" => Some(self.object(schema, name)),
            "string" => Some(match schema["format"].as_str().unwrap_or("") {
                "byte" => Type::Bytes,
                "duration" => Type::Duration,
                "date" | "date-time" => Type::Timestamp,
                _ => Type::String,
            }),
            "boolean" => Some(Type::Bool),
            "number" => Some(Type::Double),
            "integer" => Some(Type::Int),
            _ => None,
        }
    }

    fn object(&mut self, schema: &Value, name: &str) -> Type {
        let ty = Type::object(name);
        if !self.seen.insert(name.to_owned()) {
            return ty;
        }
        self.objects.insert(name, []);
        for (key, below) in schema["properties"].as_object().into_iter().flatten() {
            let field = self.place(below, &format!("{name}.{key}"));
            if let (Some(field), Some(key)) = (field, escaped(key)) {
                self.objects.set_field(name, &key, field);
            }
        }
        ty
    }

    /// Every resource has a type and a name, whatever its schema says.
    fn with_object_meta(&mut self, root: &Type) {
        let Type::Object(name) = root else { return };
        for key in ["apiVersion", "kind"] {
            self.objects.set_field(name, key, Type::String);
        }
        if !self.objects.has_field(name, "metadata") {
            let metadata = format!("{name}.metadata");
            let text = |key: &str| (key.into(), Type::String);
            self.objects.insert(&metadata, ["name", "generateName"].map(text));
            self.objects.set_field(name, "metadata", Type::object(&metadata));
        }
    }
}

/// A reference, also inside the `allOf` that carries its description.
fn reference(schema: &Value) -> Option<&str> {
    let wrapped = || validation::items(schema, "allOf").find_map(|inner| inner["$ref"].as_str());
    schema["$ref"].as_str().or_else(wrapped)
}
