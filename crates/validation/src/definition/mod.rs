//! Definitions of custom resources.
//!
//! What all versions share is checked, and named, as upstream's internal form has it: a schema
//! that is the same in every version is `spec.validation`.

use std::collections::HashSet;

mod conversion;
mod schema;

use api::names;
use serde_json::{Map, Value, json};

use crate::check::At;
use crate::value::{items, set_default, text};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    default,
    create: |definition| {
        name(definition);
        whole(definition);
    },
    update: |definition| {
        whole(definition);
        let spec = definition.get("spec");
        if is_established(definition.old()) {
            spec.get("scope").immutable();
            spec.get("names").get("kind").immutable();
        }
        spec.get("group").immutable();
        spec.get("names").get("plural").immutable();
    },
    status: |definition| accepted(&definition.get("status").get("acceptedNames")),
    again: true,
    ..PLAIN
};

fn default(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
        if let Some(names) = spec.get_mut("names").filter(|n| n.is_object()) {
            let kind = text(&names["kind"]).to_owned();
            for (field, made) in [
                ("singular", kind.to_lowercase()),
                ("listKind", if kind.is_empty() { kind } else { format!("{kind}List") }),
            ] {
                if text(&names[field]).is_empty() && !made.is_empty() {
                    names[field] = made.into();
                }
            }
            if let Some(names) = names.as_object_mut() {
                names.retain(|_, value| !value.is_null());
            }
        }
        set_default(spec, "conversion", json!({"strategy": "None"}));
        let service = spec.pointer_mut("/conversion/webhook/clientConfig/service");
        if let Some(service) = service.filter(|s| s.is_object()) {
            set_default(service, "port", 443);
        }
    }
    let storage = items(&object["spec"], "versions").find(|v| v["storage"] == true);
    let Some(storage) = storage.map(|v| v["name"].clone()) else { return };
    let Some(status) = object.get_mut("status").filter(|s| s.is_object()) else { return };
    if status["storedVersions"].as_array().is_none_or(Vec::is_empty) {
        status["storedVersions"] = json!([storage]);
    }
}

fn is_established(definition: Option<&Value>) -> bool {
    definition.is_some_and(|object| {
        items(&object["status"], "conditions")
            .any(|c| c["type"] == "Established" && c["status"] == "True")
    })
}

fn name(definition: &At<'_>) {
    let (spec, meta) = (definition.get("spec"), definition.get("metadata"));
    let expected =
        format!("{}.{}", text(&spec.value()["names"]["plural"]), text(&spec.value()["group"]));
    let name = meta.get("name");
    if !name.is_empty() && name.text() != expected {
        name.invalid_text("must be spec.names.plural+\".\"+spec.group");
    }
}

/// Fields that all versions may share.
const SHARED: [(&str, &str); 4] = [
    ("schema", "validation"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// The spec with what all versions share beside them: the form whose places faults are told of.
pub fn internal(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(map) = spec.as_object_mut() else { return spec };
    let Some(Value::Array(versions)) = map.get_mut("versions") else { return spec };
    let mut shared = Map::new();
    for (field, as_shared) in SHARED {
        let Some(first) = versions.first().and_then(|v| v.get(field)).cloned() else { continue };
        if !first.is_null() && versions.iter().all(|v| v[field] == first) {
            for version in versions.iter_mut().filter_map(Value::as_object_mut) {
                version.remove(field);
            }
            shared.insert(as_shared.into(), first);
        }
    }
    map.extend(shared);
    spec
}

fn whole(definition: &At<'_>) {
    let made = internal(definition.get("spec").value());
    let at = definition.get("spec");
    spec(&at.with(&made));
    conversion::check(definition);
    let status = definition.get("status");
    accepted(&status.get("acceptedNames"));
    stored(&at, &status.get("storedVersions"));
    approval(definition);
}

fn spec(spec: &At<'_>) {
    let group = spec.get("group");
    if group.need() {
        let faults = names::dns_subdomain(group.text());
        if !faults.is_empty() {
            group.invalid_text(&faults.join(","));
        } else if !group.text().contains('.') {
            group.invalid_text("should be a domain with at least one dot");
        }
    }
    spec.get("scope").need_one_of(&["Cluster", "Namespaced"]);
    if spec.get("preserveUnknownFields").is_true() {
        spec.get("preserveUnknownFields")
            .invalid("must be false in order to use defaults in the schema");
    }
    versions(spec);
    named(&spec.get("names"));
    let subresources = spec.get("subresources");
    let all = spec.get("versions");
    let has_status = !subresources.get("status").is_absent()
        || all.items().any(|v| v.value()["subresources"]["status"].is_object());
    let validation = spec.get("validation");
    schema::check(&validation.get("openAPIV3Schema"), has_status);
    scale(&subresources);
    spec.get("additionalPrinterColumns").items().for_each(|column| self::column(&column));
    let fields = spec.get("selectableFields");
    if !fields.is_empty() {
        match validation.is_absent() {
            true => {
                fields.invalid_as(&"".into(), "may only be set when validations.schema is included")
            }
            false => schema::selectable(&fields, validation.get("openAPIV3Schema").value()),
        }
    }
}

fn versions(spec: &At<'_>) {
    let all = spec.get("versions");
    let shared = !spec.value()["validation"]["openAPIV3Schema"].is_null();
    if !shared {
        for version in all.items().filter(|v| v.value()["schema"]["openAPIV3Schema"].is_null()) {
            version.get("schema").get("openAPIV3Schema").required("");
        }
    }
    let mut seen: HashSet<&str> = HashSet::new();
    let mut unique = true;
    for version in all.items() {
        let name = version.get("name");
        let known = text(&version.value()["name"]);
        unique &= seen.insert(known);
        let faults = names::dns1035_label(name.text());
        if !faults.is_empty() {
            name.invalid_text(&faults.join(","));
        }
        self::version(spec, &version);
    }
    if !unique {
        all.invalid("must contain unique version names");
    }
    if items(spec.value(), "versions").filter(|v| v["storage"] == true).count() != 1 {
        all.invalid("must have exactly one version marked as storage version");
    }
    // The first version is also upstream's `spec.version`.
    let first = text(&spec.value()["versions"][0]["name"]);
    let faults = names::dns1035_label(first);
    if !first.is_empty() && !faults.is_empty() {
        let at = spec.get("version");
        at.invalid_as(&first.into(), &faults.join(","));
    }
}

fn version(spec: &At<'_>, version: &At<'_>) {
    let warning = version.get("deprecationWarning");
    if let Value::String(text) = warning.value() {
        if !version.get("deprecated").is_true() {
            warning.invalid("can only be set for deprecated versions");
        } else if text.len() > 256 {
            warning.invalid("must be <= 256 characters long");
        } else if text.is_empty() {
            warning.invalid("must not be an empty string");
        } else if let Some(at) = text.char_indices().find(|(_, c)| c.is_control()).map(|(at, _)| at)
        {
            warning.invalid(&format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
        }
    }
    let own = version.get("subresources");
    let has_status =
        !own.get("status").is_absent() || !spec.value()["subresources"]["status"].is_null();
    let at = version.get("schema");
    let schema = &at.value()["openAPIV3Schema"];
    schema::check(&at.get("openAPIV3Schema"), has_status);
    scale(&own);
    version.get("additionalPrinterColumns").items().for_each(|column| self::column(&column));
    let fields = version.get("selectableFields");
    if !fields.is_empty() {
        match schema.is_null() {
            true => fields.invalid_as(
                &"".into(),
                "may only be set when `version.schema.openAPIV3Schema` is not included",
            ),
            false => schema::selectable(&fields, schema),
        }
    }
}

fn named(at: &At<'_>) {
    for field in ["plural", "singular", "kind", "listKind"] {
        at.get(field).need();
    }
    accepted(at);
}

fn accepted(at: &At<'_>) {
    for (field, mixed) in
        [("plural", false), ("singular", false), ("kind", true), ("listKind", true)]
    {
        let name = at.get(field);
        let faults = match mixed {
            true => names::dns1035_label(&name.text().to_lowercase()),
            false => names::dns1035_label(name.text()),
        };
        if !name.is_empty() && !faults.is_empty() {
            let note = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            name.invalid_text(&format!("{note}{}", faults.join(",")));
        }
    }
    labels(&at.get("shortNames"));
    let list = at.get("listKind");
    if !list.is_empty() && list.text() == at.get("kind").text() {
        list.invalid_text("kind and listKind may not be the same");
    }
    labels(&at.get("categories"));
}

fn labels(list: &At<'_>) {
    for item in list.items() {
        let faults = names::dns1035_label(item.text());
        if !faults.is_empty() {
            item.invalid_text(&faults.join(","));
        }
    }
}

const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

fn column(column: &At<'_>) {
    column.get("name").need();
    let (kind, format) = (column.get("type"), column.get("format"));
    let types = format!("must be one of {}", TYPES.join(","));
    if kind.is_empty() {
        kind.required(&types);
    } else if !TYPES.contains(&kind.text()) {
        kind.invalid_text(&types);
    }
    if !format.is_empty() && !FORMATS.contains(&format.text()) {
        format.invalid_text(&format!("must be one of {}", FORMATS.join(",")));
    }
    let path = column.get_as("jsonPath", "JSONPath");
    if path.need() {
        simple_path(&path);
    }
}

fn simple_path(path: &At<'_>) -> bool {
    let simple = path.text().starts_with('.');
    if !simple {
        path.invalid_text("must be a simple json path starting with .");
    }
    simple
}

fn scale(subresources: &At<'_>) {
    let scale = subresources.get("scale");
    if scale.is_absent() {
        return;
    }
    for (field, start) in [("specReplicasPath", "spec"), ("statusReplicasPath", "status")] {
        let path = scale.get(field);
        if path.need() && simple_path(&path) && !path.text().starts_with(&format!(".{start}.")) {
            path.invalid_text(&format!("should be a json path under .{start}"));
        }
    }
    let path = scale.get("labelSelectorPath");
    let below = |start: &str| path.text().starts_with(start);
    if !path.is_empty() && simple_path(&path) && !below(".spec.") && !below(".status.") {
        path.invalid_text("should be a json path under either .spec or .status");
    }
}

/// Versions that objects may be stored in are there, and the one for new objects is among them.
fn stored(spec: &At<'_>, list: &At<'_>) {
    if list.is_empty() {
        return list.invalid_as(&Value::Null, "must have at least one stored version");
    }
    let has = |name: &Value| list.items().any(|v| v.value() == name);
    for version in items(spec.value(), "versions") {
        if version["storage"] == true && !has(&version["name"]) {
            list.invalid(&format!("must have the storage version {}", text(&version["name"])));
        }
    }
    for version in list.items() {
        if !items(spec.value(), "versions").any(|v| v["name"] == *version.value()) {
            let name = version.text();
            version.invalid_text(&format!("missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"));
        }
    }
}

/// Groups of the project are for what the project has approved.
fn approval(definition: &At<'_>) {
    const KEY: &str = "api-approved.kubernetes.io";
    let spec = definition.get("spec");
    let group = spec.get("group").text();
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.ends_with(&format!(".{own}")));
    let (meta, before) = (definition.get("metadata"), definition.old());
    if !protected || before.is_some() {
        return;
    }
    let annotations = meta.get("annotations");
    let at = annotations.key(KEY);
    match at.text() {
        "" => at.required("protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111"),
        approved if approved.starts_with("unapproved") || approved.contains("://") => {}
        other => at.invalid_as(
            &other.into(),
            "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
        ),
    }
}

#[cfg(test)]
mod tests;
