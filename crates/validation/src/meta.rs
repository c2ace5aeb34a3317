//! The rules of `metadata` that hold for every kind (apimachinery `ValidateObjectMeta`).

use std::collections::HashSet;

use api::names;
use api::registry::Resource;
use serde_json::Value;

use crate::check::At;

/// Bytes of all annotations together (apimachinery `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Finalizers without a domain that upstream knows.
pub(crate) const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Whether finalizers without a domain must be standard ones. Custom resources and the kinds whose
/// metadata upstream validates without the core group's rules may have any.
pub(crate) fn has_strict_finalizers(row: &Resource) -> bool {
    let lax = [
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
    ];
    row.ty.is_some() && !lax.contains(&row.group)
}

/// Of a new object, whose names follow `name`.
pub(crate) fn create(
    meta: &At<'_>,
    namespaced: bool,
    strict_finalizers: bool,
    name: fn(&str) -> Vec<String>,
) {
    let generate = meta.get("generateName");
    if !generate.is_empty() {
        // A prefix may end in what a name may not end in, as the suffix comes after it.
        for fault in name(&masked(generate.text())) {
            generate.invalid(&fault);
        }
    }
    if meta.get("name").is_empty() {
        meta.get("name").required("name or generateName is required");
    } else {
        meta.get("name").named(name);
    }
    if namespaced && meta.get("namespace").is_empty() {
        meta.get("namespace").required("");
    }
    common(meta);
    let list = meta.get("finalizers");
    finalizers(&list);
    if strict_finalizers {
        standard_finalizers(&list);
    }
}

/// Of a changed object that is checked again as if it were new.
pub(crate) fn again(meta: &At<'_>, row: &Resource, name: fn(&str) -> Vec<String>) {
    meta.get("name").named(name);
    common(meta);
    let list = meta.get("finalizers");
    finalizers(&list);
    if has_strict_finalizers(row) {
        standard_finalizers(&list);
    }
}

/// A name without a domain must be one that upstream knows.
fn standard_finalizers(list: &At<'_>) {
    list.items().for_each(|item| standard_finalizer(&item));
}

fn standard_finalizer(at: &At<'_>) {
    let name = at.text();
    let known = name.contains('/') || STANDARD_FINALIZERS.contains(&name);
    if !known {
        at.invalid_text("name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// One finalizer of a namespace.
pub(crate) fn finalizer(at: &At<'_>) {
    at.named(names::qualified_name);
    standard_finalizer(at);
}

/// Of a changed object: what no update may do to it.
pub(crate) fn update(meta: &At<'_>, row: &Resource) {
    if meta.get("deletionTimestamp").old().is_some_and(|t| t.is_string()) {
        no_new_finalizers(&meta.get("finalizers"));
    }
    common(meta);
    if has_strict_finalizers(row) {
        standard_finalizers(&meta.get("finalizers"));
    }
}

/// A name's beginning, with what may stand in for its last dash.
fn masked(prefix: &str) -> String {
    match prefix.strip_suffix('-').filter(|_| prefix.len() > 1) {
        Some(rest) => {
            let mut kept = rest.chars();
            kept.next_back();
            format!("{}a", kept.as_str())
        }
        None => prefix.to_owned(),
    }
}

fn common(meta: &At<'_>) {
    meta.get("labels").labels();
    annotations(&meta.get("annotations"));
    owners(&meta.get("ownerReferences"));
}

/// A map of annotations.
pub fn annotations(at: &At<'_>) {
    let mut total = 0;
    for (key, value) in at.value().as_object().into_iter().flatten() {
        total += key.len() + value.as_str().map_or(0, str::len);
        for fault in names::qualified_name(&key.to_lowercase()) {
            at.invalid_as(&key.as_str().into(), &fault);
        }
    }
    if total > ANNOTATIONS_MAX {
        at.too_long(ANNOTATIONS_MAX);
    }
}

/// Upstream names the list, not the item.
fn owners(at: &At<'_>) {
    let mut controller: Option<String> = None;
    for owner in at.value().as_array().into_iter().flatten() {
        for (key, fault) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if owner[key].as_str().unwrap_or("").is_empty() {
                at.get(key).invalid_as(&"".into(), fault);
            }
        }
        if owner["apiVersion"] == "v1" && owner["kind"] == "Event" {
            at.invalid_as(owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"] == true {
            let text = |key: &str| owner[key].as_str().unwrap_or("").to_owned();
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(first) => at.invalid(&format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}")),
                None => controller = Some(this),
            }
        }
    }
}

/// Keeps each owner once; returns the uids of those that stood there again.
pub fn dedup_owners(object: &mut Value) -> Vec<String> {
    let mut duplicates = Vec::new();
    let mut seen = HashSet::new();
    if let Some(Value::Array(owners)) = object["metadata"].get_mut("ownerReferences") {
        owners.retain(|owner| {
            let is_new = seen.insert(owner.to_string());
            if !is_new {
                duplicates.push(owner["uid"].as_str().unwrap_or("").to_owned());
            }
            is_new
        });
    }
    duplicates
}

fn finalizers(at: &At<'_>) {
    let all = || at.value().as_array().into_iter().flatten();
    for finalizer in all() {
        for fault in names::qualified_name(finalizer.as_str().unwrap_or("")) {
            at.invalid_as(finalizer, &fault);
        }
    }
    if all().any(|f| f == "orphan") && all().any(|f| f == "foregroundDeletion") {
        at.invalid("finalizer orphan and foregroundDeletion cannot be both set");
    }
}

fn no_new_finalizers(at: &At<'_>) {
    let texts = |list: Option<&'_ Value>| -> Vec<String> {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|f| f.as_str().map(str::to_owned)).collect()
    };
    let before: HashSet<String> = texts(at.old()).into_iter().collect();
    let added: Vec<String> =
        texts(Some(at.value())).into_iter().filter(|f| !before.contains(f)).collect();
    if !added.is_empty() {
        at.forbidden(&format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}", added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn owners_are_kept_once() {
        let (a, b) = (json!({"uid": "1", "name": "a"}), json!({"uid": "1", "name": "b"}));
        let mut object = json!({"metadata": {"ownerReferences": [a, b, a]}});
        assert_eq!(super::dedup_owners(&mut object), ["1"]);
        assert_eq!(object["metadata"]["ownerReferences"], json!([a, b]));
    }
}
