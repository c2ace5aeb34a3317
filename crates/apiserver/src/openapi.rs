//! OpenAPI v3 (one document a group version) and v2, generated from schema and registry when
//! asked for.
//!
//! Descriptions come from `api::prose`. Documents are made on demand and not kept: a client asks
//! once and caches by the hash in the index.

mod custom;
mod proto;

use std::collections::BTreeSet;
use std::sync::Arc;

use api::Status;
use api::registry::Resource;
use api::schema::{Field, ListKind, Schema, Shape, TypeId};
use http::Response;
use serde_json::{Map, Value, json};

use crate::custom::Served;
use crate::respond::{self, Body};
use crate::server::Inner;

/// Short schema names to the names documents use, by package prefix.
const PACKAGES: [(&str, &str); 4] = [
    ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions."),
    ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis.apiregistration."),
    ("meta.", "io.k8s.apimachinery.pkg.apis.meta."),
    ("version.", "io.k8s.apimachinery.pkg.version."),
];

pub(crate) fn full_name(short: &str) -> String {
    let found =
        PACKAGES.iter().find_map(|(s, full)| Some(format!("{full}{}", short.strip_prefix(s)?)));
    found.unwrap_or_else(|| format!("io.k8s.api.{short}"))
}

/// `api/v1`, `apis/apps/v1`, and so on.
fn paths(server: &Inner) -> BTreeSet<String> {
    let of = |r: &Resource| match r.group {
        "" => format!("api/{}", r.version),
        group => format!("apis/{group}/{}", r.version),
    };
    server.rows().into_iter().map(of).collect()
}

/// Custom resources whose document this is.
fn custom_of(server: &Inner, path: &str) -> Vec<Arc<Served>> {
    let installed = server.customs.installed();
    let here = |s: &&Arc<Served>| format!("apis/{}/{}", s.row.group, s.row.version) == path;
    installed.all().iter().filter(here).cloned().collect()
}

/// `GET /openapi/v3`.
pub(crate) fn v3_index(server: &Inner) -> Value {
    let hash = |path: &str| {
        // Built-in documents change with the program only.
        let own = custom_of(server, path);
        let text: String = own.iter().map(|s| s.version().source.to_string()).collect();
        let version = env!("CARGO_PKG_VERSION");
        let digest = pki::sha256(format!("{path}{version}{text}").as_bytes());
        digest.iter().map(|b| format!("{b:02X}")).collect::<String>()
    };
    let entries = paths(server).into_iter().map(|path| {
        let url = format!("/openapi/v3/{path}?hash={}", hash(&path));
        (path, json!({"serverRelativeURL": url}))
    });
    json!({"paths": entries.collect::<Map<String, Value>>()})
}

/// `GET /openapi/v3/<path>`.
pub(crate) fn v3(server: &Inner, path: &str) -> Result<Response<Body>, Status> {
    if !paths(server).contains(path) {
        return Err(Status::no_such_path());
    }
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => (String::new(), (*version).to_owned()),
        ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
        _ => return Err(Status::no_such_path()),
    };
    let all = server.rows();
    let rows = || all.iter().copied().filter(|r| r.group == group && r.version == version);
    let built_in = || {
        rows().filter(|r| server.registry.find(r.group, r.version, r.name, r.subresource).is_some())
    };
    let mut document =
        Document { schema: server.schema, v3: true, done: BTreeSet::new(), schemas: Map::new() };
    built_in().filter_map(|r| r.ty).for_each(|ty| document.add(ty));
    for row in built_in() {
        document.add_list(row);
    }
    for served in custom_of(server, path) {
        custom::add(&served, true, &mut document.schemas);
    }
    for name in [
        "meta.v1.DeleteOptions",
        "meta.v1.Status",
        "meta.v1.APIResourceList",
        "meta.v1.ObjectMeta",
        "meta.v1.ListMeta",
    ] {
        server.schema.find(name).into_iter().for_each(|ty| document.add(ty));
    }
    let schemas = std::mem::take(&mut document.schemas);
    let value = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": operations(rows(), true),
        "components": {"schemas": schemas},
    });
    Ok(respond::json_bytes(200, value.to_string()))
}

/// The media type of the document in protobuf, in the two spellings that clients use.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// `GET /openapi/v2`, as JSON or protobuf.
pub(crate) fn v2(server: &Inner, accept: &str) -> Result<Response<Body>, Status> {
    let types: Vec<&str> = accept.split(',').map(crate::body::media_type).collect();
    // Answered in the second spelling: the first is no media type by RFC 2045.
    let binary = PROTOBUF.iter().any(|kind| types.contains(kind)).then_some(PROTOBUF[1]);
    let json_asked = accept.is_empty()
        || types.iter().any(|t| matches!(*t, "application/json" | "application/*" | "*/*"));
    if binary.is_none() && !json_asked {
        return Err(Status::not_acceptable("application/json"));
    }
    let mut document =
        Document { schema: server.schema, v3: false, done: BTreeSet::new(), schemas: Map::new() };
    server.registry.rows().iter().filter_map(|r| r.ty).for_each(|ty| document.add(ty));
    server.registry.rows().iter().for_each(|row| document.add_list(row));
    for served in server.customs.installed().all() {
        custom::add(served, false, &mut document.schemas);
    }
    let definitions = std::mem::take(&mut document.schemas);
    let value = json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": operations(server.rows().into_iter(), false),
        "definitions": definitions,
    });
    if let Some(kind) = binary {
        return Ok(respond::with_type(200, kind, proto::document(&value)));
    }
    Ok(respond::json_bytes(200, value.to_string()))
}

struct Document<'a> {
    schema: &'a Schema,
    v3: bool,
    done: BTreeSet<TypeId>,
    schemas: Map<String, Value>,
}

impl Document<'_> {
    /// Adds a type and everything it refers to.
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
        self.schemas.insert(name, value);
    }

    fn add_list(&mut self, row: &Resource) {
        let list = row
            .ty
            .filter(|_| row.subresource.is_empty())
            .map(|id| format!("{}List", self.schema.get(id).name));
        list.and_then(|name| self.schema.find(&name)).into_iter().for_each(|id| self.add(id));
    }

    fn field(&mut self, owner: &str, field: &Field) -> Value {
        let mut value = self.shape(&field.shape);
        if let Some(prose) = api::prose::of_field(owner, &field.name) {
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
        match &field.list {
            ListKind::Set => value["x-kubernetes-list-type"] = "set".into(),
            ListKind::Map(keys) => {
                value["x-kubernetes-list-type"] = "map".into();
                value["x-kubernetes-list-map-keys"] = names(keys).into();
            }
            ListKind::Atomic if matches!(field.shape, Shape::List(_)) => {
                value["x-kubernetes-list-type"] = "atomic".into();
            }
            ListKind::Atomic => {}
        }
        if field.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        self.patch_facts(field, &mut value);
        value
    }

    fn patch_facts(&self, field: &Field, value: &mut Value) {
        let words = [(field.patch.retain_keys, "retainKeys"), (field.patch.merge, "merge")];
        let strategy: Vec<&str> =
            words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        if !strategy.is_empty() {
            value["x-kubernetes-patch-strategy"] = strategy.join(",").into();
        }
        if !field.patch.merge_key.is_empty() {
            value["x-kubernetes-patch-merge-key"] = field.patch.merge_key.as_ref().into();
        }
    }

    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::String => json!({"type": "string"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Quantity => json!({"type": "string"}),
            Shape::IntOrString if self.v3 => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            Shape::IntOrString => json!({"type": "string", "format": "int-or-string"}),
            Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
            Shape::Any | Shape::SchemaOr(_) => json!({"type": "object"}),
            Shape::List(inner) => json!({"type": "array", "items": self.shape(inner)}),
            Shape::Map(inner) => {
                json!({"type": "object", "additionalProperties": self.shape(inner)})
            }
            Shape::Struct(id) => {
                self.add(*id);
                self.reference(*id)
            }
        }
    }

    fn reference(&self, id: TypeId) -> Value {
        let name = full_name(&self.schema.get(id).name);
        if self.v3 {
            // A sibling of $ref is not allowed, so descriptions and defaults stand beside an allOf.
            json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}]})
        } else {
            json!({"$ref": format!("#/definitions/{name}")})
        }
    }
}

fn gvk_value(gvk: &str) -> Value {
    let mut parts = gvk.split('/');
    let mut next = || parts.next().unwrap_or("");
    json!({"group": next(), "version": next(), "kind": next()})
}

/// Paths with their methods: what kinds they take, and which options.
fn operations<'a>(rows: impl Iterator<Item = &'a Resource>, v3: bool) -> Map<String, Value> {
    let mut paths = Map::new();
    for row in rows {
        let root = match row.group {
            "" => format!("/api/{}", row.version),
            group => format!("/apis/{group}/{}", row.version),
        };
        let place = if row.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{root}{place}/{}", row.name);
        let object = match row.subresource {
            "" => format!("{collection}/{{name}}"),
            sub => format!("{collection}/{{name}}/{sub}"),
        };
        for verb in &row.verbs {
            let (path, method, action) = match *verb {
                "create" if row.subresource.is_empty() => (&collection, "post", "post"),
                "create" => (&object, "post", "connect"),
                "list" => (&collection, "get", "list"),
                "deletecollection" => (&collection, "delete", "deletecollection"),
                "get" => (&object, "get", "get"),
                "update" => (&object, "put", "put"),
                "patch" => (&object, "patch", "patch"),
                "delete" => (&object, "delete", "delete"),
                _ => continue,
            };
            let entry = paths.entry(path.clone()).or_insert_with(|| json!({}));
            entry[method] = operation(row, action, v3);
        }
    }
    paths
}

fn operation(row: &Resource, action: &str, v3: bool) -> Value {
    let (group, version) = row.kind_version.unwrap_or((row.group, row.version));
    let names: &[&str] = match action {
        "post" | "put" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" | "deletecollection" => &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
        _ => &[],
    };
    let parameter = |name: &&str| {
        if v3 {
            json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
        } else {
            json!({"name": name, "in": "query", "type": "string", "uniqueItems": true})
        }
    };
    json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": row.kind},
        "parameters": names.iter().map(parameter).collect::<Vec<_>>(),
        "responses": {"200": {"description": "OK"}},
        "description": format!("{action} {}", row.kind),
        "operationId": format!("{action}{}{}{}{}", row.group.replace('.', ""), row.version, row.name, row.subresource),
        "tags": [],
    })
}
