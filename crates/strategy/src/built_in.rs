//! Built-in resources as strategies: schema, rules (crate `validation`), hooks and printers of a kind,
//! found once.

use std::collections::HashMap;
use std::sync::Arc;

use api::apply::Filter;
use api::registry::{Registry, Resource};
use api::schema::{Schema, Shape};
use api::status::Cause;
use api::{Draft, Object, Status};
use bytes::Bytes;
use serde_json::Value;
use validation::convert;

use super::hooks::{self, Check, Hooks};
use super::{BoxFuture, ResourceStrategy, ScalePaths, Types, reset_fields};
use crate::columns;
use crate::decode::{self, Found, Input};

const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml, application/apply-patch+cbor";
/// Groups whose objects upstream keeps as the JSON that was sent.
const KEPT_AS_JSON: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// One built-in resource.
#[derive(Debug)]
pub struct BuiltIn {
    row: &'static Resource,
    shape: Shape,
    schema: &'static Schema,
    hooks: Hooks,
    rules: &'static validation::Kind,
    has_status: bool,
    is_converted: bool,
    /// Groups and versions in which the kind is served.
    versions: Vec<String>,
}

/// The strategies of all built-in resources.
#[derive(Debug)]
pub struct BuiltIns {
    by_path: HashMap<(&'static str, &'static str, &'static str), Arc<BuiltIn>>,
}

impl BuiltIns {
    /// Those of a registry, with checks that are made elsewhere.
    pub fn of(registry: &'static Registry, checks: &[Check]) -> BuiltIns {
        let rows = registry.rows().iter().chain(registry.legacy());
        let main = rows.map(|row| {
            // Reviews and bindings are subresources of nothing, or resources of their own.
            let main = registry.find(row.group, row.version, row.name, "").unwrap_or(row);
            ((row.group, row.version, row.name), Arc::new(BuiltIn::new(registry, main, checks)))
        });
        BuiltIns { by_path: main.collect() }
    }

    /// The strategy of a row of the registry, which its subresources share.
    pub fn of_row(&self, row: &Resource) -> Arc<BuiltIn> {
        self.by_path[&(row.group, row.version, row.name)].clone()
    }
}

impl BuiltIn {
    fn new(registry: &Registry, row: &'static Resource, checks: &[Check]) -> BuiltIn {
        let same_kind = registry
            .rows()
            .iter()
            .chain(registry.legacy())
            .filter(|other| other.subresource.is_empty() && other.kind == row.kind);
        BuiltIn {
            row,
            shape: row.ty.map_or(Shape::Any, Shape::Struct),
            schema: Schema::built_in(),
            hooks: hooks::of(row, checks),
            rules: validation::of(row),
            has_status: registry.find(row.group, row.version, row.name, "status").is_some(),
            is_converted: convert::is_converted(row),
            versions: same_kind.map(Resource::api_version).collect(),
        }
    }

    fn tree(&self, object: &Object) -> Value {
        let mut tree = object.to_value();
        convert::to_shown(self.row, &mut tree);
        tree
    }
}

impl ResourceStrategy for BuiltIn {
    fn resource(&self) -> &'static Resource {
        self.row
    }

    fn types(&self) -> Types {
        Types::BuiltIn(self.schema, self.shape.clone())
    }

    fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    fn deprecation(&self, row: &Resource) -> Option<String> {
        validation::deprecation(row)
    }

    fn decode(&self, row: &'static Resource, input: Input<'_>) -> Result<Found, Status> {
        decode::typed(row, input)
    }

    fn patch_types(&self) -> &'static str {
        PATCHES
    }

    fn takes_strategic_merge(&self) -> bool {
        true
    }

    /// Of a version of the past: what was assumed then, and what is assumed today of what follows from it.
    fn default(&self, _: &Resource, object: &mut Value) -> Result<(), Status> {
        let legacy = self.row.legacy.as_ref();
        if let Some(legacy) = legacy {
            validation::legacy::default(self.row, object);
            self.schema.apply_defaults(&self.shape, object);
            convert::to_stored(self.row, object);
            let shape = legacy.current.ty.map_or(Shape::Any, Shape::Struct);
            self.schema.apply_defaults(&shape, object);
        } else {
            self.schema.apply_defaults(&self.shape, object);
        }
        (self.rules.default)(object);
        if legacy.is_some() {
            convert::to_shown(self.row, object);
        }
        Ok(())
    }

    fn drop_disabled(&self, row: &Resource, object: &mut Value, old: Option<&Value>) {
        validation::drop_disabled(row, object, old);
    }

    /// Objects are stored without telling empty lists from none.
    fn canonicalize(&self, object: &mut Value) {
        if !KEPT_AS_JSON.contains(&self.row.group) {
            self.schema.settle(&self.shape, object);
        }
    }

    fn has_status(&self) -> bool {
        self.has_status
    }

    fn reset_fields(&self, row: &Resource) -> Filter {
        reset_fields::of(row, self.has_status, self.hooks.status_keeps_metadata)
    }

    fn validate(&self, row: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = match old {
            Some(old) => validation::validate_update(row, object, old),
            None => validation::validate_create(row, object),
        };
        let check = validation::Check::default();
        (self.hooks.validate)(&check.root(object, old));
        causes.extend(check.into_causes());
        causes
    }

    fn warnings(&self, row: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
        validation::warnings(row, object, old)
    }

    fn scale_paths(&self) -> ScalePaths {
        let path = |path: &str| path.to_owned();
        ScalePaths {
            spec_replicas: path("spec.replicas"),
            status_replicas: path("status.replicas"),
            selector: None,
        }
    }

    fn folds_managers(&self) -> bool {
        !self.is_converted && self.row.legacy.is_none()
    }

    fn serves(&self, api_version: &str) -> bool {
        self.versions.iter().any(|version| version == api_version)
    }

    fn read<'s>(&'s self, object: &'s Object) -> BoxFuture<'s, Result<Value, Status>> {
        Box::pin(std::future::ready(Ok(self.tree(object))))
    }

    fn read_folded<'s>(&'s self, object: &'s Object) -> BoxFuture<'s, Result<Value, Status>> {
        let tree = match self.folds_managers() {
            true => object.to_folded_value(),
            false => self.tree(object),
        };
        Box::pin(std::future::ready(Ok(tree)))
    }

    fn draft<'s>(&'s self, object: &'s Value) -> BoxFuture<'s, Result<Draft, Status>> {
        let draft = match self.is_converted {
            false => Draft::new(object, self.row.selectable),
            true => {
                let mut object = object.clone();
                convert::to_stored(self.row, &mut object);
                Draft::new(&object, self.row.selectable)
            }
        };
        Box::pin(std::future::ready(Ok(draft)))
    }

    fn is_converted(&self) -> bool {
        self.is_converted
    }

    fn json(&self, object: &Object) -> Bytes {
        match self.is_converted {
            true => Bytes::from(self.tree(object).to_string()),
            false => object.json().clone(),
        }
    }

    fn show(&self, object: &mut Value) {
        convert::to_shown(self.row, object);
    }

    fn has_typed_items(&self) -> bool {
        false
    }

    fn unknown_field(&self, field: &str) -> Status {
        Status::bad_request(match self.row.selectable.is_empty() {
            true => format!(
                "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            ),
            false => format!("field label not supported: {field}"),
        })
    }

    fn columns(&self, row: &Resource) -> Vec<Value> {
        printers::printer(row.current()).columns.iter().map(columns::column).collect()
    }

    fn cells(&self, row: &Resource, object: &Value) -> (Vec<Value>, Option<Value>) {
        let shown;
        let object = match row.legacy {
            None => object,
            Some(_) => {
                let mut current = object.clone();
                convert::to_stored(row, &mut current);
                shown = current;
                &shown
            }
        };
        let row = row.current();
        ((printers::printer(row).cells)(object), printers::row_conditions(row, object))
    }
}
