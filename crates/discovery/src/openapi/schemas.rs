//! Types as documents show them, in OpenAPI v3's form.

use std::collections::BTreeSet;

use api::schema::{Alternative, Field, ListKind, Schema, Shape, TypeId};
use serde_json::{Map, Value, json};

use strategy::type_names::{full_name, short_name};

/// What documents say of types beyond what the schema knows: a type, a path below its schema, and
/// what stands there as JSON.
static FACTS: &str = include_str!("facts.txt");

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";

/// Where references to a schema lead.
pub(super) const ROOT: &str = "#/components/schemas/";

/// The schemas of one document.
pub(super) struct Schemas<'a> {
    pub(super) schema: &'a Schema,
    done: BTreeSet<TypeId>,
    pub(super) found: Map<String, Value>,
    /// Group versions that the document is about.
    versions: Vec<(String, String)>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(schema: &'a Schema, versions: Vec<(String, String)>) -> Schemas<'a> {
        Schemas { schema, done: BTreeSet::new(), found: Map::new(), versions }
    }

    /// Adds what `value` refers to, and everything that refers to in turn.
    pub(super) fn add_references(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                    self.add_named(name.trim_start_matches(ROOT));
                }
                map.values().for_each(|below| self.add_references(below));
            }
            Value::Array(list) => list.iter().for_each(|below| self.add_references(below)),
            _ => {}
        }
    }

    fn add_named(&mut self, name: &str) {
        if self.found.contains_key(name) {
            return;
        }
        let Some(mut scalar) = scalar(name) else {
            let known = short_name(name).and_then(|short| self.schema.find(&short));
            return known.into_iter().for_each(|id| self.add(id));
        };
        if let Some(prose) = api::prose::of_type(name) {
            scalar["description"] = prose.into();
        }
        if name.ends_with(".WatchEvent") {
            scalar["x-kubernetes-group-version-kind"] = self.in_every_version("WatchEvent");
        }
        self.found.insert(name.to_owned(), scalar.clone());
        self.add_references(&scalar);
    }

    /// Kinds that belong to all groups, the core group first.
    fn in_every_version(&self, kind: &str) -> Value {
        let gvk = |(group, version): (&str, &str)| json!({"group": group, "kind": kind, "version": version});
        let mut all = vec![gvk(("", "v1"))];
        for (group, version) in &self.versions {
            if !group.is_empty() {
                all.push(gvk((group, version)));
            }
        }
        all.into()
    }

    fn add(&mut self, id: TypeId) {
        if !self.done.insert(id) {
            return;
        }
        let ty = self.schema.get(id);
        let name = full_name(&ty.name);
        let mut properties = Map::new();
        for field in &ty.fields {
            properties.insert(field.name.to_string(), self.field(&name, field));
        }
        let mut value = json!({"type": "object"});
        if let Some(prose) = api::prose::of_type(&name) {
            value["description"] = prose.into();
        }
        if !properties.is_empty() {
            value["properties"] = properties.into();
        }
        let required: Vec<&str> =
            ty.fields.iter().filter(|f| f.required).map(|f| f.name.as_ref()).collect();
        if !required.is_empty() {
            value["required"] = json!(required);
        }
        if ty.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(gvk) = &ty.kind {
            value["x-kubernetes-group-version-kind"] = json!([gvk_value(gvk)]);
        }
        if name.ends_with(".DeleteOptions") {
            value["x-kubernetes-group-version-kind"] = self.in_every_version("DeleteOptions");
        }
        add_facts(&ty.name, &mut value);
        self.found.insert(name, value);
    }

    fn field(&mut self, owner: &str, field: &Field) -> Value {
        let mut value = self.shape(&field.shape, any_type(owner, &field.name));
        if let Some(prose) = prose_of(owner, &field.name) {
            value["description"] = prose.into();
        }
        if field.zero_default {
            value["default"] = match &field.shape {
                Shape::Struct(_) | Shape::Time | Shape::MicroTime | Shape::Any => json!({}),
                shape => self.schema.zero(shape),
            };
        }
        let names =
            |keys: &[Box<str>]| keys.iter().map(|k| Value::from(k.as_ref())).collect::<Vec<_>>();
        if !field.values.is_empty() {
            value["enum"] = names(&field.values).into();
        }
        let is_items = owner.ends_with("List") && &*field.name == "items";
        match &field.list {
            ListKind::Set => value["x-kubernetes-list-type"] = "set".into(),
            ListKind::Map(keys) => {
                value["x-kubernetes-list-type"] = "map".into();
                value["x-kubernetes-list-map-keys"] = names(keys).into();
            }
            ListKind::Atomic if matches!(field.shape, Shape::List(_)) && !is_items => {
                value["x-kubernetes-list-type"] = "atomic".into();
            }
            ListKind::Atomic => {}
        }
        if field.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        patch_facts(field, &mut value);
        wrap_reference(&mut value);
        value
    }

    /// `any` is the name of what may be anything here.
    fn shape(&mut self, shape: &Shape, any: &str) -> Value {
        match shape {
            Shape::String => json!({"type": "string"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Quantity => self.reference("io.k8s.apimachinery.pkg.api.resource.Quantity"),
            Shape::IntOrString => self.reference("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
            Shape::Time => self.reference(&format!("{META}Time")),
            Shape::MicroTime => self.reference(&format!("{META}MicroTime")),
            Shape::Any => self.reference(any),
            Shape::SchemaOr(other) => {
                let kind = match other {
                    Alternative::Bool => "JSONSchemaPropsOrBool",
                    Alternative::Schemas => "JSONSchemaPropsOrArray",
                    Alternative::Strings => "JSONSchemaPropsOrStringArray",
                };
                self.reference(&format!("{EXTENSIONS}{kind}"))
            }
            Shape::List(inner) => json!({"type": "array", "items": self.shape(inner, any)}),
            Shape::Map(inner) => {
                json!({"type": "object", "additionalProperties": self.shape(inner, any)})
            }
            Shape::Struct(id) => self.reference(&full_name(&self.schema.get(*id).name)),
        }
    }

    fn reference(&mut self, name: &str) -> Value {
        self.add_named(name);
        json!({"$ref": format!("{ROOT}{name}")})
    }
}

/// Types that are no structs.
fn scalar(name: &str) -> Option<Value> {
    let kind = name.rsplit('.').next().unwrap_or(name);
    Some(match kind {
        "Quantity" => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        "IntOrString" => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        "Time" | "MicroTime" => json!({"type": "string", "format": "date-time"}),
        "FieldsV1" | "RawExtension" | "Patch" => json!({"type": "object"}),
        "JSON"
        | "JSONSchemaPropsOrBool"
        | "JSONSchemaPropsOrArray"
        | "JSONSchemaPropsOrStringArray" => json!({}),
        "WatchEvent" => json!({
            "type": "object",
            "required": ["type", "object"],
            "properties": {
                "type": {"type": "string", "default": ""},
                "object": {
                    "description": "The object's new state, its last one when it was deleted, or a Status.",
                    "allOf": [{"$ref": format!("{ROOT}io.k8s.apimachinery.pkg.runtime.RawExtension")}],
                },
            },
        }),
        _ => return None,
    })
}

/// The name of a field's type that takes any JSON.
fn any_type(owner: &str, field: &str) -> &'static str {
    if owner.starts_with(EXTENSIONS) {
        return "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
    }
    match field {
        "fieldsV1" => "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
        _ => "io.k8s.apimachinery.pkg.runtime.RawExtension",
    }
}

/// A field's description; lists share theirs.
fn prose_of(owner: &str, field: &str) -> Option<&'static str> {
    api::prose::of_field(owner, field).or_else(|| match field {
        "apiVersion" | "kind" => api::prose::of_field("io.k8s.api.core.v1.ConfigMap", field),
        "metadata" if owner.ends_with("List") => Some("Standard list metadata."),
        "items" if owner.ends_with("List") => Some("The objects of the list."),
        _ => None,
    })
}

fn patch_facts(field: &Field, value: &mut Value) {
    let words = [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys")];
    let strategy: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
    if !strategy.is_empty() {
        value["x-kubernetes-patch-strategy"] = strategy.join(",").into();
    }
    if !field.patch.merge_key.is_empty() {
        value["x-kubernetes-patch-merge-key"] = field.patch.merge_key.as_ref().into();
    }
}

/// Nothing may stand beside a reference (OpenAPI 3.0): what does stands beside an `allOf`.
pub(super) fn wrap_reference(value: &mut Value) {
    let Some(map) = value.as_object_mut().filter(|map| map.len() > 1) else { return };
    if let Some(reference) = map.remove("$ref") {
        map.insert("allOf".into(), json!([{"$ref": reference}]));
    }
}

fn add_facts(short: &str, value: &mut Value) {
    for line in FACTS.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.splitn(3, ' ');
        let (Some(ty), Some(path), Some(json)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if ty != short {
            continue;
        }
        let fact: Value = serde_json::from_str(json).expect("the table is tested");
        let (owner, key) = path.rsplit_once('/').unwrap_or(("", path));
        let owner = owner.split('/').filter(|step| !step.is_empty());
        let place = owner.fold(&mut *value, |at, step| &mut at[step]);
        match (fact, place.as_object_mut()) {
            (Value::Null, Some(map)) => drop(map.remove(key)),
            (fact, Some(map)) => drop(map.insert(key.to_owned(), fact)),
            (_, None) => {}
        }
    }
}

fn gvk_value(gvk: &str) -> Value {
    let mut parts = gvk.split('/');
    let mut next = || parts.next().unwrap_or("");
    json!({"group": next(), "version": next(), "kind": next()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_of_a_known_type_and_changes_it() {
        let schema = Schema::built_in();
        for line in FACTS.lines().filter(|line| !line.starts_with('#')) {
            let parts: Vec<&str> = line.splitn(3, ' ').collect();
            let [ty, path, json] = parts.as_slice() else { panic!("{line}") };
            let fact: Value = serde_json::from_str(json).expect(line);
            let id = schema.find(ty).expect(line);
            let mut schemas = Schemas::new(schema, Vec::new());
            schemas.add(id);
            let at = schemas.found[&full_name(ty)].pointer(&format!("/{path}"));
            assert_eq!(at.cloned().unwrap_or_default(), fact, "{line}");
        }
    }
}
