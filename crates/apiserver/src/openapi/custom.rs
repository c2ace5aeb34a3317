//! Custom resources in the documents: the definition's schema, with the metadata, type and list that
//! every kind has.

use serde_json::{Map, Value, json};

use crate::custom::Served;

/// `com.example.stable.v1.CronTab`: the group turned round, as clients look it up.
fn name(served: &Served) -> String {
    let row = served.row;
    let group: Vec<&str> = row.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), row.version, row.kind)
}

/// Adds the kind and its list.
pub(super) fn add(served: &Served, v3: bool, schemas: &mut Map<String, Value>) {
    let row = served.row;
    let name = name(served);
    let root = if v3 { "#/components/schemas/" } else { "#/definitions/" };
    let reference = |name: &str| match v3 {
        true => json!({"allOf": [{"$ref": format!("{root}{name}")}]}),
        false => json!({"$ref": format!("{root}{name}")}),
    };
    let gvk = |kind: &str| json!([{"group": row.group, "kind": kind, "version": row.version}]);
    let version = json!({"type": "string", "description": api::prose::of_field(LIST_META_OWNER, "apiVersion")});
    let kind =
        json!({"type": "string", "description": api::prose::of_field(LIST_META_OWNER, "kind")});
    let mut schema = served.version().source.clone();
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    if !v3 {
        strip(&mut schema);
    }
    let properties = schema.as_object_mut().map(|m| m.entry("properties").or_insert(json!({})));
    if let Some(properties) = properties {
        properties["apiVersion"] = version.clone();
        properties["kind"] = kind.clone();
        properties["metadata"] = reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    }
    schema["x-kubernetes-group-version-kind"] = gvk(row.kind);
    let list = json!({
        "type": "object", "required": ["items"],
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "properties": {
            "apiVersion": version, "kind": kind,
            "items": {"type": "array", "items": reference(&name)},
            "metadata": reference("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"),
        },
        "x-kubernetes-group-version-kind": gvk(row.list_kind),
    });
    let list_name = format!("{}List", name.trim_end_matches(row.kind).to_owned() + row.kind);
    schemas.insert(list_name, list);
    schemas.insert(name, schema);
}

/// Whose descriptions the type's own fields have.
const LIST_META_OWNER: &str = "io.k8s.api.core.v1.ConfigMap";

/// What OpenAPI v2 cannot say, or its clients misread (apiextensions `ToStructuralOpenAPIV2`).
fn strip(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for key in ["oneOf", "anyOf", "allOf", "not", "nullable", "default"] {
        map.remove(key);
    }
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        map.remove("items");
        map.remove("properties");
    }
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        map.remove("type");
    }
    let below = map.get_mut("properties").and_then(Value::as_object_mut);
    below.into_iter().flatten().for_each(|(_, schema)| strip(schema));
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(strip);
    }
}
