//! OpenAPI v3 (one document a group version) and v2, generated from schema and registry when
//! asked for.
//!
//! Descriptions come from `api::prose`. Documents are made on demand and shared for a while
//! (`documents`): a client asks once and caches by the hash in the index. Version 2 is version 3 put
//! into its older form.

mod custom;
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
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Map, Value, json};

use crate::custom::Served;
use crate::openapi_merge;
use crate::parts::Parts;
use crate::query::Query;
use crate::respond::{self, Body};
pub(crate) use crate::type_names::full_name;
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
fn roots(server: &Parts) -> Vec<Root> {
    let rows = server.resources.rows();
    let groups: BTreeSet<&str> = rows.iter().map(|r| r.group).filter(|g| !g.is_empty()).collect();
    roots::all(groups.into_iter())
}

/// A document's entity tag; the empty path is version 2's.
async fn tag(server: &Parts, path: &str) -> Result<String, Status> {
    let installed = server.resources.customs.installed();
    let make = || Ok(digest(server, path).into());
    let name = format!("tag {path} {}", published_tag(server, path));
    let tag = server.documents.get(&installed, &name, make).await?;
    Ok(String::from_utf8_lossy(&tag).into_owned())
}

/// Changes when what extension servers add to a document does: to that of version 2.
fn published_tag(server: &Parts, path: &str) -> String {
    if !path.is_empty() {
        return String::new();
    }
    let all = server.aggregator.published();
    all.iter().map(|(prefix, published)| format!("{prefix} {}\n", published.tag)).collect()
}

/// Changes when a document does.
fn digest(server: &Parts, path: &str) -> String {
    // Built-in documents change with their sources only (`build.rs`).
    let installed = server.resources.customs.installed();
    let here = |served: &&Arc<Served>| path.is_empty() || path_of(served.row) == path;
    let mut text = format!("{path} {}", env!("OPENAPI_SOURCES"));
    text += &published_tag(server, path);
    for served in installed.all().iter().filter(here) {
        text += &format!("\n{} {} {}", served.row.name, served.row.kind, served.schema_tag());
    }
    pki::sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect()
}

fn url(server: &Parts, path: &str) -> String {
    format!("/openapi/v3/{path}?hash={}", digest(server, path))
}

/// `GET /openapi/v3`.
pub(crate) async fn v3_index(server: &Parts) -> Result<Response<Body>, Status> {
    let make = || Ok(index(server).to_string().into());
    let installed = server.resources.customs.installed();
    let mut index = server.documents.get(&installed, "openapi/v3", make).await?;
    let extensions = server.aggregator.served();
    if !extensions.is_empty() {
        let tree: Result<Value, _> = serde_json::from_slice(&index);
        let mut tree = tree.map_err(|e| Status::internal(e.to_string()))?;
        extensions.add_open_api(&mut tree);
        index = tree.to_string().into();
    }
    Ok(respond::shared(200, "application/json", index))
}

fn index(server: &Parts) -> Value {
    let mut paths: BTreeSet<String> = server.resources.rows().into_iter().map(path_of).collect();
    paths.extend(roots(server).into_iter().map(|root| root.document));
    let entries = paths.into_iter().map(|path| {
        let url = url(server, &path);
        (path, json!({"serverRelativeURL": url}))
    });
    json!({"paths": entries.collect::<Map<String, Value>>()})
}

/// The answer to who has the present document already.
fn unchanged(headers: &HeaderMap, tag: &str) -> Option<Response<Body>> {
    let known = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    let is_known = known.split(',').any(|one| one.trim().trim_matches('"') == tag);
    is_known.then(|| respond::with_code(304))
}

fn tagged(mut response: Response<Body>, tag: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// `GET /openapi/v3/<path>`. Who names the document's hash may keep it for ever; who names another
/// is sent to the present one.
pub(crate) async fn v3(
    server: &Parts,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, Status> {
    if !is_served(server, path) {
        return Err(Status::no_such_path());
    }
    let tag = tag(server, path).await?;
    let hash = query.get("hash").filter(|hash| !hash.is_empty());
    let mut response = match unchanged(headers, &tag) {
        Some(response) => response,
        None => v3_document(server, path).await?,
    };
    match hash {
        Some(hash) if hash != tag => {
            response = respond::with_code(301);
            let place = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={tag}"));
            response.headers_mut().extend(place.ok().map(|place| (header::LOCATION, place)));
        }
        Some(_) => {
            let forever = HeaderValue::from_static("public, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, forever);
        }
        None => {}
    }
    Ok(tagged(response, &tag))
}

fn is_served(server: &Parts, path: &str) -> bool {
    roots(server).iter().any(|root| root.document == path)
        || server.resources.rows().into_iter().any(|row| path_of(row) == path)
}

async fn v3_document(server: &Parts, path: &str) -> Result<Response<Body>, Status> {
    let installed = server.resources.customs.installed();
    let make = || v3_text(server, path).map(Bytes::from);
    let document = server.documents.get(&installed, &format!("openapi/v3/{path}"), make).await?;
    Ok(respond::shared(200, "application/json", document))
}

fn v3_text(server: &Parts, path: &str) -> Result<String, Status> {
    let mut document = Document::new(server, true);
    if let Some(root) = roots(server).iter().find(|root| root.document == path) {
        root.add(&mut document.paths);
    } else {
        let rows: Vec<&Resource> =
            server.resources.rows().into_iter().filter(|row| path_of(row) == path).collect();
        let first = rows.first().ok_or_else(Status::no_such_path)?;
        roots::of_version(path, first.group, first.version).add(&mut document.paths);
        document.add_rows(&rows);
    }
    Ok(document.finish().to_string())
}

/// The media type of the document in protobuf, in the two spellings that clients use.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// `GET /openapi/v2`, as JSON or protobuf.
pub(crate) async fn v2(server: &Parts, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let types: Vec<&str> = accept.split(',').map(crate::decode::media_type).collect();
    // Answered in the second spelling: the first is no media type by RFC 2045.
    let binary = PROTOBUF.iter().any(|kind| types.contains(kind)).then_some(PROTOBUF[1]);
    let json_asked = accept.is_empty()
        || types.iter().any(|t| matches!(*t, "application/json" | "application/*" | "*/*"));
    if binary.is_none() && !json_asked {
        return Err(Status::not_acceptable("application/json"));
    }
    let tag = tag(server, "").await?;
    if let Some(response) = unchanged(headers, &tag) {
        return Ok(tagged(response, &tag));
    }
    let installed = server.resources.customs.installed();
    let response = match binary {
        Some(kind) => {
            let make = || Ok(proto::document(&v2_document(server)).into());
            let name = format!("openapi/v2 protobuf {tag}");
            let document = server.documents.get(&installed, &name, make).await?;
            respond::shared(200, kind, document)
        }
        None => {
            let make = || Ok(v2_document(server).to_string().into());
            let name = format!("openapi/v2 {tag}");
            let document = server.documents.get(&installed, &name, make).await?;
            respond::shared(200, "application/json", document)
        }
    };
    Ok(tagged(response, &tag))
}

fn v2_document(server: &Parts) -> Value {
    let mut document = Document::new(server, false);
    for root in roots(server) {
        root.add(&mut document.paths);
    }
    let rows = server.resources.rows();
    for row in &rows {
        roots::of_version(&path_of(row), row.group, row.version).add(&mut document.paths);
    }
    document.add_rows(&rows);
    let own = document.customs.iter().map(|served| custom::name(served)).collect();
    let mut document = swagger::of(document.finish(), &own);
    for (_, published) in server.aggregator.published() {
        openapi_merge::add(
            &mut document,
            serde_json::from_slice(&published.json).unwrap_or_default(),
        );
    }
    document
}

/// A document being made.
struct Document<'a> {
    server: &'a Parts,
    v3: bool,
    paths: Map<String, Value>,
    rows: Vec<Resource>,
    customs: Vec<Arc<Served>>,
}

impl Document<'_> {
    fn new(server: &Parts, v3: bool) -> Document<'_> {
        Document { server, v3, paths: Map::new(), rows: Vec::new(), customs: Vec::new() }
    }

    fn add_rows(&mut self, rows: &[&Resource]) {
        let installed = self.server.resources.customs.installed();
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
            (Some(ty), _) => full_name(&self.server.resources.schema.get(ty).name),
            (None, Some(served)) => custom::name(served),
            (None, None) => String::new(),
        }
    }

    fn finish(mut self) -> Value {
        operations::share_parameters(&mut self.paths);
        let versions: BTreeSet<(String, String)> =
            self.rows.iter().map(|row| (row.group.into(), row.version.into())).collect();
        let mut schemas =
            Schemas::new(self.server.resources.schema, versions.into_iter().collect());
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
