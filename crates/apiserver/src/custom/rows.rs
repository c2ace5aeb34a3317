//! Registry rows of custom resources.
//!
//! Rows are handed around as `&'static` like the built-in ones. Equal rows are one row, so what a
//! process keeps of definitions that come and go is bounded by how many different ones there were.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use api::registry::Resource;
use custom::{Definition, Version};

use super::Served;

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

fn fields(paths: &[Box<str>]) -> &'static [&'static str] {
    let paths: Vec<&'static str> = paths.iter().map(|p| text(p)).collect();
    paths.leak()
}

/// Discovery's order.
const VERBS: [&str; 8] =
    ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// The served versions of a definition whose names were accepted, the preferred one first.
pub(super) fn served(definition: Definition) -> Vec<Arc<Served>> {
    let Some(storage) = definition.storage() else { return Vec::new() };
    let storage_version = format!("{}/{}", definition.group, storage.name);
    // Selectors work on the index that is made when an object is stored, so all versions share it.
    let selectable = match storage.selectable.is_empty() {
        true => &[][..],
        false => fields(&storage.selectable),
    };
    let definition = Arc::new(definition);
    let mut order: Vec<usize> = (0..definition.versions.len()).collect();
    order.retain(|at| definition.versions[*at].served);
    order.sort_by_key(|at| std::cmp::Reverse(priority(&definition.versions[*at].name)));
    let make = |at: usize| {
        let version = &definition.versions[at];
        let row = main_row(&definition, version, selectable);
        Arc::new(Served {
            subresources: subresources(version, &row),
            row: kept(row),
            storage: storage_version.clone(),
            defaults: super::gives_defaults(&version.source),
            definition: definition.clone(),
            at,
        })
    };
    order.into_iter().map(make).collect()
}

fn main_row(
    definition: &Definition,
    version: &Version,
    selectable: &'static [&'static str],
) -> Resource {
    let names = &definition.names;
    let words = |list: &[Box<str>]| list.iter().map(|w| text(w)).collect();
    Resource {
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
        selectable,
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

/// Kubernetes' order of versions: `v2`, `v1`, `v1beta2`, `v1beta1`, `v1alpha1`, then others by name.
pub(super) fn priority(version: &str) -> (u8, u32, u32, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..end].parse() else { return other };
    let same = std::cmp::Reverse(String::new());
    let level = |name: &str| rest[end..].strip_prefix(name).and_then(|n| n.parse::<u32>().ok());
    match (rest[end..].is_empty(), level("beta"), level("alpha")) {
        (true, _, _) => (3, major, 0, same),
        (_, Some(minor), _) => (2, major, minor, same),
        (_, _, Some(minor)) => (1, major, minor, same),
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use super::priority;

    #[test]
    fn versions_are_preferred_as_kubernetes_does() {
        let mut versions = ["v1alpha1", "foo", "v1", "v1beta2", "v2beta1", "v10", "v2", "bar"];
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "bar", "foo"]);
    }
}
