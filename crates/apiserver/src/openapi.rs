//! OpenAPI v3 (one document a group version) and v2, generated from schema and registry when
//! asked for.
//!
//! Descriptions come from `api::prose`. Documents are made on demand and not kept: a client asks
//! once and caches by the hash in the index. Version 2 is version 3 put into its older form.

mod custom;
mod names;
mod operations;
mod parameters;
mod proto;
mod roots;
mod schemas;
mod swagger;

use std::collections::BTreeSet;
use std::sync::Arc;

use api::Status;
use api::registry::Resource;
use http::Response;
use serde_json::{Map, Value, json};

use crate::custom::Served;
use crate::respond::{self, Body};
use crate::server::Inner;
pub(crate) use names::full_name;
use operations::Subject;
use roots::Root;
use schemas::Schemas;

/// `api/v1`, `apis/apps/v1`: where a group version's document is.
fn path_of(row: &Resource) -> String {
    match row.group {
        "" => format!("api/{}", row.version),
        group => format!("apis/{group}/{}", row.version),
    }
}

/// Documents of what is no resource.
fn roots(server: &Inner) -> Vec<Root> {
    let rows = server.rows();
    let groups: BTreeSet<&str> = rows.iter().map(|r| r.group).filter(|g| !g.is_empty()).collect();
    roots::all(groups.into_iter())
}

/// Custom resources whose document this is.
fn custom_of(server: &Inner, path: &str) -> Vec<Arc<Served>> {
    let installed = server.customs.installed();
    installed.all().iter().filter(|served| path_of(served.row) == path).cloned().collect()
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
    let mut paths: BTreeSet<String> = server.rows().into_iter().map(path_of).collect();
    paths.extend(roots(server).into_iter().map(|root| root.document));
    let entries = paths.into_iter().map(|path| {
        let url = format!("/openapi/v3/{path}?hash={}", hash(&path));
        (path, json!({"serverRelativeURL": url}))
    });
    json!({"paths": entries.collect::<Map<String, Value>>()})
}

/// `GET /openapi/v3/<path>`.
pub(crate) fn v3(server: &Inner, path: &str) -> Result<Response<Body>, Status> {
    let mut document = Document::new(server, true);
    if let Some(root) = roots(server).iter().find(|root| root.document == path) {
        root.add(&mut document.paths);
    } else {
        let rows: Vec<&Resource> =
            server.rows().into_iter().filter(|row| path_of(row) == path).collect();
        let first = rows.first().ok_or_else(Status::no_such_path)?;
        roots::of_version(path, first.group, first.version).add(&mut document.paths);
        document.add_rows(&rows);
    }
    Ok(respond::json_bytes(200, document.finish().to_string()))
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
    let mut document = Document::new(server, false);
    for root in roots(server) {
        root.add(&mut document.paths);
    }
    let rows = server.rows();
    for row in &rows {
        roots::of_version(&path_of(row), row.group, row.version).add(&mut document.paths);
    }
    document.add_rows(&rows);
    let value = swagger::of(document.finish());
    if let Some(kind) = binary {
        return Ok(respond::with_type(200, kind, proto::document(&value)));
    }
    Ok(respond::json_bytes(200, value.to_string()))
}

/// A document being made.
struct Document<'a> {
    server: &'a Inner,
    v3: bool,
    paths: Map<String, Value>,
    rows: Vec<Resource>,
    customs: Vec<Arc<Served>>,
}

impl Document<'_> {
    fn new(server: &Inner, v3: bool) -> Document<'_> {
        Document { server, v3, paths: Map::new(), rows: Vec::new(), customs: Vec::new() }
    }

    fn add_rows(&mut self, rows: &[&Resource]) {
        let installed = self.server.customs.installed();
        for row in rows {
            let same = |other: &Resource| {
                (other.group, other.version, other.name) == (row.group, row.version, row.name)
            };
            let custom = installed.all().iter().find(|served| same(served.row));
            let main = rows.iter().find(|main| same(main) && main.subresource.is_empty());
            let subject = Subject {
                row,
                kind: main.map_or(row.kind, |main| main.kind),
                model: self.model(row, custom),
                custom: custom.is_some(),
            };
            operations::add(&subject, &mut self.paths);
            if let Some(served) = custom.filter(|_| row.subresource.is_empty()) {
                self.customs.push(served.clone());
            }
        }
        self.rows.extend(rows.iter().map(|row| (*row).clone()));
    }

    /// The schema of a row's objects.
    fn model(&self, row: &Resource, custom: Option<&Arc<Served>>) -> String {
        match (row.ty, custom) {
            (Some(ty), _) => full_name(&self.server.schema.get(ty).name),
            (None, Some(served)) => custom::name(served),
            (None, None) => String::new(),
        }
    }

    fn finish(mut self) -> Value {
        operations::share_parameters(&mut self.paths);
        let versions: BTreeSet<(String, String)> =
            self.rows.iter().map(|row| (row.group.into(), row.version.into())).collect();
        let mut schemas = Schemas::new(self.server.schema, versions.into_iter().collect());
        for served in &self.customs {
            custom::add(served, self.v3, &mut schemas.found);
        }
        let paths = Value::Object(self.paths);
        schemas.add_references(&paths);
        for own in schemas.found.clone().values() {
            schemas.add_references(own);
        }
        let mut components = json!({"securitySchemes": {"BearerToken": {
            "type": "apiKey", "description": "Bearer Token authentication",
            "name": "authorization", "in": "header",
        }}});
        if !schemas.found.is_empty() {
            components["schemas"] = schemas.found.into();
        }
        json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "1.36"},
            "paths": paths,
            "components": components,
        })
    }
}
