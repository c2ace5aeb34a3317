//! Custom resources in the documents: the definition's schema, with the metadata, type and list that
//! every kind has.

use serde_json::{Map, Value, json};

use super::schemas::{ROOT, wrap_reference};
use extensions::Served;

/// `com.example.stable.v1.CronTab`: the group turned round, as clients look it up.
pub(super) fn name(served: &Served) -> String {
    let row = served.row;
    let group: Vec<&str> = row.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), row.version, row.kind)
}

/// Adds the kind and its list; the form for OpenAPI v2 leaves out what it cannot say.
pub(super) fn add(served: &Served, v3: bool, schemas: &mut Map<String, Value>) {
    let row = served.row;
    let name = name(served);
    let reference = |name: &str| json!({"$ref": format!("{ROOT}{name}")});
    let gvk = |kind: &str| json!([{"group": row.group, "kind": kind, "version": row.version}]);
    let of_type = |field: &str| json!({"type": "string", "description": api::prose::of_field(LIST_META_OWNER, field)});
    let source = &served.schema_source();
    // kubectl takes what has properties to have no others: what is free has none, in version 2 at least.
    let is_free = !v3 && source["x-kubernetes-preserve-unknown-fields"] == true;
    let mut schema = match source.is_object() && !is_free {
        true => source.clone(),
        false => json!({"type": "object"}),
    };
    if source.is_object() && !is_free {
        if !v3 {
            strip(&mut schema);
        }
        schema["properties"]["apiVersion"] = of_type("apiVersion");
        schema["properties"]["kind"] = of_type("kind");
        let mut meta = reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
        meta["description"] = METADATA.into();
        wrap_reference(&mut meta);
        schema["properties"]["metadata"] = meta;
    }
    schema["x-kubernetes-group-version-kind"] = gvk(row.kind);
    let mut list = json!({
        "type": "object", "required": ["items"],
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "properties": {
            "apiVersion": of_type("apiVersion"), "kind": of_type("kind"),
            "items": {"type": "array", "items": reference(&name)},
            "metadata": reference("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"),
        },
        "x-kubernetes-group-version-kind": gvk(row.list_kind),
    });
    list["properties"]["metadata"]["description"] = METADATA.into();
    wrap_reference(&mut list["properties"]["metadata"]);
    schemas.insert(format!("{name}List"), list);
    schemas.insert(name, schema);
}

const METADATA: &str = "Standard object's metadata.";

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
