//! OpenAPI v3 (one document a group version) and v2, generated from schema and registry when
//! asked for.
//!
//! Descriptions come from `api::prose`. Version 2 is version 3 put into its older form.

mod custom;
mod merge;
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
use api::schema::Schema;
use extensions::{Installed, Served};
use serde_json::{Map, Value, json};
use strategy::type_names::full_name;

pub use merge::{add as merge, below};
use operations::Subject;
use roots::Root;
use schemas::Schemas;

/// The documents describe these resources.
pub struct Sources {
    rows: Vec<&'static Resource>,
    installed: Arc<Installed>,
    schema: &'static Schema,
}

impl Sources {
    pub fn new(rows: Vec<&'static Resource>, installed: Arc<Installed>) -> Sources {
        Sources { rows, installed, schema: Schema::built_in() }
    }

    /// The definitions among them.
    pub fn installed(&self) -> &Arc<Installed> {
        &self.installed
    }

    /// Documents of paths that are no resources.
    fn roots(&self) -> Vec<Root> {
        let groups: BTreeSet<&str> =
            self.rows.iter().map(|r| r.group).filter(|g| !g.is_empty()).collect();
        roots::all(groups.into_iter())
    }

    /// Changes when a document does, or what others add to it (`added`). The empty path is version 2's.
    pub fn digest(&self, path: &str, added: &str) -> String {
        // Built-in documents change with their sources only (`build.rs`).
        let here = |served: &&Arc<Served>| path.is_empty() || path_of(served.row) == path;
        let mut text = format!("{path} {}", env!("OPENAPI_SOURCES"));
        text += added;
        for served in self.installed.all().iter().filter(here) {
            text += &format!("\n{} {} {}", served.row.name, served.row.kind, served.schema_tag());
        }
        pki::sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// The answer to `GET /openapi/v3`.
    pub fn index(&self) -> Value {
        let mut paths: BTreeSet<String> = self.rows.iter().map(|row| path_of(row)).collect();
        paths.extend(self.roots().into_iter().map(|root| root.document));
        let entries = paths.into_iter().map(|path| {
            let url = format!("/openapi/v3/{path}?hash={}", self.digest(&path, ""));
            (path, json!({"serverRelativeURL": url}))
        });
        json!({"paths": entries.collect::<Map<String, Value>>()})
    }

    /// Whether there is a document of version 3 at this path.
    pub fn serves(&self, path: &str) -> bool {
        self.roots().iter().any(|root| root.document == path)
            || self.rows.iter().any(|row| path_of(row) == path)
    }

    /// The document of version 3 at a path below `/openapi/v3`; not found where there is none.
    pub fn v3(&self, path: &str) -> Result<Value, Status> {
        let mut document = Document::new(self, true);
        if let Some(root) = self.roots().iter().find(|root| root.document == path) {
            root.add(&mut document.paths);
        } else {
            let rows: Vec<&Resource> =
                self.rows.iter().copied().filter(|row| path_of(row) == path).collect();
            let first = rows.first().ok_or_else(Status::no_such_path)?;
            roots::of_version(path, first.group, first.version).add(&mut document.paths);
            document.add_rows(&rows);
        }
        Ok(document.finish())
    }

    /// The document of version 2.
    pub fn v2(&self) -> Value {
        let mut document = Document::new(self, false);
        for root in self.roots() {
            root.add(&mut document.paths);
        }
        for row in &self.rows {
            roots::of_version(&path_of(row), row.group, row.version).add(&mut document.paths);
        }
        document.add_rows(&self.rows);
        let own = document.customs.iter().map(|served| custom::name(served)).collect();
        swagger::of(document.finish(), &own)
    }
}

/// A document of version 2 as protobuf (`openapiv2.proto` of gnostic).
pub fn protobuf(document: &Value) -> Vec<u8> {
    proto::document(document)
}

/// `api/v1`, `apis/apps/v1`: where a group version's document is.
fn path_of(row: &Resource) -> String {
    match row.group {
        "" => format!("api/{}", row.version),
        group => format!("apis/{group}/{}", row.version),
    }
}

/// A document being made.
struct Document<'a> {
    sources: &'a Sources,
    v3: bool,
    paths: Map<String, Value>,
    rows: Vec<Resource>,
    customs: Vec<Arc<Served>>,
}

impl Document<'_> {
    fn new(sources: &Sources, v3: bool) -> Document<'_> {
        Document { sources, v3, paths: Map::new(), rows: Vec::new(), customs: Vec::new() }
    }

    fn add_rows(&mut self, rows: &[&Resource]) {
        let installed = &self.sources.installed;
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
            (Some(ty), _) => full_name(&self.sources.schema.get(ty).name),
            (None, Some(served)) => custom::name(served),
            (None, None) => String::new(),
        }
    }

    fn finish(mut self) -> Value {
        operations::share_parameters(&mut self.paths);
        let versions: BTreeSet<(String, String)> =
            self.rows.iter().map(|row| (row.group.into(), row.version.into())).collect();
        let mut schemas = Schemas::new(self.sources.schema, versions.into_iter().collect());
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
