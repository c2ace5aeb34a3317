//! Documents of version 2 of several servers as one (kube-openapi `aggregator`). Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// The kinds that a definition is of. Two servers may serve the same type as different kinds.
const KINDS: &str = "x-kubernetes-group-version-kind";

/// The paths of a document below `prefix`, with what they need. Definitions that nothing ever named stay.
pub fn below(document: &Value, prefix: &str) -> Value {
    keep(document, |path| path.starts_with(prefix))
}

fn keep(document: &Value, is_kept: impl Fn(&str) -> bool) -> Value {
    let named = used(document);
    let mut kept = json!({"paths": {}, "parameters": document["parameters"].clone()});
    let paths = document["paths"].as_object().into_iter().flatten();
    let paths: Map<String, Value> = paths
        .filter(|(path, _)| is_kept(path))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    kept["paths"] = paths.into();
    // What definitions name is used, whether or not a path leads there, as in upstream.
    kept["definitions"] = document["definitions"].clone();
    let still = used(&kept);
    if let Some(definitions) = kept["definitions"].as_object_mut() {
        definitions.retain(|name, _| still.contains(name) || !named.contains(name));
    }
    kept
}

/// The definitions that something of the document names.
fn used(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // A definition is used if a path leads to it, perhaps by way of others.
    let mut open: Vec<String> = Vec::new();
    for part in ["paths", "parameters"] {
        references(&document[part], &mut |name| open.push(name.to_owned()));
    }
    while let Some(name) = open.pop() {
        if found.insert(name.clone()) {
            references(&document["definitions"][&name], &mut |name| open.push(name.to_owned()));
        }
    }
    found
}

const DEFINITION: &str = "#/definitions/";
const PARAMETER: &str = "#/parameters/";

fn references(value: &Value, tell: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str)
                && let Some(name) = name.strip_prefix(DEFINITION)
            {
                tell(name);
            }
            map.values().for_each(|below| references(below, tell));
        }
        Value::Array(list) => list.iter().for_each(|below| references(below, tell)),
        _ => {}
    }
}

/// Adds what another server publishes. A path that is there already stays; definitions and parameters of the same
/// name that differ get other names.
pub fn add(document: &mut Value, other: Value) {
    let is_new = |path: &str| document["paths"].get(path).is_none();
    let mut other = match other["paths"].as_object() {
        Some(paths) if paths.keys().all(|path| is_new(path)) => other,
        _ => keep(&other, is_new),
    };
    if other["paths"].as_object().is_none_or(Map::is_empty) {
        return;
    }
    for (part, prefix) in [("definitions", DEFINITION), ("parameters", PARAMETER)] {
        let names = renames(&document[part], &other[part]);
        if names.is_empty() {
            continue;
        }
        if let Some(own) = other[part].as_object_mut() {
            let named = std::mem::take(own).into_iter();
            own.extend(
                named.map(|(name, value)| (names.get(&name).cloned().unwrap_or(name), value)),
            );
        }
        rename(&mut other, prefix, &names);
    }
    for part in ["paths", "definitions", "parameters"] {
        let Some(more) = other[part].as_object_mut() else { continue };
        let more = std::mem::take(more);
        if !more.is_empty() && !document[part].is_object() {
            document[part] = json!({});
        }
        let Some(map) = document[part].as_object_mut() else { continue };
        for (name, value) in more {
            match map.get_mut(&name) {
                Some(present) => add_kinds(present, &value),
                None => drop(map.insert(name, value)),
            }
        }
    }
}

/// New names for what is there under the same name and is something else.
fn renames(present: &Value, more: &Value) -> BTreeMap<String, String> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut given: BTreeSet<String> = BTreeSet::new();
    for (name, value) in more.as_object().into_iter().flatten() {
        let is_other = |known: &Value| without_kinds(known) != without_kinds(value);
        if !present.get(name).is_some_and(is_other) {
            continue;
        }
        let candidates = (2..).map(|number| format!("{name}_v{number}"));
        let is_usable = |candidate: &String| match present.get(candidate) {
            Some(known) => !is_other(known),
            None => more.get(candidate).is_none() && !given.contains(candidate),
        };
        let mut candidates = candidates.filter(is_usable);
        if let Some(new) = candidates.next() {
            given.insert(new.clone());
            names.insert(name.clone(), new);
        }
    }
    names
}

fn without_kinds(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.remove(KINDS);
    }
    value
}

fn rename(value: &mut Value, prefix: &str, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(new) = reference.strip_prefix(prefix).and_then(|name| names.get(name))
            {
                *reference = format!("{prefix}{new}");
            }
            map.values_mut().for_each(|below| rename(below, prefix, names));
        }
        Value::Array(list) => list.iter_mut().for_each(|below| rename(below, prefix, names)),
        _ => {}
    }
}

fn add_kinds(present: &mut Value, more: &Value) {
    let Some(kinds) = more[KINDS].as_array().filter(|kinds| !kinds.is_empty()) else { return };
    let Some(map) = present.as_object_mut() else { return };
    let known = map.entry(KINDS).or_insert_with(|| json!([]));
    if let Some(known) = known.as_array_mut() {
        let new: Vec<Value> = kinds.iter().filter(|kind| !known.contains(kind)).cloned().collect();
        known.extend(new);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{add, below};

    fn reference(name: &str) -> Value {
        json!({"$ref": format!("#/definitions/{name}")})
    }

    fn path(name: &str) -> Value {
        json!({"get": {"responses": {"200": {"schema": reference(name)}}}})
    }

    fn own() -> Value {
        json!({"swagger": "2.0", "paths": {"/api/v1/pods": path("Pod")}, "definitions": {
            "Pod": {"type": "object", "properties": {"metadata": reference("Meta")},
                "x-kubernetes-group-version-kind": [{"kind": "Pod"}]},
            "Meta": {"type": "object"},
        }})
    }

    #[test]
    fn what_is_not_below_the_prefix_goes_with_what_only_it_needs() {
        let document = json!({
            "paths": {"/apis/w/v1/flunders": path("Flunder"), "/apis/w/v1beta1/flunders": path("Old"),
                "/version": path("Version")},
            "definitions": {"Flunder": {"properties": {"metadata": reference("Meta")}}, "Meta": {},
                "Old": {"properties": {"metadata": reference("Meta"), "more": reference("More")}},
                "More": {}, "Version": {}, "Unnamed": {}},
        });
        let kept = below(&document, "/apis/w/v1/");
        let names = |part: &str| -> Vec<String> {
            kept[part].as_object().expect("a map").keys().cloned().collect()
        };
        assert_eq!(names("paths"), ["/apis/w/v1/flunders"]);
        assert_eq!(names("definitions"), ["Flunder", "Meta", "Unnamed"]);
    }

    #[test]
    fn definitions_that_differ_get_other_names_and_equal_ones_are_shared() {
        let mut document = own();
        let other = json!({
            "paths": {"/apis/w/v1/pods": path("Pod"), "/api/v1/pods": path("Stranger")},
            "definitions": {
                "Pod": {"type": "string"},
                "Meta": {"type": "object", "x-kubernetes-group-version-kind": [{"kind": "Own"}]},
                "Stranger": {},
            },
        });
        add(&mut document, other.clone());
        assert_eq!(document["paths"]["/api/v1/pods"], path("Pod"), "a path that is there stays");
        assert_eq!(document["paths"]["/apis/w/v1/pods"], path("Pod_v2"));
        assert_eq!(document["definitions"]["Pod_v2"], json!({"type": "string"}));
        assert_eq!(document["definitions"]["Pod"]["type"], "object");
        let kinds = &document["definitions"]["Meta"]["x-kubernetes-group-version-kind"];
        assert_eq!(*kinds, json!([{"kind": "Own"}]));
        assert!(
            document["definitions"].get("Stranger").is_none(),
            "only the path that went had it"
        );
        // Another with the same definition uses the name that there is; a third kind of Pod gets a third name.
        let again = json!({"paths": {"/apis/x/v1/pods": path("Pod")},
            "definitions": {"Pod": {"type": "string"}}});
        add(&mut document, again);
        assert_eq!(document["paths"]["/apis/x/v1/pods"], path("Pod_v2"));
        let third = json!({"paths": {"/apis/y/v1/pods": path("Pod")},
            "definitions": {"Pod": {"type": "integer"}, "Pod_v3": {"type": "number"}}});
        add(&mut document, third);
        assert_eq!(document["paths"]["/apis/y/v1/pods"], path("Pod_v4"));
        assert_eq!(document["definitions"]["Pod_v3"], json!({"type": "number"}));
    }

    #[test]
    fn what_is_no_document_adds_nothing() {
        for nothing in
            [json!(null), json!([]), json!({"paths": 1}), json!({"definitions": {"A": {}}})]
        {
            let mut document = own();
            add(&mut document, below(&nothing, "/apis/"));
            assert_eq!(document, own(), "{nothing}");
        }
    }
}
