//! OpenAPI v3 put into the form of version 2 (Swagger).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The whole document. Schemas of `own` names are somebody's own, and say what their author says.
pub(super) fn of(mut document: Value, own: &BTreeSet<String>) -> Value {
    let components = document["components"].take();
    let mut definitions = components["schemas"].as_object().cloned().unwrap_or_default();
    for (name, definition) in &mut definitions {
        if !own.contains(name) {
            drop_values(definition);
        }
        schema(definition);
    }
    let mut paths = document["paths"].take();
    let items = paths.as_object_mut().into_iter().flatten();
    items.filter_map(|(_, item)| item.as_object_mut()).for_each(path_item);
    json!({
        "swagger": "2.0",
        "info": document["info"],
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": components["securitySchemes"],
        "security": [{"BearerToken": []}],
    })
}

/// What version 2 leaves out of the built-in types.
fn drop_values(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    map.remove("default");
    map.remove("enum");
    let below = map.get_mut("properties").and_then(Value::as_object_mut);
    below.into_iter().flatten().for_each(|(_, property)| drop_values(property));
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(drop_values);
    }
}

/// A schema in the form of version 2, which has no alternatives and lets references stand beside
/// others.
fn schema(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    match map.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([only]) if only.get("$ref").is_some() => {
            let reference = only["$ref"].clone();
            map.remove("allOf");
            map.insert("$ref".into(), reference);
        }
        _ => {}
    }
    if let Some(alternatives) = map.remove("oneOf") {
        // A quantity, or a number or text: both are text here.
        drop(alternatives);
        map.insert("type".into(), "string".into());
    }
    if let Some(Value::String(reference)) = map.get_mut("$ref") {
        *reference = reference.replace("#/components/schemas/", "#/definitions/");
    }
    let below = map.get_mut("properties").and_then(Value::as_object_mut);
    below.into_iter().flatten().for_each(|(_, property)| schema(property));
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(schema);
    }
}

fn path_item(item: &mut Map<String, Value>) {
    for (key, value) in item {
        match key.as_str() {
            "parameters" => parameters(value),
            _ => value.as_object_mut().into_iter().for_each(operation),
        }
    }
}

/// A parameter's schema is part of it.
fn parameters(list: &mut Value) {
    for parameter in list.as_array_mut().into_iter().flatten() {
        let Some(map) = parameter.as_object_mut() else { continue };
        if let Some(Value::Object(schema)) = map.remove("schema") {
            map.extend(schema);
        }
    }
}

/// The forms of a content, and the schema they share.
fn forms(content: &Value) -> (Vec<&String>, Value) {
    let map = content.as_object();
    let mut shared =
        map.and_then(|m| m.values().next()).map_or(Value::Null, |v| v["schema"].clone());
    schema(&mut shared);
    (map.into_iter().flatten().map(|(form, _)| form).collect(), shared)
}

fn operation(operation: &mut Map<String, Value>) {
    let mut consumes = json!([]);
    let mut body = None;
    if let Some(request) = operation.remove("requestBody") {
        let (kinds, shared) = forms(&request["content"]);
        consumes = json!(kinds);
        let mut described = json!({"name": "body", "in": "body", "schema": shared});
        if request["required"] == true {
            described["required"] = true.into();
        }
        body = Some(described);
    } else if operation.contains_key("x-kubernetes-action") {
        consumes = json!(["*/*"]);
    }
    if let Some(own) = operation.get_mut("parameters") {
        parameters(own);
    }
    if let Some(body) = body {
        let own = operation.entry("parameters").or_insert_with(|| json!([]));
        own.as_array_mut().into_iter().for_each(|own| own.insert(0, body.clone()));
    }
    let mut produces = json!([]);
    // Plain documents outside the API take nothing.
    let mut is_text = false;
    let answers = operation.get_mut("responses").and_then(Value::as_object_mut);
    for answer in answers.into_iter().flatten().filter_map(|(_, answer)| answer.as_object_mut()) {
        let Some(content) = answer.remove("content") else { continue };
        let (kinds, shared) = forms(&content);
        produces = json!(kinds);
        is_text = shared["type"] == "string" && consumes == json!([]);
        answer.insert("schema".into(), shared);
    }
    if !is_text {
        let consumes = if consumes == json!([]) { produces.clone() } else { consumes };
        operation.insert("consumes".into(), consumes);
    }
    operation.insert("produces".into(), produces);
    operation.insert("schemes".into(), json!(["https"]));
}
