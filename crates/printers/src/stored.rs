//! Built-in objects as upstream's server keeps them in etcd, where that is not what is served.
//!
//! What is read gets its defaults once more: upstream leaves them out of some values, or lets
//! them depend on fields that were set after defaulting.

use api::registry::Registry;
use api::schema::{Schema, Shape};
use serde_json::{Map, Value, json};

use validation::{items_mut, text};

/// The version that definitions of custom resources are kept in.
const OLD_DEFINITIONS: &str = "apiextensions.k8s.io/v1beta1";
const DEFINITIONS: &str = "apiextensions.k8s.io/v1";
const DEFINITION: &str = "CustomResourceDefinition";
/// Kinds that are the same in the version they are kept in and the one that is served: kept, served,
/// kind (kubernetes `pkg/kubeapiserver/default_storage_factory_builder.go`).
const RENAMED: [(&str, &str, &str); 2] = [
    (OLD_POLICIES, POLICIES, "MutatingAdmissionPolicy"),
    (OLD_POLICIES, POLICIES, "MutatingAdmissionPolicyBinding"),
];
const OLD_POLICIES: &str = "admissionregistration.k8s.io/v1beta1";
const POLICIES: &str = "admissionregistration.k8s.io/v1";
/// What a definition's versions have each, and the old form once for all when they are equal; the
/// names in both (apiextensions `v1/conversion.go`).
const PER_VERSION: [(&str, &str); 4] = [
    ("schema", "validation"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// Turns an object into what is kept of it.
pub fn written(object: &mut Value) {
    if is(object, DEFINITIONS, DEFINITION) {
        old_definition(object);
    }
    let known = RENAMED.iter().find(|(_, served, kind)| is(object, served, kind));
    if let Some((kept, _, _)) = known {
        object["apiVersion"] = (*kept).into();
    }
}

fn is(object: &Value, api_version: &str, kind: &str) -> bool {
    object["kind"] == kind && object["apiVersion"] == api_version
}

/// Turns what was kept into the object.
pub fn read(object: &mut Value) {
    if is(object, OLD_DEFINITIONS, DEFINITION) {
        new_definition(object);
    }
    let known = RENAMED.iter().find(|(kept, _, kind)| is(object, kept, kind));
    if let Some((_, served, _)) = known {
        object["apiVersion"] = (*served).into();
    }
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let Some(row) = Registry::built_in().by_kind(group, version, kind) else { return };
    if let Some(ty) = row.ty {
        Schema::built_in().apply_defaults(&Shape::Struct(ty), object);
    }
    (validation::of(row).default)(object);
}

fn take(map: &mut Map<String, Value>, key: &str) -> Option<Value> {
    map.remove(key).filter(|value| !value.is_null())
}

fn old_definition(object: &mut Value) {
    object["apiVersion"] = OLD_DEFINITIONS.into();
    let Some(spec) = object["spec"].as_object_mut() else { return };
    spec.entry("preserveUnknownFields").or_insert(Value::Bool(false));
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut)
        && let Some(Value::Object(mut webhook)) = conversion.remove("webhook")
    {
        let moved = [("clientConfig", "webhookClientConfig")];
        let same = [("conversionReviewVersions", "conversionReviewVersions")];
        for (new, old) in moved.into_iter().chain(same) {
            conversion.extend(take(&mut webhook, new).map(|value| (old.to_owned(), value)));
        }
    }
    let Some(Value::Array(versions)) = spec.get_mut("versions") else { return };
    versions.iter_mut().for_each(|version| rename_paths(version, "jsonPath", "JSONPath"));
    let Some(first) = versions.first().cloned() else { return };
    let mut shared = vec![("version", first["name"].clone())];
    for (new, old) in PER_VERSION {
        let value = first[new].clone();
        if versions.iter().all(|version| version[new] == value) {
            versions.iter_mut().filter_map(Value::as_object_mut).for_each(|v| drop(v.remove(new)));
            shared.push((old, value));
        }
    }
    let shared = shared.into_iter().filter(|(_, value)| !value.is_null());
    spec.extend(shared.map(|(key, value)| (key.to_owned(), value)));
}

fn new_definition(object: &mut Value) {
    object["apiVersion"] = DEFINITIONS.into();
    let Some(spec) = object["spec"].as_object_mut() else { return };
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        spec.remove("preserveUnknownFields");
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        let config = take(conversion, "webhookClientConfig");
        let versions = take(conversion, "conversionReviewVersions");
        let webhook = [("clientConfig", config), ("conversionReviewVersions", versions)];
        let webhook: Map<String, Value> =
            webhook.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        if !webhook.is_empty() {
            conversion.insert("webhook".into(), webhook.into());
        }
    }
    let only = take(spec, "version");
    if spec.get("versions").is_none_or(Value::is_null)
        && let Some(name) = only
    {
        spec.insert("versions".into(), json!([{"name": name, "served": true, "storage": true}]));
    }
    let shared = PER_VERSION.map(|(new, old)| (new, take(spec, old)));
    for version in items_mut(&mut object["spec"], "versions") {
        for (new, value) in shared.iter().filter_map(|(new, value)| Some((new, value.as_ref()?))) {
            version[*new] = value.clone();
        }
        rename_paths(version, "JSONPath", "jsonPath");
    }
}

/// A column's path has another name in the old form.
fn rename_paths(version: &mut Value, from: &str, to: &str) {
    for column in items_mut(version, "additionalPrinterColumns").filter_map(Value::as_object_mut) {
        if let Some(path) = column.remove(from) {
            column.insert(to.into(), path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use validation::items;

    fn definition(versions: Value) -> Value {
        json!({"apiVersion": DEFINITIONS, "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                "conversion": {"strategy": "Webhook", "webhook": {
                    "clientConfig": {"url": "https://example.com"}, "conversionReviewVersions": ["v1"]}},
                "versions": versions}})
    }

    /// A resource as the table has it.
    fn line(row: &api::registry::Resource) -> String {
        let mut object = json!({"apiVersion": row.api_version(), "kind": row.kind, "spec": {}});
        validation::convert::to_stored(row, &mut object);
        written(&mut object);
        let (kept, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        [&row.qualified(), row.version, &row.prefix, kept, kind].join("\t")
    }

    #[test]
    fn every_resource_is_kept_where_and_in_the_version_that_the_original_keeps_it() {
        let mut expected: Vec<&str> = include_str!("stored.tsv").lines().skip(1).collect();
        let rows = Registry::built_in().rows().iter();
        let stored = rows.filter(|r| !r.prefix.is_empty() && r.subresource.is_empty());
        let mut ours: Vec<String> = stored.map(line).collect();
        ours.sort_unstable();
        expected.sort_unstable();
        assert_eq!(ours, expected);
    }

    #[test]
    fn definitions_are_kept_in_the_old_form_and_come_back() {
        let columns = json!([{"name": "N", "type": "integer", "jsonPath": ".spec.n"}]);
        let version = |name: &str, schema: Value| {
            json!({"name": name, "served": true, "storage": name == "v1", "schema": schema,
                "additionalPrinterColumns": columns})
        };
        let (a, b) =
            (json!({"openAPIV3Schema": {"type": "object"}}), json!({"openAPIV3Schema": {}}));
        let one = definition(json!([version("v1", a.clone())]));
        let two = definition(json!([version("v2", b), version("v1", a.clone())]));
        for sent in [&one, &two] {
            let mut kept = sent.clone();
            written(&mut kept);
            assert_eq!(kept["apiVersion"], OLD_DEFINITIONS);
            assert_eq!(kept["spec"]["preserveUnknownFields"], false);
            assert_eq!(kept["spec"]["additionalPrinterColumns"][0]["JSONPath"], ".spec.n");
            assert_eq!(
                kept["spec"]["conversion"]["webhookClientConfig"]["url"],
                "https://example.com"
            );
            assert!(kept["spec"]["versions"][0].get("additionalPrinterColumns").is_none());
            let mut shown = kept.clone();
            new_definition(&mut shown);
            assert_eq!(&shown, sent);
        }
        let mut kept = one;
        written(&mut kept);
        assert_eq!((&kept["spec"]["version"], &kept["spec"]["validation"]), (&json!("v1"), &a));
        let mut kept = two;
        written(&mut kept);
        assert_eq!(kept["spec"]["version"], "v2");
        assert!(kept["spec"].get("validation").is_none(), "the versions' schemas differ");
        assert_eq!(items(&kept["spec"], "versions").count(), 2);
    }

    #[test]
    fn what_the_original_leaves_out_is_filled_in() {
        let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}});
        read(&mut set);
        let claim = &set["spec"]["volumeClaimTemplates"][0];
        assert_eq!(
            (&claim["apiVersion"], &claim["kind"]),
            (&json!("v1"), &json!("PersistentVolumeClaim"))
        );
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "j"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
        read(&mut job);
        assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
        let mut thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "spec": {}});
        let before = thing.clone();
        read(&mut thing);
        assert_eq!(thing, before);
    }
}
