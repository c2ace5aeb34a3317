//! Registry rows of custom resources.
//!
//! Rows are handed around as `&'static` like the built-in ones. Equal rows are one row, so what a
//! process keeps of definitions that come and go is bounded by how many different ones there were.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use api::registry::Resource;
use custom::{Definition, Version};
use tokio_util::sync::CancellationToken;

use super::{Conversion, SchemaTraits, Schemas, Served, Source};

static TEXTS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
static ROWS: Mutex<Option<HashSet<&'static Resource>>> = Mutex::new(None);

fn text(text: &str) -> &'static str {
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let texts = texts.get_or_insert_default();
    if let Some(known) = texts.get(text) {
        return known;
    }
    let kept: &'static str = text.to_owned().leak();
    texts.insert(kept);
    kept
}

fn kept(row: Resource) -> &'static Resource {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = rows.get_or_insert_default();
    if let Some(known) = rows.get(&row) {
        return known;
    }
    let row: &'static Resource = Box::leak(Box::new(row));
    rows.insert(row);
    row
}

static FIELDS: Mutex<Option<HashSet<&'static [&'static str]>>> = Mutex::new(None);

fn fields(paths: &[Box<str>]) -> &'static [&'static str] {
    let paths: Vec<&'static str> = paths.iter().map(|p| text(p)).collect();
    let mut fields = FIELDS.lock().unwrap_or_else(PoisonError::into_inner);
    let fields = fields.get_or_insert_default();
    if let Some(known) = fields.get(paths.as_slice()) {
        return known;
    }
    let kept: &'static [&'static str] = paths.leak();
    fields.insert(kept);
    kept
}

/// Discovery's order.
const VERBS: [&str; 8] =
    ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// The served versions of a definition whose names were accepted, the preferred one first.
pub fn served(
    definition: Definition,
    conversion: &Conversion,
    source: Source,
    (schemas, traits): (Schemas, SchemaTraits),
) -> Vec<Arc<Served>> {
    let Some(storage) = definition.storage() else { return Vec::new() };
    let storage_version = format!("{}/{}", definition.group, storage.name);
    let stored_fields = fields(&storage.selectable);
    let versions = &definition.versions;
    // The index that is made when an object is stored serves all versions that ask for the same.
    let rebuilt = matches!(conversion, Conversion::Webhook(_))
        || versions.iter().any(|v| v.selectable != storage.selectable);
    let (definition, source, schemas) = (Arc::new(definition), Arc::new(source), Arc::new(schemas));
    let retired = CancellationToken::new();
    let mut order: Vec<usize> = (0..definition.versions.len()).collect();
    order.retain(|at| definition.versions[*at].served);
    order.sort_by_key(|at| std::cmp::Reverse(custom::priority(&definition.versions[*at].name)));
    let make = |at: usize| {
        let version = &definition.versions[at];
        let row = main_row(&definition, version);
        Arc::new(Served {
            subresources: subresources(version, &row),
            row: kept(row),
            storage: storage_version.clone(),
            stored_fields,
            conversion: conversion.clone(),
            defaults: traits.defaults,
            alike: traits.alike,
            rebuilt,
            seen: Default::default(),
            source: source.clone(),
            retired: retired.clone(),
            definition: definition.clone(),
            schemas: schemas.clone(),
            at,
        })
    };
    order.into_iter().map(make).collect()
}

fn main_row(definition: &Definition, version: &Version) -> Resource {
    let names = &definition.names;
    let words = |list: &[Box<str>]| list.iter().map(|w| text(w)).collect();
    Resource {
        legacy: None,
        group: text(&definition.group),
        version: text(&version.name),
        name: text(&names.plural),
        subresource: "",
        singular: text(&names.singular),
        kind: text(&names.kind),
        list_kind: text(&names.list_kind),
        kind_version: None,
        namespaced: definition.namespaced,
        short_names: words(&names.short),
        categories: words(&names.categories),
        verbs: VERBS.to_vec(),
        ty: None,
        prefix: format!("/registry/{}/{}/", definition.group, names.plural),
        selectable: fields(&version.selectable),
        indexed: None,
        generation: true,
    }
}

fn subresources(version: &Version, main: &Resource) -> Vec<&'static Resource> {
    let below = |name: &'static str| Resource {
        subresource: name,
        singular: "",
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: SUBRESOURCE_VERBS.to_vec(),
        ..main.clone()
    };
    let status = version.has_status.then(|| below("status"));
    let scale = version.scale.is_some().then(|| Resource {
        kind: "Scale",
        list_kind: "ScaleList",
        kind_version: Some(("autoscaling", "v1")),
        ty: api::schema::Schema::built_in().find("autoscaling.v1.Scale"),
        ..below("scale")
    });
    status.into_iter().chain(scale).map(kept).collect()
}
