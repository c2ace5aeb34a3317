//! `request` and `namespaceObject` as expressions see them (apiserver `plugin/cel/condition.go`).

use api::registry::Resource;
use serde_json::{Map, Value, json};

use crate::attributes::Attributes;
use crate::matching::namespace;

/// The request, where `matched` is the row whose version a rule matched: that of the path, or an equivalent.
pub fn admission_request(request: &Attributes<'_>, matched: &Resource) -> Value {
    let mut map = Map::new();
    let subresource = request.row.subresource;
    map.insert("kind".into(), kind(matched));
    map.insert("resource".into(), resource(matched));
    insert_text(&mut map, "subResource", subresource);
    map.insert("requestKind".into(), kind(request.row));
    map.insert("requestResource".into(), resource(request.row));
    insert_text(&mut map, "requestSubResource", subresource);
    insert_text(&mut map, "name", request.name);
    insert_text(&mut map, "namespace", namespace(request));
    map.insert("operation".into(), request.operation.name().into());
    map.insert("userInfo".into(), user_info(request));
    map.insert("dryRun".into(), request.dry_run.into());
    map.insert("options".into(), (request.options)());
    Value::Object(map)
}

fn insert_text(map: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        map.insert(key.into(), text.into());
    }
}

fn kind(row: &Resource) -> Value {
    let (group, version) = row.kind_version.unwrap_or((row.group, row.version));
    json!({"group": group, "version": version, "kind": row.kind})
}

fn resource(row: &Resource) -> Value {
    json!({"group": row.group, "version": row.version, "resource": row.name})
}

fn user_info(request: &Attributes<'_>) -> Value {
    let user = request.user;
    let mut map = Map::new();
    insert_text(&mut map, "username", &user.name);
    insert_text(&mut map, "uid", &user.uid);
    if !user.groups.is_empty() {
        map.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        map.insert("extra".into(), json!(user.extra));
    }
    Value::Object(map)
}

/// A namespace without what expressions do not see.
pub fn namespace_object(namespace: &Value) -> Value {
    const METADATA: [&str; 12] = [
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "finalizers",
    ];
    let metadata = namespace["metadata"].as_object();
    let seen = metadata.into_iter().flatten().filter(|(key, _)| METADATA.contains(&key.as_str()));
    let metadata: Map<String, Value> =
        seen.map(|(key, value)| (key.clone(), value.clone())).collect();
    let part = |key: &str| namespace.get(key).cloned().unwrap_or_else(|| json!({}));
    json!({"metadata": metadata, "spec": part("spec"), "status": part("status")})
}
